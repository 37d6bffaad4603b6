//! Elections, replication, reads, and what a minority may not do.

use std::time::Duration;

use bytes::Bytes;
use placement_types::{Elapsed, GroupId, ReplicaId};

use super::cluster::{Cluster, DAMAGED, GROUP};
use crate::{Health, ProposeError, ReadError, Role};

#[tokio::test(start_paused = true)]
async fn a_group_of_one_elects_itself_without_waiting() {
    let cluster = Cluster::with_group(1, 1).await;
    let before = cluster.env.monotonic();
    while cluster.propose(1, "a").await.is_err() {
        cluster.sleep_ms(1).await;
    }
    assert!(cluster.env.monotonic() - before < Duration::from_millis(100));
    assert_eq!(cluster.node(1).read_barrier(GROUP).await, Ok(()));
    assert_eq!(cluster.journal(1), ["a"]);
}

#[tokio::test(start_paused = true)]
async fn three_nodes_elect_and_replicate_in_one_order() {
    let cluster = Cluster::with_group(2, 3).await;
    let leader = cluster.leader().await;
    let writes = (0..200).map(|n| {
        let cluster = &cluster;
        async move { cluster.propose(leader, &n.to_string()).await }
    });
    let replies = futures::future::join_all(writes).await;
    let mut numbers: Vec<u64> = replies.into_iter().map(Result::unwrap).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=200).collect::<Vec<_>>(), "each is applied once");
    assert_eq!(cluster.converge(&[1, 2, 3]).await.len(), 200);
}

#[tokio::test(start_paused = true)]
async fn a_follower_says_who_leads() {
    let cluster = Cluster::with_group(3, 3).await;
    let leader = cluster.leader().await;
    cluster.sleep_ms(500).await;
    let follower = if leader == 1 { 2 } else { 1 };
    let told = Some(ReplicaId(leader));
    assert_eq!(cluster.propose(follower, "x").await, Err(ProposeError::NotLeader { leader: told }));
    assert_eq!(cluster.node(follower).read_barrier(GROUP).await, Err(ReadError::NotLeader { leader: told }));
    assert_eq!(cluster.node(follower).leader(GROUP), told);
    let other = GroupId(99);
    assert_eq!(cluster.node(leader).read_barrier(other).await, Err(ReadError::NoGroup { group: other }));
}

#[tokio::test(start_paused = true)]
async fn a_minority_acknowledges_nothing_and_reads_nothing() {
    let cluster = Cluster::with_group(4, 3).await;
    let old = cluster.leader().await;
    cluster.propose(old, "before").await.unwrap();
    cluster.isolate(old);
    let limit = Duration::from_secs(60);
    let (write, read) = futures::join!(
        cluster.env.timeout(limit, cluster.propose(old, "lost")),
        cluster.env.timeout(limit, cluster.node(old).read_barrier(GROUP))
    );
    assert!(matches!(write, Ok(Err(ProposeError::Unknown))), "{write:?}");
    assert!(matches!(read, Ok(Err(ReadError::NotLeader { .. }))), "{read:?}");
    let rest: Vec<u64> = [1, 2, 3].into_iter().filter(|id| *id != old).collect();
    let new = cluster.leader_among(&rest).await;
    assert_eq!(cluster.propose(new, "after").await, Ok(2));
    assert!(cluster.propose(old, "nor this").await.is_err());
    cluster.heal();
    assert_eq!(cluster.converge(&[1, 2, 3]).await, ["before", "after"]);
}

#[tokio::test(start_paused = true)]
async fn a_node_whose_state_is_damaged_stops_and_keeps_nothing_of_the_entry() {
    let cluster = Cluster::with_group(5, 1).await;
    cluster.leader().await;
    cluster.propose(1, "before").await.unwrap();
    let mut health = cluster.node(1).health();
    assert_eq!(cluster.propose(1, DAMAGED).await, Err(ProposeError::Unknown));
    let failed = health.wait_for(|health| *health != Health::Running).await.unwrap().clone();
    assert!(matches!(&failed, Health::Failed { reason } if reason.contains("does not decode")), "{failed:?}");
    assert_eq!(cluster.journal(1), ["before"], "the half of the entry that was applied is not in the store");
    assert_eq!(cluster.propose(1, "after").await, Err(ProposeError::Stopped));
}

