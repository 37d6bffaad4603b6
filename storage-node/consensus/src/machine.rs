//! The two traits this crate is used through: what entries do, and how messages travel.

use bytes::Bytes;
use placement_types::{GroupId, ReplicaId};
use storage_node_kv::Overlay;

/// What a group's entries do to its state.
pub trait Machine: Send + Sync {
    /// Applies one committed entry and returns the proposer's reply.
    ///
    /// It must be a pure function of the state and the entry (every replica runs it, and runs it again after a crash), and
    /// total: any entry bytes give a reply, never a panic. A read of `state` that fails needs no care beyond returning: the
    /// driver sees the failure itself and stops before anything of this entry is written.
    fn apply(&self, state: &mut Overlay<'_>, index: u64, entry: &[u8]) -> Bytes;

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
