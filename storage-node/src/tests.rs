//! Garbage collection, the orphan scrub and repair, end to end: real disks on a simulated file system, the real metadata state
//! machine, several nodes in one process. Time is paused.

mod absence;
mod recode;
mod survey;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use placement_env::sim::{self, SimClock};
use placement_map::{ClusterMap, NodeState};
use placement_proto::api::MapWatch;
use placement_proto::tenure::Tenure;
use placement_types::{Boot, ChunkId, DiskId, Env, Profile, ShardId, TxnId};
use storage_node_kv::MemoryKv;
use storage_node_proto::api::{ChunkApi, MetaApi, Owner, ShardApi, ShardError, WriteChunk, WriteShard};
use storage_node_proto::command::{Change, FiledChunk, Outcome, WriteCondition};
use storage_node_proto::object::{ChunkEntry, VersionSelector, Versioning};
use storage_node_proto::query::{Answer, Query, SurveyedChunk};
use storage_node_proto::upkeep::GroupSurvey;
use storage_node_store::IndexOpener;
use tokio::sync::watch;

use crate::coordinator::Coordinator;
use crate::disks::{DiskDir, Disks};
use crate::doubles::objects::{GROUP, Objects, SHELF, key};
use crate::doubles::{FakeNode, FakeNodes, LocalMeta, body, content, disk_id, map, node_id, suspects};
use crate::duties::Duties;
use crate::findings::Findings;
use crate::group_client::GroupClient;
use crate::holders::Holders;
use crate::limits::Limits;
use crate::local_disk::LocalDisk;
use crate::orphans::OrphanScrub;
use crate::shard_service::ShardService;
use crate::survey::Surveys;
use crate::throttle::Throttle;
use crate::{gc, maintenance, repair};

/// Some nodes with one disk each; node 0 leads the only group and coordinates.
struct Cluster {
    env: Env,
    clock: SimClock,
    duties: Duties,
    disks: Vec<Arc<Disks>>,
    findings: Vec<Findings>,
    peers: Arc<FakeNodes>,
    maps: watch::Sender<Option<Arc<ClusterMap>>>,
    meta: Arc<LocalMeta>,
    profile: Profile,
    /// How often a peer was asked to restore shards.
    asked_to_restore: Arc<AtomicUsize>,
}

/// The shard service of a node whose place nobody disputes.
fn shards(env: &Env, node: usize, disks: &Arc<Disks>, maps: &MapWatch, findings: &Findings) -> ShardService {
    let tenure = Tenure::new(node_id(node), Boot { number: 1, nonce: 1 });
    ShardService { env: env.clone(), disks: disks.clone(), maps: maps.clone(), tenure, findings: findings.clone() }
}

impl Cluster {
    async fn new(nodes: usize, profile: &str) -> Self {
        let (env, controls) = sim::env(1);
        let profile = profile.parse().unwrap();
        let (maps, watch) = watch::channel(Some(Arc::new(map(nodes, 1, profile))));
        let meta = Arc::new(LocalMeta::new(GROUP));
        let peers = Arc::new(FakeNodes::default());
        let mut disks = Vec::new();
        let index: IndexOpener = Arc::new(|_| Ok(Arc::new(MemoryKv::new())));
        let cluster = map(nodes, 1, profile).cluster;
        for node in 0..nodes {
            let dir = DiskDir { path: PathBuf::from(format!("/node-{node}")), fresh: Some(disk_id(node, 0)) };
            disks.push(Arc::new(Disks::open(&env, cluster, node_id(node), &[dir], &index).await.unwrap()));
        }
        let findings: Vec<Findings> = (0..nodes).map(|_| Findings::default()).collect();
        let limits = Arc::new(Limits::default());
        let local: Arc<dyn ShardApi> = Arc::new(shards(&env, 0, &disks[0], &watch, &findings[0]));
        let holders = Holders { me: node_id(0), local, nodes: peers.clone(), maps: watch.clone(), suspects: suspects(&env) };
        let coordinator = Coordinator { env: env.clone(), holders: holders.clone(), limits: limits.clone() };
        let groups = GroupClient {
            env: env.clone(),
            me: node_id(0),
            local: meta.clone(),
            nodes: peers.clone(),
            maps: watch,
            limits: limits.clone(),
        };
        let throttle = Throttle::new(env.clone());
        let (meter, room) = Default::default();
        let leadership = meta.clone();
        let duties = Duties { env: env.clone(), limits, leadership, groups, holders, coordinator, throttle, meter, room };
        let clock = controls.clock;
        let asked_to_restore = Arc::default();
        let cluster = Self { env, clock, duties, disks, findings, peers, maps, meta, profile, asked_to_restore };
        (0..nodes).for_each(|node| cluster.connect(node));
        cluster
    }

