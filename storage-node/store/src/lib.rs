//! Bytes on one disk: shards in an append-only log of segment files, found through an index. No network.
//!
//! What it guarantees:
//! - [`ShardWriter::finish`] returns `Ok` only after the fsync that makes the whole shard durable; a shard is there whole or not
//!   at all, whatever the moment of a crash (P6 to P8).
//! - [`Disk::read_units`] returns only bytes whose BLAKE3, shard, unit and place on disk were all checked (D4, D5, D12, D13).
//!   "Corrupt" and "not found" are different answers, and a damaged index is rebuilt from the segments, never believed.
//! - What was found bad never counts as held, and writing the same shard again replaces it.
//! - An acknowledged delete stays deleted, also when the index is lost and rebuilt (K4).
//! - After a failed write or fsync the disk takes nothing more (I14); a full disk refuses shards but still deletes (D14).
//!
//! What it leaves to its caller: placement, repair, deciding what is garbage, and calling [`Disk::checkpoint`] and
//! [`Disk::compact_once`] from time to time.
//!
//! ```text
//! DISK/disk.id            who this disk is; written once                               identity.rs
//! DISK/lock               held while a process has the disk open
//! DISK/segments/*.seg     the log: unit, seal and delete records                       segment.rs, format.rs
//! DISK/index/             shard id -> where its units are; disposable                  index.rs
//!
//! ShardWriter --units--> append stage --written--> commit stage --fsync, index--> finish() returns
//!  writer.rs              append.rs                 commit.rs
//! ```
//!
//! A shard comes as a stream of units and is never held whole: each unit is a record of its own, and the last one carries the
//! *seal*, the list of all of them. Records of concurrent shards interleave. Opening a disk (`recovery.rs`, `replay.rs`) replays the log from
//! the last checkpoint into the index; compaction (`compaction.rs`) appends what is alive in a mostly dead segment again. The
//! scrub (`scrub.rs`) reads everything now and then; what is bad is in quarantine (`quarantine.rs`) until it is written anew.
//!
//! ```
//! # use std::sync::Arc;
//! # use bytes::Bytes;
//! # use placement_types::{Env, Profile, ShardId, TxnId, Slot};
//! # use storage_node_store::{Disk, DiskIdentity, ExpectedIdentity, IndexOpener, Options, Owner};
//! # async fn example(env: Env, identity: DiskIdentity, index: IndexOpener, shard: ShardId) -> Result<(), Box<dyn std::error::Error>> {
//! let path = std::path::Path::new("/srv/disk1");
//! Disk::format(&env, path, identity).await?;
//! let disk = Disk::open(&env, path, ExpectedIdentity::exactly(identity), index, Options::default()).await?;
//! let mut writer = disk.writer(shard, Owner { txn: TxnId::random(&env), slot: Slot(7) }, Profile::SINGLE);
//! writer.append(Bytes::from_static(b"unit 0")).await?;
//! writer.finish().await?; // durable from here on
//! assert_eq!(disk.read_units(shard, 0, 1).await?, [Bytes::from_static(b"unit 0")]);
//! # Ok(())
//! # }
//! ```

mod append;
mod commit;
mod compaction;
mod disk;
mod error;
mod format;
mod health;
mod held;
mod identity;
mod index;
mod limits;
mod log;
mod position;
mod progress;
mod quarantine;
mod read;
mod recovery;
mod replay;
mod scan;
mod scrub;
mod segment;
#[cfg(test)]
mod tests;
mod writer;

pub use compaction::Compaction;
pub use disk::{Disk, IndexOpener, Options, Usage};
pub use error::{OpenError, ReadError, WriteError};
pub use health::DiskState;
pub use held::{Examined, Held};
pub use identity::{DiskIdentity, ExpectedIdentity};
pub use index::ShardSummary;
pub use limits::{UNIT_BYTES_MAX, UNITS_MAX};
pub use scrub::{Adopted, DarkSearch, FinishedScrub, ScrubState, ScrubStep, ScrubTally};
pub use writer::{Owner, ShardWriter};
