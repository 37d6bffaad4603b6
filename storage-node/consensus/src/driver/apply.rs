//! Applying committed entries: one job per group at a time, away from the loop.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use placement_types::{Fs, GroupId};
use raft::eraftpb::ConfState;
use storage_node_kv::{Durability, Kv, KvError, Overlay, Prefixed};

use crate::format::{GroupMeta, MetaState, Origin, Point, meta_key, state_prefix};
use crate::machine::Machine;
use crate::snapshot::{self, SnapshotError};

/// The byte before a caller's entry. Raft's own entries are empty.
pub(crate) const ENTRY_VERSION: u8 = 1;

pub(crate) enum ApplyItem {
    /// An entry of Raft itself: it only moves the applied point.
    Empty {
        point: Point,
    },
    Entry {
        point: Point,
        data: Bytes,
    },
    Members {
        point: Point,
        members: ConfState,
    },
    Install {
        origin: Origin,
    },
}

impl ApplyItem {
    pub(crate) fn bytes(&self) -> usize {
        match self {
            ApplyItem::Entry { data, .. } => data.len() + 128,
            ApplyItem::Empty { .. } | ApplyItem::Members { .. } | ApplyItem::Install { .. } => 128,
        }
    }
}

/// Why applying cannot go on. Each means that this node stops: going on would let its state differ from the others'.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApplyError {
    #[error("the state store failed: {0}")]
    Kv(#[from] KvError),
    #[error("the state of group {group} cannot be read for entry {index}: {source}")]
    Unreadable { group: GroupId, index: u64, source: KvError },
    #[error("entry {index} of group {group} was written by a newer version ({version}): update this node")]
    Version { group: GroupId, index: u64, version: u8 },
    #[error(transparent)]
    Install(#[from] SnapshotError),
}

pub(crate) struct ApplyJob {
    pub group: GroupId,
    pub machine: Arc<dyn Machine>,
    pub kv: Arc<dyn Kv>,
    pub fs: Arc<dyn Fs>,
    /// The membership before the first item.
    pub members: ConfState,
    /// Either entries, or one installation.
    pub items: Vec<ApplyItem>,
    /// The file of the installation.
    pub file: Option<PathBuf>,
}

/// What a job has done; it is all readable in the store.
pub(crate) struct Applied {
    pub point: Point,
    pub members: ConfState,
    /// The machine's replies.
    pub replies: Vec<(Point, Bytes)>,
    /// Whether the state is durable, not only readable.
    pub flushed: bool,
}

impl ApplyJob {
    /// Blocks. One overlay and one write for all entries, the applied point among them (I8).
    pub(crate) fn run(self) -> Result<Applied, ApplyError> {
        if let [ApplyItem::Install { origin }] = self.items.as_slice() {
            return self.install(origin);
        }
        let prefix = state_prefix(self.group);
        let base = Prefixed::new(self.kv.as_read(), prefix);
        let mut overlay = Overlay::new(&base);
        let (mut point, mut members, mut replies) = (Point::default(), self.members.clone(), Vec::new());
        for item in &self.items {
            match item {
                ApplyItem::Empty { point: at } => point = *at,
                ApplyItem::Members { point: at, members: now } => (point, members) = (*at, now.clone()),
                ApplyItem::Entry { point: at, data } => {
                    point = *at;
                    let (version, entry) = data.split_first().expect("a caller's entry begins with its version");
                    if *version != ENTRY_VERSION {
                        return Err(ApplyError::Version { group: self.group, index: at.index, version: *version });
                    }
                    let reply = self.machine.apply(&mut overlay, at.index, entry);
                    replies.push((*at, reply.map_err(|source| self.unreadable(*at, source))?));
                }
                ApplyItem::Install { .. } => unreachable!("an installation is a job of its own"),
            }
        }
        let mut batch = overlay.into_batch(&prefix);
        let meta = GroupMeta { state: MetaState::Whole, applied: point, members: members.clone() };
        batch.put(meta_key(self.group).to_vec(), meta.encode());
        self.kv.write(&batch, Durability::Buffered)?;
        self.machine.applied(self.group, point.index);
        Ok(Applied { point, members, replies, flushed: false })
    }

    fn unreadable(&self, at: Point, source: KvError) -> ApplyError {
        ApplyError::Unreadable { group: self.group, index: at.index, source }
    }

    fn install(&self, origin: &Origin) -> Result<Applied, ApplyError> {
        let path = self.file.as_deref().expect("an installation has a file");
        snapshot::install(&*self.fs, path, &*self.kv, self.group, origin)?;
        // The state is durable without it; a file that stays is removed at the next start.
        if let Err(error) = self.fs.remove_file(path) {
            tracing::warn!(path = %path.display(), %error, "an installed snapshot's file could not be removed");
        }
        self.machine.applied(self.group, origin.point.index);
        let (point, members) = (origin.point, origin.members.clone());
        Ok(Applied { point, members, replies: Vec::new(), flushed: true })
    }
}