    fn connect(&self, node: usize) {
        let maps = self.maps.subscribe();
        let shards: Arc<dyn ShardApi> = Arc::new(shards(&self.env, node, &self.disks[node], &maps, &self.findings[node]));
        let holders = Holders { me: node_id(node), local: shards.clone(), maps, ..self.duties.holders.clone() };
        let peer = FakeNode {
            meta: Some(self.meta.clone()),
            coordinator: Some(Coordinator { holders, ..self.duties.coordinator.clone() }),
            asked_to_restore: self.asked_to_restore.clone(),
            ..FakeNode::new(shards)
        };
        self.peers.nodes.lock().insert(node_id(node), Arc::new(peer));
    }

    fn disconnect(&self, node: usize) {
        self.peers.nodes.lock().remove(&node_id(node));
    }

    fn set_state(&self, node: usize, state: NodeState) {
        self.maps.send_modify(|map| {
            let mut changed = map.as_deref().cloned().unwrap();
            changed.nodes.get_mut(&node_id(node)).unwrap().state = state;
            *map = Some(Arc::new(changed));
        });
    }

    fn change_map(&self, change: impl FnOnce(&mut ClusterMap)) {
        self.maps.send_modify(|map| {
            let mut changed = map.as_deref().cloned().unwrap();
            change(&mut changed);
            *map = Some(Arc::new(changed));
        });
    }

    async fn put_many(&self, count: usize) -> Vec<(String, Bytes)> {
        self.put_some("object", count).await
    }

    async fn put_some(&self, prefix: &str, count: usize) -> Vec<(String, Bytes)> {
        let mut objects = Vec::new();
        for number in 0..count {
            let (name, whole) = (format!("{prefix}-{number:03}"), content(1_200_000 + number, number as u64));
            self.put(&name, &whole).await;
            objects.push((name, whole));
        }
        objects
    }

    /// Surveys until there is nothing more to do.
    async fn settle(&self, surveys: &Surveys) -> GroupSurvey {
        for _ in 0..10 {
            surveys.round(&self.duties).await;
        }
        let report = surveys.report(&self.duties);
        report.surveys.into_iter().next().expect("the group was surveyed")
    }

    /// Collects all garbage there is, once its grace is over.
    async fn collect_all(&self) {
        self.env.sleep(GRACE).await;
        while self.collect().await > 0 {}
    }

    /// All chunks, as a survey is told of them.
    async fn surveyed(&self) -> Vec<SurveyedChunk> {
        let query = Query::Survey { after: None, limit: 1000, now: self.env.now() };
        let Ok(Answer::Survey { chunks, .. }) = self.meta.query(GROUP, query).await else { panic!("no survey") };
        chunks
    }

    async fn delete(&self, name: &str) {
        let change = Change::Delete {
            shelf: SHELF,
            key: key(name),
            versioning: Versioning::Unversioned,
            condition: WriteCondition::None,
            selector: VersionSelector::Current,
        };
        let outcome = self.propose(TxnId::random(&self.env), change).await;
        assert!(matches!(outcome, Outcome::Deleted { removed: Some(_), .. }), "{outcome:?}");
    }

    /// How many shards every disk holds.
    async fn shards(&self) -> Vec<usize> {
        let mut counts = Vec::new();
        for disks in &self.disks {
            counts.push(only(disks).store().shards(None, 1000).await.unwrap().len());
        }
        counts
    }

    async fn scrub_everywhere(&self) -> usize {
        let mut deleted = 0;
        for disks in &self.disks {
            deleted += OrphanScrub::default().round(&self.duties, only(disks)).await;
        }
        deleted
    }

    async fn collect(&self) -> usize {
        gc::collect(&self.duties, GROUP).await.unwrap()
    }

    async fn repair(&self) -> usize {
        repair::repair_group(&self.duties, GROUP).await.unwrap()
    }
}

impl Objects for Cluster {
    fn env(&self) -> Env {
        self.env.clone()
    }

    fn profile(&self) -> Profile {
        self.profile
    }

    fn chunks(&self) -> &dyn ChunkApi {
        &self.duties.coordinator
    }

    fn meta(&self) -> &dyn MetaApi {
        &*self.meta
    }
}

/// The disk of a node that has one.
fn only(disks: &Disks) -> &LocalDisk {
    disks.all().next().unwrap()
}

