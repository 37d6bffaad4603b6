//! Shards that manifests name and disks have not got: found, and put back where they belong.

use placement_map::DiskRole;
use placement_types::OpenMode;
use storage_node_proto::damage::{ChunkVerdict, ContentVerdict, DamageReport, Held, ShardVerdict};
use storage_node_proto::upkeep::{GroupSurvey, Work};

use super::*;
use crate::findings::Courier;
use crate::survey::Surveys;

/// How far into a segment the records of these tests reach.
const WRITTEN_BYTES: usize = 16 << 20;

impl Cluster {
    fn disk_of(&self, entry: &ChunkEntry, slot: usize) -> (usize, &LocalDisk, ShardId) {
        let disk = entry.shards[slot].unwrap();
        let node = (0..self.disks.len()).find(|node| disk_id(*node, 0) == disk).unwrap();
        (node, only(&self.disks[node]), ShardId { chunk: entry.chunk, index: slot as u8 })
    }

    /// Takes a shard off its disk, and nobody is told.
    async fn lose(&self, entry: &ChunkEntry, slot: usize) {
        let (_, disk, shard) = self.disk_of(entry, slot);
        disk.store().delete_shards(vec![shard]).await.unwrap();
    }

    /// Overwrites a byte in the first unit of a shard.
    fn rot(&self, entry: &ChunkEntry, slot: usize) {
        let (node, _, shard) = self.disk_of(entry, slot);
        let path = PathBuf::from(format!("/node-{node}/segments/00000000.seg"));
        let file = self.env.fs.open(&path, OpenMode::ReadWrite).unwrap();
        let mut bytes = vec![0; WRITTEN_BYTES];
        let length = file.read_at(&mut bytes, 0).unwrap();
        // The shard's id stands 7 bytes into the record's header of 160.
        let id = shard.to_bytes();
        let at = bytes[..length].windows(id.len()).position(|window| window == id).unwrap() - 7 + 160 + 5;
        file.write_at(&[!bytes[at]], at as u64).unwrap();
    }

    async fn held(&self, entry: &ChunkEntry) -> Vec<Held> {
        let mut all = Vec::new();
        for slot in 0..entry.shards.len() {
            let (_, disk, shard) = self.disk_of(entry, slot);
            let holder = self.duties.holders.holder(disk.id).unwrap();
            all.extend(holder.shards.check_shards(disk.id, vec![shard]).await.unwrap());
        }
        all
    }

    /// Tells the leader what the nodes noted.
    async fn tell(&self, surveys: &Surveys) {
        for (disks, findings) in self.disks.iter().zip(&self.findings) {
            Courier::default().round(&self.duties, disks, findings, surveys).await;
        }
    }

    /// Some looks at what is due.
    async fn look(&self, surveys: &Surveys) -> GroupSurvey {
        for _ in 0..4 {
            self.env.sleep(self.duties.limits.report_rest).await;
            surveys.round(&self.duties).await;
        }
        surveys.report(&self.duties).surveys.into_iter().next().expect("the group was surveyed")
    }

    async fn verify(&self, entry: &ChunkEntry) -> ChunkVerdict {
        self.duties.coordinator.verify_chunk(entry.clone()).await.unwrap()
    }
}

fn whole(slots: usize) -> ChunkVerdict {
    ChunkVerdict { shards: vec![ShardVerdict::Whole; slots], content: ContentVerdict::Right }
}

#[tokio::test(start_paused = true)]
async fn what_a_disk_lost_is_rebuilt_in_place_and_stays() {
    let cluster = Cluster::new(4, "2+2").await;
    let content = content(3_300_000, 1);
    let entry = cluster.put("object", &content).await;
    let other = cluster.put("other", &content).await;
    cluster.lose(&entry, 1).await;
    cluster.lose(&entry, 3).await;
    cluster.lose(&other, 0).await;
    let surveys = Surveys::default();
    surveys.round(&cluster.duties).await;
    assert_eq!(cluster.held(&entry).await, [Held::Whole; 4]);
    assert_eq!(cluster.held(&other).await, [Held::Whole; 4]);
    assert_eq!(cluster.look(&surveys).await.lost, Work::default());
    assert_eq!((cluster.entry("object").await, cluster.entry("other").await), (entry.clone(), other.clone()), "no slot moved");
    assert_eq!(cluster.verify(&entry).await, whole(4));
    // They belong to the transaction that the manifest refers to.
    cluster.env.sleep(LEASE).await;
    assert_eq!(cluster.scrub_everywhere().await, 0);
    cluster.delete("object").await;
    cluster.env.sleep(GRACE).await;
    assert_eq!(cluster.collect().await, 1);
    assert_eq!(cluster.shards().await, [1, 1, 1, 1]);
    assert!(cluster.read(&other).await == content);
}

