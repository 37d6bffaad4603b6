//! What runs away from the loop, and what becomes of its results.

use std::collections::BTreeMap;
use std::path::PathBuf;

use futures::FutureExt;
use placement_types::GroupId;
use raft::eraftpb::Entry;
use raft::storage::GetEntriesContext;
use storage_node_kv::KvError;

use super::apply::{Applied, ApplyError, ApplyItem, ApplyJob};
use super::receive::{ReceiveJob, Received, incoming_path};
use super::{Driver, Group};
use crate::format::{Body, SnapshotChunk};
use crate::limits::{APPLY_BYTES, APPLY_ENTRIES, FETCH_BYTES, FLUSH_TICKS, SLOW_WRITE_TICKS, SNAPSHOT_BUILDS_MAX, TRANSFERS_MAX};
use crate::log::{LogError, Written};
use crate::snapshot::{self, Built, SnapshotError};

/// The result of a job.
pub(crate) enum Done {
    Written(Result<Written, LogError>),
    Applied {
        group: GroupId,
        outcome: Result<Applied, ApplyError>,
    },
    Flushed {
        applied: BTreeMap<GroupId, u64>,
        outcome: Result<(), KvError>,
    },
    Spare(Result<PathBuf, LogError>),
    Purged(Result<Option<PathBuf>, LogError>),
    /// Entries for a follower.
    Fetched {
        group: GroupId,
        context: GetEntriesContext,
        outcome: Result<Vec<Entry>, LogError>,
    },
    /// Entries to apply.
    Prefetched {
        group: GroupId,
        outcome: Result<Vec<Entry>, LogError>,
    },
    /// Entries to log once more.
    Reread {
        group: GroupId,
        first: u64,
        outcome: Result<Vec<Entry>, LogError>,
    },
    Built {
        group: GroupId,
        outcome: Result<Built, SnapshotError>,
    },
    ChunkRead {
        group: GroupId,
        chunk: Option<(placement_types::ReplicaId, SnapshotChunk)>,
    },
    Received(Received),
    Nothing,
}

impl Driver {
    fn spawn(&mut self, job: impl FnOnce() -> Done + Send + 'static) {
        let (env, lock) = (self.env.clone(), self.lock.clone());
        let locked = move || {
            let done = job();
            drop(lock);
            done
        };
        self.jobs.push(async move { env.run_blocking(locked).await }.boxed());
    }

    pub(crate) fn start_jobs(&mut self) {
        if let Some(write) = self.log.begin_write() {
            self.write_began = self.now;
            self.groups.values_mut().for_each(|group| group.begin_write());
            self.spawn(move || Done::Written(write.run()));
        }
        if !self.making_spare
            && self.now >= self.spare_retry
            && let Some(spare) = self.log.wants_spare()
        {
            self.making_spare = true;
            self.spawn(move || Done::Spare(spare.run()));
        }
        let ids: Vec<GroupId> = self.groups.keys().copied().collect();
        for id in ids {
            self.start_group_jobs(id);
        }
        self.start_sending();
        let due =
            self.log.written_bytes() >= self.config.flush_bytes || (self.now >= self.flush_due && self.log.written_bytes() > 0);
        if due && !self.flushing {
            self.start_flush();
        }
    }

    fn start_group_jobs(&mut self, id: GroupId) {
        let group = self.groups.get_mut(&id).expect("groups are not removed");
        if let Some((items, install)) = group.next_to_apply() {
            let job = ApplyJob {
                group: id,
                machine: group.machine.clone(),
                kv: self.kv.clone(),
                fs: self.env.fs.clone(),
                members: group.applied_members.clone(),
                items,
                file: install.map(|number| incoming_path(&self.snapshot_dir, number)),
            };
            self.spawn(move || Done::Applied { group: id, outcome: job.run() });
        }
        let group = self.groups.get_mut(&id).expect("groups are not removed");
        if !group.prefetching && group.needs_prefetch() {
            group.prefetching = true;
            let high = (group.committed() + 1).min(group.store().cached_from());
            let plan = group.store().plan(group.handed + 1, high, FETCH_BYTES);
            self.spawn(move || Done::Prefetched { group: id, outcome: plan.run() });
        }
        let group = self.groups.get_mut(&id).expect("groups are not removed");
        let fetches = group.store_mut().take_fetches();
        let wants_snapshot = group.store_mut().take_snapshot_wanted();
        let build = wants_snapshot && !group.building && group.is_initialized() && self.builds < SNAPSHOT_BUILDS_MAX;
        group.building |= build;
        self.builds += usize::from(build);
        let plans: Vec<_> =
            fetches.into_iter().map(|fetch| (group.store().plan(fetch.low, fetch.high, FETCH_BYTES), fetch.context)).collect();
        for (plan, context) in plans {
            self.spawn(move || Done::Fetched { group: id, context, outcome: plan.run() });
        }
        if build {
            let (fs, kv) = (self.env.fs.clone(), self.kv.clone());
            let path = self.snapshot_dir.join(format!("out-{:032x}.snap", self.env.random_u128()));
            self.spawn(move || {
                let outcome = snapshot::build(&*fs, &path, &*kv, id);
                if outcome.is_err() {
                    let _ = fs.remove_file(&path);
                }
                Done::Built { group: id, outcome }
            });
        }
    }

