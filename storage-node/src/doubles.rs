//! A cluster in memory for the tests of this crate: nodes whose disks are maps, and that misbehave on request.

pub(crate) mod objects;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use parking_lot::Mutex;
use placement_map::{ClusterMap, Disk, DiskRole, Node, NodeState, Ring};
use placement_types::{
    ByteRange, ChunkId, ClusterId, DiskId, Env, GroupId, NodeId, Profile, ReplicaId, SLOTS, ShardId, Slot, TxnId, ZoneName,
};
use storage_node_kv::{Durability, Kv, MemoryKv, Overlay};
use storage_node_proto::api::{
    ByteStream, ChunkApi, ChunkError, DiskReport, MetaApi, MetaError, NodeApi, Nodes, Owner, RestoreShards, ShardApi, ShardError,
    UpkeepApi, WriteChunk, WriteShard,
};
use storage_node_proto::command::{Command, Outcome};
use storage_node_proto::damage::{ChunkVerdict, DamageReport, Held};
use storage_node_proto::object::ChunkEntry;
use storage_node_proto::query::{Answer, Query};
use storage_node_proto::upkeep::UpkeepReport;
use tokio::sync::watch;

use crate::coordinator::Coordinator;
use crate::duties::Leadership;
use crate::holders::Holders;
use crate::limits::Limits;
use crate::suspects::Suspects;

/// How a disk misbehaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Every call fails.
    Gone,
    Full,
    /// A write fails after that many units.
    FailsAfter(usize),
    /// A write takes that many units and then nothing, for ever.
    StallsAfter(usize),
    /// A write takes everything and never acknowledges.
    NeverAcks,
    /// A write acknowledges after that many units, whatever more there is.
    AcksAfter(usize),
    /// A write takes everything, then its fsync fails.
    FsyncFails,
    /// Reads and deletes never answer.
    ReadStalls,
    /// Reads answer the first unit, then never again.
    ReadStallsAfterOne,
}

type Shards = BTreeMap<(DiskId, ShardId), Vec<Result<Bytes, ()>>>;

/// Every disk of the cluster. It answers as the shard service of whichever node.
#[derive(Default)]
pub(crate) struct FakeDisks {
    pub shards: Mutex<Shards>,
    pub faults: Mutex<BTreeMap<DiskId, Fault>>,
    pub owners: Mutex<BTreeMap<(DiskId, ShardId), Owner>>,
    /// How many `read_units` calls each disk got.
    pub reads: Mutex<BTreeMap<DiskId, usize>>,
}

impl FakeDisks {
    pub fn set_fault(&self, disk: DiskId, fault: Fault) {
        self.faults.lock().insert(disk, fault);
    }

    fn fault(&self, disk: DiskId) -> Option<Fault> {
        self.faults.lock().get(&disk).copied()
    }

    /// Makes a unit fail its checksum.
    pub fn rot(&self, disk: DiskId, shard: ShardId, unit: usize) {
        self.shards.lock().get_mut(&(disk, shard)).expect("the shard is there")[unit] = Err(());
    }

    pub fn lose(&self, disk: DiskId, shard: ShardId) {
        self.shards.lock().remove(&(disk, shard)).expect("the shard is there");
    }

    pub fn holds(&self, disk: DiskId, shard: ShardId) -> bool {
        self.shards.lock().contains_key(&(disk, shard))
    }
}

#[async_trait]
impl ShardApi for FakeDisks {
    async fn write_shard(&self, request: WriteShard, mut units: ByteStream<ShardError>) -> Result<(), ShardError> {
        let WriteShard { disk, shard, .. } = request;
        let fault = self.fault(disk);
        match fault {
            Some(Fault::Gone) => return Err(ShardError::Unreachable { why: "gone".into() }),
            Some(Fault::Full) => return Err(ShardError::Full { disk }),
            _ => {}
        }
        let mut stored = Vec::new();
        loop {
            match fault {
                Some(Fault::FailsAfter(count)) if stored.len() == count => {
                    return Err(ShardError::Dead { disk, why: "EIO".into() });
                }
                Some(Fault::StallsAfter(count)) if stored.len() == count => std::future::pending().await,
                Some(Fault::AcksAfter(count)) if stored.len() == count => return Ok(()),
                _ => {}
            }
            match units.next().await {
                Some(unit) => stored.push(Ok(unit?)),
                None => break,
            }
        }
        match fault {
            Some(Fault::NeverAcks) => std::future::pending().await,
            Some(Fault::FsyncFails) => return Err(ShardError::Dead { disk, why: "fsync".into() }),
            _ => {}
        }
        let mut owners = self.owners.lock();
        let owner = *owners.entry((disk, shard)).or_insert(request.owner);
        let mut shards = self.shards.lock();
        match shards.get(&(disk, shard)) {
            Some(existing) if *existing != stored || owner != request.owner => Err(ShardError::Exists { disk, shard }),
            _ => {
                shards.insert((disk, shard), stored);
                Ok(())
            }
        }
    }

