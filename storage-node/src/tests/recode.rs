//! Re-coding by survey: old chunks get the profile of new ones, whatever else happens to them meanwhile.

use placement_map::DiskRole;
use storage_node_proto::upkeep::Work;

use super::*;
use crate::recode::recode;

impl Cluster {
    fn set_profile(&self, profile: &str) {
        self.change_map(|map| map.profile = profile.parse().unwrap());
    }

    /// Every object is coded like this, has all of its shards, and reads back.
    async fn assert_coded(&self, objects: &[(String, Bytes)], profile: &str) {
        let profile: Profile = profile.parse().unwrap();
        for (name, whole) in objects {
            let entry = self.entry(name).await;
            assert_eq!(entry.profile, profile, "{name}");
            assert_eq!(slot_disks(&entry).len(), profile.width(), "{name}");
            assert!(self.read(&entry).await == *whole, "{name}");
        }
    }

    /// The chunk of an object as a survey tells of it.
    async fn filed(&self, name: &str) -> FiledChunk {
        self.surveyed().await.into_iter().map(|chunk| chunk.filed).find(|filed| filed.key == key(name)).unwrap()
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_written_on_one_disk_is_coded_over_many_and_the_old_shards_go() {
    let mut cluster = Cluster::new(4, "1+0").await;
    // At first as if there were one disk.
    for node in 1..4 {
        cluster.change_map(|map| map.disks.get_mut(&disk_id(node, 0)).unwrap().role = DiskRole::Joining);
    }
    let objects = cluster.put_many(20).await;
    assert_eq!(cluster.shards().await, [20, 0, 0, 0]);
    let surveys = Surveys::default();
    assert_eq!(cluster.settle(&surveys).await.outdated, Work::default());

    // Taken in and wanted wider at once: nothing is moved that would be coded anew anyway.
    cluster.change_map(|map| map.disks.values_mut().for_each(|disk| disk.role = DiskRole::InUse));
    cluster.set_profile("2+2");
    cluster.profile = "2+2".parse().unwrap();
    let before = cluster.entry("object-000").await;
    let survey = cluster.settle(&surveys).await;
    assert_eq!((survey.outdated, survey.misplaced), (Work::default(), Work::default()));
    assert_eq!(
        survey.profiles.iter().map(|(profile, coded)| (profile.to_string(), coded.keys)).collect::<Vec<_>>(),
        [("2+2".into(), 20)]
    );
    let [(_, whole), ..] = &objects[..] else { panic!() };
    assert!(cluster.read(&before).await == *whole, "a reader under way still has the old shards");
    assert_eq!(cluster.shards().await, [40, 20, 20, 20]);
    let per_object = 4 * cluster.entry("object-000").await.shard_bytes();
    let written = surveys.report(&cluster.duties).bytes_total;
    assert!((20 * per_object..20 * per_object + 20_000).contains(&written), "each chunk is written once: {written}");

    cluster.env.sleep(GRACE).await;
    assert_eq!(cluster.collect().await, 20);
    assert_eq!(cluster.shards().await, [20; 4]);
    // The shards are known as in use, under the transaction of the swap.
    cluster.env.sleep(LEASE).await;
    assert_eq!(cluster.scrub_everywhere().await, 0);
    for pair in [[1, 2], [2, 3], [1, 3]] {
        pair.iter().for_each(|node| cluster.disconnect(*node));
        cluster.assert_coded(&objects, "2+2").await;
        pair.iter().for_each(|node| cluster.connect(*node));
    }
    // And a slot of such a chunk moves like any other.
    let drained = cluster.entry("object-000").await.shards[0].unwrap();
    cluster.set_profile("2+1");
    cluster.change_map(|map| map.disks.get_mut(&drained).unwrap().role = DiskRole::Draining);
    assert_eq!(cluster.settle(&surveys).await.leaving, Work::default());
    cluster.assert_coded(&objects, "2+1").await;
    for (name, _) in &objects {
        cluster.delete(name).await;
    }
    cluster.collect_all().await;
    assert_eq!(cluster.shards().await, [0; 4]);
}

#[tokio::test(start_paused = true)]
async fn a_chunk_waits_as_it_is_until_the_wanted_coding_fits_in_full() {
    let cluster = Cluster::new(4, "1+1").await;
    let objects = cluster.put_many(5).await;
    let surveys = Surveys::default();
    cluster.set_state(3, NodeState::Down);
    cluster.set_profile("2+2");
    let survey = cluster.settle(&surveys).await;
    assert_eq!((survey.outdated.shards, survey.outdated.stuck), (20, 20));
    cluster.assert_coded(&objects, "1+1").await;
    assert_eq!(surveys.report(&cluster.duties).bytes_total, 0);
    // The map says that all are there, but one does not answer: what was written is taken back.
    let before = cluster.shards().await;
    cluster.disconnect(3);
    cluster.set_state(3, NodeState::Up);
    cluster.settle(&surveys).await;
    for (name, _) in &objects {
        assert_eq!(cluster.entry(name).await.profile, "1+1".parse().unwrap());
    }
    assert_eq!(cluster.shards().await, before);
    cluster.connect(3);
    cluster.env.sleep(cluster.duties.limits.survey_rest).await;
    assert_eq!(cluster.settle(&surveys).await.outdated, Work::default());
    cluster.assert_coded(&objects, "2+2").await;
}

#[tokio::test(start_paused = true)]
async fn an_object_that_changes_while_it_is_coded_anew_keeps_its_change() {
    let cluster = Cluster::new(4, "1+1").await;
    let [old, new] = [1, 2].map(|seed| content(1_500_000, seed));
    for name in ["deleted", "overwritten", "moved"] {
        cluster.put(name, &old).await;
    }
    cluster.set_profile("2+2");
    let map = cluster.maps.borrow().clone().unwrap();
    let deleted = cluster.filed("deleted").await;
    let overwritten = cluster.filed("overwritten").await;
    let moved = cluster.filed("moved").await;
    cluster.delete("deleted").await;
    let replacement = cluster.put("overwritten", &new).await;
    let free = *map.disks.keys().find(|disk| !moved.entry.shards.contains(&Some(**disk))).unwrap();
    let change = Change::MoveShard {
        shelf: moved.shelf,
        key: moved.key.clone(),
        owner: moved.owner,
        chunk: moved.entry.chunk,
        index: 0,
        from: moved.entry.shards[0],
        to: Some(free),
    };
    assert_eq!(cluster.propose(TxnId::random(&cluster.env), change).await, Outcome::Done);

    // The re-coding had read the entries before all that. It loses, and leaves no shard behind.
    let before = cluster.shards().await;
    for stale in [&deleted, &overwritten, &moved] {
        assert!(!recode(&cluster.duties, GROUP, stale, &map).await.unwrap());
    }
    assert_eq!(cluster.shards().await, before);
    assert_eq!(cluster.entry("overwritten").await, replacement);
    assert!(cluster.get("overwritten").await == new);
    assert_eq!(cluster.entry("moved").await.shards[0], Some(free));
}

#[tokio::test(start_paused = true)]
async fn a_crash_between_write_and_swap_leaves_the_old_chunk_and_orphans_that_go() {
    let cluster = Cluster::new(4, "1+1").await;
    let whole = content(1_500_000, 1);
    cluster.put("object", &whole).await;
    let filed = cluster.filed("object").await;
    cluster.set_profile("2+2");
    // As the leader does before it dies.
    let txn = TxnId::random(&cluster.env);
    let owner = Owner { txn, slot: SHELF.slot() };
    let request = WriteChunk {
        chunk: ChunkId::random(&cluster.env),
        owner,
        profile: "2+2".parse().unwrap(),
        bytes: Some(filed.entry.bytes),
    };
    let unlisted = cluster.duties.coordinator.write_planned(&request, 4, body(&whole, 1 << 20)).await.unwrap();
    assert_eq!(cluster.shards().await.iter().sum::<usize>(), 6);

    // The next one begins anew.
    let surveys = Surveys::default();
    cluster.settle(&surveys).await;
    let entry = cluster.entry("object").await;
    assert_eq!(entry.profile, "2+2".parse().unwrap());
    assert_ne!(entry.chunk, unlisted.chunk);
    cluster.env.sleep(LEASE).await;
    assert_eq!(cluster.collect().await, 1);
    assert_eq!(cluster.scrub_everywhere().await, 4, "the unlisted shards, and only those");
    assert_eq!(cluster.shards().await, [1; 4]);
    assert!(cluster.get("object").await == whole);
    // Its swap comes late: it was fenced.
    let change = Change::Recode { shelf: filed.shelf, key: filed.key, owner: filed.owner, from: filed.entry, to: unlisted };
    assert_eq!(cluster.propose(txn, change).await, Outcome::TxnAborted);
    assert!(cluster.get("object").await == whole);
}

#[tokio::test(start_paused = true)]
async fn two_leaders_that_code_the_same_chunk_anew_leave_one_coding() {
    let cluster = Cluster::new(4, "1+1").await;
    let whole = content(1_500_000, 1);
    cluster.put("object", &whole).await;
    cluster.set_profile("2+2");
    let map = cluster.maps.borrow().clone().unwrap();
    let filed = cluster.filed("object").await;
    let (one, two) = futures::join!(recode(&cluster.duties, GROUP, &filed, &map), recode(&cluster.duties, GROUP, &filed, &map));
    assert_eq!([one.unwrap(), two.unwrap()].iter().filter(|done| **done).count(), 1);
    cluster.env.sleep(GRACE).await;
    assert_eq!(cluster.collect().await, 1);
    assert_eq!(cluster.shards().await, [1; 4]);
    assert!(cluster.get("object").await == whole);
}
