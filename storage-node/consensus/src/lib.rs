//! Multi-group Raft: many replicated logs on one node, driven by one loop over one fsynced file. It knows no S3.
//!
//! Guarantees:
//! - [`Consensus::propose`] answers with the machine's reply only when the entry is fsynced on a majority and applied here.
//!   What was acknowledged survives kill -9 and power cuts of every node (K1).
//! - [`Consensus::read_barrier`] never passes on a deposed leader, however long it was paused (ReadIndex, no leases).
//! - State and applied index change together (I8); the log is purged only up to what the state has durably (I11); a replica
//!   never forgets a vote or an acknowledged entry: it refuses to start instead (I12); after a failed fsync nothing is
//!   acknowledged any more (I14).
//! - Bytes from other replicas and from disk are checked before Raft, which asserts a lot, sees them.
//!
//! Left to others: what entries mean ([`Machine`]), how messages travel ([`Transport`]), who the members should be.
//!
//! How it works: `driver` owns one raft-rs `RawNode` per group. Each turn it takes what arrived, lets every group produce work,
//! puts all their records into the next frame of the `log` and, when the fsync before has returned, starts the next one.
//! Messages that promise something wait for their fsync. Committed entries are applied away from the loop, per group in order.
//!
//! ```text
//!  propose ┐                 ┌─> leader's appends ─────────────> Transport
//!  read    ├─> driver turn ──┼─> log frame ─> fsync ─> votes, acks ─┘
//!  step    ┘   (all groups)  └─> committed entries ─> Machine ─> WriteBatch with applied index ─> Kv ─> replies
//! ```
//!
//! A group of one, that keeps its last entry:
//!
//! ```
//! # use std::sync::Arc;
//! # use bytes::Bytes;
//! # use placement_types::{GroupId, ReplicaId};
//! # use storage_node_consensus::{Config, Consensus, Machine, Transport};
//! # use storage_node_kv::{KvError, KvRead, MemoryKv, Overlay};
//! struct Last;
//! impl Machine for Last {
//!     fn apply(&self, state: &mut Overlay<'_>, _index: u64, entry: &[u8]) -> Result<Bytes, KvError> {
//!         let before = state.get(b"last")?.unwrap_or_default();
//!         state.put(&b"last"[..], entry.to_vec());
//!         Ok(before)
//!     }
//! }
//!
//! struct Nobody;
//! impl Transport for Nobody {
//!     fn send(&self, _to: ReplicaId, _messages: Vec<Bytes>) {}
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let (env, _) = placement_env::sim::env(1);
//! let config = Config::new(ReplicaId(1), "/raft");
//! let machines = Arc::new(|_group| Arc::new(Last) as Arc<dyn Machine>);
//! let consensus = Consensus::start(config, env, Arc::new(MemoryKv::new()), Arc::new(Nobody), machines).await?;
//!
//! let group = GroupId(1);
//! consensus.create_group(group, vec![ReplicaId(1)]).await?;
//! let mut leaders = consensus.leaders();
//! leaders.wait_for(|leaders| leaders.get(&group).is_some_and(|leadership| leadership.leader.is_some())).await?;
//! consensus.propose(group, "first".into()).await?;
//! assert_eq!(consensus.propose(group, "second".into()).await?, "first");
//!
//! consensus.read_barrier(group).await?;
//! let last = consensus.read_state(group, |state| state.get(b"last"))??;
//! assert_eq!(last.as_deref(), Some(&b"second"[..]));
//! # consensus.shutdown().await;
//! # Ok(())
//! # }
//! ```
//!
//! A replica that is too far behind for the log gets a snapshot (`snapshot`): the group's pairs in a file, sent in chunks,
//! synced, recorded in the log, and only then put into the store, again from the file if a crash intervenes.

// The generated messages of raft-rs are built field by field, as its own code does: most of their fields stay at the default.
#![allow(clippy::field_reassign_with_default)]

mod config;
mod consensus;
mod driver;
mod error;
mod format;
pub mod limits;
mod log;
mod logger;
mod machine;
mod offline;
mod snapshot;
mod status;
mod store;

#[cfg(test)]
mod tests;

pub use config::Config;
pub use consensus::{Consensus, Machines};
pub use error::{CreateGroupError, MembersError, ProposeError, ReadError, ReadStateError, StartError, TransferError};
pub use format::state_prefix;
pub use log::LogError;
pub use machine::{Machine, Transport};
pub use offline::{LogPosition, Offline, OfflineError, ReplicaPosition, Rewrite};
pub use status::{GroupStatus, Health, Leaders, Leadership, Role};
