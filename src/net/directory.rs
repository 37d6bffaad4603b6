//! Nodes by id: the one in this process directly, the others over the network.

use std::sync::{Arc, OnceLock};

use placement_proto::api::MapWatch;
use placement_types::NodeId;
use storage_node_proto::api::{NodeApi, Nodes};

use super::peers::Peers;

pub struct Directory {
    /// Set once the node of this process has started; a gateway has none.
    local: OnceLock<(NodeId, Arc<dyn NodeApi>)>,
    maps: MapWatch,
    /// `None` in an embedded server, which has nobody to call.
    peers: Option<Arc<Peers>>,
}

impl Directory {
    pub fn new(maps: MapWatch, peers: Option<Arc<Peers>>) -> Self {
        Self { local: OnceLock::new(), maps, peers }
    }

    /// # Panics
    /// When called twice: a process has one node.
    pub fn set_local(&self, id: NodeId, node: Arc<dyn NodeApi>) {
        assert!(self.local.set((id, node)).is_ok(), "a process has one node");
    }
}

impl Nodes for Directory {
    fn node(&self, id: NodeId) -> Option<Arc<dyn NodeApi>> {
        if let Some((local, node)) = self.local.get()
            && *local == id
        {
            return Some(node.clone());
        }
        let address = self.maps.borrow().as_ref()?.nodes.get(&id)?.address.clone();
        let clients = self.peers.as_ref()?.of(id, &address)?;
        Some(clients.node.clone())
    }
}