    async fn read_units(
        &self,
        disk: DiskId,
        shard: ShardId,
        first: u32,
        count: u32,
    ) -> Result<ByteStream<ShardError>, ShardError> {
        *self.reads.lock().entry(disk).or_default() += 1;
        match self.fault(disk) {
            Some(Fault::Gone) => return Err(ShardError::Unreachable { why: "gone".into() }),
            Some(Fault::ReadStalls) => std::future::pending().await,
            _ => {}
        }
        let stored = self.shards.lock().get(&(disk, shard)).cloned().ok_or(ShardError::NotFound { disk, shard })?;
        let units: Vec<Result<Bytes, ShardError>> = (first..first + count)
            .map(|unit| match stored.get(unit as usize) {
                Some(Ok(bytes)) => Ok(bytes.clone()),
                Some(Err(())) | None => Err(ShardError::Corrupt { disk, shard, unit }),
            })
            .collect();
        if self.fault(disk) == Some(Fault::ReadStallsAfterOne) {
            return Ok(futures::stream::iter(units).take(1).chain(futures::stream::pending()).boxed());
        }
        Ok(futures::stream::iter(units).boxed())
    }

    async fn delete_shards(&self, disk: DiskId, shards: Vec<ShardId>) -> Result<(), ShardError> {
        match self.fault(disk) {
            Some(Fault::Gone) => return Err(ShardError::Unreachable { why: "gone".into() }),
            Some(Fault::ReadStalls) => std::future::pending().await,
            _ => {}
        }
        for shard in shards {
            self.shards.lock().remove(&(disk, shard));
            self.owners.lock().remove(&(disk, shard));
        }
        Ok(())
    }

    async fn check_shards(&self, disk: DiskId, shards: Vec<ShardId>) -> Result<Vec<Held>, ShardError> {
        match self.fault(disk) {
            Some(Fault::Gone) => return Err(ShardError::Unreachable { why: "gone".into() }),
            Some(Fault::ReadStalls) => std::future::pending().await,
            _ => {}
        }
        let stored = self.shards.lock();
        let held = |shard: &ShardId| match stored.get(&(disk, *shard)) {
            None => Held::Missing,
            Some(units) if units.iter().all(Result::is_ok) => Held::Whole,
            Some(_) => Held::Damaged,
        };
        Ok(shards.iter().map(held).collect())
    }

    async fn disks(&self) -> Result<Vec<DiskReport>, ShardError> {
        Ok(Vec::new())
    }
}

/// A peer: some shard service, and perhaps a metadata service and a coordinator that lends a hand.
pub(crate) struct FakeNode {
    pub shards: Arc<dyn ShardApi>,
    pub meta: Option<Arc<dyn MetaApi>>,
    pub coordinator: Option<Coordinator>,
    /// How often somebody was asked to restore shards.
    pub asked_to_restore: Arc<AtomicUsize>,
}

impl FakeNode {
    pub fn new(shards: Arc<dyn ShardApi>) -> Self {
        Self { shards, meta: None, coordinator: None, asked_to_restore: Arc::default() }
    }
}

#[async_trait]
impl ShardApi for FakeNode {
    async fn write_shard(&self, request: WriteShard, units: ByteStream<ShardError>) -> Result<(), ShardError> {
        self.shards.write_shard(request, units).await
    }

    async fn read_units(
        &self,
        disk: DiskId,
        shard: ShardId,
        first: u32,
        count: u32,
    ) -> Result<ByteStream<ShardError>, ShardError> {
        self.shards.read_units(disk, shard, first, count).await
    }

