//! Whole nodes with their own consensus, in one process: disks, logs and state on simulated file systems, messages carried by
//! calls. Time is paused and passes only while everybody waits.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Weak;
use std::time::Duration;

use placement_env::sim::{self, SimFs};
use placement_types::{Boot, ChunkId, Fs, Profile, TxnId};
use storage_node_kv::{MemoryKv, Overlay};
use storage_node_proto::api::{NodeApi, Owner};
use storage_node_proto::object::VersionSelector;
use tokio::sync::watch;

use super::*;
use crate::doubles::objects::{GROUP, Objects, SHELF, key};
use crate::doubles::{content, disk_id, map, node_id};

struct NoMachine;

impl Machine for NoMachine {
    fn apply(&self, _: &mut Overlay<'_>, _: u64, _: &[u8]) -> Result<Bytes, KvError> {
        Ok(Bytes::new())
    }
}

/// Every running node, and the network between them.
#[derive(Default)]
struct Network {
    nodes: Mutex<BTreeMap<NodeId, Weak<Inner>>>,
}

impl Network {
    fn find(&self, id: NodeId) -> Option<StorageNode> {
        Some(StorageNode { inner: self.nodes.lock().get(&id)?.upgrade()? })
    }
}

impl Nodes for Network {
    fn node(&self, id: NodeId) -> Option<Arc<dyn NodeApi>> {
        Some(Arc::new(self.find(id)?))
    }
}

struct Wire(Arc<Network>);

impl Transport for Wire {
    fn send(&self, to: ReplicaId, messages: Vec<Bytes>) {
        let number = usize::try_from(to.0).expect("few replicas") - 1;
        if let Some(node) = self.0.find(node_id(number)) {
            node.consensus().step(messages);
        }
    }
}

/// One machine: what survives its process.
struct Computer {
    number: usize,
    fs: SimFs,
    stores: Arc<Mutex<BTreeMap<PathBuf, Arc<MemoryKv>>>>,
}

impl Computer {
    fn new(number: usize) -> Self {
        Self { number, fs: SimFs::new(number as u64), stores: Arc::default() }
    }

    fn opener(&self) -> KvOpener {
        let stores = self.stores.clone();
        Arc::new(move |path: &Path| Ok(stores.lock().entry(path.to_owned()).or_default().clone() as Arc<dyn Kv>))
    }

    async fn start(&self, network: &Arc<Network>, maps: &MapWatch) -> StorageNode {
        let (env, _) = sim::env_on(&self.fs, 100 + self.number as u64);
        let map = maps.borrow().clone().unwrap();
        let parts = NodeParts {
            tenure: Tenure::new(node_id(self.number), Boot { number: 1, nonce: 1 }),
            env,
            cluster: map.cluster,
            replica: map.nodes[&node_id(self.number)].replica,
            disks: vec![DiskDir { path: "/disk".into(), fresh: Some(disk_id(self.number, 0)) }],
            state_dir: "/meta".into(),
            maps: maps.clone(),
            nodes: network.clone(),
            transport: Arc::new(Wire(network.clone())),
            system_machine: Arc::new(NoMachine),
            kv: KvOpeners { index: self.opener(), state: self.opener() },
            limits: Limits::default(),
        };
        let node = StorageNode::start(parts).await.unwrap();
        network.nodes.lock().insert(node.id(), Arc::downgrade(&node.inner));
        node
    }

    /// Power cut: what was not synced is gone.
    fn crash(&self) {
        self.fs.crash_losing_unsynced();
        for store in self.stores.lock().values() {
            store.crash();
        }
    }
}

fn three_voters(profile: &str) -> ClusterMap {
    let mut map = map(3, 1, profile.parse::<Profile>().unwrap());
    map.groups.insert(GROUP, (0..3).map(node_id).collect());
    map
}

/// Starts every machine, on a network of their own.
async fn start_all(machines: &[Computer], maps: &MapWatch) -> Vec<StorageNode> {
    let network = Arc::new(Network::default());
    let mut nodes = Vec::new();
    for machine in machines {
        nodes.push(machine.start(&network, maps).await);
    }
    nodes
}

async fn leader(nodes: &[StorageNode]) -> StorageNode {
    for _ in 0..600 {
        if let Some(node) = nodes.iter().find(|node| node.consensus().leads(GROUP)) {
            return node.clone();
        }
        sim::env(0).0.sleep(Duration::from_millis(100)).await;
    }
    panic!("no leader came up");
}

impl Objects for StorageNode {
    fn env(&self) -> Env {
        self.inner.meta.env.clone()
    }

    fn profile(&self) -> Profile {
        self.inner.maps.borrow().as_ref().unwrap().profile
    }

    fn chunks(&self) -> &dyn ChunkApi {
        self
    }

    fn meta(&self) -> &dyn MetaApi {
        self
    }
}

#[tokio::test(start_paused = true)]
async fn an_acknowledged_object_survives_a_power_cut_of_everything() {
    let (_maps, watch) = watch::channel(Some(Arc::new(three_voters("2+1"))));
    let machines: Vec<Computer> = (0..3).map(Computer::new).collect();
    let whole = content(2_345_678, 1);
    for life in 0..3 {
        let nodes = start_all(&machines, &watch).await;
        let leader = leader(&nodes).await;
        for earlier in 0..life {
            assert!(leader.get(&format!("life-{earlier}")).await == whole);
        }
        leader.put(&format!("life-{life}"), &whole).await;
        if life == 1 {
            // In one life everybody also goes down in order.
            for node in &nodes {
                node.shutdown().await;
            }
        }
        drop((nodes, leader));
        sim::env(0).0.sleep(Duration::from_secs(1)).await;
        machines.iter().for_each(Computer::crash);
    }
}

