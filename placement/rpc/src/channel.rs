//! The client side: channels to peers.

use std::io;

use hyper_util::rt::TokioIo;
use placement_types::{BoxStream, Env};
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

use crate::identity::{Identity, Security};
use crate::limits;

/// Makes channels. Cheap to clone.
#[derive(Clone)]
pub struct Channels {
    env: Env,
    security: Security,
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
    pub fn new(env: Env, security: Security) -> Self {
        Self { env, security }
    }

    /// Channels to `host:port`. Nothing is connected yet; an unreachable peer shows in the calls.
    ///
    /// # Errors
    /// When the address is not `host:port`.
    pub fn peer(&self, address: &str) -> Result<Peer, tonic::transport::Error> {
        Ok(Peer { control: self.channel(address)?, bulk: self.channel(address)? })
    }

    fn channel(&self, address: &str) -> Result<Channel, tonic::transport::Error> {
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
            async move { channels.connect(&address).await.map(TokioIo::new) }
        })))
    }

    async fn connect(&self, address: &str) -> io::Result<BoxStream> {
        let stream = self.env.net.connect(address).await?;
        match &self.security {
            Security::Plaintext => Ok(stream),
            Security::Mutual(identity) => {
                let stream = identity.connector().connect(Identity::server_name(), stream).await?;
                Ok(Box::new(stream))
            }
        }
    }
}
