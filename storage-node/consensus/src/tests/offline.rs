//! Stopped nodes whose groups have lost their majority for ever.

use std::sync::Arc;

use bytes::Bytes;
use placement_types::{ReplicaId, Term};

use super::cluster::{Cluster, GROUP};
use crate::{LogPosition, Offline, OfflineError, ReplicaPosition, Rewrite};

fn open(cluster: &Cluster, id: u64) -> Result<Offline, OfflineError> {
    let node = &cluster.nodes[&id];
    Offline::open(&cluster.config(id), &node.env, Arc::new(node.kv.clone()))
}

fn position(cluster: &Cluster, id: u64) -> ReplicaPosition {
    open(cluster, id).unwrap().positions().unwrap().pop().expect("the node has a replica")
}

fn alone(entry: &'static str) -> Rewrite {
    Rewrite::Alone { group: GROUP, after: Term(50), entry: Some(Bytes::from_static(entry.as_bytes())) }
}

/// Three nodes with a few entries.
async fn three(seed: u64) -> Cluster {
    let cluster = Cluster::with_group(seed, 3).await;
    for entry in ["a", "b", "c"] {
        cluster.write(entry).await;
    }
    cluster.converge(&[1, 2, 3]).await;
    cluster
}

/// The same, of which the first two are then gone.
async fn last_of_three(seed: u64) -> Cluster {
    let mut cluster = three(seed).await;
    for id in 1..=3 {
        cluster.cut_power(id).await;
    }
    cluster
}

#[tokio::test(start_paused = true)]
async fn a_survivor_goes_on_alone_with_all_it_has_and_grows_again() {
    for seed in 0..5 {
        let mut cluster = last_of_three(700 + seed).await;
        let before = position(&cluster, 3);
        assert_eq!(before.voters, [1, 2, 3].map(ReplicaId));
        assert_eq!(before.newest.as_deref(), Some(&b"c"[..]));
        open(&cluster, 3).unwrap().rewrite(&[alone("d")]).unwrap();
        // Whatever a power cut takes from the store, what was rewritten is not among it.
        cluster.lose_unsynced(3);
        let after = position(&cluster, 3);
        assert_eq!(after.voters, [ReplicaId(3)]);
        assert!(after.last > before.last && after.last.term > 50);
        cluster.restart(3).await.unwrap();
        assert_eq!(cluster.leader_among(&[3]).await, 3);
        assert_eq!(cluster.converge(&[3]).await, ["a", "b", "c", "d"]);

        cluster.add(4).await;
        cluster.add(5).await;
        cluster.node(3).change_members(GROUP, vec![ReplicaId(3)], vec![ReplicaId(4), ReplicaId(5)]).await.unwrap();
        cluster.node(3).change_members(GROUP, [3, 4, 5].map(ReplicaId).into(), Vec::new()).await.unwrap();
        cluster.write("e").await;
        assert_eq!(cluster.converge(&[3, 4, 5]).await, ["a", "b", "c", "d", "e"]);
    }
}

#[tokio::test(start_paused = true)]
async fn entries_that_are_not_known_to_be_committed_are_kept_and_open_changes_of_members_do_not_count() {
    let mut cluster = Cluster::with_group(720, 3).await;
    cluster.write("a").await;
    let leader = cluster.leader().await;
    cluster.isolate(leader);
    // Neither is acknowledged: the others are cut off. They are in this log only.
    let node = cluster.node(leader).clone();
    let env = cluster.env.clone();
    let proposed = env.spawn("proposal", async move {
        let entry = node.propose(GROUP, Bytes::from_static(b"b"));
        let members = node.change_members(GROUP, [1, 2].map(ReplicaId).into(), Vec::new());
        let _ = futures::join!(entry, members);
    });
    cluster.sleep_ms(300).await;
    drop(proposed);
    for id in 1..=3 {
        cluster.kill(id).await;
    }
    let before = position(&cluster, leader);
    assert!(before.members_open && before.last.index > before.committed, "{before:?}");
    assert_eq!(before.newest.as_deref(), Some(&b"b"[..]));
    open(&cluster, leader).unwrap().rewrite(&[Rewrite::Alone { group: GROUP, after: Term(9), entry: None }]).unwrap();
    cluster.restart(leader).await.unwrap();
    assert_eq!(cluster.leader_among(&[leader]).await, leader);
    assert_eq!(cluster.converge(&[leader]).await, ["a", "b"]);
    assert_eq!(cluster.status(leader).unwrap().voters, [ReplicaId(leader)]);
    // And after it was applied, too.
    cluster.cut_power(leader).await;
    cluster.restart(leader).await.unwrap();
    assert_eq!(cluster.leader_among(&[leader]).await, leader);
    assert_eq!(cluster.status(leader).unwrap().voters, [ReplicaId(leader)]);
}

