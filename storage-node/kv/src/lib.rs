//! An ordered key-value store behind one trait: RocksDB in production, a crash-aware in-memory double in tests.
//!
//! Guarantees: a [`WriteBatch`] is applied whole or not at all, also across a crash; batches become durable in the order
//! written, so that what a crash loses is a suffix; a corrupt store is an error, never a missing key.
//!
//! - `kv.rs` holds the trait, [`Kv`] and [`KvRead`]; [`Overlay`] stacks unwritten changes on a view; [`Prefixed`] narrows a
//!   view to one key prefix.
//! - `rocks.rs` is RocksDB, `memory.rs` the double; one property test holds both to a `BTreeMap`.
//!
//! ```
//! use storage_node_kv::{Durability, Kv, KvRead, MemoryKv, WriteBatch};
//!
//! let kv = MemoryKv::new();
//! let mut batch = WriteBatch::new();
//! batch.put("key", "value");
//! kv.write(&batch, Durability::Synced)?;
//! assert_eq!(kv.get(b"key")?.as_deref(), Some(b"value".as_slice()));
//! # Ok::<(), storage_node_kv::KvError>(())
//! ```

mod batch;
mod error;
mod kv;
mod memory;
mod overlay;
mod prefixed;
mod rocks;
#[cfg(test)]
#[allow(clippy::disallowed_methods)] // the tests damage files
mod tests;

pub use batch::{WriteBatch, WriteOp};
pub use error::KvError;
pub use kv::{Durability, Kv, KvRead, Step};
pub use memory::MemoryKv;
pub use overlay::Overlay;
pub use prefixed::Prefixed;
pub use rocks::{RocksKv, RocksOptions};