fn slot_disks(entry: &ChunkEntry) -> Vec<DiskId> {
    entry.shards.iter().flatten().copied().collect()
}

const GRACE: Duration = Duration::from_secs(16 * 60);
const LEASE: Duration = Duration::from_secs(61 * 60);

#[tokio::test(start_paused = true)]
async fn deleted_data_is_collected_after_the_grace_and_kept_before() {
    let cluster = Cluster::new(3, "2+1").await;
    let whole = content(2_500_000, 1);
    let gone = cluster.put("gone", &whole).await;
    let kept = cluster.put("kept", &whole).await;
    cluster.delete("gone").await;
    cluster.env.sleep(GRACE - Duration::from_secs(2 * 60)).await;
    assert_eq!(cluster.collect().await, 0);
    assert!(cluster.read(&gone).await == whole, "a reader under way still has the manifest");
    cluster.env.sleep(Duration::from_secs(2 * 60)).await;
    assert_eq!(cluster.collect().await, 1);
    assert_eq!(cluster.shards().await, [1, 1, 1]);
    assert!(cluster.read(&kept).await == whole);
    assert_eq!(cluster.collect().await, 0, "the queue is empty");
}

#[tokio::test(start_paused = true)]
async fn garbage_that_is_dated_ahead_is_collected_a_grace_after_it_was_seen() {
    let cluster = Cluster::new(3, "2+1").await;
    let whole = content(2_500_000, 1);
    let gone = cluster.put("gone", &whole).await;
    let kept = cluster.put("kept", &whole).await;
    cluster.clock.skew_wall_clock(365 * 24 * 3_600_000);
    cluster.delete("gone").await;
    cluster.clock.skew_wall_clock(0);
    let mut ahead = gc::Ahead::default();
    let mut collect = async || (cluster.collect().await, ahead.collect(&cluster.duties, GROUP).await.unwrap());
    assert_eq!(collect().await, (0, 0));
    cluster.env.sleep(GRACE - Duration::from_secs(2 * 60)).await;
    assert_eq!(collect().await, (0, 0));
    assert!(cluster.read(&gone).await == whole, "a reader under way still has the manifest");
    cluster.env.sleep(Duration::from_secs(2 * 60)).await;
    cluster.disconnect(2);
    assert_eq!(collect().await, (0, 0), "a disk is away");
    cluster.connect(2);
    assert_eq!(collect().await, (0, 1));
    assert_eq!(cluster.shards().await, [1, 1, 1]);
    assert!(cluster.read(&kept).await == whole);
    assert_eq!(collect().await, (0, 0), "the queue is empty");
}

#[tokio::test(start_paused = true)]
async fn garbage_on_an_absent_disk_waits_for_it_and_holds_up_nothing() {
    let cluster = Cluster::new(4, "2+1").await;
    let whole = content(100_000, 1);
    for number in 0..20 {
        cluster.put(&number.to_string(), &whole).await;
    }
    for number in 0..20 {
        cluster.delete(&number.to_string()).await;
    }
    cluster.env.sleep(GRACE).await;
    let before = cluster.shards().await;
    cluster.disconnect(2);
    let collected = cluster.collect().await;
    let after = cluster.shards().await;
    assert!(collected > 0 && collected < 20, "{collected}");
    assert_eq!(after[2], before[2]);
    assert_eq!([after[0], after[1], after[3]], [0, 0, 0]);
    cluster.connect(2);
    assert_eq!(cluster.collect().await, 20 - collected);
    assert_eq!(cluster.shards().await, [0, 0, 0, 0]);
}

#[tokio::test(start_paused = true)]
async fn garbage_on_a_removed_disk_is_let_go() {
    let cluster = Cluster::new(4, "2+1").await;
    let entry = cluster.put("object", &content(100_000, 1)).await;
    cluster.delete("object").await;
    cluster.env.sleep(GRACE).await;
    let lost = slot_disks(&entry)[0];
    cluster.maps.send_modify(|map| {
        let mut changed = map.as_deref().cloned().unwrap();
        changed.disks.remove(&lost);
        *map = Some(Arc::new(changed));
    });
    assert_eq!(cluster.collect().await, 1);
}

