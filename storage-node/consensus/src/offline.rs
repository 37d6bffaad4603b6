//! The replicas of a stopped node: what they have, and the way out when the other members of their groups are gone for ever.
//!
//! Raft has no way back from a lost majority, because it cannot tell lost from absent. Whoever calls [`Offline::rewrite`] has
//! been told by a person that the others are gone, and keeps them away if they come back after all: nothing here does.
//!
//! - [`Rewrite::Alone`] makes this replica the only voter of its group. Everything in its log counts as committed: an entry may
//!   have been acknowledged by a majority of which this replica is all that is left. What only the others had is lost.
//! - [`Rewrite::Forget`] drops a replica of a group that another node goes on with, so that this one comes back empty, as a
//!   learner. Its votes are forgotten with it, which is harmless only because it votes nowhere any more.
//! - [`Rewrite::Found`] begins a group anew from a copy of its state, when no replica is left.
//!
//! Each is made in two durable steps: the log first, then the state. A crash in between leaves a node that must not start, and
//! on which the same rewrite is simply made again: repeating one changes nothing, except that its entry is there twice.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use placement_types::{Env, Fs, GroupId, ReplicaId, Term};
use raft::eraftpb::{ConfState, Entry, EntryType};
use storage_node_kv::{Durability, Kv, KvError, Prefixed, WriteBatch};

use crate::config::Config;
use crate::driver::{ENTRY_VERSION, incoming_path, recover, snapshot_dir};
use crate::error::StartError;
use crate::format::{GroupMeta, Hard, MetaState, Origin, Point, Record, encode_fixed, fixed_key, meta_key, state_prefix};
use crate::limits::LOOK_BACK_ENTRIES;
use crate::log::{Log, LogError};
use crate::snapshot::{self, SnapshotError, read_meta};
use crate::store::GroupStore;

/// Where a log ends. Of two replicas of a group, the one with the greater position has everything that was acknowledged and
/// that the other has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct LogPosition {
    pub term: u64,
    pub index: u64,
}

/// What a replica has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicaPosition {
    pub group: GroupId,
    /// The term it is in, whoever leads it.
    pub term: Term,
    pub last: LogPosition,
    /// What it knows to be committed; there may be more.
    pub committed: u64,
    pub applied: u64,
    /// The members as of the applied entry; none when it has only heard of the group.
    pub voters: Vec<ReplicaId>,
    pub learners: Vec<ReplicaId>,
    pub voters_outgoing: Vec<ReplicaId>,
    /// The log holds a change of members that is not applied here: who the members are is open.
    pub members_open: bool,
    /// The newest entry that somebody proposed, if the log still has it.
    pub newest: Option<Bytes>,
}

/// What is to become of a replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rewrite {
    /// It goes on alone, in a term after `after`; `entry` is then the newest of its log.
    Alone { group: GroupId, after: Term, entry: Option<Bytes> },
    /// It is dropped.
    Forget { group: GroupId },
    /// The group begins anew here at a position that it has never reached, with these pairs as its state and then `entry`.
    Found { group: GroupId, at: LogPosition, pairs: Vec<(Bytes, Bytes)>, entry: Bytes },
}