#[tokio::test(start_paused = true)]
async fn a_forgotten_replica_comes_back_as_a_learner_of_the_one_that_goes_on() {
    let mut cluster = last_of_three(730).await;
    open(&cluster, 3).unwrap().rewrite(&[alone("d")]).unwrap();
    open(&cluster, 2).unwrap().rewrite(&[Rewrite::Forget { group: GROUP }]).unwrap();
    cluster.lose_unsynced(2);
    for id in [2, 3] {
        cluster.restart(id).await.unwrap();
    }
    assert_eq!(cluster.leader_among(&[3]).await, 3);
    assert!(cluster.status(2).unwrap().voters.is_empty());
    cluster.node(3).change_members(GROUP, vec![ReplicaId(3)], vec![ReplicaId(2)]).await.unwrap();
    assert_eq!(cluster.converge(&[2, 3]).await, ["a", "b", "c", "d"]);
}

#[tokio::test(start_paused = true)]
async fn a_group_begins_anew_from_a_copy_of_its_state() {
    let mut cluster = three(740).await;
    // As copies are taken: of a replica that runs. What is left after a power cut may be less than the log has.
    let copied = cluster.node(1).read_state(GROUP, |state| {
        let mut pairs: Vec<(Bytes, Bytes)> = Vec::new();
        let copy = &mut |key: &[u8], value: &[u8]| {
            pairs.push((Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)));
            storage_node_kv::Step::Next
        };
        state.scan(b"", b"", copy).map(|()| pairs)
    });
    let pairs = copied.unwrap().unwrap();
    for id in 1..=3 {
        cluster.cut_power(id).await;
    }
    cluster.add(4).await;
    cluster.kill(4).await;
    let at = LogPosition { term: 70, index: 7000 };
    let found = Rewrite::Found { group: GROUP, at, pairs, entry: Bytes::from_static(b"z") };
    open(&cluster, 4).unwrap().rewrite(std::slice::from_ref(&found)).unwrap();
    // Once more, as after a crash that came before anybody was told.
    open(&cluster, 4).unwrap().rewrite(&[found]).unwrap();
    cluster.lose_unsynced(4);
    cluster.restart(4).await.unwrap();
    assert_eq!(cluster.leader_among(&[4]).await, 4);
    let entries = cluster.converge(&[4]).await;
    assert_eq!(entries, ["a", "b", "c", "z"]);
}

#[tokio::test(start_paused = true)]
async fn a_rewrite_that_was_cut_off_anywhere_is_simply_made_again() {
    for seed in 750.. {
        let mut cluster = last_of_three(seed).await;
        // What opening changes is not what is cut off here.
        let mut offline = open(&cluster, 3).unwrap();
        let operations = seed - 750;
        cluster.nodes[&3].fs.halt_after(operations);
        let whole = offline.rewrite(&[alone("d")]).is_ok();
        drop(offline);
        cluster.lose_unsynced(3);
        open(&cluster, 3).unwrap().rewrite(&[alone("d")]).unwrap();
        cluster.restart(3).await.unwrap();
        assert_eq!(cluster.leader_among(&[3]).await, 3);
        let entries = cluster.converge(&[3]).await;
        assert_eq!(entries[..4], ["a", "b", "c", "d"], "cut off after {operations} operations");
        assert!(entries[4..].iter().all(|entry| entry == "d"));
        if whole {
            assert!(operations > 1, "the rewrite was cut off at some point");
            return;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_without_a_log_or_a_replica_is_refused() {
    let mut cluster = last_of_three(760).await;
    cluster.add(4).await;
    cluster.kill(4).await;
    let refused = open(&cluster, 4).unwrap().rewrite(&[alone("d")]);
    assert!(matches!(refused, Err(OfflineError::NoReplica { .. })));
    let (fresh, _) = placement_env::sim::env(1);
    assert!(Offline::open(&cluster.config(4), &fresh, Arc::new(storage_node_kv::MemoryKv::new())).is_err());
    cluster.restart(1).await.unwrap();
    assert!(matches!(open(&cluster, 1), Err(OfflineError::Start(crate::StartError::Locked { .. }))));
}
