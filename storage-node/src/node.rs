//! A storage node: its disks, its replicas of metadata groups, its coordinator and its background duties.

#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use parking_lot::Mutex;
use placement_map::ClusterMap;
use placement_proto::api::{Heartbeat, MapWatch};
use placement_proto::tenure::Tenure;
use placement_types::{ByteRange, ClusterId, DiskId, Env, GroupId, NodeId, ReplicaId, ShardId, TaskHandle, Timestamp};
use storage_node_consensus::{Config, Consensus, Machine, Machines, Transport};
use storage_node_kv::{Kv, KvError, RocksKv, RocksOptions};
use storage_node_proto::api::{
    ByteStream, ChunkApi, ChunkError, DiskHealth, DiskReport, GroupReport, MetaApi, MetaError, Nodes, RaftApi, RaftSender,
    RestoreShards, SUPERSEDED, ShardApi, ShardError, UpkeepApi, WriteChunk, WriteShard,
};
use storage_node_proto::command::{Command, Outcome};
use storage_node_proto::damage::{ChunkVerdict, DamageReport, Held};
use storage_node_proto::object::ChunkEntry;
use storage_node_proto::query::{Answer, Query};
use storage_node_proto::upkeep::UpkeepReport;
use storage_node_store::IndexOpener;

use crate::coordinator::Coordinator;
use crate::disks::{DiskDir, Disks};
use crate::duties::Duties;
use crate::error::StartError;
use crate::findings::{Courier, Findings};
use crate::group_client::GroupClient;
use crate::holders::Holders;
use crate::limits::Limits;
use crate::meta_service::{MetaMachine, MetaService};
use crate::orphans::OrphanScrub;
use crate::shard_service::ShardService;
use crate::survey::Surveys;
use crate::suspects::Suspects;
use crate::throttle::Throttle;
use crate::{gc, groups, maintenance, metrics, repair, scrub};

/// Opens a key-value store in a directory, making an empty one where there is none.
pub type KvOpener = IndexOpener;

/// How the node's stores are opened.
#[derive(Clone)]
pub struct KvOpeners {
    /// A disk's index, in its `index` directory.
    pub index: KvOpener,
    /// The metadata state, in `state_dir/state`. It needs no log of its own: what a crash loses is applied again from the
    /// consensus log.
    pub state: KvOpener,
}

impl KvOpeners {
    /// RocksDB without write-ahead logs, with so much memory for each block cache.
    pub fn rocks(index_cache_bytes: usize, state_cache_bytes: usize) -> Self {
        let opener = |block_cache_bytes| -> KvOpener {
            let options = RocksOptions { wal: false, block_cache_bytes, ..RocksOptions::default() };
            Arc::new(move |path| Ok(Arc::new(RocksKv::open(path, options)?) as Arc<dyn Kv>))
        };
        Self { index: opener(index_cache_bytes), state: opener(state_cache_bytes) }
    }
}

/// What a node is made of.
pub struct NodeParts {
    pub env: Env,
    pub cluster: ClusterId,
    /// Which node this is, and whether this process still is it.
    pub tenure: Tenure,
    pub replica: ReplicaId,
    pub disks: Vec<DiskDir>,
    /// Holds `log/` and `state/`; made when missing. Keep it on a disk that is fast to fsync.
    pub state_dir: PathBuf,
    pub maps: MapWatch,
    /// The other nodes; this one is never asked for.
    pub nodes: Arc<dyn Nodes>,
    pub transport: Arc<dyn Transport>,
    /// What the system group's entries do.
    pub system_machine: Arc<dyn Machine>,
    pub kv: KvOpeners,
    pub limits: Limits,
}

/// A running node. Clones share it.
#[derive(Clone)]
pub struct StorageNode {
    inner: Arc<Inner>,
}

struct Inner {
    tenure: Tenure,
    maps: MapWatch,
    consensus: Consensus,
    kv: Arc<dyn Kv>,
    disks: Arc<Disks>,
    meta: MetaService,
    shards: ShardService,
    duties: Duties,
    surveys: Arc<Surveys>,
    system_copied: Mutex<Option<Timestamp>>,
    tasks: Mutex<Vec<TaskHandle>>,
}