#[tokio::test(start_paused = true)]
async fn an_orphan_is_fenced_then_deleted_and_its_late_commit_refused() {
    let cluster = Cluster::new(3, "2+1").await;
    let whole = content(1_500_000, 1);
    let kept = cluster.put("kept", &whole).await;
    let txn = TxnId::random(&cluster.env);
    let orphan = cluster.write(txn, &whole).await;
    assert_eq!(cluster.scrub_everywhere().await, 0, "its lease runs");
    assert_eq!(cluster.shards().await, [2, 2, 2]);
    cluster.env.sleep(LEASE).await;
    assert_eq!(cluster.scrub_everywhere().await, 3);
    assert_eq!(cluster.shards().await, [1, 1, 1]);
    assert_eq!(cluster.commit(txn, "late", &orphan).await, Outcome::TxnAborted);
    assert!(cluster.read(&kept).await == whole);
    assert_eq!(cluster.scrub_everywhere().await, 0);
}

#[tokio::test(start_paused = true)]
async fn orphans_are_found_after_a_clock_was_far_ahead_for_a_while() {
    let cluster = Cluster::new(1, "1+0").await;
    let mut scrub = OrphanScrub::default();
    let mut round = async || scrub.round(&cluster.duties, only(&cluster.disks[0])).await;
    let whole = content(100_000, 1);
    cluster.clock.skew_wall_clock(365 * 24 * 3_600_000);
    let kept = cluster.put("kept", &whole).await;
    cluster.write(TxnId::random(&cluster.env), &whole).await;
    assert_eq!(round().await, 0, "its lease runs");
    cluster.clock.skew_wall_clock(0);
    assert_eq!(round().await, 1, "nobody can say how old it is");
    cluster.write(TxnId::random(&cluster.env), &whole).await;
    cluster.env.sleep(LEASE).await;
    assert_eq!(round().await, 1, "passes are made by the clock as it is now");
    assert!(cluster.read(&kept).await == whole);
}

#[tokio::test(start_paused = true)]
async fn a_commit_before_the_fence_is_never_scrubbed() {
    let cluster = Cluster::new(3, "2+1").await;
    let txn = TxnId::random(&cluster.env);
    let whole = content(1_500_000, 1);
    let entry = cluster.write(txn, &whole).await;
    cluster.env.sleep(LEASE).await;
    assert!(matches!(cluster.commit(txn, "slow", &entry).await, Outcome::Written { .. }));
    assert_eq!(cluster.scrub_everywhere().await, 0);
    assert!(cluster.read(&entry).await == whole);
}

#[tokio::test(start_paused = true)]
async fn a_scrub_that_goes_on_asks_about_every_shard_once() {
    let cluster = Cluster::new(1, "1+0").await;
    let mut scrub = OrphanScrub::default();
    let mut rounds = async || scrub.round(&cluster.duties, only(&cluster.disks[0])).await;
    let orphan = async || cluster.write(TxnId::random(&cluster.env), &content(1000, 1)).await;
    orphan().await;
    cluster.env.sleep(LEASE / 2).await;
    orphan().await;
    assert_eq!(rounds().await, 0);
    cluster.env.sleep(LEASE / 2).await;
    assert_eq!(rounds().await, 1);
    cluster.env.sleep(LEASE / 2).await;
    assert_eq!(rounds().await, 1);
    assert_eq!(rounds().await, 0);
}

#[tokio::test(start_paused = true)]
async fn queued_garbage_is_not_an_orphan() {
    let cluster = Cluster::new(3, "2+1").await;
    cluster.put("object", &content(1000, 1)).await;
    cluster.env.sleep(LEASE).await;
    cluster.delete("object").await;
    assert_eq!(cluster.scrub_everywhere().await, 0, "readers have their grace");
    cluster.env.sleep(GRACE).await;
    assert_eq!(cluster.collect().await, 1);
}

#[tokio::test(start_paused = true)]
async fn a_chunk_written_around_a_lost_node_is_repaired_and_stays_so() {
    let cluster = Cluster::new(4, "2+2").await;
    let whole = content(3_300_000, 1);
    // The map does not know yet that node 3 is gone: its slot stays empty.
    cluster.disconnect(3);
    let written = cluster.put("object", &whole).await;
    let hole = written.shards.iter().position(Option::is_none).unwrap();
    cluster.set_state(3, NodeState::Down);
    assert_eq!(cluster.repair().await, 0, "there is no fourth disk");

    cluster.connect(3);
    cluster.set_state(3, NodeState::Up);
    assert_eq!(cluster.repair().await, 1);
    let repaired = cluster.entry("object").await;
    assert_eq!(repaired.shards[hole], Some(disk_id(3, 0)));
    assert_eq!(cluster.repair().await, 0, "nothing is owed any more");

    // The moved shard belongs to the move's transaction: the scrub must know it as in use.
    cluster.env.sleep(LEASE).await;
    assert_eq!(cluster.scrub_everywhere().await, 0);
    assert_eq!(cluster.shards().await, [1, 1, 1, 1]);
    // With any two of the others lost, the repaired shard carries the chunk.
    for node in 1..3 {
        cluster.disconnect(node);
    }
    assert!(cluster.read(&repaired).await == whole);

    for node in 1..3 {
        cluster.connect(node);
    }
    cluster.delete("object").await;
    cluster.env.sleep(GRACE).await;
    assert_eq!(cluster.collect().await, 1);
    assert_eq!(cluster.shards().await, [0, 0, 0, 0]);
}