#[derive(Debug, thiserror::Error)]
pub enum OfflineError {
    #[error(transparent)]
    Start(#[from] StartError),
    #[error(transparent)]
    Log(#[from] LogError),
    #[error(transparent)]
    Kv(#[from] KvError),
    #[error("the state of group {group} could not be put down: {detail}")]
    State { group: GroupId, detail: String },
    #[error("this node has no whole replica of group {group}")]
    NoReplica { group: GroupId },
}

/// The replicas of a stopped node, locked against its start. Every call blocks.
pub struct Offline {
    env: Env,
    replica: ReplicaId,
    snapshots: PathBuf,
    kv: Arc<dyn Kv>,
    log: Log,
    groups: BTreeMap<GroupId, (GroupStore, Point)>,
    _lock: Arc<dyn Send + Sync>,
}

impl Offline {
    /// Reads log and state as a start would, with all its checks; what a start would finish is finished.
    ///
    /// # Errors
    /// As a start; and when there is no log.
    pub fn open(config: &Config, env: &Env, kv: Arc<dyn Kv>) -> Result<Self, OfflineError> {
        let io = |path: &std::path::Path| {
            let path = path.to_owned();
            move |source: io::Error| StartError::Io { action: "look at", path, source }
        };
        let identity = config.log_dir.join("identity");
        if env.fs.metadata(&identity).map_err(io(&identity))?.is_none() {
            return Err(LogError::NoIdentity { dir: config.log_dir.clone() }.into());
        }
        let recovered = recover(config, env, &*kv)?;
        let groups = recovered.groups.into_iter().map(|(id, store, applied)| (id, (store, applied))).collect();
        Ok(Self {
            env: env.clone(),
            replica: config.replica,
            snapshots: snapshot_dir(&config.log_dir),
            kv,
            log: recovered.log,
            groups,
            _lock: recovered.lock,
        })
    }

    /// What every replica has.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn positions(&self) -> Result<Vec<ReplicaPosition>, OfflineError> {
        self.groups.iter().map(|(id, (store, applied))| position(*id, store, *applied)).collect()
    }

    /// The pairs of a group's state under the machine's own keys.
    pub fn state(&self, group: GroupId) -> Prefixed<'_> {
        Prefixed::new(self.kv.as_read(), state_prefix(group))
    }

    /// Rewrites replicas; durable when it returns.
    ///
    /// # Errors
    /// When a file or the store fails: whatever is half done is to be done again before the node may start.
    pub fn rewrite(&mut self, rewrites: &[Rewrite]) -> Result<(), OfflineError> {
        for rewrite in rewrites {
            match rewrite {
                Rewrite::Alone { group, after, entry } => self.log_alone(*group, *after, entry.clone())?,
                Rewrite::Forget { group } => self.log_forgotten(*group),
                Rewrite::Found { group, at, pairs, entry } => self.log_founded(*group, *at, pairs, entry.clone())?,
            }
        }
        self.write_log()?;
        let mut batch = WriteBatch::new();
        for rewrite in rewrites {
            match rewrite {
                Rewrite::Alone { group, .. } => self.put_alone(*group, &mut batch)?,
                Rewrite::Forget { group } => forget(*group, &mut batch),
                // The next start puts the state in from the file that the log names.
                Rewrite::Found { .. } => {}
            }
        }
        self.kv.write(&batch, Durability::Buffered)?;
        self.kv.flush()?;
        Ok(())
    }

    fn group(&self, group: GroupId) -> Result<&(GroupStore, Point), OfflineError> {
        let found = self.groups.get(&group).filter(|(store, _)| !store.members.voters.is_empty());
        found.ok_or(OfflineError::NoReplica { group })
    }

    fn log_alone(&mut self, group: GroupId, after: Term, entry: Option<Bytes>) -> Result<(), OfflineError> {
        let (store, _) = self.group(group)?;
        let (last, hard) = (store.last(), store.hard);
        let term = after.0.max(hard.term).max(last.term) + 1;
        self.log.push(Record::Hard { group, hard: Hard { term, vote: self.replica.0, commit: hard.commit } });
        if let Some(data) = entry {
            let point = Point { index: last.index + 1, term };
            self.log.push(Record::Entries { group, previous_term: last.term, entries: vec![entry_at(point, &data)] });
        }
        Ok(())
    }

    fn log_forgotten(&mut self, group: GroupId) {
        self.log.push(Record::Snapshot { group, origin: Origin::default() });
    }

    fn log_founded(
        &mut self,
        group: GroupId,
        at: LogPosition,
        pairs: &[(Bytes, Bytes)],
        entry: Bytes,
    ) -> Result<(), OfflineError> {
        let point = Point { index: at.index, term: at.term };
        let number = self.env.random_u128().max(1);
        let path = incoming_path(&self.snapshots, number);
        let fs: &dyn Fs = &*self.env.fs;
        snapshot::write(fs, &path, group, point, pairs).map_err(|error| state_error(group, &error))?;
        let origin = Origin { point, members: alone(self.replica), file: number };
        self.log.push(Record::Snapshot { group, origin });
        let next = Point { index: at.index + 1, term: at.term + 1 };
        self.log.push(Record::Hard { group, hard: Hard { term: next.term, vote: self.replica.0, commit: at.index } });
        self.log.push(Record::Entries { group, previous_term: at.term, entries: vec![entry_at(next, &entry)] });
        Ok(())
    }

    fn write_log(&mut self) -> Result<(), OfflineError> {
        while self.log.has_pending() {
            if self.log.is_starved()
                && let Some(spare) = self.log.wants_spare()
            {
                let path = spare.run()?;
                self.log.add_spare(path);
            }
            let write = self.log.begin_write().expect("something is pending, nothing is being written, and there is a spare");
            let written = write.run()?;
            self.log.finish_write(written);
        }
        Ok(())
    }

    /// The members are this replica at once, and stay so through the changes that are still in its log.
    fn put_alone(&self, group: GroupId, batch: &mut WriteBatch) -> Result<(), OfflineError> {
        let (store, _) = self.group(group)?;
        let meta = read_meta(self.kv.as_read(), group)?.filter(|meta| meta.state == MetaState::Whole);
        let meta = meta.ok_or(OfflineError::NoReplica { group })?;
        batch.put(fixed_key(group).to_vec(), encode_fixed(store.last().index));
        batch.put(meta_key(group).to_vec(), GroupMeta { members: alone(self.replica), ..meta }.encode());
        Ok(())
    }
}

fn forget(group: GroupId, batch: &mut WriteBatch) {
    let prefix = state_prefix(group);
    batch.delete(meta_key(group).to_vec());
    batch.delete(fixed_key(group).to_vec());
    batch.delete_range(prefix.to_vec(), Prefixed::end_of(&prefix));
}

fn state_error(group: GroupId, error: &SnapshotError) -> OfflineError {
    OfflineError::State { group, detail: error.to_string() }
}

fn alone(replica: ReplicaId) -> ConfState {
    let mut members = ConfState::default();
    members.voters = vec![replica.0];
    members
}

fn entry_at(point: Point, data: &Bytes) -> Entry {
    let mut entry = Entry::default();
    entry.index = point.index;
    entry.term = point.term;
    entry.data = [&[ENTRY_VERSION], data.as_ref()].concat().into();
    entry
}

fn position(group: GroupId, store: &GroupStore, applied: Point) -> Result<ReplicaPosition, OfflineError> {
    let last = store.last();
    let read = |low: u64, high: u64| store.plan(low, high, u64::MAX).run();
    let is_change = |entry: &Entry| matches!(entry.entry_type, EntryType::EntryConfChange | EntryType::EntryConfChangeV2);
    let mut members_open = false;
    for index in (applied.index + 1).max(store.base().index + 1)..=last.index {
        members_open |= read(index, index + 1)?.iter().any(|entry| is_change(entry) && !store.ignores_change_at(index));
    }
    let mut newest = None;
    let from = (store.base().index + 1).max(last.index.saturating_sub(LOOK_BACK_ENTRIES));
    for index in (from..=last.index).rev() {
        newest = read(index, index + 1)?.pop().filter(|entry| !is_change(entry) && entry.data.len() > 1);
        if newest.is_some() {
            break;
        }
    }
    let replicas = |ids: &[u64]| ids.iter().copied().map(ReplicaId).collect();
    Ok(ReplicaPosition {
        group,
        term: Term(store.hard.term),
        last: LogPosition { term: last.term, index: last.index },
        committed: store.hard.commit,
        applied: applied.index,
        voters: replicas(&store.members.voters),
        learners: replicas(&store.members.learners),
        voters_outgoing: replicas(&store.members.voters_outgoing),
        members_open,
        newest: newest.map(|entry| entry.data.slice(1..)),
    })
}