    fn start_sending(&mut self) {
        for order in std::mem::take(&mut self.outbox.snapshots) {
            let transfer = self.env.random_u64();
            let room = self.groups.values().map(|group| group.outgoing.len()).sum::<usize>() < TRANSFERS_MAX;
            if let Some(group) = self.groups.get_mut(&order.group) {
                group.begin_sending(&order, transfer, room);
            }
        }
        let ids: Vec<GroupId> = self.groups.keys().copied().collect();
        for id in ids {
            let group = self.groups.get_mut(&id).expect("groups are not removed");
            for read in group.chunks_to_read() {
                self.spawn(move || Done::ChunkRead { group: id, chunk: read.run() });
            }
        }
    }

    fn start_flush(&mut self) {
        self.flushing = true;
        self.flush_due = self.now + u64::from(FLUSH_TICKS);
        self.log.reset_written_bytes();
        let applied = self.groups.iter().map(|(id, group)| (*id, group.applied.index)).collect();
        let kv = self.kv.clone();
        self.spawn(move || Done::Flushed { applied, outcome: kv.flush() });
    }

    /// Lets go of the oldest segments. What keeps one from going is a group whose last entries never get applied, because it
    /// is no member any more or hears of no leader: those few entries are logged once more.
    fn purge(&mut self) {
        let groups = &mut self.groups;
        let needed = |segment| groups.values().any(|group| group.store().last_in(segment) > group.flushed);
        let purged = self.log.purge(self.config.segments_kept, needed);
        if let Some(purged) = purged {
            let gone = self.log.oldest() - 1;
            for group in groups.values_mut() {
                group.store_mut().purge(gone);
            }
            self.spawn(move || Done::Purged(purged.run()));
        }
        let Some(oldest) = self.log.oldest_beyond(2 * self.config.segments_kept) else { return };
        let mut rereads = Vec::new();
        for (id, group) in &self.groups {
            let store = group.store();
            if store.last_in(oldest) > group.flushed {
                let first = group.flushed.max(store.base().index) + 1;
                rereads.push((*id, first, store.plan(first, store.last().index + 1, u64::MAX)));
            }
        }
        for (group, first, plan) in rereads {
            self.spawn(move || Done::Reread { group, first, outcome: plan.run() });
        }
    }

    pub(crate) fn receive(&mut self, job: Option<ReceiveJob>, removed: Option<PathBuf>) {
        if let Some(job) = job {
            self.spawn(move || Done::Received(job.run()));
        }
        if let Some(path) = removed {
            self.remove_file(path);
        }
    }

    /// Removes a file nobody needs. One that stays is removed at the next start.
    pub(crate) fn remove_file(&mut self, path: PathBuf) {
        let fs = self.env.fs.clone();
        self.spawn(move || {
            let _ = fs.remove_file(&path);
            Done::Nothing
        });
    }

    pub(crate) fn take_done(&mut self, done: Done) {
        match done {
            Done::Written(Ok(written)) => self.take_written(written),
            Done::Written(Err(error)) | Done::Purged(Err(error)) => self.fail(describe(&error)),
            Done::Applied { group, outcome } => match outcome {
                Ok(applied) => self.group(group).take_applied(applied),
                Err(error) => self.fail(describe(&error)),
            },
            Done::Flushed { applied, outcome } => {
                self.flushing = false;
                match outcome {
                    Ok(()) => self.take_flushed(&applied),
                    Err(error) => self.fail(describe(&error)),
                }
            }
            Done::Spare(outcome) => self.take_spare(outcome),
            Done::Purged(Ok(spare)) => {
                if let Some(spare) = spare {
                    self.log.add_spare(spare);
                }
            }
            Done::Fetched { group, context, outcome } => match outcome {
                Ok(entries) => self.group(group).take_fetched(entries, context),
                Err(error) => self.fail(describe(&error)),
            },
            Done::Prefetched { group, outcome } => match outcome {
                Ok(entries) => {
                    let group = self.group(group);
                    group.prefetching = false;
                    group.store_mut().keep_fetched(entries);
                }
                Err(error) => self.fail(describe(&error)),
            },
            Done::Reread { group, first, outcome } => match outcome {
                Ok(entries) => {
                    let record_bytes = crate::log::frame_bytes(self.config.segment_bytes) / 2;
                    let group = self.groups.get_mut(&group).expect("groups are not removed");
                    group.log_again(&mut self.log, first, entries, record_bytes);
                }
                Err(error) => self.fail(describe(&error)),
            },
            Done::Built { group, outcome } => self.take_built(group, outcome),
            Done::ChunkRead { group, chunk } => {
                // One that could not be read is asked for again, until the transfer is given up.
                if let Some((to, chunk)) = chunk {
                    self.outbox.send(group, to, Body::Chunk(chunk));
                }
            }
            Done::Received(received) => {
                let group = self.groups.get_mut(&received.group).expect("groups are not removed");
                let (job, removed) = group.take_received(received, &self.env.fs, &mut self.outbox);
                self.receive(job, removed);
            }
            Done::Nothing => {}
        }
    }

