//! temp
use super::cluster::{GROUP, Journal};
use crate::*;
use placement_types::ReplicaId;
use std::sync::Arc;
use storage_node_kv::{Kv, RocksKv, RocksOptions};
struct Nowhere;
impl Transport for Nowhere {
    fn send(&self, _to: ReplicaId, _messages: Vec<bytes::Bytes>) {}
}
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn throughput() {
    let env = placement_env::system();
    let dir = std::path::PathBuf::from(format!("/work/tmpbench-{}", env.random_u64()));
    env.fs.create_dir_all(&dir.join("kv")).unwrap();
    let kv: Arc<dyn Kv> =
        Arc::new(RocksKv::open(&dir.join("kv"), RocksOptions { wal: false, ..RocksOptions::default() }).unwrap());
    let machines: Machines = Arc::new(|_| Arc::new(Journal) as Arc<dyn Machine>);
    let mut config = Config::new(ReplicaId(1), dir.join("raft"));
    config.flush_bytes = 48 << 20;
    let c = Consensus::start(config, env.clone(), kv, Arc::new(Nowhere), machines).await.unwrap();
    for groups in [1u32, 8] {
        for g in 0..groups {
            c.create_group(placement_types::GroupId(GROUP.0 + g), vec![ReplicaId(1)]).await.unwrap();
        }
        for conc in [1u64, 16, 64, 256] {
            let t = env.monotonic();
            let mut hs = vec![];
            let per = if conc == 1 { 1000 } else { 40000 / conc };
            for w in 0..conc {
                let c = c.clone();
                let g = placement_types::GroupId(GROUP.0 + (w as u32) % groups);
                hs.push(tokio::spawn(async move {
                    for _ in 0..per {
                        while c.propose(g, bytes::Bytes::from(vec![7u8; 200])).await.is_err() {
                            tokio::task::yield_now().await;
                        }
                    }
                }));
            }
            for h in hs {
                h.await.unwrap();
            }
            let d = env.monotonic() - t;
            println!("groups {groups} concurrency {conc}: {:.0} proposals/s", (per * conc) as f64 / d.as_secs_f64());
        }
    }
    let t = env.monotonic();
    for _ in 0..1000 {
        c.read_barrier(GROUP).await.unwrap();
    }
    println!("read barrier {:?}", (env.monotonic() - t) / 1000);
    c.shutdown().await;
    std::fs::remove_dir_all(&dir).unwrap();
}

#[tokio::test(start_paused = true)]
async fn longchaos() {
    let from: u64 = std::env::var("FROM").unwrap().parse().unwrap();
    for seed in from..from + 400 {
        if seed % 20 == 0 {
            eprintln!("seed {seed}");
        }
        super::chaos::run(seed).await;
    }
}