impl StorageNode {
    /// Opens disks, state and log, recovers every group, and starts the background duties. Metadata groups are joined as soon
    /// as the map names them.
    pub async fn start(parts: NodeParts) -> Result<Self, StartError> {
        let NodeParts { env, cluster, tenure, replica, disks, state_dir, maps, nodes, transport, system_machine, kv, limits } =
            parts;
        let node = tenure.node();
        let limits = Arc::new(limits);
        let disks = Arc::new(Disks::open(&env, cluster, node, &disks, &kv.index).await?);
        let kv = open_state(&env, state_dir.clone(), kv.state).await?;
        let machines: Machines = Arc::new(move |group| match group {
            GroupId::SYSTEM => system_machine.clone(),
            _ => Arc::new(MetaMachine),
        });
        let config = Config::new(replica, state_dir.join("log"));
        let consensus = Consensus::start(config, env.clone(), kv.clone(), transport, machines).await?;

        let meta = MetaService { env: env.clone(), consensus: consensus.clone(), maps: maps.clone(), limits: limits.clone() };
        let findings = Findings::default();
        // Each may have been restored from an old image, or lost a file, while the node was away.
        disks.all().for_each(|disk| findings.disk(disk.id));
        let shards = ShardService {
            env: env.clone(),
            disks: disks.clone(),
            maps: maps.clone(),
            tenure: tenure.clone(),
            findings: findings.clone(),
        };
        let suspects = Arc::new(Suspects::new(env.clone(), limits.suspicion));
        let holders = Holders { me: node, local: Arc::new(shards.clone()), nodes: nodes.clone(), maps: maps.clone(), suspects };
        let coordinator = Coordinator { env: env.clone(), holders: holders.clone(), limits: limits.clone() };
        let groups = GroupClient {
            env: env.clone(),
            me: node,
            local: Arc::new(meta.clone()),
            nodes,
            maps: maps.clone(),
            limits: limits.clone(),
        };
        let duties = Duties {
            throttle: Throttle::new(env.clone()),
            env,
            limits,
            leadership: Arc::new(meta.clone()),
            groups,
            holders,
            coordinator,
            meter: Arc::default(),
            room: Arc::default(),
        };
        let surveys = Arc::new(Surveys::default());
        let tasks = start_duties(&duties, &disks, &consensus, &surveys, &findings);
        let (system_copied, tasks) = (Mutex::default(), Mutex::new(tasks));
        let inner = Inner { tenure, maps, consensus, kv, disks, meta, shards, duties, surveys, system_copied, tasks };
        Ok(Self { inner: Arc::new(inner) })
    }

    pub fn id(&self) -> NodeId {
        self.inner.tenure.node()
    }

    /// The driver of every group, for the placement service's own group.
    pub fn consensus(&self) -> &Consensus {
        &self.inner.consensus
    }

    /// The store that holds every group's state.
    pub fn kv(&self) -> &Arc<dyn Kv> {
        &self.inner.kv
    }

    /// What to tell the failure detector. A disk that the map gives to this node and that is not open here is dead.
    pub async fn heartbeat(&self) -> Heartbeat {
        let boot = self.inner.tenure.boot();
        let mut beat = Heartbeat { node: self.id(), boot, full: Vec::new(), dead: Vec::new() };
        for report in self.inner.disks.reports().await {
            match report.health {
                DiskHealth::Good => {}
                DiskHealth::Full => beat.full.push(report.disk),
                DiskHealth::Dead => beat.dead.push(report.disk),
            }
        }
        if let Some(map) = self.inner.maps.borrow().as_ref() {
            let mine = map.disks.values().filter(|disk| disk.node == beat.node);
            beat.dead.extend(mine.map(|disk| disk.id).filter(|disk| self.inner.disks.get(*disk).is_none()));
        }
        beat
    }

    /// Takes note of when this node's newest copy of the system group's state was taken, for status and metrics.
    pub fn note_system_copy(&self, taken: Timestamp) {
        *self.inner.system_copied.lock() = Some(taken);
        metrics::system_copied(taken);
    }