#[tokio::test(start_paused = true)]
async fn a_repaired_shard_that_is_lost_again_keeps_its_own_transaction() {
    let cluster = Cluster::new(4, "2+2").await;
    cluster.disconnect(3);
    let written = cluster.put("object", &content(3_300_000, 1)).await;
    let hole = written.shards.iter().position(Option::is_none).unwrap();
    cluster.connect(3);
    assert_eq!(cluster.repair().await, 1);
    let entry = cluster.entry("object").await;
    cluster.lose(&entry, hole).await;
    let surveys = Surveys::default();
    surveys.round(&cluster.duties).await;
    assert_eq!(cluster.held(&entry).await, [Held::Whole; 4]);
    // The transaction that filled the slot, not the record's: the claim on the latter may go first.
    cluster.env.sleep(LEASE).await;
    assert_eq!(cluster.scrub_everywhere().await, 0);
    assert_eq!(cluster.verify(&entry).await, whole(4));
}

#[tokio::test(start_paused = true)]
async fn a_read_that_meets_a_bad_shard_is_served_and_has_it_repaired_soon() {
    let cluster = Cluster::new(4, "2+2").await;
    let content = content(3_300_000, 1);
    let entry = cluster.put("object", &content).await;
    let untouched = cluster.put("untouched", &content).await;
    let surveys = Surveys::default();
    assert_eq!(cluster.look(&surveys).await.lost, Work::default());
    cluster.rot(&entry, 0);
    cluster.lose(&entry, 1).await;
    cluster.rot(&untouched, 2);
    cluster.env.sleep(Duration::from_secs(10)).await;
    surveys.round(&cluster.duties).await;
    assert_eq!(cluster.held(&entry).await[1], Held::Missing, "nobody has a reason to look");

    for _ in 0..3 {
        assert!(cluster.read(&entry).await == content);
    }
    cluster.tell(&surveys).await;
    assert_eq!(cluster.held(&entry).await[..2], [Held::Damaged, Held::Missing], "what is bad does not count as held");
    assert_eq!(cluster.look(&surveys).await.lost, Work::default());
    assert_eq!(cluster.held(&entry).await, [Held::Whole; 4]);
    assert_eq!(cluster.verify(&entry).await, whole(4));
    assert_eq!(cluster.entry("object").await, entry);
    // A parity shard that no reader needs is met by a verification.
    let verdict = cluster.verify(&untouched).await;
    assert!(matches!(verdict.shards[2], ShardVerdict::Corrupt { .. }), "{verdict:?}");
    assert_eq!(verdict.content, ContentVerdict::Right);
    cluster.tell(&surveys).await;
    cluster.look(&surveys).await;
    assert_eq!(cluster.verify(&untouched).await, whole(4));
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_comes_back_or_is_reported_is_asked_what_it_has() {
    let cluster = Cluster::new(4, "2+2").await;
    let entry = cluster.put("object", &content(3_300_000, 1)).await;
    let surveys = Surveys::default();
    cluster.look(&surveys).await;
    let (node, disk, _) = cluster.disk_of(&entry, 2);

    cluster.disconnect(node);
    cluster.set_state(node, NodeState::Down);
    assert_eq!(cluster.look(&surveys).await.lost, Work::default(), "a disk that does not answer has lost nothing");
    cluster.lose(&entry, 2).await;
    cluster.connect(node);
    cluster.set_state(node, NodeState::Up);
    cluster.look(&surveys).await;
    assert_eq!(cluster.held(&entry).await, [Held::Whole; 4]);

    cluster.lose(&entry, 2).await;
    surveys.reports.note(&DamageReport::Disk { disk: disk.id });
    cluster.look(&surveys).await;
    assert_eq!(cluster.held(&entry).await, [Held::Whole; 4]);

    cluster.lose(&entry, 2).await;
    cluster.look(&surveys).await;
    assert_eq!(cluster.held(&entry).await[2], Held::Missing);
    cluster.env.sleep(cluster.maps.borrow().as_ref().unwrap().settings.scrub_cycle).await;
    cluster.look(&surveys).await;
    assert_eq!(cluster.held(&entry).await, [Held::Whole; 4], "once in a cycle everything is asked about");
}

#[tokio::test(start_paused = true)]
async fn what_cannot_go_back_goes_elsewhere() {
    let cluster = Cluster::new(5, "2+2").await;
    let content = content(3_300_000, 1);
    let entry = cluster.put("object", &content).await;
    let (_, disk, _) = cluster.disk_of(&entry, 1);
    let drained = disk.id;
    cluster.lose(&entry, 1).await;
    cluster.maps.send_modify(|map| {
        let mut changed = map.as_deref().cloned().unwrap();
        changed.disks.get_mut(&drained).unwrap().role = DiskRole::Draining;
        *map = Some(Arc::new(changed));
    });
    let surveys = Surveys::default();
    cluster.look(&surveys).await;
    let moved = cluster.entry("object").await;
    assert_ne!(moved.shards[1], Some(drained));
    assert_eq!(cluster.verify(&moved).await, whole(4));
    assert!(cluster.read(&moved).await == content);
}

#[tokio::test(start_paused = true)]
async fn too_many_bad_shards_are_an_error_and_never_wrong_bytes() {
    let cluster = Cluster::new(4, "2+2").await;
    let content = content(900_000, 1);
    let entry = cluster.put("object", &content).await;
    let surveys = Surveys::default();
    cluster.look(&surveys).await;
    [0, 1, 2].iter().for_each(|slot| cluster.rot(&entry, *slot));
    let whole = placement_types::ByteRange::new(0, 900_000).unwrap();
    assert!(cluster.duties.coordinator.read_chunk(entry.clone(), whole).await.is_err());
    cluster.tell(&surveys).await;
    let survey = cluster.look(&surveys).await;
    assert_eq!((survey.gone.chunks, survey.lost.shards), (1, 3));
    assert_eq!(cluster.entry("object").await, entry, "nothing is given up");
    let verdict = cluster.verify(&entry).await;
    assert_eq!(verdict.content, ContentVerdict::Lost);
    assert_eq!(verdict.shards.iter().filter(|shard| matches!(shard, ShardVerdict::Corrupt { .. })).count(), 3);
}

#[tokio::test(start_paused = true)]
async fn rot_in_different_stripes_of_every_shard_is_repaired_from_what_is_sound() {
    let cluster = Cluster::new(3, "2+1").await;
    let content = content(3_300_000, 1);
    let entry = cluster.put("object", &content).await;
    let surveys = Surveys::default();
    cluster.look(&surveys).await;
    // The first unit of one shard, and the second of another.
    cluster.rot(&entry, 0);
    let (node, _, shard) = cluster.disk_of(&entry, 1);
    let path = PathBuf::from(format!("/node-{node}/segments/00000000.seg"));
    let file = cluster.env.fs.open(&path, OpenMode::ReadWrite).unwrap();
    let mut bytes = vec![0; WRITTEN_BYTES];
    let length = file.read_at(&mut bytes, 0).unwrap();
    let id = shard.to_bytes();
    let second = bytes[..length].windows(id.len()).enumerate().filter(|(_, window)| *window == id).nth(1).unwrap().0 - 7 + 160;
    file.write_at(&[!bytes[second]], second as u64).unwrap();
    let verdict = cluster.verify(&entry).await;
    assert_eq!(verdict.content, ContentVerdict::Right);
    assert_eq!(verdict.shards.iter().filter(|shard| matches!(shard, ShardVerdict::Corrupt { .. })).count(), 2);
    cluster.tell(&surveys).await;
    cluster.look(&surveys).await;
    assert_eq!(cluster.verify(&entry).await, whole(3));
    assert!(cluster.read(&entry).await == content);
}

#[tokio::test(start_paused = true)]
async fn the_scrub_reads_everything_once_in_a_cycle_and_has_what_is_bad_repaired() {
    let cluster = Cluster::new(4, "2+2").await;
    let content = content(3_300_000, 1);
    let entry = cluster.put("object", &content).await;
    let surveys = Surveys::default();
    cluster.look(&surveys).await;
    cluster.rot(&entry, 2);
    let (node, disk, _) = cluster.disk_of(&entry, 2);
    let scrub = crate::scrub::run(&cluster.duties, disk, &cluster.findings[node]);
    let _ = cluster.env.timeout(Duration::from_secs(60), scrub).await;
    let (at, tally) = disk.report(Duration::from_secs(1)).await.scrub.finished.expect("a small disk is scrubbed at once");
    assert_eq!((tally.shards, tally.damaged, tally.dark), (1, 1, 0));
    assert_eq!(disk.report(Duration::from_secs(1)).await.quarantined, 1);
    cluster.tell(&surveys).await;
    cluster.look(&surveys).await;
    assert_eq!(cluster.verify(&entry).await, whole(4));
    assert_eq!(disk.report(Duration::from_secs(1)).await.quarantined, 0);

    // A restart does not begin another cycle before its time.
    let day = Duration::from_secs(24 * 60 * 60);
    for (waited, cycles) in [(day, 0), (14 * day, 1)] {
        let _ = cluster.env.timeout(waited, crate::scrub::run(&cluster.duties, disk, &cluster.findings[node])).await;
        let again = disk.report(Duration::from_secs(1)).await.scrub.finished.unwrap();
        assert_eq!(usize::from(again.0 > at), cycles);
        assert_eq!(again.1.damaged, 1 - cycles as u64);
    }
}
