//! Listens for S3 clients, and drains.
//!
//! hyper's connections are driven here and not by `axum::serve`, because that closes neither half-sent heads nor stalled
//! bodies nor idle connections, and drains without a deadline. Plain connections speak HTTP/1.1 only: telling HTTP/2 apart
//! by its first bytes would wait for them without a limit. Over TLS the client's ALPN choice decides.
//!
//! Shutdown: stop accepting, let every connection finish the request it is at, close what is idle; at the deadline close the
//! rest. Nothing acknowledged depends on it.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use placement_types::{BoxStream, Env, Listener, Stream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::limits::{
    ACCEPT_PAUSE, H2_CONNECTION_WINDOW_BYTES, H2_HEADER_LIST_BYTES_MAX, H2_PING_INTERVAL, H2_PING_TIMEOUT, H2_RESETS_PENDING_MAX,
    H2_SEND_BYTES_MAX, H2_STREAM_WINDOW_BYTES, H2_STREAMS_MAX, HANDSHAKE_TIMEOUT, HEADER_TIMEOUT, HEADERS_MAX,
    READ_BUFFER_BYTES_MAX,
};
use crate::metrics;
use crate::patient_io::PatientIo;
use crate::service::{Peer, S3Service};
use crate::tls::Tls;

/// Serves until `shutdown` is cancelled, then drains for at most `drain`. Returns when no connection is left.
pub async fn serve(
    service: S3Service,
    mut listener: Box<dyn Listener>,
    tls: Option<Tls>,
    env: Env,
    shutdown: CancellationToken,
    drain: Duration,
) {
    let room = Arc::new(Semaphore::new(service.config().connections_max));
    let server = Server {
        service,
        tls,
        env: env.clone(),
        shutdown: shutdown.clone(),
        deadline: CancellationToken::new(),
        open: Arc::new(AtomicUsize::new(0)),
    };
    // Should this future be dropped instead of shut down, no connection outlives it.
    let _close_with_us = server.deadline.clone().drop_guard();
    let connections = TaskTracker::new();
    while let Some(permit) = or_cancelled(&shutdown, Arc::clone(&room).acquire_owned()).await {
        let Some(accepted) = or_cancelled(&shutdown, listener.accept()).await else { break };
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Often there are no file descriptors left; to try again at once would only burn the processor.
                tracing::warn!(%error, "a connection was not accepted");
                env.sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let server = server.clone();
        let connection = connections.track_future(async move {
            let _permit = permit;
            server.connection(stream, address).await;
        });
        // The tracker waits for it; `deadline` ends it.
        env.spawn("s3 connection", connection).detach();
    }
    drop(listener);
    connections.close();
    if env.timeout(drain, connections.wait()).await.is_err() {
        tracing::warn!(connections = connections.len(), "closing connections that did not finish in time");
        server.deadline.cancel();
        connections.wait().await;
    }
}

/// `None` once the token is cancelled.
async fn or_cancelled<T>(token: &CancellationToken, work: impl Future<Output = T>) -> Option<T> {
    token.run_until_cancelled(work).await
}

#[derive(Clone)]
struct Server {
    service: S3Service,
    tls: Option<Tls>,
    env: Env,
    /// Finish what is under way.
    shutdown: CancellationToken,
    /// Close now.
    deadline: CancellationToken,
    open: Arc<AtomicUsize>,
}

/// What a connection speaks.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Http1,
    Http2,
}

impl Server {
    async fn connection(self, stream: BoxStream, address: String) {
        metrics::connections(self.open.fetch_add(1, Ordering::Relaxed) + 1);
        let deadline = self.deadline.clone();
        let served = or_cancelled(&deadline, self.handshake_and_serve(stream, address)).await;
        if let Some(Err(error)) = served {
            // The client went away, broke the protocol or timed out: its business, seen when someone asks.
            tracing::debug!(%error, "a connection ended with an error");
        }
        metrics::connections(self.open.fetch_sub(1, Ordering::Relaxed) - 1);
    }

    async fn handshake_and_serve(&self, stream: BoxStream, address: String) -> io::Result<()> {
        let stream = PatientIo::new(stream, self.env.clone());
        let Some(tls) = &self.tls else {
            return self.serve_http(stream, Protocol::Http1, Peer { address, secure: false }).await;
        };
        let handshake = self.env.timeout(HANDSHAKE_TIMEOUT, tls.acceptor.accept(stream)).await;
        let stream = handshake.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        let protocol = match stream.get_ref().1.alpn_protocol() {
            Some(b"h2") => Protocol::Http2,
            Some(_) | None => Protocol::Http1,
        };
        self.serve_http(stream, protocol, Peer { address, secure: true }).await
    }

    async fn serve_http(&self, stream: impl Stream + 'static, protocol: Protocol, peer: Peer) -> io::Result<()> {
        let stream = TokioIo::new(stream);
        let service = self.service.clone();
        let peer = Arc::new(peer);
        let handler = service_fn(move |request: Request<Incoming>| {
            let (service, peer) = (service.clone(), Arc::clone(&peer));
            async move { Ok::<_, Infallible>(service.answer(request, &peer).await) }
        });
        // The two connection types share no trait, hence the two arms that look alike.
        match protocol {
            Protocol::Http1 => {
                let mut connection = pin!(http1_builder().serve_connection(stream, handler));
                tokio::select! {
                    ended = connection.as_mut() => return ended.map_err(io::Error::other),
                    () = self.shutdown.cancelled() => connection.as_mut().graceful_shutdown(),
                }
                connection.await.map_err(io::Error::other)
            }
            Protocol::Http2 => {
                let mut connection = pin!(http2_builder(self.env.clone()).serve_connection(stream, handler));
                tokio::select! {
                    ended = connection.as_mut() => return ended.map_err(io::Error::other),
                    () = self.shutdown.cancelled() => connection.as_mut().graceful_shutdown(),
                }
                connection.await.map_err(io::Error::other)
            }
        }
    }
}

fn http1_builder() -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_headers(HEADERS_MAX)
        .max_buf_size(READ_BUFFER_BYTES_MAX)
        .keep_alive(true);
    builder
}

fn http2_builder(env: Env) -> http2::Builder<EnvExecutor> {
    let mut builder = http2::Builder::new(EnvExecutor(env));
    builder
        .timer(TokioTimer::new())
        .initial_stream_window_size(H2_STREAM_WINDOW_BYTES)
        .initial_connection_window_size(H2_CONNECTION_WINDOW_BYTES)
        .max_concurrent_streams(H2_STREAMS_MAX)
        .max_header_list_size(H2_HEADER_LIST_BYTES_MAX)
        .max_pending_accept_reset_streams(H2_RESETS_PENDING_MAX)
        .max_local_error_reset_streams(H2_RESETS_PENDING_MAX)
        .max_send_buf_size(H2_SEND_BYTES_MAX)
        .keep_alive_interval(H2_PING_INTERVAL)
        .keep_alive_timeout(H2_PING_TIMEOUT);
    builder
}

/// Runs the streams of an HTTP/2 connection as tasks of the [`Env`].
#[derive(Clone)]
struct EnvExecutor(Env);

impl<F> Executor<F> for EnvExecutor
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        // It ends with its connection: hyper resets the stream's channel when the connection is dropped.
        self.0.spawn("s3 stream", stream).detach();
    }
}
