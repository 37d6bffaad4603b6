//! The storage node: chunk coordinator, shard service, metadata service, garbage collection, repair. A library; the root
//! binary gives it a network and a cluster map.
//!
//! ```text
//! ChunkApi  coordinator/   codes a chunk onto disks, reads it back         (write.rs, read.rs)
//! ShardApi  shard_service  the disks of this node                          (disks.rs, local_disk.rs -> -store)
//! MetaApi   meta_service   the metadata groups of this node                (-> storage-node-consensus, -meta)
//! duties    gc, orphans, survey, repair, rebalance, recode, maintenance, ...    (duties.rs is their context)
//!           scrub, findings, absence: what is bad or missing on the disks
//! ```
//!
//! What it guarantees:
//! - A manifest entry lists exactly the disks that fsynced their shard, a write quorum of them at least (I2, P11).
//! - A read yields the chunk's bytes or an error, never other or fewer bytes (K2).
//! - A shard is deleted only for a committed gc entry, or as an orphan of a fenced transaction (I5).
//!
//! What it leaves to others: which nodes exist and live (placement), what objects are (gateway), how bytes reach peers
//! (storage-node-proto). Nodes meet only through [`Nodes`](storage_node_proto::api::Nodes).

mod absence;
mod coordinator;
mod diagnosis;
mod disks;
#[cfg(test)]
mod doubles;
mod duties;
mod error;
mod findings;
mod gc;
mod group_client;
mod groups;
mod holders;
mod limits;
mod local_disk;
mod maintenance;
mod meta_service;
mod meter;
mod metrics;
mod node;
mod orphans;
mod rebalance;
mod recode;
mod repair;
mod room;
mod scrub;
mod shard_service;
mod survey;
mod suspects;
#[cfg(test)]
mod tests;
mod throttle;

pub use disks::DiskDir;
pub use error::StartError;
pub use limits::Limits;
pub use node::{KvOpener, KvOpeners, NodeParts, StorageNode};
