//! Repair and rebalance by survey: lost nodes, drained disks, misplaced shards, and what is told of them.

use placement_map::{DiskRole, DiskState};
use storage_node_proto::query::SurveyedChunk;
use storage_node_proto::upkeep::{Tally, Work};

use super::*;
use crate::limits::LAYOUT_CONFIRM;

impl Cluster {
    async fn assert_all(&self, objects: &[(String, Bytes)]) {
        for (name, whole) in objects {
            let entry = self.entry(name).await;
            assert!(self.read(&entry).await == *whole, "{name}");
        }
    }

    async fn disks_in_use(&self, objects: &[(String, Bytes)]) -> Vec<DiskId> {
        let mut disks = Vec::new();
        for (name, _) in objects {
            let entry = self.entry(name).await;
            assert_eq!(entry.shards.iter().flatten().count(), self.profile.width(), "{name} has all its shards");
            disks.extend(slot_disks(&entry));
        }
        disks
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_lost_node_held_is_rebuilt_elsewhere_and_only_after_it_is_given_up() {
    let cluster = Cluster::new(6, "2+2").await;
    let objects = cluster.put_many(30).await;
    let surveys = Surveys::default();
    cluster.disconnect(3);
    cluster.set_state(3, NodeState::Down);
    let survey = cluster.settle(&surveys).await;
    assert_eq!(survey.lost, Work::default(), "a node that is down is waited for");
    assert!(cluster.disks_in_use(&objects).await.contains(&disk_id(3, 0)));
    assert_eq!(survey.all.keys, 30);
    let at_risk: u64 = survey.without_node.iter().map(|(_, tally)| tally.chunks).sum();
    assert_eq!((survey.unreadable, at_risk), (Tally::default(), 0), "2+2 bears one more");

    cluster.set_state(3, NodeState::Lost);
    let survey = cluster.settle(&surveys).await;
    assert_eq!(survey.lost, Work::default(), "all is rebuilt: {survey:?}");
    assert!(!cluster.disks_in_use(&objects).await.contains(&disk_id(3, 0)));
    assert!(surveys.report(&cluster.duties).bytes_total > 0);
    assert!(cluster.asked_to_restore.load(Ordering::Relaxed) > 0, "whoever gets a shard restores it");
    // Any two nodes may go again.
    for pair in [[1, 2], [4, 5], [2, 4]] {
        pair.iter().for_each(|node| cluster.disconnect(*node));
        cluster.assert_all(&objects).await;
        pair.iter().for_each(|node| cluster.connect(*node));
    }

    // It comes back with its old shards: they are garbage of the moves, and go.
    cluster.connect(3);
    cluster.set_state(3, NodeState::Up);
    cluster.collect_all().await;
    assert_eq!(cluster.shards().await[3], 0);
    cluster.assert_all(&objects).await;
}

#[tokio::test(start_paused = true)]
async fn a_drained_disk_ends_with_no_shard_and_everything_stays_readable() {
    let cluster = Cluster::new(6, "2+2").await;
    let objects = cluster.put_many(30).await;
    let surveys = Surveys::default();
    let drained = disk_id(2, 0);
    cluster.change_map(|map| map.disks.get_mut(&drained).unwrap().role = DiskRole::Draining);
    let before = cluster.disks_in_use(&objects).await.iter().filter(|disk| **disk == drained).count();
    assert!(before > 0);
    let survey = cluster.settle(&surveys).await;
    assert_eq!((survey.leaving, survey.lost), (Work::default(), Work::default()));
    assert!(!cluster.disks_in_use(&objects).await.contains(&drained));
    let holdings = Query::Holdings { disks: vec![drained], after: None, limit: 1000 };
    let held = cluster.meta.query(GROUP, holdings).await.unwrap();
    assert_eq!(held, Answer::Holdings { shards: 0, bytes: 0, next: None });
    cluster.assert_all(&objects).await;
    assert_eq!(cluster.shards().await[2], before, "readers under way still find the old shards");
    cluster.collect_all().await;
    assert_eq!(cluster.shards().await[2], 0);
    let (held, named) = (cluster.shards().await.iter().sum::<usize>(), cluster.disks_in_use(&objects).await.len());
    assert_eq!(held, named, "a shard is garbage where it was, not where it is");
    cluster.env.sleep(LEASE).await;
    assert_eq!(cluster.scrub_everywhere().await, 0, "moved shards are in use");
    cluster.assert_all(&objects).await;
}

#[tokio::test(start_paused = true)]
async fn a_disk_kept_for_a_moment_is_drained_again_and_late_writes_are_found() {
    let cluster = Cluster::new(6, "2+2").await;
    let mut objects = cluster.put_many(10).await;
    let surveys = Surveys::default();
    let drained = disk_id(2, 0);
    let set_role = |role| {
        cluster.change_map(|map| {
            map.layout += 1;
            map.disks.get_mut(&drained).unwrap().role = role;
        });
    };
    set_role(DiskRole::Draining);
    cluster.settle(&surveys).await;
    // Nobody looks while the disk is in use.
    set_role(DiskRole::InUse);
    objects.extend(cluster.put_some("between", 30).await);
    assert!(cluster.disks_in_use(&objects).await.contains(&drained));
    set_role(DiskRole::Draining);
    cluster.settle(&surveys).await;
    assert!(!cluster.disks_in_use(&objects).await.contains(&drained));

    // A gateway that has not heard of it commits to the disk after all was surveyed.
    let role = |role| cluster.change_map(|map| map.disks.get_mut(&drained).unwrap().role = role);
    role(DiskRole::InUse);
    objects.extend(cluster.put_some("late", 30).await);
    role(DiskRole::Draining);
    assert!(cluster.disks_in_use(&objects).await.contains(&drained));
    cluster.env.sleep(LAYOUT_CONFIRM).await;
    cluster.settle(&surveys).await;
    assert!(!cluster.disks_in_use(&objects).await.contains(&drained));
    cluster.assert_all(&objects).await;
}

#[tokio::test(start_paused = true)]
async fn a_disk_is_drained_onto_one_that_was_drained_a_moment_ago() {
    let cluster = Cluster::new(5, "2+2").await;
    let objects = cluster.put_many(30).await;
    let surveys = Surveys::default();
    let drain = |node: usize| {
        cluster.change_map(|map| {
            map.disks.values_mut().for_each(|disk| disk.role = DiskRole::InUse);
            map.disks.get_mut(&disk_id(node, 0)).unwrap().role = DiskRole::Draining;
        });
    };
    drain(2);
    assert_eq!(cluster.settle(&surveys).await.leaving, Work::default());
    // What came from disk 2 to disk 0 has only disk 2 to go to, and may not.
    let alone = |chunk: &SurveyedChunk| match chunk.departed[..] {
        [(index, left)] => left == disk_id(2, 0) && chunk.filed.entry.shards[usize::from(index)] == Some(disk_id(0, 0)),
        _ => false,
    };
    let cornered = cluster.surveyed().await.iter().filter(|chunk| alone(chunk)).count();
    assert!(cornered > 0);
    drain(0);
    let survey = cluster.settle(&surveys).await;
    assert_eq!((survey.leaving, survey.lost), (Work::default(), Work::default()));
    assert!(!cluster.disks_in_use(&objects).await.contains(&disk_id(0, 0)));
    cluster.assert_all(&objects).await;
    cluster.collect_all().await;
    let (held, named) = (cluster.shards().await.iter().sum::<usize>(), cluster.disks_in_use(&objects).await.len());
    assert_eq!((held, cluster.shards().await[0]), (named, 0));
    cluster.env.sleep(LEASE).await;
    assert_eq!(cluster.scrub_everywhere().await, 0);
    cluster.assert_all(&objects).await;
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_fails_while_it_is_drained_is_rebuilt_from_the_others() {
    let cluster = Cluster::new(6, "2+2").await;
    let objects = cluster.put_many(10).await;
    let drained = disk_id(2, 0);
    cluster.change_map(|map| map.disks.get_mut(&drained).unwrap().role = DiskRole::Draining);
    cluster.disconnect(2);
    let surveys = Surveys::default();
    let survey = cluster.settle(&surveys).await;
    assert_eq!(survey.leaving, Work::default(), "{survey:?}");
    assert!(!cluster.disks_in_use(&objects).await.contains(&drained));
    cluster.assert_all(&objects).await;
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_did_not_take_a_shard_is_tried_again_under_the_same_map() {
    let cluster = Cluster::new(5, "2+2").await;
    let objects = cluster.put_many(10).await;
    let surveys = Surveys::default();
    // Nothing of what follows is left to the survey that confirms the layout.
    cluster.settle(&surveys).await;
    cluster.env.sleep(LAYOUT_CONFIRM).await;
    cluster.settle(&surveys).await;
    let drained = disk_id(2, 0);
    cluster.change_map(|map| map.disks.get_mut(&drained).unwrap().role = DiskRole::Draining);
    // It is gone for too short a time for the map to say so. Each chunk has one disk left to go to.
    cluster.disconnect(4);
    let chunks = cluster.surveyed().await;
    let waiting = cluster.settle(&surveys).await.leaving;
    assert!(waiting.shards > 0 && waiting.stuck == waiting.shards, "{waiting:?}");
    cluster.connect(4);
    // It is back before its rest is over: nothing is written but the shards that had to leave.
    cluster.env.sleep(cluster.duties.limits.survey_rest).await;
    assert_eq!(cluster.settle(&surveys).await.leaving, waiting);
    cluster.env.sleep(Duration::from_secs(90)).await;
    let survey = cluster.settle(&surveys).await;
    assert_eq!((survey.leaving, survey.lost), (Work::default(), Work::default()));
    assert!(!cluster.disks_in_use(&objects).await.contains(&drained));
    let ids = |chunks: &[SurveyedChunk]| chunks.iter().map(|chunk| chunk.filed.entry.chunk).collect::<Vec<_>>();
    assert_eq!(ids(&cluster.surveyed().await), ids(&chunks));
    cluster.assert_all(&objects).await;
}

#[tokio::test(start_paused = true)]
async fn an_orphan_in_the_only_place_left_keeps_nobody_from_full_redundancy() {
    let cluster = Cluster::new(5, "2+2").await;
    let objects = cluster.put_many(3).await;
    let surveys = Surveys::default();
    // Somebody who rebuilt or moved the shards of node 1 died before the swap.
    for chunk in cluster.surveyed().await {
        let entry = &chunk.filed.entry;
        let Some(index) = entry.shards.iter().position(|disk| *disk == Some(disk_id(1, 0))) else { continue };
        let free = (0..5).map(|node| disk_id(node, 0)).find(|disk| !entry.shards.contains(&Some(*disk))).unwrap();
        let shard = ShardId { chunk: entry.chunk, index: u8::try_from(index).unwrap() };
        let holder = |disk| cluster.duties.holders.holder(disk).unwrap();
        let stripes = u32::try_from(entry.profile.stripes(entry.bytes.into())).unwrap();
        let units = holder(disk_id(1, 0)).shards.read_units(disk_id(1, 0), shard, 0, stripes).await.unwrap();
        let owner = Owner { txn: TxnId::random(&cluster.env), slot: chunk.filed.shelf.slot() };
        let request = WriteShard { disk: free, shard, owner, profile: entry.profile };
        holder(free).shards.write_shard(request, units.boxed()).await.unwrap();
    }
    cluster.disconnect(1);
    cluster.set_state(1, NodeState::Lost);
    assert!(cluster.settle(&surveys).await.lost.shards > 0, "the orphans are in the way");
    let began = cluster.env.monotonic();
    while cluster.settle(&surveys).await.lost != Work::default() {
        assert!(cluster.env.monotonic() - began < Duration::from_secs(300));
        cluster.env.sleep(cluster.duties.limits.survey_rest).await;
    }
    assert!(!cluster.disks_in_use(&objects).await.contains(&disk_id(1, 0)));
    cluster.assert_all(&objects).await;
}

#[tokio::test(start_paused = true)]
async fn shards_follow_the_ring_to_a_new_node() {
    let cluster = Cluster::new(6, "2+2").await;
    // At first as if node 5 had not come yet.
    let new = disk_id(5, 0);
    cluster.change_map(|map| map.disks.get_mut(&new).unwrap().role = DiskRole::Joining);
    let objects = cluster.put_many(30).await;
    assert!(!cluster.disks_in_use(&objects).await.contains(&new));
    let surveys = Surveys::default();
    cluster.settle(&surveys).await;
    let moved_before = surveys.report(&cluster.duties).bytes_total;
    assert_eq!(moved_before, 0);
    cluster.change_map(|map| map.disks.get_mut(&new).unwrap().role = DiskRole::InUse);
    let survey = cluster.settle(&surveys).await;
    assert_eq!(survey.misplaced, Work::default());
    for (name, _) in &objects {
        let entry = cluster.entry(name).await;
        let map = cluster.maps.borrow().clone().unwrap();
        let mut homes: Vec<DiskId> = map.plan_home(entry.chunk, entry.profile).into_iter().flatten().collect();
        let mut now = slot_disks(&entry);
        homes.sort_unstable();
        now.sort_unstable();
        assert_eq!(now, homes);
    }
    cluster.assert_all(&objects).await;
}

#[tokio::test(start_paused = true)]
async fn the_risk_view_counts_what_hangs_on_one_more_failure() {
    let cluster = Cluster::new(4, "2+2").await;
    cluster.put_many(5).await;
    let surveys = Surveys::default();
    let healthy = cluster.settle(&surveys).await;
    assert_eq!(healthy.margins.iter().map(|tally| tally.chunks).collect::<Vec<_>>(), [0, 0, 5]);
    assert_eq!((healthy.without_disk.len(), healthy.without_node.len()), (0, 0));
    // All nodes are in one zone.
    assert_eq!(healthy.without_zone.iter().map(|(_, tally)| (tally.keys, tally.chunks)).collect::<Vec<_>>(), [(5, 5)]);

    cluster.set_state(1, NodeState::Down);
    cluster.change_map(|map| map.disks.get_mut(&disk_id(2, 0)).unwrap().state = DiskState::Dead);
    let degraded = cluster.settle(&surveys).await;
    let hanging: Vec<DiskId> = degraded.without_disk.iter().map(|(disk, _)| *disk).collect();
    assert_eq!(hanging, [disk_id(0, 0), disk_id(3, 0)]);
    assert!(degraded.without_node.iter().all(|(_, tally)| (tally.keys, tally.chunks) == (5, 5)), "{degraded:?}");
    assert_eq!(degraded.unreadable, Tally::default());

    cluster.set_state(3, NodeState::Lost);
    let broken = cluster.settle(&surveys).await;
    assert_eq!((broken.unreadable.keys, broken.gone.keys), (5, 0));
    assert_eq!((broken.lost.shards, broken.lost.stuck), (5, 5), "there is nowhere to rebuild, and nothing to do it from");
}
