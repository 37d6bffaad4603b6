//! The client side: channels to peers.

use std::io;

use hyper_util::rt::TokioIo;
use placement_types::{BoxStream, Env, NodeId};
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

use crate::admission::Side;
use crate::identity::{Identity, PeerIdentity, Security, read_subject};
use crate::limits;
use crate::lineage::Lineage;

/// Makes channels. Cheap to clone.
#[derive(Clone)]
pub struct Channels {
    env: Env,
    security: Security,
    lineage: Lineage,
}

/// Two connections to one peer, made when first used and again after each loss: small calls never queue behind bulk data.
#[derive(Clone)]
pub struct Peer {
    /// Metadata, Raft, placement.
    pub control: Channel,
    /// Chunks and shards.
    pub bulk: Channel,
}

impl Channels {
    pub fn new(env: Env, security: Security, lineage: Lineage) -> Self {
        Self { env, security, lineage }
    }

    /// Channels to `host:port`. Nothing is connected yet; an unreachable peer shows in the calls. When it is known which node
    /// should be there, nobody else is spoken to: an address may have passed to another node, even of another cluster with the
    /// same secret (N16, M11).
    ///
    /// # Errors
    /// When the address is not `host:port`.
    pub fn peer(&self, address: &str, expected: Option<NodeId>) -> Result<Peer, tonic::transport::Error> {
        Ok(Peer { control: self.channel(address, expected)?, bulk: self.channel(address, expected)? })
    }

    /// Whom this process refuses; `None` without protection.
    pub fn admission(&self) -> Option<&crate::Admission> {
        self.security.admission()
    }

    fn channel(&self, address: &str, expected: Option<NodeId>) -> Result<Channel, tonic::transport::Error> {
        // The scheme only satisfies the URI's syntax: protection is the connector's business.
        let endpoint = Endpoint::from_shared(format!("http://{address}"))?
            .initial_stream_window_size(limits::STREAM_WINDOW_BYTES)
            .initial_connection_window_size(limits::CONNECTION_WINDOW_BYTES)
            .max_frame_size(limits::FRAME_BYTES_MAX)
            .connect_timeout(limits::CONNECT_DEADLINE)
            .http2_keep_alive_interval(limits::KEEPALIVE_INTERVAL)
            .keep_alive_timeout(limits::KEEPALIVE_DEADLINE)
            .keep_alive_while_idle(true);
        let (channels, address) = (self.clone(), address.to_owned());
        Ok(endpoint.connect_with_connector_lazy(service_fn(move |_| {
            let (channels, address) = (channels.clone(), address.clone());
            async move { channels.connect(&address, expected).await.map(TokioIo::new) }
        })))
    }

    pub(crate) async fn connect(&self, address: &str, expected: Option<NodeId>) -> io::Result<BoxStream> {
        let stream = self.env.net.connect(address).await?;
        let identity = match &self.security {
            Security::Plaintext => return self.lineage.greet(stream).await,
            Security::Mutual(identity) => identity,
        };
        let stream = identity.connector().connect(Identity::server_name(), stream).await?;
        let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        let peer = certificate.and_then(read_subject).unwrap_or(PeerIdentity::Unproven);
        if let Some(expected) = expected.filter(|node| peer != PeerIdentity::Node(*node)) {
            let why = format!("{address} is not node {expected} any more, but {peer:?}");
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
        }
        // The guard is below the greeting: a refusal by the server is the first thing that is read.
        self.lineage.greet(Box::new(identity.admission().guard(Box::new(stream), peer, Side::Client))).await
    }
}