    async fn delete_shards(&self, disk: DiskId, shards: Vec<ShardId>) -> Result<(), ShardError> {
        self.shards.delete_shards(disk, shards).await
    }

    async fn check_shards(&self, disk: DiskId, shards: Vec<ShardId>) -> Result<Vec<Held>, ShardError> {
        self.shards.check_shards(disk, shards).await
    }

    async fn disks(&self) -> Result<Vec<DiskReport>, ShardError> {
        self.shards.disks().await
    }
}

#[async_trait]
impl ChunkApi for FakeNode {
    async fn write_chunk(&self, _: WriteChunk, _: ByteStream<ChunkError>) -> Result<ChunkEntry, ChunkError> {
        Err(ChunkError::Unreachable { why: "no coordinator here".into() })
    }

    async fn read_chunk(&self, _: ChunkEntry, _: ByteRange) -> Result<ByteStream<ChunkError>, ChunkError> {
        Err(ChunkError::Unreachable { why: "no coordinator here".into() })
    }

    async fn restore_shards(&self, request: RestoreShards) -> Result<Option<Vec<Option<DiskId>>>, ChunkError> {
        self.asked_to_restore.fetch_add(1, Ordering::Relaxed);
        match &self.coordinator {
            Some(coordinator) => coordinator.restore_shards(request).await,
            None => Ok(None),
        }
    }

    async fn verify_chunk(&self, _: ChunkEntry) -> Result<ChunkVerdict, ChunkError> {
        Err(ChunkError::Unreachable { why: "no coordinator here".into() })
    }
}

#[async_trait]
impl MetaApi for FakeNode {
    async fn mutate(&self, group: GroupId, command: Command) -> Result<Outcome, MetaError> {
        match &self.meta {
            Some(meta) => meta.mutate(group, command).await,
            None => Err(MetaError::NoSuchGroup { group }),
        }
    }

    async fn query(&self, group: GroupId, query: Query) -> Result<Answer, MetaError> {
        match &self.meta {
            Some(meta) => meta.query(group, query).await,
            None => Err(MetaError::NoSuchGroup { group }),
        }
    }
}

#[async_trait]
impl UpkeepApi for FakeNode {
    async fn upkeep(&self) -> Result<UpkeepReport, ShardError> {
        Ok(UpkeepReport::default())
    }

    async fn report_damage(&self, _: DamageReport) -> Result<(), ShardError> {
        Ok(())
    }
}

/// Nodes by id.
#[derive(Default)]
pub(crate) struct FakeNodes {
    pub nodes: Mutex<BTreeMap<NodeId, Arc<dyn NodeApi>>>,
}

impl Nodes for FakeNodes {
    fn node(&self, id: NodeId) -> Option<Arc<dyn NodeApi>> {
        self.nodes.lock().get(&id).cloned()
    }
}

pub(crate) fn node_id(number: usize) -> NodeId {
    NodeId::from_u128(number as u128 + 1)
}

/// Disk `disk` of node `node`.
pub(crate) fn disk_id(node: usize, disk: usize) -> DiskId {
    DiskId::from_u128(((node as u128 + 1) << 8) | (disk as u128 + 1))
}

/// A map of `nodes` nodes with `disks` disks each; ring rows take one disk of every node before a second of any; one metadata
/// group whose only voter is node 0.
pub(crate) fn map(nodes: usize, disks: usize, profile: Profile) -> ClusterMap {
    let all: Vec<DiskId> = (0..disks).flat_map(|disk| (0..nodes).map(move |node| disk_id(node, disk))).collect();
    let row = |start: usize| (0..all.len()).map(|at| all[(start + at) % all.len()]).collect();
    let entry = |node: usize, disk: usize| Disk::new(disk_id(node, disk), node_id(node), 1 << 40, DiskRole::InUse);
    ClusterMap {
        next_replica: ReplicaId(nodes as u64 + 1),
        nodes: (0..nodes)
            .map(|node| {
                let entry = Node {
                    id: node_id(node),
                    replica: ReplicaId(node as u64 + 1),
                    address: format!("node-{node}:9100"),
                    zone: ZoneName::parse("zone").expect("a legal name"),
                    state: NodeState::Up,
                };
                (entry.id, entry)
            })
            .collect(),
        disks: (0..nodes).flat_map(|node| (0..disks).map(move |disk| (disk_id(node, disk), entry(node, disk)))).collect(),
        ring: Ring { rows: (0..16).map(row).collect() },
        groups: BTreeMap::from([(GroupId::SYSTEM, vec![node_id(0)]), (GroupId(1), vec![node_id(0)])]),
        slots: vec![GroupId(1); usize::from(SLOTS)],
        ..ClusterMap::empty(ClusterId::from_u128(1), profile)
    }
}

