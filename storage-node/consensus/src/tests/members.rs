//! Changing who is in a group.

use placement_types::ReplicaId;

use super::cluster::{Cluster, GROUP};
use crate::MembersError;

fn replicas(ids: &[u64]) -> Vec<ReplicaId> {
    ids.iter().copied().map(ReplicaId).collect()
}

fn sorted(ids: Vec<ReplicaId>) -> Vec<u64> {
    let mut ids: Vec<u64> = ids.into_iter().map(|replica| replica.0).collect();
    ids.sort_unstable();
    ids
}

#[tokio::test(start_paused = true)]
async fn a_group_grows_from_one_to_three() {
    let mut cluster = Cluster::with_group(20, 1).await;
    for n in 0..30 {
        cluster.write(&n.to_string()).await;
    }
    cluster.add(2).await;
    cluster.add(3).await;
    cluster.node(1).change_members(GROUP, replicas(&[1]), replicas(&[2, 3])).await.unwrap();
    assert_eq!(sorted(cluster.status(1).unwrap().learners), [2, 3]);
    assert_eq!(cluster.converge(&[1, 2, 3]).await.len(), 30);
    cluster.node(1).change_members(GROUP, replicas(&[1, 2, 3]), vec![]).await.unwrap();
    cluster.cut_power(1).await;
    let leader = cluster.leader().await;
    assert_eq!(cluster.propose(leader, "after").await, Ok(31));
    let status = cluster.status(leader).unwrap();
    assert_eq!((sorted(status.voters), status.learners, status.voters_outgoing), (vec![1, 2, 3], vec![], vec![]));
}

#[tokio::test(start_paused = true)]
async fn all_members_are_replaced_and_the_old_leader_steps_down() {
    let mut cluster = Cluster::with_group(21, 3).await;
    for n in 0..20 {
        cluster.write(&n.to_string()).await;
    }
    for id in [4, 5, 6] {
        cluster.add(id).await;
    }
    let leader = cluster.leader().await;
    cluster.node(leader).change_members(GROUP, replicas(&[4, 5, 6]), vec![]).await.unwrap();
    for id in [1, 2, 3] {
        cluster.kill(id).await;
    }
    let new = cluster.leader_among(&[4, 5, 6]).await;
    assert_eq!(cluster.propose(new, "after").await, Ok(21));
    assert_eq!(cluster.converge(&[4, 5, 6]).await.len(), 21);
    assert_eq!(sorted(cluster.status(new).unwrap().voters), [4, 5, 6]);
}

#[tokio::test(start_paused = true)]
async fn a_change_survives_restarts_of_everybody() {
    let mut cluster = Cluster::with_group(22, 3).await;
    cluster.write("a").await;
    cluster.add(4).await;
    let leader = cluster.leader().await;
    let keep: Vec<u64> = [1, 2, 3, 4].into_iter().filter(|id| *id != if leader == 1 { 2 } else { 1 }).collect();
    cluster.node(leader).change_members(GROUP, replicas(&keep), vec![]).await.unwrap();
    assert_eq!(cluster.converge(&keep).await, ["a"]);
    for id in 1..=4 {
        cluster.cut_power(id).await;
    }
    for id in &keep {
        cluster.restart(*id).await.unwrap();
    }
    let new = cluster.leader_among(&keep).await;
    assert_eq!(sorted(cluster.status(new).unwrap().voters), keep);
    assert_eq!(cluster.write("b").await, 2);
}

#[tokio::test(start_paused = true)]
async fn who_was_let_go_is_not_needed_after_a_power_cut_of_everybody() {
    for seed in 30..38 {
        let mut cluster = Cluster::with_group(seed, 3).await;
        cluster.write("a").await;
        cluster.add(4).await;
        cluster.add(5).await;
        let leader = cluster.leader().await;
        let keep = [leader, 4, 5];
        // It goes on leading, so that nothing is appended after the change.
        cluster.node(leader).change_members(GROUP, replicas(&keep), vec![]).await.unwrap();
        assert_eq!(cluster.converge(&keep).await, ["a"]);
        cluster.sleep_ms(1000).await;
        for id in 1..=5 {
            cluster.cut_power(id).await;
        }
        for id in keep {
            cluster.restart(id).await.unwrap();
        }
        let new = cluster.leader_among(&keep).await;
        let status = cluster.status(new).unwrap();
        assert_eq!((sorted(status.voters), status.voters_outgoing), (sorted(replicas(&keep)), vec![]));
        assert_eq!(cluster.write("b").await, 2);
    }
}

#[tokio::test(start_paused = true)]
async fn changes_exclude_each_other_and_what_already_is_succeeds() {
    let mut cluster = Cluster::with_group(23, 3).await;
    cluster.write("a").await;
    cluster.add(4).await;
    let leader = cluster.leader().await;
    let node = cluster.node(leader);
    let (one, two) = futures::join!(
        node.change_members(GROUP, replicas(&[1, 2, 3]), replicas(&[4])),
        node.change_members(GROUP, replicas(&[1, 2, 3, 4]), vec![]),
    );
    assert_eq!((one, two), (Ok(()), Err(MembersError::Busy)));
    assert_eq!(node.change_members(GROUP, replicas(&[3, 2, 1]), replicas(&[4])).await, Ok(()));
    let refused = Err(MembersError::Members { group: GROUP });
    assert_eq!(node.change_members(GROUP, vec![], replicas(&[1])).await, refused);
    assert_eq!(node.change_members(GROUP, replicas(&[1, 1]), vec![]).await, refused);
    let follower = if leader == 1 { 2 } else { 1 };
    let told = Err(MembersError::NotLeader { leader: Some(ReplicaId(leader)) });
    assert_eq!(cluster.node(follower).change_members(GROUP, replicas(&[1]), vec![]).await, told);
}
