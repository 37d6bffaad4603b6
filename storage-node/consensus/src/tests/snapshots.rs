//! Replicas that are too far behind for the log.

use placement_types::ReplicaId;

use super::cluster::{Cluster, GROUP};
use crate::Config;

/// Segments so small that a few hundred entries push the oldest out.
fn short_log(config: &mut Config) {
    config.segment_bytes = 256 << 10;
    config.flush_bytes = 64 << 10;
    config.segments_kept = 1;
    config.cache_bytes = 16 << 10;
}

async fn write_many(cluster: &Cluster, from: u64, count: u64) {
    let leader = cluster.leader().await;
    let writes = (from..from + count).map(|n| {
        let entry = format!("{n:06} {}", "x".repeat(2000));
        async move { cluster.propose(leader, &entry).await }
    });
    for reply in futures::future::join_all(writes).await {
        reply.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_follower_behind_the_log_gets_a_snapshot_while_writes_go_on() {
    for seed in 0..5 {
        let mut cluster = Cluster::start_with(300 + seed, 3, short_log).await;
        cluster.create().await;
        cluster.write("first").await;
        let leader = cluster.leader().await;
        let behind = if leader == 3 { 2 } else { 3 };
        cluster.cut_power(behind).await;
        for round in 0..10 {
            write_many(&cluster, round * 100, 100).await;
            cluster.sleep_ms(50).await;
        }
        cluster.set_loss(seed * 3, 10);
        cluster.restart(behind).await.unwrap();
        for round in 10..12 {
            cluster.write(&format!("late {round}")).await;
        }
        let entries = cluster.converge(&[1, 2, 3]).await;
        assert_eq!(entries.len(), 1003);
        // What came by snapshot survives what comes after it.
        cluster.cut_power(behind).await;
        cluster.restart(behind).await.unwrap();
        cluster.write("last").await;
        assert_eq!(cluster.converge(&[1, 2, 3]).await.len(), 1004);
    }
}

#[tokio::test(start_paused = true)]
async fn the_log_stays_short_and_restarts_work_after_purging() {
    let mut cluster = Cluster::start_with(310, 1, short_log).await;
    cluster.create().await;
    for round in 0..30 {
        write_many(&cluster, round * 100, 100).await;
        cluster.sleep_ms(20).await;
    }
    let segments = || {
        let files = cluster.nodes[&1].env.fs.read_dir("/raft".as_ref()).unwrap();
        files.iter().filter(|file| file.path.extension().is_some_and(|extension| extension == "log")).count()
    };
    assert!(segments() <= 4, "{} segments are left of 6 MB written", segments());
    for _ in 0..3 {
        cluster.cut_power(1).await;
        cluster.restart(1).await.unwrap();
        cluster.leader().await;
        assert_eq!(cluster.journal(1).len(), 3000);
    }
}

/// Power is cut after each single operation on the receiver's disk, and also of its store: whatever half of a snapshot is
/// there then, the node starts and ends with the whole state.
#[tokio::test(start_paused = true)]
async fn a_snapshot_interrupted_at_any_step_is_never_half_used() {
    let mut step = 0;
    let mut reached_end = false;
    while !reached_end {
        let mut cluster = Cluster::start_with(320 + step, 1, short_log).await;
        cluster.create().await;
        for round in 0..6 {
            write_many(&cluster, round * 50, 50).await;
            cluster.sleep_ms(50).await;
        }
        cluster.add(2).await;
        cluster.sleep_ms(50).await;
        cluster.nodes[&2].fs.halt_after(step);
        let voters = vec![ReplicaId(1)];
        cluster.node(1).change_members(GROUP, voters, vec![ReplicaId(2)]).await.unwrap();
        for _ in 0..100 {
            cluster.sleep_ms(20).await;
            reached_end = cluster.journal(2).len() == 300;
        }
        let halted = *cluster.node(2).health().borrow() != crate::Health::Running;
        reached_end &= !halted;
        cluster.cut_power(2).await;
        cluster.restart(2).await.unwrap_or_else(|error| panic!("step {step}: {error}"));
        assert_eq!(cluster.converge(&[1, 2]).await.len(), 300, "step {step}");
        step += 1;
    }
    assert!(step > 8, "the snapshot took {step} operations only");
}

/// Entries that left memory are read back for a follower that was away for a while.
#[tokio::test(start_paused = true)]
async fn a_follower_behind_the_cache_is_served_from_the_file() {
    let cluster = Cluster::start_with(330, 3, |config| config.cache_bytes = 0).await;
    cluster.create().await;
    let leader = cluster.leader().await;
    let behind = if leader == 3 { 2 } else { 3 };
    cluster.isolate(behind);
    write_many(&cluster, 0, 150).await;
    cluster.heal();
    assert_eq!(cluster.converge(&[1, 2, 3]).await.len(), 150);
}
