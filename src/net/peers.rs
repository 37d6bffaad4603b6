//! Clients of other processes, by internal address.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use placement_proto::remote::RemotePlacement;
use placement_rpc::Channels;
use placement_types::Env;
use storage_node_proto::remote::RemoteNode;

/// Addresses known at once; a cluster has one for each node, old ones linger after a move.
const PEERS_MAX: usize = 4096;

/// What can be asked of the process at one address.
pub struct PeerClients {
    pub node: Arc<RemoteNode>,
    pub placement: Arc<RemotePlacement>,
}

/// Makes each peer's clients once, so that everybody shares its connections.
pub struct Peers {
    env: Env,
    channels: Channels,
    known: Mutex<BTreeMap<String, Arc<PeerClients>>>,
}

impl Peers {
    pub fn new(env: Env, channels: Channels) -> Self {
        Self { env, channels, known: Mutex::default() }
    }

    /// `None` when the text is not an address. Whether anybody answers there shows in the calls.
    pub fn at(&self, address: &str) -> Option<Arc<PeerClients>> {
        let mut known = self.known.lock();
        if let Some(clients) = known.get(address) {
            return Some(clients.clone());
        }
        let peer = match self.channels.peer(address) {
            Ok(peer) => peer,
            Err(error) => {
                tracing::warn!(address, %error, "not an address");
                return None;
            }
        };
        if known.len() >= PEERS_MAX {
            known.clear();
        }
        let clients = Arc::new(PeerClients {
            node: Arc::new(RemoteNode::new(self.env.clone(), peer.control.clone(), peer.bulk)),
            placement: Arc::new(RemotePlacement::new(self.env.clone(), peer.control)),
        });
        known.insert(address.to_owned(), clients.clone());
        Some(clients)
    }
}
