//! Finds who holds a disk: this process, or a peer.
//!
//! What it says is advice from the newest map at hand; a peer that is gone shows in the call's error.

use std::sync::Arc;

use placement_map::ClusterMap;
use placement_proto::api::MapWatch;
use placement_types::{DiskId, NodeId};
use storage_node_proto::api::{NodeApi, Nodes, ShardApi};

use crate::suspects::Suspects;

/// How promising a disk is as a source, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Standing {
    /// In this process: no network between.
    Local,
    Remote,
    /// The map says that the disk is dead or its node down, or it did not answer in time lately. It may answer all the same.
    Doubtful,
}

/// Who to ask for a disk's shards.
#[derive(Clone)]
pub(crate) struct Holder {
    pub disk: DiskId,
    pub standing: Standing,
    pub shards: Arc<dyn ShardApi>,
}

/// The directory of disks. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Holders {
    pub me: NodeId,
    pub local: Arc<dyn ShardApi>,
    pub nodes: Arc<dyn Nodes>,
    pub maps: MapWatch,
    pub suspects: Arc<Suspects>,
}

impl Holders {
    /// `None` when the map does not know the disk (it was removed, or there is no map yet), or knows no way to its node.
    pub fn holder(&self, disk: DiskId) -> Option<Holder> {
        let map = self.maps.borrow().clone()?;
        let entry = map.disks.get(&disk)?;
        let up = self.expects(&map, disk);
        let (standing, shards): (_, Arc<dyn ShardApi>) = if entry.node == self.me {
            (Standing::Local, self.local.clone())
        } else {
            (Standing::Remote, self.nodes.node(entry.node)?)
        };
        Some(Holder { disk, standing: if up { standing } else { Standing::Doubtful }, shards })
    }

    /// The peer that a disk belongs to, if it can be expected to answer.
    pub fn peer(&self, disk: DiskId) -> Option<Arc<dyn NodeApi>> {
        let map = self.maps.borrow().clone()?;
        let node = map.disks.get(&disk)?.node;
        if node != self.me && self.expects(&map, disk) { self.nodes.node(node) } else { None }
    }

    /// Whether a disk can be expected to answer.
    fn expects(&self, map: &ClusterMap, disk: DiskId) -> bool {
        map.serves_shards(disk) && !self.suspects.contains(disk)
    }

    /// Returns once the map in force does not expect the disk to answer.
    pub async fn given_up(&self, disk: DiskId) {
        let serves = |map: &Option<Arc<ClusterMap>>| map.as_ref().is_some_and(|map| map.serves_shards(disk));
        // Without a sender this process ends.
        let _ = self.maps.clone().wait_for(|map| !serves(map)).await;
    }

    /// Whether the map in force still lists the disk. Without a map nothing is known to be removed.
    pub fn is_removed(&self, disk: DiskId) -> bool {
        self.maps.borrow().as_ref().is_some_and(|map| !map.disks.contains_key(&disk))
    }
}
