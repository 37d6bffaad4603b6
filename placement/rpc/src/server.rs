//! The server side: an accept loop that one bad peer cannot stop.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use placement_types::{BoxStream, Env, Listener};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::transport::server::Connected;

use crate::admission::Side;
use crate::identity::{PeerIdentity, Security, read_subject};
use crate::limits;
use crate::lineage::Lineage;

/// Serves `routes` on a listener until `shutdown` resolves, then lets the calls under way end.
///
/// A handler finds its peer as [`PeerIdentity`] among the request's extensions. A failed accept or handshake concerns only
/// that connection.
pub async fn serve(
    env: Env,
    listener: Box<dyn Listener>,
    security: Security,
    lineage: Lineage,
    routes: Routes,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), tonic::transport::Error> {
    let (sender, accepted) = mpsc::channel(limits::HANDSHAKES_MAX);
    let accepting = env.spawn("internal-accept", accept_loop(env.clone(), listener, (security, lineage), sender));
    let served = Server::builder()
        .initial_stream_window_size(limits::STREAM_WINDOW_BYTES)
        .initial_connection_window_size(limits::CONNECTION_WINDOW_BYTES)
        .max_frame_size(limits::FRAME_BYTES_MAX)
        .max_concurrent_streams(limits::STREAMS_MAX)
        .http2_keepalive_interval(Some(limits::KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(limits::KEEPALIVE_DEADLINE))
        .add_routes(routes)
        .serve_with_incoming_shutdown(ReceiverStream::new(accepted), shutdown)
        .await;
    accepting.stop().await;
    served
}

async fn accept_loop(
    env: Env,
    mut listener: Box<dyn Listener>,
    (security, lineage): (Security, Lineage),
    accepted: mpsc::Sender<io::Result<Connection>>,
) {
    let handshakes = Arc::new(Semaphore::new(limits::HANDSHAKES_MAX));
    loop {
        let permit = handshakes.clone().acquire_owned().await.expect("the semaphore is never closed");
        let (stream, address) = match listener.accept().await {
            Ok(connection) => connection,
            Err(error) => {
                // Out of descriptors, or the peer was gone already. A pause keeps the first from becoming a busy loop (N17).
                tracing::warn!(%error, "accept failed on the internal port");
                env.sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let (security, lineage) = (security.clone(), lineage.clone());
        let (accepted, handshake_env) = (accepted.clone(), env.clone());
        env.spawn("internal-handshake", async move {
            let _permit = permit;
            match handshake_env.timeout(limits::HANDSHAKE_DEADLINE, handshake(&security, &lineage, stream)).await {
                Ok(Ok(connection)) => {
                    let _ = accepted.send(Ok(connection)).await;
                }
                Ok(Err(error)) => tracing::warn!(%error, peer = %address, "refused a connection on the internal port"),
                Err(_) => tracing::warn!(peer = %address, "a connection on the internal port did not finish its handshake"),
            }
        })
        .detach();
    }
}

pub(crate) async fn handshake(security: &Security, lineage: &Lineage, stream: BoxStream) -> io::Result<Connection> {
    match security {
        Security::Plaintext => Ok(Connection { stream: lineage.greet(stream).await?, peer: PeerIdentity::Unproven }),
        Security::Mutual(identity) => {
            let stream = identity.acceptor().accept(stream).await?;
            let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
            let peer = certificate
                .and_then(read_subject)
                .ok_or_else(|| io::Error::new(io::ErrorKind::PermissionDenied, "the certificate names no node or gateway"))?;
            let stream = Box::new(identity.admission().guard(Box::new(stream), peer, Side::Server));
            Ok(Connection { stream: lineage.greet(stream).await?, peer })
        }
    }
}

/// An accepted connection that knows its peer.
pub(crate) struct Connection {
    stream: BoxStream,
    peer: PeerIdentity,
}

impl Connected for Connection {
    type ConnectInfo = PeerIdentity;

    fn connect_info(&self) -> PeerIdentity {
        self.peer
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
