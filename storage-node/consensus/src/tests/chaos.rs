//! Everything at once, from many seeds: crashes, power cuts, partitions, loss, delay, leaders and members that change. Nothing that
//! was acknowledged is lost, nothing is applied twice, every replica has the same order, and no read is stale (K1, K5, K8).

use std::cell::{Cell, RefCell};
use std::time::Duration;

use futures::future::join;
use placement_types::ReplicaId;

use super::cluster::{Cluster, GROUP};
use crate::{Config, Consensus};

/// Three of them vote at any time.
const NODES: u64 = 4;

fn config(config: &mut Config) {
    config.segment_bytes = 256 << 10;
    config.flush_bytes = 32 << 10;
    config.segments_kept = 1;
    config.cache_bytes = 8 << 10;
}

/// What clients know.
#[derive(Default)]
struct Known {
    acked: RefCell<Vec<(u64, String)>>,
    /// The highest number that was acknowledged.
    newest: Cell<u64>,
    reads: Cell<u64>,
    done: Cell<bool>,
}

/// Writes to and reads from whoever claims to lead; what is acknowledged or read is checked against what was before.
async fn client(name: u64, cluster: &RefCell<Cluster>, known: &Known) {
    let mut n = 0;
    while !known.done.get() {
        let (env, leader) = {
            let cluster = cluster.borrow();
            let running: Vec<u64> = cluster.nodes.keys().copied().filter(|id| cluster.is_running(*id)).collect();
            let leads = |id: &u64| cluster.node(*id).leads(GROUP);
            let leaders: Vec<u64> = running.iter().copied().filter(leads).collect();
            // Not always the newest one: a deposed leader is asked as well.
            let choice = cluster.env.random_below(leaders.len().max(1) as u64) as usize;
            (cluster.env.clone(), leaders.get(choice).map(|id| cluster.node(*id).clone()))
        };
        let Some(leader) = leader else {
            env.sleep(Duration::from_millis(20)).await;
            continue;
        };
        if env.random_below(2) == 0 {
            n += 1;
            let entry = format!("{name}.{n}");
            let outcome = env.timeout(Duration::from_secs(2), leader.propose(GROUP, entry.clone().into_bytes().into())).await;
            if let Ok(Ok(reply)) = outcome {
                let number = super::cluster::number(&reply);
                known.acked.borrow_mut().push((number, entry));
                known.newest.set(known.newest.get().max(number));
            }
        } else {
            let before = known.newest.get();
            if let Ok(Ok(())) = env.timeout(Duration::from_secs(2), leader.read_barrier(GROUP)).await
                && let Ok(entries) = leader.read_state(GROUP, super::cluster::entries)
            {
                assert!(entries.len() as u64 >= before, "a read saw {} entries after {before} were acknowledged", entries.len());
                known.reads.set(known.reads.get() + 1);
            }
        }
        env.sleep(Duration::from_millis(env.random_below(10))).await;
    }
}

/// Breaks something, mends something, again and again.
async fn breaker(cluster: &RefCell<Cluster>, rounds: u64) {
    let env = cluster.borrow().env.clone();
    let pick = || env.random_below(NODES) + 1;
    // Borrowed for the time a node takes to stop and start; clients only look at it between their own waits.
    for _ in 0..rounds {
        env.sleep(Duration::from_millis(env.random_below(1500))).await;
        match env.random_below(10) {
            0 => cluster.borrow().isolate(pick()),
            1 => cluster.borrow().cut(pick(), pick()),
            2 => cluster.borrow().set_loss(env.random_below(20), env.random_below(100)),
            3 | 4 => restart(cluster, &[pick()], true).await,
            5 => restart(cluster, &[pick()], false).await,
            6 => restart(cluster, &[1, 2, 3, 4], true).await,
            7 => change_members(cluster, pick()).await,
            8 => hand_over(cluster, pick()).await,
            _ => {
                cluster.borrow().heal();
                cluster.borrow().set_loss(0, 3);
            }
        }
    }
}

