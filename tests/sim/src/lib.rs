//! The cluster in one process, with seeded faults and a checker that judges what clients saw.
//!
//! [`simulate`] runs storage nodes and gateways under turmoil: every process is a host with a runtime and a paused clock of its
//! own, and one seed decides everything that happens.
//!
//! | real: the product's own code | simulated |
//! |---|---|
//! | `src/roles/storage.rs` and `src/net/` (included below, not copied): founding, Raft, repair, gc | processes, their death and restart (`machine.rs`) |
//! | gRPC and HTTP/2 of the internal port, with every deadline and keep-alive | the TCP below it (`network.rs`): delays, partitions; lost segments are never sent again |
//! | segment files, Raft log, recovery | the disk: power cuts lose or tear what was not synced, at any write; it fails, fills, rots and lies (`SimFs`) |
//! | metadata state machines and shard index | RocksDB: ordered keys in memory; a power cut loses unflushed batches (`MemoryKv`) |
//! | the gateway's operations | time, randomness, threads: blocking work runs in place |
//!
//! Not here: TLS, HTTP and SigV4 of the S3 port (`tests/e2e`), RocksDB's files, real thread interleavings.
//!
//! - `matrix.rs` lets a process die at every point of every operation (`crash_points.rs`); `audit.rs` compares disks and metadata.
//! - `scenario.rs` runs one seed; `schedule.rs` plans its faults, `director.rs` causes them; `workload.rs` is what clients do
//!   meanwhile, `operator.rs` what the operator does.
//! - `tests/faults` judges the history they recorded for K1, K2, K4, K5 and K14, and has the catalogue of faults.
//! - `child.rs` runs a seed in a process of its own, where nothing but the seed is random.
//!
//! Repeat a failed run with the seed it printed: `SIM_SEED=n cargo test -p tests-sim --test seeds chosen -- --nocapture`.

mod audit;
#[allow(clippy::disallowed_methods)]
pub mod child;
mod crash_points;
mod dice;
mod director;
mod lying_fs;
mod machine;
mod matrix;
#[path = "../../../src/net/mod.rs"]
#[allow(dead_code, unused_imports)]
mod net;
mod network;
mod operator;
mod panics;
mod process;
mod requests;
mod roles;
mod scenario;
mod schedule;
mod workload;

pub use dice::Dice;
pub use machine::Plant;
pub use matrix::{CHAPTERS, Chapter, simulate_chapter};
pub use scenario::{Report, simulate, simulate_with};