#[tokio::test(start_paused = true)]
async fn a_follower_names_the_leader_and_answers_nothing_itself() {
    let (_maps, watch) = watch::channel(Some(Arc::new(three_voters("2+1"))));
    let machines: Vec<Computer> = (0..3).map(Computer::new).collect();
    let nodes = start_all(&machines, &watch).await;
    let leader = leader(&nodes).await;
    leader.put("object", &content(100_000, 1)).await;
    for node in nodes.iter().filter(|node| node.id() != leader.id()) {
        let query = Query::Version { shelf: SHELF, key: key("object"), selector: VersionSelector::Current };
        let answer = node.query(GROUP, query).await;
        assert_eq!(answer, Err(MetaError::NotLeader { group: GROUP, leader: Some(leader.id()) }));
        assert_eq!(node.group_reports()[0].leader, Some(leader.id()));
    }
    let members = leader.query(GROUP, Query::Members).await;
    assert!(matches!(members, Ok(Answer::Members { replicas }) if replicas.len() == 3));
    assert!(matches!(
        leader.query(GroupId::SYSTEM, Query::Referenced { txns: vec![] }).await,
        Err(MetaError::NoSuchGroup { .. })
    ));
    assert!(matches!(leader.query(GroupId(9), Query::Referenced { txns: vec![] }).await, Err(MetaError::NoSuchGroup { .. })));
    for node in &nodes {
        node.shutdown().await;
        node.shutdown().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_does_not_open_is_reported_dead_and_the_node_lives() {
    let (_maps, watch) = watch::channel(Some(Arc::new(map(1, 2, Profile::SINGLE))));
    let machine = Computer::new(0);
    let network = Arc::new(Network::default());
    // The map gives this node two disks, one of which it does not find.
    let node = machine.start(&network, &watch).await;
    let beat = node.heartbeat().await;
    assert_eq!((beat.full, beat.dead), (vec![], vec![disk_id(0, 1)]));
    node.shutdown().await;
}

/// Writes a shard of one unit to this node's first disk.
async fn write_shard(node: &StorageNode, number: u128) -> Result<(), ShardError> {
    let shard = ShardId { chunk: ChunkId::from_u128(number), index: 0 };
    let owner = Owner { txn: TxnId::from_u128(number), slot: SHELF.slot() };
    let request = WriteShard { disk: disk_id(0, 0), shard, owner, profile: Profile::SINGLE };
    node.write_shard(request, futures::stream::iter([Ok(Bytes::from_static(b"unit"))]).boxed()).await
}

#[tokio::test(start_paused = true)]
async fn a_disk_is_reported_full_while_it_is_and_dead_once_an_fsync_failed() {
    let (_maps, watch) = watch::channel(Some(Arc::new(map(1, 1, Profile::SINGLE))));
    let machine = Computer::new(0);
    machine.fs.set_capacity(1 << 30);
    let node = machine.start(&Arc::new(Network::default()), &watch).await;
    let disk = vec![disk_id(0, 0)];
    // Less than the reserve is left: shards go elsewhere before the file system is full.
    let space = machine.fs.space(Path::new("/disk")).unwrap();
    machine.fs.set_capacity(space.total_bytes - space.available_bytes + (20 << 20));
    assert!(matches!(write_shard(&node, 1).await, Err(ShardError::Full { .. })));
    assert_eq!(node.heartbeat().await.full, disk);
    machine.fs.set_capacity(1 << 30);
    assert_eq!(node.heartbeat().await.full, []);
    write_shard(&node, 1).await.unwrap();

    machine.fs.fail_nth_sync("/disk/segments", 1);
    assert!(matches!(write_shard(&node, 2).await, Err(ShardError::Dead { .. })));
    let beat = node.heartbeat().await;
    assert_eq!((beat.full, beat.dead), (vec![], disk));
}

#[tokio::test(start_paused = true)]
async fn a_superseded_process_acknowledges_nothing_and_nobody_listens_to_it() {
    let (maps, watch) = watch::channel(Some(Arc::new(map(1, 1, Profile::SINGLE))));
    let node = Computer::new(0).start(&Arc::new(Network::default()), &watch).await;
    write_shard(&node, 1).await.unwrap();

    let sender = |number, nonce| RaftSender { node: node_id(0), boot: Boot { number, nonce } };
    let mut next = ClusterMap::clone(maps.borrow().as_ref().unwrap());
    next.boots.insert(node_id(0), Boot { number: 2, nonce: 7 });
    maps.send_replace(Some(Arc::new(next)));
    let answer = async |sender| node.raft(sender, Vec::new()).await.map_err(|status| status.code());
    assert_eq!(answer(sender(1, 1)).await, Err(SUPERSEDED), "a run of before");
    assert_eq!(answer(sender(2, 8)).await, Err(SUPERSEDED), "a copy's run of the same number");
    assert_eq!(answer(sender(2, 7)).await, Ok(()));
    assert_eq!(answer(sender(3, 9)).await, Ok(()), "it has not claimed the node yet, as when a whole cluster starts");

    node.inner.tenure.learn_map(maps.borrow().as_ref().unwrap());
    assert!(matches!(write_shard(&node, 2).await, Err(ShardError::Unreachable { .. })));
}
