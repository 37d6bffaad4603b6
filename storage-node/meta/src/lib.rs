//! The object index of one metadata group, as a pure state machine: a command in, an outcome and changed rows out.
//!
//! It has no clock, no randomness and no I/O: [`apply()`] reads and writes a [`storage_node_kv::Overlay`] whose key space is the
//! group's, and everything an outcome depends on is in the command. So every replica that applies the same entries holds the
//! same bytes (I8), and each S3 mutation is one atomic step (I4).
//!
//! Guarantees:
//! - An entry that cannot be decoded, or breaks an invariant of its type, is answered with `Malformed` and changes nothing.
//!   An error is a corrupt or failing store, never a property of the entry: the replica must stop.
//! - A transaction has at most one effect and one outcome, however often and late its command arrives (I9).
//! - A transaction fenced by `AbortTxns` never commits after it (I5), and what a committed one wrote is `Referenced` until
//!   the gc queue has let go of it.
//! - Chunks leave only through the gc queue, named by chunk and disk, never by object key (I5, I13).
//!
//! How it works, from the top:
//! - `apply.rs` gates a command: is it well-formed (`check.rs`), is it a repetition or fenced (`transactions.rs`), is its
//!   bucket gone (`shelves.rs`)? Then it hands it to its noun.
//! - `versions.rs` and `uploads.rs` are S3's rules of objects and multipart uploads. `data.rs` files and drops what they hold
//!   and moves shards; `garbage.rs` is the queue where dropped chunks wait; `claims.rs` counts who is still referred to.
//! - `answer.rs` answers queries; `list.rs` walks a shelf as S3 lists it.
//! - `view.rs` reads typed rows; `format.rs` is the byte table of all of them.
//!
//! ```
//! use placement_types::{BucketId, ObjectKey, Timestamp, TxnId};
//! use storage_node_kv::{KvError, KvRead, Overlay, Step};
//! use storage_node_meta::{answer, apply_command};
//! use storage_node_proto::command::{Change, Command, Outcome, Shelf, WriteCondition};
//! use storage_node_proto::object::{ObjectAttributes, ObjectRecord, VersionId, VersionSelector, Versioning};
//! use storage_node_proto::query::{Answer, Query};
//!
//! # struct Empty;
//! # impl KvRead for Empty {
//! #     fn get(&self, _: &[u8]) -> Result<Option<bytes::Bytes>, KvError> { Ok(None) }
//! #     fn scan(&self, _: &[u8], _: &[u8], _: &mut dyn FnMut(&[u8], &[u8]) -> Step) -> Result<(), KvError> { Ok(()) }
//! # }
//! # fn main() -> Result<(), KvError> {
//! let mut state = Overlay::new(&Empty);
//! let shelf = Shelf { bucket: BucketId::from_u128(1), index_shard: 0 };
//! let key = ObjectKey::parse("photos/cat").expect("a legal key");
//! let record = ObjectRecord {
//!     bytes: 0,
//!     etag: "d41d8cd98f00b204e9800998ecf8427e".into(),
//!     attributes: ObjectAttributes::default(),
//!     checksum: None,
//!     data: Vec::new(),
//!     parts: Vec::new(),
//! };
//! let put = Command {
//!     txn: TxnId::from_u128(7),
//!     time: Timestamp::from_millis(1_000),
//!     change: Change::Put {
//!         shelf,
//!         key: key.clone(),
//!         versioning: Versioning::Unversioned,
//!         condition: WriteCondition::Absent,
//!         record,
//!         data: None,
//!     },
//! };
//! let first = apply_command(&mut state, 1, &put)?;
//! assert!(matches!(first, Outcome::Written { version: VersionId::Null, .. }));
//! // Sent again it is the same write, not a failed precondition.
//! assert_eq!(apply_command(&mut state, 2, &put)?, first);
//!
//! let query = Query::Version { shelf, key, selector: VersionSelector::Current };
//! assert!(matches!(answer(&state, &query)?, Answer::Version { .. }));
//! # Ok(())
//! # }
//! ```

mod answer;
mod apply;
mod check;
mod claims;
mod data;
mod format;
mod garbage;
pub mod limits;
mod list;
mod shelves;
mod survey;
mod transactions;
mod uploads;
mod versions;
mod view;

pub use answer::answer;
pub use apply::{apply, apply_command};

#[cfg(test)]
mod tests;
