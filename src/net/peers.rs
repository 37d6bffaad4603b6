//! Clients of other processes, by internal address and, where it is known, by who should be there.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use placement_map::ClusterMap;
use placement_proto::remote::RemotePlacement;
use placement_rpc::Channels;
use placement_types::{Env, NodeId};
use storage_node_proto::remote::RemoteNode;

/// Addresses known at once; a cluster has one for each node, old ones linger after a move.
const PEERS_MAX: usize = 4096;

/// What can be asked of the process at one address.
pub struct PeerClients {
    pub node: Arc<RemoteNode>,
    pub placement: Arc<RemotePlacement>,
}

/// An address, and who should be there where that is known.
type Whereabouts = (String, Option<NodeId>);

/// Makes each peer's clients once, so that everybody shares its connections.
pub struct Peers {
    env: Env,
    channels: Channels,
    known: Mutex<BTreeMap<Whereabouts, Arc<PeerClients>>>,
}

impl Peers {
    pub fn new(env: Env, channels: Channels) -> Self {
        Self { env, channels, known: Mutex::default() }
    }

    /// Refuses, and no longer calls, the nodes that this map says were removed.
    pub fn learn_map(&self, map: &ClusterMap) {
        if let Some(admission) = self.channels.admission() {
            admission.refuse(&map.removed_nodes);
        }
    }

    /// Whoever is at an address. `None` when the text is not one. Whether anybody answers there shows in the calls.
    pub fn at(&self, address: &str) -> Option<Arc<PeerClients>> {
        self.clients(address, None)
    }

    /// This node, at this address; another process there is not spoken to.
    pub fn of(&self, node: NodeId, address: &str) -> Option<Arc<PeerClients>> {
        self.clients(address, Some(node))
    }

    fn clients(&self, address: &str, expected: Option<NodeId>) -> Option<Arc<PeerClients>> {
        let mut known = self.known.lock();
        let key = (address.to_owned(), expected);
        if let Some(clients) = known.get(&key) {
            return Some(clients.clone());
        }
        let peer = match self.channels.peer(address, expected) {
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
        known.insert(key, clients.clone());
        Some(clients)
    }
}
