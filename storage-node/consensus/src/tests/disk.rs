//! What the log survives, and what it refuses.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use placement_types::{OpenMode, ReplicaId};

use super::cluster::{Cluster, GROUP};
use crate::{Config, Consensus, Health, LogError, ProposeError, ReadError, StartError};

fn one_segment(config: &mut Config) {
    config.segment_bytes = 1 << 20;
    config.flush_bytes = 1 << 30;
}

/// A few long entries fill one, and none is given up.
fn short_segments(config: &mut Config) {
    config.segment_bytes = 256 << 10;
    config.flush_bytes = 1 << 30;
}

/// A node with a group and no entries.
async fn started(seed: u64, configure: fn(&mut Config)) -> Cluster {
    let cluster = Cluster::start_with(seed, 1, configure).await;
    cluster.create().await;
    cluster
}

/// A node with some acknowledged entries, each in a frame of its own, stopped by a power cut.
async fn written(seed: u64, entries: u64) -> Cluster {
    let mut cluster = started(seed, one_segment).await;
    for n in 0..entries {
        cluster.write(&format!("entry {n}")).await;
    }
    cluster.cut_power(1).await;
    cluster
}

/// The same with long entries.
async fn written_long(seed: u64, entries: u64, configure: fn(&mut Config)) -> Cluster {
    let mut cluster = started(seed, configure).await;
    for n in 0..entries {
        cluster.write(&format!("{n} {}", "x".repeat(20_000))).await;
    }
    cluster.cut_power(1).await;
    cluster
}

/// Starts the stopped node; returns how many entries it has once it leads.
async fn restarted(cluster: &mut Cluster) -> u64 {
    cluster.restart(1).await.unwrap();
    cluster.leader().await;
    cluster.journal(1).len() as u64
}

/// A flipped bit in a frame keeps the stopped node from starting, and the error names the frame. The bit is put right again.
async fn check_damage_is_refused(cluster: &mut Cluster, segment: &Path, frame: u64, byte: u64) {
    cluster.nodes[&1].fs.flip_bit(segment, frame + byte, 5);
    let refused = cluster.restart(1).await;
    assert!(
        matches!(&refused, Err(StartError::Log(LogError::Damaged { path, offset })) if *path == segment && *offset == frame),
        "frame {frame} of {segment:?}, byte {byte}: {refused:?}"
    );
    cluster.nodes[&1].fs.flip_bit(segment, frame + byte, 5);
}

fn segment() -> PathBuf {
    PathBuf::from("/raft/0000000000000001.log")
}

/// The offsets at which frames begin.
fn frames(cluster: &Cluster) -> Vec<u64> {
    frames_of(cluster, &segment())
}

fn frames_of(cluster: &Cluster, segment: &Path) -> Vec<u64> {
    let file = cluster.nodes[&1].env.fs.open(segment, OpenMode::Read).unwrap();
    let mut starts = Vec::new();
    for block in 0..file.len().unwrap() / 4096 {
        let mut magic = [0; 8];
        file.read_exact_at(&mut magic, block * 4096).unwrap();
        if magic == *b"DZRFRAME" {
            starts.push(block * 4096);
        }
    }
    starts
}