/// A handle of whoever seems to lead.
fn leading(cluster: &RefCell<Cluster>) -> Option<Consensus> {
    let cluster = cluster.borrow();
    let mut running = cluster.nodes.keys().filter(|id| cluster.is_running(**id));
    running.find(|id| cluster.node(**id).leads(GROUP)).map(|id| cluster.node(*id).clone())
}

/// All nodes but one vote, and that one learns, or is out.
async fn change_members(cluster: &RefCell<Cluster>, out: u64) {
    let env = cluster.borrow().env.clone();
    let Some(leader) = leading(cluster) else { return };
    let voters = (1..=NODES).filter(|id| *id != out).map(ReplicaId).collect();
    let learners = if env.random_below(2) == 0 { vec![ReplicaId(out)] } else { vec![] };
    let _ = env.timeout(Duration::from_secs(3), leader.change_members(GROUP, voters, learners)).await;
}

async fn hand_over(cluster: &RefCell<Cluster>, to: u64) {
    let env = cluster.borrow().env.clone();
    let Some(leader) = leading(cluster) else { return };
    let _ = env.timeout(Duration::from_secs(3), leader.transfer_leadership(GROUP, ReplicaId(to))).await;
}

/// Takes the cluster out of its cell while nodes restart: clients see it without the nodes that are down.
async fn restart(cluster: &RefCell<Cluster>, ids: &[u64], power: bool) {
    let env = cluster.borrow().env.clone();
    for id in ids {
        cluster.borrow_mut().stop_now(*id);
    }
    env.sleep(Duration::from_millis(20)).await;
    if power {
        for id in ids {
            cluster.borrow_mut().lose_unsynced(*id);
        }
    }
    env.sleep(Duration::from_millis(env.random_below(3000))).await;
    for id in ids {
        let starting = cluster.borrow().starting(*id);
        let started = starting.await.unwrap_or_else(|error| panic!("node {id} does not start: {error}"));
        cluster.borrow_mut().started(*id, started);
    }
}

pub(super) async fn run(seed: u64) {
    let mut cluster = Cluster::start_with(seed, NODES - 1, config).await;
    cluster.create().await;
    cluster.add(NODES).await;
    cluster.leader().await;
    let (cluster, known) = (RefCell::new(cluster), Known::default());
    let clients = futures::future::join_all((0..4).map(|name| client(name, &cluster, &known)));
    let breaking = async {
        breaker(&cluster, 25).await;
        known.done.set(true);
    };
    join(clients, breaking).await;
    let cluster = cluster.into_inner();
    cluster.heal();
    cluster.set_loss(0, 3);
    let healed = cluster.env.monotonic();
    cluster.write("end").await;
    assert!(cluster.env.monotonic() - healed < Duration::from_secs(15), "seed {seed}: writes are served within 15 s (K14)");
    let leader = cluster.leader().await;
    let voters: Vec<u64> = cluster.status(leader).unwrap().voters.into_iter().map(|voter| voter.0).collect();
    assert_eq!(voters.len(), 3, "seed {seed}");
    let entries = cluster.converge(&voters).await;
    for (number, entry) in known.acked.borrow().iter() {
        assert_eq!(entries.get(*number as usize - 1), Some(entry), "seed {seed}: acknowledged as number {number}");
    }
    let distinct: std::collections::BTreeSet<_> = entries.iter().collect();
    assert_eq!(distinct.len(), entries.len(), "seed {seed}: nothing is applied twice");
    assert!(known.acked.borrow().len() > 50 && known.reads.get() > 50, "seed {seed}: the run did something");
}

#[tokio::test(start_paused = true)]
async fn nothing_acknowledged_is_lost_whatever_breaks() {
    for seed in 1000..1030 {
        run(seed).await;
    }
}