/// A cluster of fake disks, and a coordinator on node 0.
pub(crate) struct FakeCluster {
    pub disks: Arc<FakeDisks>,
    pub maps: watch::Sender<Option<Arc<ClusterMap>>>,
    pub coordinator: Coordinator,
}

impl FakeCluster {
    pub fn new(env: &Env, nodes: usize, disks: usize, profile: Profile) -> Self {
        let fake = Arc::new(FakeDisks::default());
        let directory = FakeNodes::default();
        for node in 1..nodes {
            let peer = FakeNode::new(fake.clone());
            directory.nodes.lock().insert(node_id(node), Arc::new(peer));
        }
        let (sender, maps) = watch::channel(Some(Arc::new(map(nodes, disks, profile))));
        let holders = Holders { me: node_id(0), local: fake.clone(), nodes: Arc::new(directory), maps, suspects: suspects(env) };
        let coordinator = Coordinator { env: env.clone(), holders, limits: Arc::new(Limits::default()) };
        Self { disks: fake, maps: sender, coordinator }
    }

    pub fn change_map(&self, change: impl FnOnce(&mut ClusterMap)) {
        self.maps.send_modify(|map| {
            let mut changed = map.as_deref().cloned().expect("there is a map");
            change(&mut changed);
            *map = Some(Arc::new(changed));
        });
    }
}

pub(crate) fn suspects(env: &Env) -> Arc<Suspects> {
    Arc::new(Suspects::new(env.clone(), Limits::default().suspicion))
}

pub(crate) fn owner(number: u128) -> Owner {
    Owner { txn: TxnId::from_u128(number), slot: Slot(3) }
}

pub(crate) fn chunk_id(number: u128) -> ChunkId {
    ChunkId::from_u128(number.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835))
}

/// Bytes in which every place is told from its neighbours.
pub(crate) fn content(bytes: usize, seed: u64) -> Bytes {
    let mut out = vec![0; bytes];
    blake3::Hasher::new().update(&seed.to_be_bytes()).finalize_xof().fill(&mut out);
    out.into()
}

/// `whole` in pieces of the given size.
pub(crate) fn body(whole: &Bytes, piece_bytes: usize) -> ByteStream<ChunkError> {
    let whole = whole.clone();
    let pieces: Vec<_> =
        (0..whole.len()).step_by(piece_bytes).map(|start| Ok(whole.slice(start..whole.len().min(start + piece_bytes)))).collect();
    futures::stream::iter(pieces).boxed()
}

/// One metadata group on one replica: the real state machine, without consensus.
pub(crate) struct LocalMeta {
    group: GroupId,
    kv: MemoryKv,
    index: Mutex<u64>,
}

impl LocalMeta {
    pub fn new(group: GroupId) -> Self {
        Self { group, kv: MemoryKv::new(), index: Mutex::new(0) }
    }
}

#[async_trait]
impl MetaApi for LocalMeta {
    async fn mutate(&self, group: GroupId, command: Command) -> Result<Outcome, MetaError> {
        if group != self.group {
            return Err(MetaError::NoSuchGroup { group });
        }
        let mut index = self.index.lock();
        *index += 1;
        let mut state = Overlay::new(self.kv.as_read());
        let outcome = storage_node_meta::apply_command(&mut state, *index, &command).expect("the store is sound");
        let batch = state.into_batch(&[]);
        self.kv.write(&batch, Durability::Buffered).expect("the store is sound");
        Ok(outcome)
    }

    async fn query(&self, group: GroupId, query: Query) -> Result<Answer, MetaError> {
        if group != self.group {
            return Err(MetaError::NoSuchGroup { group });
        }
        Ok(storage_node_meta::answer(&*self.kv.snapshot(), &query).expect("the store is sound"))
    }
}

impl Leadership for LocalMeta {
    fn led_groups(&self) -> Vec<GroupId> {
        vec![self.group]
    }
}
