//! The coordinator against disks in memory that misbehave. Time is paused: whatever waits for ever is passed by deadlines only.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::StreamExt;
use placement_env::sim;
use placement_map::{DiskState, NodeState};
use placement_types::{ByteRange, DiskId, Env, Profile, ShardId};
use proptest::prelude::*;
use storage_node_proto::api::{ByteStream, ChunkApi, ChunkError, WriteChunk};
use storage_node_proto::object::ChunkEntry;

use crate::doubles::{FakeCluster, Fault, body, chunk_id, content, disk_id, node_id, owner};

const MIB: usize = 1 << 20;

fn env() -> Env {
    sim::env(1).0
}

fn profile(text: &str) -> Profile {
    text.parse().unwrap()
}

/// One disk on each of k+m nodes, or more nodes.
fn cluster(text: &str, nodes: usize) -> FakeCluster {
    FakeCluster::new(&env(), nodes, 1, profile(text))
}

fn request(text: &str, number: u128) -> WriteChunk {
    WriteChunk { chunk: chunk_id(number), owner: owner(number), profile: profile(text), bytes: None }
}

async fn write(cluster: &FakeCluster, text: &str, number: u128, whole: &Bytes) -> Result<ChunkEntry, ChunkError> {
    cluster.coordinator.write_chunk(request(text, number), body(whole, 100_000)).await
}

async fn gather(mut stream: ByteStream<ChunkError>) -> Result<Vec<u8>, ChunkError> {
    let mut whole = Vec::new();
    while let Some(piece) = stream.next().await {
        whole.extend_from_slice(&piece?);
    }
    Ok(whole)
}

async fn read(cluster: &FakeCluster, entry: &ChunkEntry, start: usize, end: usize) -> Result<Vec<u8>, ChunkError> {
    let range = ByteRange::new(start as u64, end as u64).unwrap();
    gather(cluster.coordinator.read_chunk(entry.clone(), range).await?).await
}

async fn assert_whole(cluster: &FakeCluster, entry: &ChunkEntry, whole: &Bytes) {
    let got = read(cluster, entry, 0, whole.len()).await.unwrap();
    assert!(got == *whole, "{} bytes came back wrong", whole.len());
}

fn shard(entry: &ChunkEntry, index: usize) -> (DiskId, ShardId) {
    (entry.shards[index].unwrap(), ShardId { chunk: entry.chunk, index: index as u8 })
}

fn missing(entry: &ChunkEntry) -> usize {
    entry.shards.iter().filter(|shard| shard.is_none()).count()
}

