//! Whole nodes with their own consensus, in one process: disks, logs and state on simulated file systems, messages carried by
//! calls. Time is paused and passes only while everybody waits.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Weak;
use std::time::Duration;

use futures::StreamExt;
use placement_env::sim::{self, SimFs};
use placement_map::ClusterMap;
use placement_types::{BucketId, ChunkId, ObjectKey, Profile, TxnId};
use storage_node_kv::{MemoryKv, Overlay};
use storage_node_proto::api::{NodeApi, Owner};
use storage_node_proto::command::{Change, Shelf, WriteCondition};
use storage_node_proto::object::{Data, DataRef, ObjectAttributes, ObjectRecord, VersionSelector, Versioning};
use tokio::sync::watch;

use super::*;
use crate::doubles::{body, content, disk_id, map, node_id};

const GROUP: GroupId = GroupId(1);
const SHELF: Shelf = Shelf { bucket: BucketId::from_u128(5), index_shard: 0 };

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
            env,
            cluster: map.cluster,
            node: node_id(self.number),
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

async fn leader(nodes: &[StorageNode]) -> StorageNode {
    for _ in 0..600 {
        if let Some(node) = nodes.iter().find(|node| node.consensus().leads(GROUP)) {
            return node.clone();
        }
        sim::env(0).0.sleep(Duration::from_millis(100)).await;
    }
    panic!("no leader came up");
}

fn key(name: &str) -> ObjectKey {
    ObjectKey::parse(name).unwrap()
}

async fn put(node: &StorageNode, name: &str, whole: &Bytes) {
    let env = node.inner.meta.env.clone();
    let txn = TxnId::random(&env);
    let profile = node.inner.maps.borrow().as_ref().unwrap().profile;
    let owner = Owner { txn, slot: SHELF.slot() };
    let request = WriteChunk { chunk: ChunkId::random(&env), owner, profile, bytes: None };
    let entry = node.write_chunk(request, body(whole, 1 << 20)).await.unwrap();
    let bytes = u64::from(entry.bytes);
    let record = ObjectRecord {
        bytes,
        etag: "etag".into(),
        attributes: ObjectAttributes::default(),
        checksum: None,
        data: vec![DataRef { txn, bytes }],
        parts: Vec::new(),
    };
    let change = Change::Put {
        shelf: SHELF,
        key: key(name),
        versioning: Versioning::Unversioned,
        condition: WriteCondition::None,
        record,
        data: Some(Data::Chunks(vec![entry])),
    };
    let outcome = node.mutate(GROUP, Command { txn, time: env.now(), change }).await.unwrap();
    assert!(matches!(outcome, Outcome::Written { .. }), "{outcome:?}");
}

/// Reads an object of one chunk through a node.
async fn get(node: &StorageNode, name: &str) -> Vec<u8> {
    let query = Query::Version { shelf: SHELF, key: key(name), selector: VersionSelector::Current };
    let Answer::Version { version, .. } = node.query(GROUP, query).await.unwrap() else { panic!("no {name}") };
    let query = Query::Data { shelf: SHELF, key: key(name), txns: vec![version.txn] };
    let Answer::Data { records } = node.query(GROUP, query).await.unwrap() else { panic!("no data of {name}") };
    let Some(Some(Data::Chunks(chunks))) = records.into_iter().next() else { panic!("no chunks of {name}") };
    let range = ByteRange::new(0, u64::from(chunks[0].bytes)).unwrap();
    let mut stream = node.read_chunk(chunks[0].clone(), range).await.unwrap();
    let mut whole = Vec::new();
    while let Some(piece) = stream.next().await {
        whole.extend_from_slice(&piece.unwrap());
    }
    whole
}

#[tokio::test(start_paused = true)]
async fn an_acknowledged_object_survives_a_power_cut_of_everything() {
    let (_maps, watch) = watch::channel(Some(Arc::new(three_voters("2+1"))));
    let machines: Vec<Computer> = (0..3).map(Computer::new).collect();
    let whole = content(2_345_678, 1);
    for life in 0..3 {
        let network = Arc::new(Network::default());
        let mut nodes = Vec::new();
        for machine in &machines {
            nodes.push(machine.start(&network, &watch).await);
        }
        let leader = leader(&nodes).await;
        for earlier in 0..life {
            assert!(get(&leader, &format!("life-{earlier}")).await == whole);
        }
        put(&leader, &format!("life-{life}"), &whole).await;
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
    let network = Arc::new(Network::default());
    let mut nodes = Vec::new();
    let machines: Vec<Computer> = (0..3).map(Computer::new).collect();
    for machine in &machines {
        nodes.push(machine.start(&network, &watch).await);
    }
    let leader = leader(&nodes).await;
    put(&leader, "object", &content(100_000, 1)).await;
    for node in nodes.iter().filter(|node| node.id() != leader.id()) {
        let query = Query::Version { shelf: SHELF, key: key("object"), selector: VersionSelector::Current };
        let answer = node.query(GROUP, query).await;
        assert_eq!(answer, Err(MetaError::NotLeader { group: GROUP, leader: Some(leader.id()) }));
        assert_eq!(node.group_reports()[0].leader, Some(leader.id()));
    }
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
