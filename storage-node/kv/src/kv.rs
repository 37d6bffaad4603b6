//! The trait: ordered keys, atomic batches, snapshots.

use bytes::Bytes;

use crate::{KvError, WriteBatch};

/// What a scan's visitor wants next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    Next,
    /// Continue at the first key at or after this one. A scan never goes back: a key that is not greater than the one just
    /// visited is the same as `Next`.
    Seek(Vec<u8>),
    Stop,
}

/// When a write counts as done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// On disk: the write-ahead log was fsynced before the call returned.
    Synced,
    /// In memory, and lost in a crash unless [`Kv::flush`] ran since: for state that is replayed from a log.
    Buffered,
}

/// Reading. Keys are in unsigned byte order.
pub trait KvRead: Send + Sync {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, KvError>;

    /// Visits the pairs with `from <= key < to` in order, on one consistent snapshot. An empty `to` means no end.
    fn scan(&self, from: &[u8], to: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> Step) -> Result<(), KvError>;
}

/// Reading and writing.
pub trait Kv: KvRead {
    /// Applies a batch atomically.
    fn write(&self, batch: &WriteBatch, durability: Durability) -> Result<(), KvError>;

    /// Returns once everything written before the call is durable, also what was written [`Durability::Buffered`].
    fn flush(&self) -> Result<(), KvError>;

    /// A view that does not see later writes.
    fn snapshot(&self) -> Box<dyn KvRead + '_>;

    fn as_read(&self) -> &dyn KvRead;
}