#[tokio::test(start_paused = true)]
async fn a_chunk_comes_back_whole_under_every_profile() {
    for (number, text) in ["1+0", "1+1", "1+2", "2+1", "2+2", "3+2", "4+2", "8+4"].into_iter().enumerate() {
        let cluster = cluster(text, profile(text).width());
        for (at, bytes) in [1, 5, 100, MIB - 1, MIB, MIB + 1, 3 * MIB + 12_345, 16 * MIB].into_iter().enumerate() {
            let whole = content(bytes, at as u64);
            let entry = write(&cluster, text, (number * 100 + at) as u128, &whole).await.unwrap();
            assert_eq!((entry.bytes as usize, missing(&entry)), (bytes, 0), "{text} {bytes}");
            assert_eq!(entry.hash, *blake3::hash(&whole).as_bytes());
            assert_whole(&cluster, &entry, &whole).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn any_m_shards_may_be_lost_or_rotten() {
    let whole = content(2 * MIB + 777, 1);
    for text in ["1+2", "2+2", "4+2"] {
        let width = profile(text).width();
        for first in 0..width {
            for second in first + 1..width {
                let cluster = cluster(text, width);
                let entry = write(&cluster, text, 7, &whole).await.unwrap();
                let ((lost, lost_shard), (rotten, rotten_shard)) = (shard(&entry, first), shard(&entry, second));
                cluster.disks.lose(lost, lost_shard);
                cluster.disks.rot(rotten, rotten_shard, 1);
                assert_whole(&cluster, &entry, &whole).await;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_chunk_with_too_few_shards_is_an_error_before_the_first_byte() {
    let cluster = cluster("2+2", 4);
    let whole = content(3 * MIB, 1);
    let entry = write(&cluster, "2+2", 1, &whole).await.unwrap();
    for index in 0..3 {
        let (disk, shard) = shard(&entry, index);
        cluster.disks.lose(disk, shard);
    }
    let range = ByteRange::new(0, 3 * MIB as u64).unwrap();
    let error = cluster.coordinator.read_chunk(entry, range).await.err().unwrap();
    assert!(matches!(error, ChunkError::Unreadable { readable: 1, needed: 2, .. }), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_chunk_that_ends_unreadable_ends_in_an_error_and_not_short() {
    let cluster = cluster("2+1", 3);
    let whole = content(6 * MIB, 1);
    let entry = write(&cluster, "2+1", 1, &whole).await.unwrap();
    for index in 0..2 {
        let (disk, shard) = shard(&entry, index);
        cluster.disks.rot(disk, shard, 5);
    }
    assert!(matches!(read(&cluster, &entry, 0, whole.len()).await, Err(ChunkError::Unreadable { .. })));
    // The stripes before it are fine.
    assert!(read(&cluster, &entry, 0, 5 * MIB).await.unwrap() == whole[..5 * MIB]);
}

#[tokio::test(start_paused = true)]
async fn rot_in_different_units_of_every_shard_is_survived() {
    let cluster = cluster("2+1", 3);
    let whole = content(6 * MIB, 1);
    let entry = write(&cluster, "2+1", 1, &whole).await.unwrap();
    for index in 0..3 {
        let (disk, shard) = shard(&entry, index);
        cluster.disks.rot(disk, shard, 1 + index);
    }
    assert_whole(&cluster, &entry, &whole).await;
}

#[tokio::test(start_paused = true)]
async fn sound_units_of_other_content_are_never_handed_out_as_the_chunk() {
    let cluster = cluster("2+1", 3);
    let whole = content(2 * MIB, 1);
    let mut entry = write(&cluster, "2+1", 1, &whole).await.unwrap();
    entry.hash[0] ^= 1;
    let result = read(&cluster, &entry, 0, whole.len()).await;
    assert!(matches!(result, Err(ChunkError::Unreadable { .. })), "{result:?}");
}

#[tokio::test(start_paused = true)]
async fn a_node_that_the_map_says_is_down_is_written_around() {
    let cluster = cluster("2+1", 4);
    let whole = content(MIB, 1);
    for down in 0..4 {
        cluster.change_map(|map| map.nodes.values_mut().for_each(|node| node.state = NodeState::Up));
        cluster.change_map(|map| map.nodes.get_mut(&node_id(down)).unwrap().state = NodeState::Down);
        let entry = write(&cluster, "2+1", 10 + down as u128, &whole).await.unwrap();
        assert_eq!(missing(&entry), 0);
        assert!(!entry.shards.contains(&Some(disk_id(down, 0))));
        assert_whole(&cluster, &entry, &whole).await;
    }
}

#[tokio::test(start_paused = true)]
async fn only_disks_that_acknowledged_every_unit_are_listed() {
    let faults = [
        Fault::Gone,
        Fault::Full,
        Fault::FailsAfter(0),
        Fault::FailsAfter(3),
        Fault::StallsAfter(0),
        Fault::StallsAfter(1),
        Fault::NeverAcks,
        Fault::AcksAfter(0),
        Fault::AcksAfter(7),
        Fault::FsyncFails,
    ];
    let whole = content(8 * MIB, 1);
    for fault in faults {
        let cluster = cluster("4+2", 6);
        cluster.disks.set_fault(disk_id(2, 0), fault);
        let entry = write(&cluster, "4+2", 1, &whole).await.unwrap();
        assert_eq!(missing(&entry), 1, "{fault:?}");
        assert!(!entry.shards.contains(&Some(disk_id(2, 0))), "{fault:?}");
        for index in (0..6).filter(|index| entry.shards[*index].is_some()) {
            let (disk, shard) = shard(&entry, index);
            assert!(cluster.disks.holds(disk, shard));
        }
        cluster.disks.faults.lock().clear();
        assert_whole(&cluster, &entry, &whole).await;
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_quorum_the_write_fails_and_leaves_nothing() {
    for fault in [Fault::FailsAfter(1), Fault::FsyncFails, Fault::NeverAcks, Fault::AcksAfter(2), Fault::StallsAfter(1)] {
        let cluster = cluster("4+2", 6);
        cluster.disks.set_fault(disk_id(1, 0), fault);
        cluster.disks.set_fault(disk_id(4, 0), fault);
        let result = write(&cluster, "4+2", 1, &content(6 * MIB, 1)).await;
        assert!(matches!(result, Err(ChunkError::NoQuorum { acked: 4, quorum: 5, .. })), "{fault:?}: {result:?}");
        assert_eq!(cluster.disks.shards.lock().len(), 0, "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn full_disks_are_told_from_lost_ones() {
    let cluster = cluster("2+1", 3);
    cluster.disks.set_fault(disk_id(0, 0), Fault::Full);
    assert_eq!(write(&cluster, "2+1", 1, &content(MIB, 1)).await, Err(ChunkError::Full));
    cluster.change_map(|map| map.disks.get_mut(&disk_id(0, 0)).unwrap().state = DiskState::ReadOnly);
    assert_eq!(write(&cluster, "2+1", 2, &content(MIB, 1)).await, Err(ChunkError::Full));
    cluster.change_map(|map| map.disks.get_mut(&disk_id(0, 0)).unwrap().state = DiskState::Dead);
    assert!(matches!(write(&cluster, "2+1", 3, &content(MIB, 1)).await, Err(ChunkError::NoQuorum { .. })));
}

#[tokio::test(start_paused = true)]
async fn a_body_that_fails_leaves_nothing() {
    let cluster = cluster("2+1", 3);
    let failing = body(&content(3 * MIB, 1), 200_000)
        .chain(futures::stream::iter([Err(ChunkError::BodyFailed { why: "the client left".into() })]))
        .boxed();
    let result = cluster.coordinator.write_chunk(request("2+1", 1), failing).await;
    assert!(matches!(result, Err(ChunkError::BodyFailed { .. })), "{result:?}");
    tokio::task::yield_now().await;
    assert_eq!(cluster.disks.shards.lock().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_slow_body_is_waited_for() {
    let cluster = cluster("2+1", 3);
    let env = cluster.coordinator.env.clone();
    let whole = content(3 * MIB, 1);
    let slow = body(&whole, MIB)
        .then(move |piece| {
            let env = env.clone();
            async move {
                env.sleep(std::time::Duration::from_secs(50)).await;
                piece
            }
        })
        .boxed();
    let entry = cluster.coordinator.write_chunk(request("2+1", 1), slow).await.unwrap();
    assert_eq!(missing(&entry), 0);
    assert_whole(&cluster, &entry, &whole).await;
}

#[tokio::test(start_paused = true)]
async fn a_body_of_another_length_than_announced_is_refused() {
    let cluster = cluster("2+1", 3);
    let check = async |bytes: usize, announced: Option<u32>| {
        let request = WriteChunk { bytes: announced, ..request("2+1", bytes as u128) };
        let result = cluster.coordinator.write_chunk(request, body(&content(bytes, 1), 300_000)).await;
        assert!(matches!(result, Err(ChunkError::WrongLength { .. })), "{bytes} {announced:?}: {result:?}");
    };
    check(0, None).await;
    check(0, Some(0)).await;
    check(16 * MIB + 1, None).await;
    check(1, Some(u32::MAX)).await;
    check(MIB, Some(MIB as u32 - 1)).await;
    check(MIB, Some(MIB as u32 + 1)).await;
    assert_eq!(cluster.disks.shards.lock().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_hangs_does_not_stop_a_read() {
    let whole = content(4 * MIB, 1);
    for fault in [Fault::ReadStalls, Fault::ReadStallsAfterOne] {
        let cluster = cluster("2+2", 4);
        let entry = write(&cluster, "2+2", 1, &whole).await.unwrap();
        cluster.disks.set_fault(shard(&entry, 0).0, fault);
        cluster.disks.set_fault(shard(&entry, 3).0, fault);
        assert_whole(&cluster, &entry, &whole).await;
    }
    // With one more there is nothing to go by, and the read says so instead of hanging.
    let cluster = cluster("2+2", 4);
    let entry = write(&cluster, "2+2", 1, &whole).await.unwrap();
    for index in 1..4 {
        cluster.disks.set_fault(shard(&entry, index).0, Fault::ReadStalls);
    }
    assert!(matches!(read(&cluster, &entry, 0, whole.len()).await, Err(ChunkError::Unreadable { .. })));
}

#[tokio::test(start_paused = true)]
async fn a_healthy_read_asks_only_the_data_shards_it_needs_and_each_once() {
    let cluster = cluster("4+2", 6);
    let whole = content(8 * MIB, 1);
    let entry = write(&cluster, "4+2", 1, &whole).await.unwrap();
    assert_whole(&cluster, &entry, &whole).await;
    let data: BTreeMap<DiskId, usize> = (0..4).map(|index| (shard(&entry, index).0, 1)).collect();
    assert_eq!(*cluster.disks.reads.lock(), data);
    cluster.disks.reads.lock().clear();
    // Byte 300,000 of a stripe is in its second unit of 256 KiB.
    assert!(read(&cluster, &entry, MIB + 300_000, MIB + 300_010).await.unwrap() == whole[MIB + 300_000..MIB + 300_010]);
    assert_eq!(*cluster.disks.reads.lock(), BTreeMap::from([(shard(&entry, 1).0, 1)]));
}

#[tokio::test(start_paused = true)]
async fn a_disk_of_a_node_that_is_down_is_not_waited_for() {
    let cluster = cluster("2+1", 3);
    let whole = content(2 * MIB, 1);
    let entry = write(&cluster, "2+1", 1, &whole).await.unwrap();
    let (disk, _) = shard(&entry, 1);
    cluster.change_map(|map| {
        let node = map.disks[&disk].node;
        map.nodes.get_mut(&node).unwrap().state = NodeState::Down;
    });
    assert_whole(&cluster, &entry, &whole).await;
    assert_eq!(cluster.disks.reads.lock().get(&disk), None);
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_missed_a_deadline_is_not_waited_for_again_and_is_tried_again_later() {
    let cluster = cluster("4+2", 6);
    let env = cluster.coordinator.env.clone();
    let whole = content(2 * MIB, 1);
    let hung = disk_id(2, 0);
    cluster.disks.set_fault(hung, Fault::NeverAcks);
    let timed = async |number| {
        let began = env.monotonic();
        let entry = write(&cluster, "4+2", number, &whole).await.unwrap();
        (entry, env.monotonic() - began)
    };
    let limits = &cluster.coordinator.limits;
    assert_eq!(timed(1).await.1, limits.finish_straggler);
    let (entry, waited) = timed(2).await;
    assert_eq!(waited, limits.doubtful);
    cluster.disks.faults.lock().clear();
    // Reads do not begin with it either.
    assert_whole(&cluster, &entry, &whole).await;
    assert_eq!(cluster.disks.reads.lock().get(&hung), None);
    // It recovers as soon as it acknowledges again.
    assert_eq!(missing(&timed(3).await.0), 0);
    assert!(!cluster.coordinator.holders.suspects.contains(hung));
    cluster.coordinator.holders.suspects.add(hung);
    env.sleep(limits.suspicion).await;
    assert!(!cluster.coordinator.holders.suspects.contains(hung));
}

#[tokio::test(start_paused = true)]
async fn a_malformed_entry_or_range_is_refused() {
    let cluster = cluster("2+1", 3);
    let entry = write(&cluster, "2+1", 1, &content(1000, 1)).await.unwrap();
    let check = async |entry: ChunkEntry, end: usize| {
        let result = read(&cluster, &entry, 0, end).await;
        assert!(matches!(result, Err(ChunkError::BadMessage { .. })), "{result:?}");
    };
    check(ChunkEntry { shards: entry.shards[..2].to_vec(), ..entry.clone() }, 10).await;
    check(ChunkEntry { bytes: 0, ..entry.clone() }, 0).await;
    check(ChunkEntry { bytes: u32::MAX, ..entry.clone() }, 10).await;
    check(entry.clone(), 1001).await;
    assert_eq!(read(&cluster, &entry, 7, 7).await.unwrap(), Vec::<u8>::new());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_range_of_any_chunk_is_exact_with_up_to_m_shards_lost(
        (data, parity) in prop::sample::select(vec![(1u8, 0u8), (1, 2), (2, 1), (3, 2), (4, 2), (7, 3)]),
        bytes in 1usize..3 * MIB,
        cuts in prop::collection::vec((0u64..64, -2i64..3), 8),
        lost in any::<u64>(),
    ) {
        let text = format!("{data}+{parity}");
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(async {
            let profile = profile(&text);
            let cluster = cluster(&text, profile.width());
            let whole = content(bytes, lost);
            let entry = write(&cluster, &text, 1, &whole).await.unwrap();
            for number in 0..profile.parity() as u64 {
                let index = (lost.wrapping_add(number * 5) % profile.width() as u64) as usize;
                let (disk, shard) = shard(&entry, index);
                if cluster.disks.holds(disk, shard) {
                    cluster.disks.lose(disk, shard);
                }
            }
            // Ranges that begin and end at, just before and just after the borders of units and stripes.
            let unit = profile.unit_bytes(MIB as u64);
            let place = |(number, offset): (u64, i64)| ((number * unit) as i64 + offset).clamp(0, bytes as i64) as usize;
            for pair in cuts.windows(2) {
                let (one, other) = (place(pair[0]), place(pair[1]));
                let (start, end) = (one.min(other), one.max(other));
                let got = read(&cluster, &entry, start, end).await.unwrap();
                assert!(got == whole[start..end], "{text}, {bytes} bytes, {start}..{end}");
            }
        });
    }
}