#[tokio::test(start_paused = true)]
async fn acknowledged_entries_survive_power_cuts_again_and_again() {
    for seed in 400..420 {
        let mut cluster = written(seed, 5).await;
        for round in 0..5 {
            assert_eq!(restarted(&mut cluster).await, 5 + round, "seed {seed}");
            cluster.write(&format!("round {round}")).await;
            cluster.cut_power(1).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_torn_last_frame_is_dropped_and_the_log_goes_on() {
    for (at, offset) in [0, 9, 20, 43, 60].into_iter().enumerate() {
        let mut cluster = written(430 + at as u64 * 7, 10).await;
        let last = *frames(&cluster).last().unwrap();
        // What the disk would hold had the last frame not been written whole: nothing of it was acknowledged then.
        cluster.nodes[&1].fs.flip_bit(segment(), last + offset, 3);
        cluster.nodes.get_mut(&1).unwrap().kv = storage_node_kv::MemoryKv::new();
        for round in 0..3 {
            assert_eq!(restarted(&mut cluster).await, 9 + round, "byte {offset}");
            cluster.write(&format!("round {round}")).await;
            cluster.cut_power(1).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn damage_before_a_durable_frame_is_refused_wherever_it_is() {
    let mut cluster = written(431, 10).await;
    let frames = frames(&cluster);
    assert!(frames.len() >= 10, "each entry was acknowledged by a frame of its own");
    for frame in &frames[..frames.len() - 1] {
        for offset in [0, 8, 12, 16, 30, 40, 44, 50] {
            check_damage_is_refused(&mut cluster, &segment(), *frame, offset).await;
        }
    }
    assert_eq!(restarted(&mut cluster).await, 10, "undamaged, everything is there");
}

/// The frames at the ends of segments are proven by those of the next segment.
#[tokio::test(start_paused = true)]
async fn damage_is_refused_across_segments() {
    let mut cluster = written_long(429, 30, short_segments).await;
    let segments: Vec<PathBuf> = (1..=3).map(|number| PathBuf::from(format!("/raft/{number:016x}.log"))).collect();
    let mut frames: Vec<(PathBuf, u64)> = Vec::new();
    for segment in &segments {
        frames.extend(frames_of(&cluster, segment).into_iter().map(|frame| (segment.clone(), frame)));
    }
    frames.pop();
    for (segment, frame) in frames {
        check_damage_is_refused(&mut cluster, &segment, frame, 50).await;
    }
    assert_eq!(restarted(&mut cluster).await, 30);
}

#[tokio::test(start_paused = true)]
async fn a_missing_segment_or_identity_is_refused() {
    let mut cluster = written_long(432, 30, short_segments).await;
    let fs = cluster.nodes[&1].env.fs.clone();
    let second = PathBuf::from("/raft/0000000000000002.log");
    let aside = PathBuf::from("/raft/aside");
    fs.rename(&second, &aside).unwrap();
    assert!(matches!(cluster.restart(1).await, Err(StartError::Log(LogError::Gap { number: 2, .. }))));
    fs.rename(&aside, &second).unwrap();
    fs.rename("/raft/identity".as_ref(), &aside).unwrap();
    assert!(matches!(cluster.restart(1).await, Err(StartError::Log(LogError::NoIdentity { .. }))));
    fs.rename(&aside, "/raft/identity".as_ref()).unwrap();
    assert_eq!(restarted(&mut cluster).await, 30);
}

#[tokio::test(start_paused = true)]
async fn a_log_lost_beside_its_state_is_refused() {
    let mut cluster = Cluster::with_group(433, 1).await;
    cluster.write("a").await;
    cluster.node(1).shutdown().await;
    cluster.kill(1).await;
    let (empty, _) = (placement_env::sim::SimFs::new(1), ());
    let (env, _) = placement_env::sim::env_on(&empty, 1);
    let kept = cluster.nodes.get_mut(&1).map(|node| std::mem::replace(&mut node.env, env)).unwrap();
    assert!(matches!(cluster.restart(1).await, Err(StartError::LogMissing { group: GROUP, .. })));
    cluster.nodes.get_mut(&1).unwrap().env = kept;
    cluster.restart(1).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_log_rolled_back_behind_its_state_is_refused() {
    let mut cluster = written(434, 3).await;
    cluster.restart(1).await.unwrap();
    cluster.write("four").await;
    cluster.node(1).shutdown().await;
    cluster.kill(1).await;
    // The graceful stop's frame proves the one before, so both have to go for it to look like an old image of the disk.
    let frames = frames(&cluster);
    let file = cluster.nodes[&1].env.fs.open(&segment(), OpenMode::ReadWrite).unwrap();
    for frame in &frames[frames.len() - 3..] {
        file.write_at(&[0; 4096], *frame).unwrap();
    }
    assert!(matches!(cluster.restart(1).await, Err(StartError::LogBehindState { .. })));
}

#[tokio::test(start_paused = true)]
async fn a_state_lost_beside_a_purged_log_is_refused() {
    let mut cluster = written_long(435, 60, |config| {
        config.segment_bytes = 256 << 10;
        config.flush_bytes = 64 << 10;
        config.segments_kept = 1;
    })
    .await;
    cluster.nodes.get_mut(&1).unwrap().kv = storage_node_kv::MemoryKv::new();
    assert!(matches!(cluster.restart(1).await, Err(StartError::StateMissing { group: GROUP, .. })));
}

#[tokio::test(start_paused = true)]
async fn a_state_lost_beside_a_whole_log_is_replayed() {
    let mut cluster = written(436, 20).await;
    cluster.nodes.get_mut(&1).unwrap().kv = storage_node_kv::MemoryKv::new();
    assert_eq!(restarted(&mut cluster).await, 20);
}

#[tokio::test(start_paused = true)]
async fn another_replica_and_a_second_process_are_refused() {
    let mut cluster = Cluster::with_group(437, 1).await;
    cluster.leader().await;
    assert!(matches!(cluster.starting(1).await, Err(StartError::Locked { .. })));
    cluster.kill(1).await;
    let mut config = cluster.config(1);
    config.replica = ReplicaId(2);
    let node = &cluster.nodes[&1];
    let machines = Arc::new(|_| Arc::new(super::cluster::Journal) as Arc<dyn crate::Machine>);
    struct Nowhere;
    impl crate::Transport for Nowhere {
        fn send(&self, _to: ReplicaId, _messages: Vec<bytes::Bytes>) {}
    }
    let refused = Consensus::start(config, node.env.clone(), Arc::new(node.kv.clone()), Arc::new(Nowhere), machines).await;
    let expected = (ReplicaId(1), ReplicaId(2));
    assert!(matches!(refused, Err(StartError::WrongReplica { found, expected: wanted, .. }) if (found, wanted) == expected));
    cluster.restart(1).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_failed_fsync_stops_everything() {
    let cluster = Cluster::with_group(438, 1).await;
    cluster.write("a").await;
    let node = cluster.node(1).clone();
    cluster.nodes[&1].fs.fail_nth_sync("/raft", 1);
    assert_eq!(cluster.propose(1, "b").await, Err(ProposeError::Unknown));
    assert!(matches!(&*node.health().borrow(), Health::Failed { reason } if reason.contains("0000000000000001.log")));
    assert_eq!(cluster.propose(1, "c").await, Err(ProposeError::Stopped));
    assert_eq!(node.read_barrier(GROUP).await, Err(ReadError::Stopped));
    assert_eq!(node.status(), []);
}

#[tokio::test(start_paused = true)]
async fn a_failed_store_stops_everything() {
    let cluster = Cluster::with_group(439, 1).await;
    cluster.write("a").await;
    cluster.nodes[&1].kv.fail();
    assert_eq!(cluster.propose(1, "b").await, Err(ProposeError::Unknown));
    assert!(matches!(&*cluster.node(1).health().borrow(), Health::Failed { .. }));
}

/// The log stops at the end of its last prepared segment, and goes on when there is room: no torn frame, nothing lost (D15).
#[tokio::test(start_paused = true)]
async fn a_full_disk_refuses_proposals_until_there_is_room() {
    let mut cluster = started(440, short_segments).await;
    cluster.write("first").await;
    cluster.nodes[&1].fs.set_capacity(0);
    let text = "x".repeat(20_000);
    let mut acked = 1;
    let waiting = loop {
        let outcome = cluster.env.timeout(Duration::from_secs(5), cluster.propose(1, &text)).await;
        match outcome {
            Ok(Ok(_)) => acked += 1,
            refused => break refused,
        }
        assert!(acked < 1000, "the disk is full");
    };
    assert!(!matches!(waiting, Ok(Err(ProposeError::Stopped))), "{waiting:?}");
    assert_eq!(*cluster.node(1).health().borrow(), Health::Running);
    assert_eq!(cluster.node(1).read_barrier(GROUP).await, Ok(()), "reads go on");
    cluster.nodes[&1].fs.set_capacity(1 << 30);
    cluster.sleep_ms(3000).await;
    let after = cluster.write("after").await;
    assert!(after > acked);
    cluster.cut_power(1).await;
    assert_eq!(restarted(&mut cluster).await, after);
}

/// Three nodes, and the one that leads, whose disk is slow from now on.
async fn led_from_a_slow_disk(seed: u64) -> (Cluster, u64) {
    let cluster = Cluster::with_group(seed, 3).await;
    cluster.write("before").await;
    let slow = cluster.leader().await;
    cluster.set_disk_lag(slow, 400);
    (cluster, slow)
}

/// A leader whose disk holds up what the others have had for long lets one of them lead, and is not asked again (D21).
#[tokio::test(start_paused = true)]
async fn a_leader_on_a_slow_disk_hands_over() {
    for seed in 441..451 {
        let (cluster, slow) = led_from_a_slow_disk(seed).await;
        let mut written = 0;
        while cluster.leader().await == slow {
            written += 1;
            cluster.write(&format!("slow {written}")).await;
            assert!(written < 20, "seed {seed}: nobody else leads");
        }
        let term = cluster.status(cluster.leader().await).unwrap().term;
        let began = cluster.env.monotonic();
        for number in 0..20 {
            cluster.write(&format!("after {number}")).await;
        }
        assert!(cluster.env.monotonic() - began < Duration::from_secs(4), "seed {seed}: the slow disk holds nobody up");
        assert_eq!(cluster.status(cluster.leader().await).unwrap().term, term, "seed {seed}");
    }
}

/// Proposes entries to a node, several at a time and some while others are being written, until it does not lead.
async fn write_much(cluster: &Cluster, leader: u64, each: u64) {
    let proposers = (0..4).map(|proposer| async move {
        for number in 0..each {
            cluster.sleep_ms(cluster.env.random_below(300)).await;
            if cluster.propose(leader, &format!("{proposer} {number}")).await.is_err() {
                return;
            }
        }
    });
    futures::future::join_all(proposers).await;
}

#[tokio::test(start_paused = true)]
async fn a_leader_on_a_slow_disk_hands_over_under_load_too() {
    for seed in 461..471 {
        let (cluster, slow) = led_from_a_slow_disk(seed).await;
        write_much(&cluster, slow, 20).await;
        assert_ne!(cluster.leader().await, slow, "seed {seed}");
    }
}

/// Where no disk is better, leadership stays where it is, whether entries come one by one or while others are being written.
#[tokio::test(start_paused = true)]
async fn equally_slow_disks_do_not_pass_leadership_round() {
    for seed in 451..461 {
        let cluster = Cluster::with_group(seed, 3).await;
        cluster.write("before").await;
        (1..=3).for_each(|id| cluster.set_disk_lag(id, 400));
        let term = cluster.status(cluster.leader().await).unwrap().term;
        for number in 0..20 {
            cluster.write(&format!("entry {number}")).await;
        }
        write_much(&cluster, cluster.leader().await, 50).await;
        assert_eq!(cluster.status(cluster.leader().await).unwrap().term, term, "seed {seed}");
    }
}

/// Power is cut after each single operation on the disk while entries are written: each start finds all that were
/// acknowledged.
#[tokio::test(start_paused = true)]
async fn power_may_go_at_any_operation() {
    for step in 0..120 {
        let mut cluster = Cluster::start_with(500 + step, 1, |config| {
            config.segment_bytes = 256 << 10;
            config.flush_bytes = 48 << 10;
            config.segments_kept = 1;
        })
        .await;
        cluster.nodes[&1].fs.halt_after(step);
        let mut acked = 0;
        if cluster.node(1).create_group(GROUP, vec![ReplicaId(1)]).await.is_ok() {
            for n in 0..60 {
                let entry = format!("{n} {}", "x".repeat(15_000));
                match cluster.env.timeout(Duration::from_secs(1), cluster.propose(1, &entry)).await {
                    Ok(Ok(number)) => acked = number,
                    Ok(Err(ProposeError::NotLeader { .. })) => cluster.sleep_ms(5).await,
                    _ => break,
                }
            }
        }
        cluster.cut_power(1).await;
        cluster.restart(1).await.unwrap_or_else(|error| panic!("step {step}: {error}"));
        if acked > 0 {
            cluster.leader().await;
            let found = cluster.journal(1).len() as u64;
            assert!(found >= acked, "step {step}: {found} of {acked} acknowledged entries are left");
        }
    }
}
