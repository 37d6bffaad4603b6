//! A majority that is away for a while, and comes back.

use std::time::Duration;

use super::cluster::{Cluster, GROUP};

#[tokio::test(start_paused = true)]
async fn a_majority_that_comes_back_has_lost_nothing_and_repeats_nothing() {
    for seed in 0..5 {
        let mut cluster = Cluster::with_group(780 + seed, 3).await;
        let mut acknowledged = Vec::new();
        for number in 0..20 {
            let entry = format!("before {number}");
            cluster.write(&entry).await;
            acknowledged.push(entry);
        }
        let leader = cluster.leader().await;
        // Once the leader is among those that go, once it is left alone.
        let followers = (1..=3).filter(|id| *id != leader);
        let away: Vec<u64> = if seed % 2 == 0 { followers.collect() } else { followers.take(1).chain([leader]).collect() };
        let left = (1..=3).find(|id| !away.contains(id)).unwrap();
        for id in &away {
            cluster.cut_power(*id).await;
        }
        let doubtful = cluster.env.timeout(Duration::from_secs(5), cluster.propose(left, "alone")).await;
        assert!(!matches!(doubtful, Ok(Ok(_))), "one of three acknowledges nothing");
        let read = cluster.env.timeout(Duration::from_secs(5), cluster.node(left).read_barrier(GROUP)).await;
        assert!(!matches!(read, Ok(Ok(()))), "nor does it answer reads");
        for id in &away {
            cluster.restart(*id).await.unwrap();
        }
        cluster.write("after").await;
        acknowledged.push("after".to_owned());
        let entries = cluster.converge(&[1, 2, 3]).await;
        let times = |entry: &String| entries.iter().filter(|found| *found == entry).count();
        assert!(acknowledged.iter().all(|entry| times(entry) == 1), "{entries:?}");
        assert!(times(&"alone".to_owned()) <= 1);
        let order: Vec<&String> = entries.iter().filter(|entry| *entry != "alone").collect();
        assert_eq!(order, acknowledged.iter().collect::<Vec<_>>());
    }
}