    /// Every group as this replica sees it.
    pub fn group_reports(&self) -> Vec<GroupReport> {
        let map = self.inner.maps.borrow().clone();
        let node = |replica| Some(map.as_ref()?.node_by_replica(replica)?.id);
        let report = |status: storage_node_consensus::GroupStatus| GroupReport {
            group: status.group,
            leader: status.leader.and_then(node),
            term: status.term,
            applied: status.applied,
        };
        self.inner.consensus.status().into_iter().map(report).collect()
    }

    /// Ends in an orderly way: stops the duties, hands leaderships over, flushes the state, closes log and disks. Calls under
    /// way may fail. Idempotent.
    pub async fn shutdown(&self) {
        let tasks = std::mem::take(&mut *self.inner.tasks.lock());
        for task in tasks {
            task.stop().await;
        }
        self.inner.consensus.shutdown().await;
        self.inner.disks.close(&self.inner.meta.env).await;
    }
}

async fn open_state(env: &Env, dir: PathBuf, open: KvOpener) -> Result<Arc<dyn Kv>, StartError> {
    let fs = env.fs.clone();
    let path = dir.join("state");
    let opened = env.run_blocking(move || {
        let prepared = fs.create_dir_all(&dir).and_then(|()| match dir.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => fs.sync_dir(parent),
            _ => Ok(()),
        });
        prepared.map_err(|error| KvError::Io { detail: error.to_string() })?;
        open(&dir.join("state"))
    });
    opened.await.map_err(|source| StartError::State { path, source })
}

fn start_duties(
    duties: &Duties,
    disks: &Arc<Disks>,
    consensus: &Consensus,
    surveys: &Arc<Surveys>,
    findings: &Findings,
) -> Vec<TaskHandle> {
    let (env, limits) = (&duties.env, &duties.limits);
    let (me, maps) = (duties.holders.me, duties.holders.maps.clone());
    let follow = groups::follow(env.clone(), limits.groups_interval, consensus.clone(), maps, me);
    let (for_gc, for_repair, for_forget) = (duties.clone(), duties.clone(), duties.clone());
    let (for_survey, surveys) = (duties.clone(), surveys.clone());
    let (for_findings, found, told, held) = (duties.clone(), findings.clone(), surveys.clone(), disks.clone());
    let mut tasks = vec![
        env.spawn("group-follower", follow),
        env.spawn("gc", async move {
            let mut ahead = gc::Ahead::default();
            loop {
                for_gc.pause(for_gc.limits.gc_interval).await;
                gc::round(&for_gc, &mut ahead).await;
            }
        }),
        env.spawn("repair", async move {
            loop {
                for_repair.pause(for_repair.limits.repair_interval).await;
                repair::round(&for_repair).await;
            }
        }),
        env.spawn("survey", async move {
            loop {
                for_survey.pause(for_survey.limits.survey_look).await;
                surveys.round(&for_survey).await;
            }
        }),
        env.spawn("findings", async move {
            let mut courier = Courier::default();
            loop {
                for_findings.pause(for_findings.limits.findings_interval).await;
                courier.round(&for_findings, &held, &found, &told).await;
            }
        }),
        env.spawn("forget", async move {
            loop {
                for_forget.pause(for_forget.limits.forget_interval).await;
                maintenance::forget_round(&for_forget).await;
            }
        }),
    ];
    // Each disk has its own: one that hangs holds up nobody else's upkeep.
    for disk in disks.all() {
        let (duties, disk) = (duties.clone(), disk.clone());
        let (for_orphans, orphaned) = (duties.clone(), disk.clone());
        let (for_scrub, scrubbed, found) = (duties.clone(), disk.clone(), findings.clone());
        let (for_watch, watched, lost) = (duties.clone(), disk.clone(), findings.clone());
        tasks.push(env.spawn("disk-maintenance", async move {
            loop {
                duties.pause(duties.limits.maintenance_interval).await;
                maintenance::disk_round(&disk).await;
            }
        }));
        tasks.push(env.spawn("orphan-scrub", async move {
            let mut scrub = OrphanScrub::default();
            loop {
                for_orphans.pause(for_orphans.limits.orphan_interval).await;
                scrub.round(&for_orphans, &orphaned).await;
            }
        }));
        tasks.push(env.spawn("segment-watch", async move {
            loop {
                for_watch.pause(for_watch.limits.segments_interval).await;
                maintenance::watch_segments(&watched, &lost).await;
            }
        }));
        tasks.push(env.spawn("scrub", async move { scrub::run(&for_scrub, &scrubbed, &found).await }));
    }
    tasks
}