/// The old leader can still hear its followers' silence only: it must not serve a read although nobody told it that it was
/// deposed.
#[tokio::test(start_paused = true)]
async fn a_deposed_leader_serves_no_read() {
    for seed in 0..10 {
        let cluster = Cluster::with_group(100 + seed, 3).await;
        let old = cluster.leader().await;
        let rest: Vec<u64> = [1, 2, 3].into_iter().filter(|id| *id != old).collect();
        cluster.isolate(old);
        let reads = async {
            // Reads all the while: each must fail, or have been confirmed before the other side acknowledged anything.
            loop {
                match cluster.env.timeout(Duration::from_millis(30), cluster.node(old).read_barrier(GROUP)).await {
                    Ok(Ok(())) => panic!("a read passed on an isolated leader"),
                    Ok(Err(_)) => cluster.sleep_ms(5).await,
                    Err(Elapsed) => {}
                }
            }
        };
        let writes = async {
            let new = cluster.leader_among(&rest).await;
            cluster.propose(new, "new").await.unwrap();
        };
        futures::future::select(Box::pin(reads), Box::pin(writes)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_dead_leader_is_replaced_within_three_seconds() {
    for seed in 0..20 {
        let mut cluster = Cluster::with_group(200 + seed, 3).await;
        let old = cluster.leader().await;
        cluster.propose(old, "kept").await.unwrap();
        cluster.cut_power(old).await;
        let died = cluster.env.monotonic();
        let new = cluster.leader().await;
        let pause = cluster.env.monotonic() - died;
        assert!(pause < Duration::from_secs(3), "seed {seed}: {pause:?}");
        assert_eq!(cluster.propose(new, "next").await, Ok(2));
        cluster.restart(old).await.unwrap();
        assert_eq!(cluster.converge(&[1, 2, 3]).await, ["kept", "next"]);
    }
}

#[tokio::test(start_paused = true)]
async fn many_reads_share_a_round() {
    let cluster = Cluster::with_group(5, 3).await;
    let leader = cluster.leader().await;
    let reads = (0..500).map(|_| cluster.node(leader).read_barrier(GROUP));
    let before = cluster.env.monotonic();
    assert!(futures::future::join_all(reads).await.into_iter().all(|read| read.is_ok()));
    assert!(cluster.env.monotonic() - before < Duration::from_millis(100));
}

#[tokio::test(start_paused = true)]
async fn leadership_is_handed_over_without_losing_a_write() {
    let cluster = Cluster::with_group(6, 3).await;
    let old = cluster.leader().await;
    let to = if old == 3 { 1 } else { 3 };
    let writes = async {
        let mut acked = Vec::new();
        for n in 0..50 {
            cluster.write(&n.to_string()).await;
            acked.push(n.to_string());
        }
        acked
    };
    let transfer = async {
        cluster.sleep_ms(30).await;
        cluster.node(old).transfer_leadership(GROUP, ReplicaId(to)).await
    };
    let (acked, transfer) = futures::join!(writes, transfer);
    assert_eq!(transfer, Ok(()));
    assert_eq!(cluster.leader().await, to);
    assert_eq!(cluster.converge(&[1, 2, 3]).await, acked);
}

#[tokio::test(start_paused = true)]
async fn a_graceful_stop_hands_over_first() {
    let mut cluster = Cluster::with_group(7, 3).await;
    let old = cluster.leader().await;
    cluster.write("a").await;
    let node = cluster.node(old).clone();
    let mut health = node.health();
    let stopped = cluster.env.monotonic();
    node.shutdown().await;
    assert_eq!(*health.borrow_and_update(), Health::Stopped);
    assert_eq!(node.propose(GROUP, Bytes::new()).await, Err(ProposeError::Stopped));
    let rest: Vec<u64> = [1, 2, 3].into_iter().filter(|id| *id != old).collect();
    cluster.leader_among(&rest).await;
    assert!(cluster.env.monotonic() - stopped < Duration::from_millis(900), "faster than any election timeout");
    drop(node);
    cluster.kill(old).await;
    cluster.restart(old).await.unwrap();
    assert_eq!(cluster.converge(&[1, 2, 3]).await, ["a"]);
}

#[tokio::test(start_paused = true)]
async fn creating_a_group_again_changes_nothing() {
    let cluster = Cluster::with_group(8, 3).await;
    cluster.write("a").await;
    cluster.create().await;
    assert_eq!(cluster.write("b").await, 2);
    let status = cluster.status(1).unwrap();
    assert_eq!(status.voters.len(), 3);
}

/// Only one member was told; the others hear of the group from it.
#[tokio::test(start_paused = true)]
async fn a_member_that_was_not_told_gets_the_group_from_the_leader() {
    let cluster = Cluster::start(9, 3).await;
    let voters: Vec<ReplicaId> = (1..=3).map(ReplicaId).collect();
    cluster.node(1).create_group(GROUP, voters.clone()).await.unwrap();
    cluster.write("a").await;
    assert_eq!(cluster.converge(&[1, 2, 3]).await, ["a"]);
    cluster.node(2).create_group(GROUP, voters).await.unwrap();
    assert_eq!(cluster.write("b").await, 2);
}

#[tokio::test(start_paused = true)]
async fn an_oversized_entry_is_refused_and_an_empty_one_is_an_entry() {
    let cluster = Cluster::with_group(10, 1).await;
    cluster.leader().await;
    let large = Bytes::from(vec![0; crate::limits::ENTRY_BYTES_MAX + 1]);
    assert!(matches!(cluster.node(1).propose(GROUP, large).await, Err(ProposeError::TooLarge { .. })));
    assert_eq!(cluster.propose(1, "").await, Ok(1));
    let longest = "x".repeat((1 << 20) / 8);
    assert_eq!(cluster.propose(1, &longest).await, Ok(2));
    assert_eq!(cluster.journal(1), ["".to_owned(), longest]);
}

#[tokio::test(start_paused = true)]
async fn the_same_seed_gives_the_same_run() {
    let run = || async {
        let mut cluster = Cluster::with_group(11, 3).await;
        cluster.set_loss(10, 40);
        for n in 0..20 {
            if n == 10 {
                let leader = cluster.leader().await;
                cluster.kill(leader).await;
                cluster.restart(leader).await.unwrap();
            }
            let leader = cluster.leader().await;
            let _ = cluster.env.timeout(Duration::from_secs(1), cluster.propose(leader, &n.to_string())).await;
        }
        let statuses: Vec<_> = (1..=3).map(|id| cluster.status(id)).collect();
        (cluster.env.monotonic(), statuses, cluster.journal(1))
    };
    let (first, second) = (run().await, run().await);
    assert_eq!(first.0, second.0);
    assert_eq!(first.1, second.1);
    assert_eq!(first.2, second.2);
    assert!(first.1.iter().flatten().any(|status| status.role == Role::Leader));
}

/// A replica that forgot what it acknowledged must be noticed, and must not bring itself down over it: it says nothing more,
/// and the others go on.
#[tokio::test(start_paused = true)]
async fn a_replica_that_lost_its_disk_under_its_old_id_falls_silent() {
    let mut cluster = Cluster::with_group(12, 3).await;
    let leader = cluster.leader().await;
    cluster.write("a").await;
    cluster.converge(&[1, 2, 3]).await;
    let wiped = if leader == 3 { 2 } else { 3 };
    cluster.kill(wiped).await;
    cluster.add(wiped).await;
    cluster.sleep_ms(2000).await;
    assert_eq!(*cluster.node(wiped).health().borrow(), Health::Running);
    assert_eq!(cluster.node(wiped).leader(GROUP), None);
    assert_eq!(cluster.journal(wiped).len(), 0);
    assert_eq!(cluster.write("b").await, 2);
    cluster.node(wiped).shutdown().await;
}
