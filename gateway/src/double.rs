//! A cluster in memory, for tests: real metadata state machines on in-memory stores, chunks in a map, three nodes.
//!
//! Everything a real one may do to a gateway can be asked of it: refuse leadership, lose an answer after applying, fail a
//! chunk's write or read, move the leader.

mod chunks;
mod groups;
mod system;

use std::collections::BTreeMap;
use std::sync::Arc;

use gateway_s3::{Caller, RequestContext};
use placement_map::{ClusterMap, Disk, DiskRole, Node, NodeState, Ring};
use placement_types::{ClusterId, DiskId, Env, GroupId, NodeId, Profile, ReplicaId, RequestId, SLOTS, ZoneName};
use storage_node_proto::api::{NodeApi, Nodes};
use tokio::sync::watch;

use crate::{Gateway, GatewayConfig, GatewayParts};
pub use chunks::{Chunks, Trouble};
pub use groups::{Groups, Mischief};
pub use system::System;

pub const NODES: u128 = 3;
pub const GROUPS: u32 = 4;

/// The cluster; gateways are made of it.
pub struct Cluster {
    pub env: Env,
    pub groups: Arc<Groups>,
    pub chunks: Arc<Chunks>,
    pub system: Arc<System>,
    map: watch::Sender<Option<Arc<ClusterMap>>>,
}

impl Cluster {
    pub fn new(seed: u64) -> Self {
        let (env, _) = placement_env::sim::env(seed);
        Self {
            env,
            groups: Arc::new(Groups::new()),
            chunks: Arc::new(Chunks::default()),
            system: Arc::new(System::new(map())),
            map: watch::Sender::new(Some(Arc::new(map()))),
        }
    }

    /// What every gateway knows of the cluster from now on.
    pub fn set_map(&self, change: impl FnOnce(&mut Option<Arc<ClusterMap>>)) {
        self.map.send_modify(change);
    }

    /// A further gateway of the same cluster, with nothing remembered.
    pub fn gateway(&self) -> Arc<Gateway> {
        Gateway::new(GatewayParts {
            env: self.env.clone(),
            placement: Arc::clone(&self.system) as _,
            maps: self.map.subscribe(),
            nodes: Arc::new(Members { groups: Arc::clone(&self.groups), chunks: Arc::clone(&self.chunks) }),
            config: GatewayConfig::new("us-east-1", "root", None),
        })
    }
}

/// The request context of the operator.
pub fn root() -> RequestContext {
    context(Caller::Root { access_key: "root".into() })
}

pub fn context(caller: Caller) -> RequestContext {
    RequestContext { caller, request_id: RequestId::from_u128(1), peer: "127.0.0.1:1".into(), secure: false }
}

pub fn node_id(number: u128) -> NodeId {
    NodeId::from_u128(number)
}

struct Members {
    groups: Arc<Groups>,
    chunks: Arc<Chunks>,
}

/// One node; it shares everything with the others but its id.
struct Member {
    id: NodeId,
    groups: Arc<Groups>,
    chunks: Arc<Chunks>,
}

impl Nodes for Members {
    fn node(&self, id: NodeId) -> Option<Arc<dyn NodeApi>> {
        (1..=NODES).contains(&id.as_u128()).then(|| {
            Arc::new(Member { id, groups: Arc::clone(&self.groups), chunks: Arc::clone(&self.chunks) }) as Arc<dyn NodeApi>
        })
    }
}

fn map() -> ClusterMap {
    let ids = 1..=NODES;
    let node = |id: u128| Node {
        id: node_id(id),
        replica: ReplicaId(u64::try_from(id).unwrap()),
        address: format!("node-{id}:9100"),
        zone: ZoneName::default(),
        state: NodeState::Up,
    };
    let disk = |id: u128| Disk::new(DiskId::from_u128(id), node_id(id), 1 << 30, DiskRole::InUse);
    let disks: Vec<DiskId> = ids.clone().map(DiskId::from_u128).collect();
    let rotated = |by: usize| disks.iter().cycle().skip(by).take(disks.len()).copied().collect();
    let voters: Vec<NodeId> = ids.clone().map(node_id).collect();
    ClusterMap {
        next_replica: ReplicaId(NODES as u64 + 1),
        nodes: ids.clone().map(|id| (node_id(id), node(id))).collect(),
        disks: ids.map(|id| (DiskId::from_u128(id), disk(id))).collect(),
        ring: Ring { rows: (0..16).map(rotated).collect() },
        groups: (0..=GROUPS).map(|group| (GroupId(group), voters.clone())).collect::<BTreeMap<_, _>>(),
        slots: (0..SLOTS).map(|slot| GroupId(1 + u32::from(slot) % GROUPS)).collect(),
        ..ClusterMap::empty(ClusterId::from_u128(1), Profile::new(2, 1).unwrap())
    }
}
