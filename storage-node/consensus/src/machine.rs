//! The two traits this crate is used through: what entries do, and how messages travel.

use bytes::Bytes;
use placement_types::{GroupId, ReplicaId};
use storage_node_kv::{KvError, Overlay};

/// What a group's entries do to its state.
pub trait Machine: Send + Sync {
    /// Applies one committed entry and returns the proposer's reply.
    ///
    /// It must be a pure function of the state and the entry (every replica runs it, and runs it again after a crash), and
    /// total: any entry bytes give a reply, never a panic.
    ///
    /// # Errors
    /// When the state cannot be read, or what is read is damaged. This node then stops before anything of the entry is
    /// written: going on with half of it would make its state differ from the other replicas' for ever.
    fn apply(&self, state: &mut Overlay<'_>, index: u64, entry: &[u8]) -> Result<Bytes, KvError>;

    /// Called after everything up to `index` is readable in the store, on the thread that applied it: to wake watchers. Also
    /// called after a snapshot replaced the whole state.
    fn applied(&self, group: GroupId, index: u64) {
        let _ = (group, index);
    }
}

/// Carries messages to other replicas. Fire and forget: messages may be lost, repeated and reordered, but not altered. It
/// must not block: queue, and drop when the queue is full. The receiver hands them to
/// [`Consensus::step`](crate::Consensus::step).
pub trait Transport: Send + Sync {
    fn send(&self, to: ReplicaId, messages: Vec<Bytes>);
}
