//! The commit stage: the fsync that makes acknowledgements true.
//!
//! Order inside one commit, and why it survives a crash at each step:
//! 1. `sync_data` of every segment written since the last commit. *This is the fsync behind every `Ok`*: the seal names all
//!    units, and all of them were written before it, to these files. Creating a segment synced its name.
//! 2. The index, unsynced. After a crash recovery replays it from the log, which step 1 made durable.
//! 3. Only now replies go out and dead records are punched: the tombstone or the newer seal that killed them is durable.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use placement_types::{File, ShardId};

use crate::error::WriteError;
use crate::format::Entry;
use crate::log::{Core, Reply};
use crate::position::Position;

/// What one run of the append stage leaves to commit.
pub(crate) struct Written {
    /// The segments written to.
    pub dirty: BTreeMap<u32, Arc<dyn File>>,
    pub commits: Vec<Commit>,
    /// Everything written lies before.
    pub end: Position,
}

/// A request whose records are written.
pub(crate) enum Commit {
    Put {
        shard: ShardId,
        entry: Arc<Entry>,
        replaced: Option<Arc<Entry>>,
        reply: Reply<()>,
    },
    Delete {
        at: Position,
        removed: Vec<(ShardId, Arc<Entry>)>,
        reply: Option<Reply<()>>,
    },
    /// Nothing of its own: it waits for what was written before it.
    Wait {
        reply: Reply<()>,
    },
    Barrier {
        reply: Reply<Position>,
    },
}

impl Commit {
    fn fail(self, error: WriteError) {
        // A caller that stopped waiting does not want the answer.
        let _ = match self {
            Commit::Put { reply, .. } | Commit::Wait { reply } | Commit::Delete { reply: Some(reply), .. } => {
                reply.send(Err(error)).is_ok()
            }
            Commit::Delete { reply: None, .. } => true,
            Commit::Barrier { reply } => reply.send(Err(error)).is_ok(),
        };
    }
}

pub(crate) struct Committer {
    core: Arc<Core>,
    dirty: BTreeMap<u32, Arc<dyn File>>,
    commits: Vec<Commit>,
    end: Position,
}

impl Committer {
    pub fn new(core: Arc<Core>) -> Self {
        Self { core, dirty: BTreeMap::new(), commits: Vec::new(), end: Position::START }
    }

    pub fn collect(&mut self, written: Written) {
        self.dirty.extend(written.dirty);
        self.commits.extend(written.commits);
        self.end = self.end.max(written.end);
    }

    /// Units alone wait for nobody: their fsync is their seal's.
    pub fn is_awaited(&self) -> bool {
        !self.commits.is_empty()
    }

    /// Makes durable what was collected, applies it and answers. Blocks.
    pub fn commit(&mut self) {
        let commits = std::mem::take(&mut self.commits);
        match self.sync_and_apply(&commits) {
            Ok(()) => {
                for commit in commits {
                    self.settle(commit);
                }
            }
            // The records may or may not be on disk: the outcome is unknown, and the disk takes nothing more (I14).
            Err(error) => commits.into_iter().for_each(|commit| commit.fail(error.clone())),
        }
    }

    fn sync_and_apply(&mut self, commits: &[Commit]) -> Result<(), WriteError> {
        self.core.health.alive()?;
        for (number, file) in std::mem::take(&mut self.dirty) {
            // Never retried: after a failed fsync the kernel may call lost pages clean.
            file.sync_data().map_err(|error| {
                self.core.health.kill(format_args!("fsync of {} failed: {error}", self.core.segments.path(number).display()))
            })?;
        }
        self.core.durable.advance(self.end);
        let mut changes = Vec::new();
        for commit in commits {
            match commit {
                Commit::Put { shard, entry, .. } => changes.push((*shard, Some(&**entry))),
                Commit::Delete { removed, .. } => changes.extend(removed.iter().map(|(shard, _)| (*shard, None))),
                Commit::Wait { .. } | Commit::Barrier { .. } => {}
            }
        }
        if changes.is_empty() {
            return Ok(());
        }
        self.core.index.write(&changes).map_err(|error| self.core.index_failed(&error))
    }

    /// Counts, answers and frees what a durable change killed.
    fn settle(&self, commit: Commit) {
        let core = &self.core;
        match commit {
            Commit::Put { shard, entry, replaced, reply } => {
                core.segments.settle(&entry.extents());
                core.pending.applied(shard, entry.seal);
                self.lift_quarantine(shard);
                match replaced {
                    Some(old) => self.free(&old),
                    None => {
                        core.shards.fetch_add(1, Ordering::Relaxed);
                    }
                }
                let _ = reply.send(Ok(()));
            }
            Commit::Delete { at, removed, reply } => {
                for (shard, entry) in &removed {
                    core.pending.applied(*shard, at);
                    core.shards.fetch_sub(1, Ordering::Relaxed);
                    self.lift_quarantine(*shard);
                    self.free(entry);
                }
                if let Some(reply) = reply {
                    let _ = reply.send(Ok(()));
                }
            }
            Commit::Wait { reply } => {
                let _ = reply.send(Ok(()));
            }
            Commit::Barrier { reply } => {
                let _ = reply.send(Ok(self.end));
            }
        }
    }

    /// A row that stays names a seal that is no more, and means nothing.
    fn lift_quarantine(&self, shard: ShardId) {
        if let Err(error) = self.core.quarantine.lift(&self.core.index, shard) {
            self.core.index_failed(&error);
        }
    }

    fn free(&self, entry: &Entry) {
        let extents = entry.extents();
        self.core.segments.bury(&extents);
        self.core.punch_later(extents);
    }
}