#[tokio::test(start_paused = true)]
async fn a_shard_whose_acknowledgement_was_lost_is_taken_back() {
    let cluster = Cluster::new(4, "2+2").await;
    let (whole, txn) = (content(1_500_000, 1), TxnId::random(&cluster.env));
    let mut entry = cluster.write(txn, &whole).await;
    // The disk has it, but the coordinator never heard so.
    let disk = entry.shards[2].take();
    assert!(matches!(cluster.commit(txn, "object", &entry).await, Outcome::Written { .. }));
    assert_eq!(cluster.repair().await, 1);
    assert_eq!(cluster.entry("object").await.shards[2], disk);
    cluster.env.sleep(LEASE).await;
    assert_eq!(cluster.scrub_everywhere().await, 0);
    cluster.delete("object").await;
    cluster.env.sleep(GRACE).await;
    assert_eq!(cluster.collect().await, 1);
    assert_eq!(cluster.shards().await, [0, 0, 0, 0]);

    // When the object goes before it is taken back, it is an orphan.
    let txn = TxnId::random(&cluster.env);
    let mut entry = cluster.write(txn, &whole).await;
    entry.shards[1] = None;
    cluster.commit(txn, "object", &entry).await;
    cluster.delete("object").await;
    cluster.env.sleep(GRACE + LEASE).await;
    assert_eq!(cluster.collect().await, 1);
    assert_eq!(cluster.scrub_everywhere().await, 1);
    assert_eq!(cluster.shards().await, [0, 0, 0, 0]);
}

#[tokio::test(start_paused = true)]
async fn a_shard_repaired_for_a_deleted_object_is_an_orphan_and_nothing_more() {
    let cluster = Cluster::new(4, "2+2").await;
    cluster.disconnect(3);
    let entry = cluster.put("object", &content(1000, 1)).await;
    cluster.connect(3);
    // What a repair does that loses its race: the shard is written, the swap never commits.
    let hole = entry.shards.iter().position(Option::is_none).unwrap();
    let shard = ShardId { chunk: entry.chunk, index: hole as u8 };
    let owner = Owner { txn: TxnId::random(&cluster.env), slot: SHELF.slot() };
    let request = WriteShard { disk: disk_id(3, 0), shard, owner, profile: entry.profile };
    let service = shards(&cluster.env, 3, &cluster.disks[3], &cluster.maps.subscribe(), &Findings::default());
    let units = || futures::stream::iter([Ok(Bytes::from_static(b"unit"))]).boxed();
    service.write_shard(request, units()).await.unwrap();
    service.write_shard(request, units()).await.unwrap();
    // Under another transaction the same bytes are another shard: one of the two would be scrubbed under the other's feet.
    let other = WriteShard { owner: Owner { txn: TxnId::random(&cluster.env), ..owner }, ..request };
    assert!(matches!(service.write_shard(other, units()).await, Err(ShardError::Exists { .. })));
    cluster.env.sleep(LEASE).await;
    assert_eq!(cluster.scrub_everywhere().await, 1);
    assert_eq!(cluster.shards().await, [1, 1, 1, 0]);
    assert_eq!(cluster.repair().await, 1);
}

#[tokio::test(start_paused = true)]
async fn maintenance_checkpoints_compacts_and_forgets() {
    let cluster = Cluster::new(3, "2+1").await;
    let whole = content(1_500_000, 1);
    let entry = cluster.put("object", &whole).await;
    maintenance::disk_round(only(&cluster.disks[0])).await;
    cluster.env.sleep(Duration::from_secs(8 * 24 * 60 * 60)).await;
    maintenance::forget(&cluster.duties, GROUP).await.unwrap();
    maintenance::disk_round(only(&cluster.disks[0])).await;
    assert!(cluster.read(&entry).await == whole);
    assert_eq!(cluster.scrub_everywhere().await, 0, "forgetting outcomes forgets no data");
}