#[async_trait]
impl MetaApi for StorageNode {
    async fn mutate(&self, group: GroupId, command: Command) -> Result<Outcome, MetaError> {
        let _serving = self.inner.duties.throttle.serve();
        self.inner.meta.mutate(group, command).await
    }

    async fn query(&self, group: GroupId, query: Query) -> Result<Answer, MetaError> {
        let _serving = self.inner.duties.throttle.serve();
        self.inner.meta.query(group, query).await
    }
}

#[async_trait]
impl ChunkApi for StorageNode {
    async fn write_chunk(&self, request: WriteChunk, body: ByteStream<ChunkError>) -> Result<ChunkEntry, ChunkError> {
        let _serving = self.inner.duties.throttle.serve();
        self.inner.duties.coordinator.write_chunk(request, body).await
    }

    async fn read_chunk(&self, entry: ChunkEntry, range: ByteRange) -> Result<ByteStream<ChunkError>, ChunkError> {
        let serving = self.inner.duties.throttle.serve();
        let pieces = self.inner.duties.coordinator.read_chunk(entry, range).await?;
        // The client is served as long as the stream lives.
        Ok(pieces.inspect(move |_| _ = &serving).boxed())
    }

    async fn restore_shards(&self, request: RestoreShards) -> Result<Option<Vec<Option<DiskId>>>, ChunkError> {
        let Duties { throttle, coordinator, .. } = &self.inner.duties;
        let Some(restored) = throttle.lend(coordinator.restore(&request)).await else { return Ok(None) };
        let acked = restored?;
        metrics::restored_for_peer();
        Ok(Some(acked))
    }

    async fn verify_chunk(&self, entry: ChunkEntry) -> Result<ChunkVerdict, ChunkError> {
        self.inner.duties.throttle.background(self.inner.duties.coordinator.verify_chunk(entry)).await
    }
}

#[async_trait]
impl ShardApi for StorageNode {
    async fn write_shard(&self, request: WriteShard, units: ByteStream<ShardError>) -> Result<(), ShardError> {
        self.inner.shards.write_shard(request, units).await
    }

    async fn read_units(
        &self,
        disk: DiskId,
        shard: ShardId,
        first: u32,
        count: u32,
    ) -> Result<ByteStream<ShardError>, ShardError> {
        self.inner.shards.read_units(disk, shard, first, count).await
    }

    async fn delete_shards(&self, disk: DiskId, shards: Vec<ShardId>) -> Result<(), ShardError> {
        self.inner.shards.delete_shards(disk, shards).await
    }

    async fn check_shards(&self, disk: DiskId, shards: Vec<ShardId>) -> Result<Vec<Held>, ShardError> {
        self.inner.shards.check_shards(disk, shards).await
    }

    async fn disks(&self) -> Result<Vec<DiskReport>, ShardError> {
        self.inner.shards.disks().await
    }
}

#[async_trait]
impl UpkeepApi for StorageNode {
    async fn upkeep(&self) -> Result<UpkeepReport, ShardError> {
        let system_copied = *self.inner.system_copied.lock();
        Ok(UpkeepReport { system_copied, ..self.inner.surveys.report(&self.inner.duties) })
    }

    async fn report_damage(&self, report: DamageReport) -> Result<(), ShardError> {
        self.inner.surveys.reports.note(&report);
        Ok(())
    }
}

#[async_trait]
impl RaftApi for StorageNode {
    async fn raft(&self, sender: RaftSender, messages: Vec<Bytes>) -> Result<(), tonic::Status> {
        let superseded = |map: &Arc<ClusterMap>| map.is_superseded(sender.node, sender.boot);
        if self.inner.maps.borrow().as_ref().is_some_and(superseded) {
            return Err(tonic::Status::new(SUPERSEDED, "another process is this node"));
        }
        self.inner.consensus.step(messages);
        Ok(())
    }
}