    fn group(&mut self, id: GroupId) -> &mut Group {
        self.groups.get_mut(&id).expect("groups are not removed")
    }

    fn take_written(&mut self, written: Written) {
        for placement in self.log.finish_write(written) {
            self.group(placement.group).store_mut().place(&placement);
        }
        let (synced, ticks) = (self.log.synced(), self.now - self.write_began);
        for group in self.groups.values_mut() {
            if ticks >= SLOW_WRITE_TICKS {
                group.end_slow_write(synced);
            } else {
                group.slow_writes = 0;
            }
            group.release(synced, &mut self.outbox);
        }
        let created: Vec<_> = self.created.extract_if(.., |created| created.batch <= synced).collect();
        for created in created {
            self.group(created.group).begin_state();
            let _ = created.reply.send(Ok(()));
        }
    }

    fn take_flushed(&mut self, applied: &BTreeMap<GroupId, u64>) {
        for (id, index) in applied {
            let group = self.group(*id);
            group.flushed = group.flushed.max(*index);
        }
        self.purge();
    }

    /// Without a spare the log stops at the end of its segment. A full disk is the likely reason: others had better lead
    /// until there is room (D15).
    fn take_spare(&mut self, outcome: Result<PathBuf, LogError>) {
        self.making_spare = false;
        match outcome {
            Ok(spare) => self.log.add_spare(spare),
            Err(error) => {
                tracing::error!(error = describe(&error), "no room for the log: proposals are refused until there is");
                self.spare_retry = self.now + u64::from(self.config.election_ticks);
                self.hand_over();
            }
        }
    }

    fn take_built(&mut self, id: GroupId, outcome: Result<Built, SnapshotError>) {
        self.builds -= 1;
        let group = self.group(id);
        group.building = false;
        group.built_ticks = 0;
        match outcome {
            Ok(built) => {
                group.store_mut().snapshot = Some((built.point, built.members.clone()));
                let before = group.built.replace(built);
                if let Some(before) = before {
                    // A transfer that still reads it has it open.
                    self.remove_file(before.path);
                }
            }
            Err(error) => tracing::warn!(group = %id, error = describe(&error), "a snapshot could not be made"),
        }
    }
}

impl Group {
    /// Takes what a job applies at once: an installation alone, or entries up to a limit. The number names the
    /// installation's file.
    fn next_to_apply(&mut self) -> Option<(Vec<ApplyItem>, Option<u128>)> {
        // An installation waits for the write that makes the log begin at it: before that, the old log needs the old state.
        if self.applying || self.queue.is_empty() || self.awaits_snapshot() {
            return None;
        }
        let (mut items, mut bytes) = (Vec::new(), 0);
        while let Some(item) = self.queue.front() {
            if let ApplyItem::Install { origin } = item {
                if !items.is_empty() {
                    break;
                }
                let number = origin.file;
                self.queue_bytes -= item.bytes();
                items.extend(self.queue.pop_front());
                self.applying = true;
                return Some((items, Some(number)));
            }
            bytes += item.bytes();
            self.queue_bytes -= item.bytes();
            items.extend(self.queue.pop_front());
            if items.len() >= APPLY_ENTRIES || bytes >= APPLY_BYTES as usize {
                break;
            }
        }
        self.applying = true;
        Some((items, None))
    }

    fn take_applied(&mut self, mut applied: Applied) {
        self.applying = false;
        self.applied = applied.point;
        self.applied_members = applied.members.clone();
        if applied.flushed {
            self.flushed = applied.point.index;
        }
        self.answer_applied(&mut applied);
    }

    fn take_fetched(&mut self, entries: Vec<Entry>, context: GetEntriesContext) {
        self.store_mut().keep_fetched(entries);
        self.raw.on_entries_fetched(context);
        self.store_mut().drop_fetched();
    }
}

/// An error with everything that caused it.
fn describe(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
