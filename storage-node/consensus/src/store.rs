//! What Raft reads of a group's log: its view of the shared log, with recent entries in memory.
//!
//! Entries are in memory from the moment Raft hands them over (long before they are durable) until they were given out to be
//! applied; then as long as the cache has room. Older ones are read back for followers that are behind, in the background:
//! Raft is told that they are not there yet, and asks again.

use std::cell::RefCell;
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use placement_types::codec::Decoder;
use placement_types::{File, GroupId};
use raft::eraftpb::{ConfState, Entry, HardState, Snapshot};
use raft::storage::GetEntriesContext;
use raft::{Error as RaftError, RaftState, Storage, StorageError};

use crate::format::{Hard, Point, decode_entry};
use crate::limits::FETCH_BYTES;
use crate::log::{Location, LogError, NOT_WRITTEN, Outline, Placement, RecoveredGroup, Segments};

/// Raft's storage for one group.
pub(crate) struct GroupStore {
    group: GroupId,
    pub hard: Hard,
    /// The membership as of the last entry given out to be applied.
    pub members: ConfState,
    /// Changes of members up to this entry do not count: the members were fixed while the node was stopped.
    pub members_fixed_to: u64,
    outline: Outline,
    /// The last entries, in memory.
    cached: VecDeque<Entry>,
    cached_bytes: usize,
    /// Entries read back for followers, until Raft took them.
    fetched: Vec<Vec<Entry>>,
    fetches: RefCell<Vec<FetchRequest>>,
    /// Replicas that Raft wants to send a snapshot to.
    snapshot_wanted: RefCell<BTreeSet<u64>>,
    /// The snapshot there is to send.
    pub snapshot: Option<(Point, ConfState)>,
    segments: Segments,
}

/// Entries that Raft asked for and that are not in memory.
pub(crate) struct FetchRequest {
    pub low: u64,
    pub high: u64,
    pub context: GetEntriesContext,
}

impl GroupStore {
    pub(crate) fn new(group: GroupId, segments: Segments) -> Self {
        Self {
            group,
            hard: Hard::default(),
            members: ConfState::default(),
            members_fixed_to: 0,
            outline: Outline::default(),
            cached: VecDeque::new(),
            cached_bytes: 0,
            fetched: Vec::new(),
            fetches: RefCell::default(),
            snapshot_wanted: RefCell::default(),
            snapshot: None,
            segments,
        }
    }

    /// A store over what the log has. `applied` is what the state has; entries that are not known to be committed are put in
    /// memory, because Raft may look at them without warning. Blocks.
    pub(crate) fn recover(
        group: GroupId,
        recovered: RecoveredGroup,
        members: ConfState,
        applied: u64,
        segments: Segments,
    ) -> Result<Self, LogError> {
        let mut store = Self::new(group, segments);
        let (base, last) = (recovered.outline.base().index, recovered.outline.last().index);
        store.hard = recovered.hard;
        // The commit index on disk is a hint that may lag (the state knows better) or lead (its entries were torn off).
        store.hard.commit = store.hard.commit.max(applied).clamp(base, last);
        store.outline = recovered.outline;
        store.members = members;
        let uncommitted = store.plan(store.hard.commit + 1, last + 1, u64::MAX).run()?;
        store.cached_bytes = uncommitted.iter().map(weight).sum();
        store.cached = uncommitted.into();
        Ok(store)
    }

    /// Whether this node fixed the members at or after a change of them, which therefore does not count.
    pub(crate) fn ignores_change_at(&self, index: u64) -> bool {
        index <= self.members_fixed_to
    }

    /// The entry before the first.
    pub(crate) fn base(&self) -> Point {
        self.outline.base()
    }

    pub(crate) fn last(&self) -> Point {
        self.outline.last()
    }

    /// The first entry that is in memory; one past the last when none is.
    pub(crate) fn cached_from(&self) -> u64 {
        self.last().index + 1 - self.cached.len() as u64
    }

    pub(crate) fn term_of(&self, index: u64) -> Option<u64> {
        self.outline.term_of(index)
    }

    /// Takes entries that Raft handed over; they replace everything from the first one's index on. Returns the term of the
    /// entry before them.
    pub(crate) fn append(&mut self, entries: &[Entry]) -> u64 {
        let first = entries.first().expect("Raft hands over at least one entry").index;
        assert!(first > self.base().index && first <= self.last().index + 1, "Raft leaves no gap in its log");
        let previous_term = self.term_of(first - 1).expect("the entry before is the base or in the log");
        let cached_from = self.cached_from();
        self.outline.truncate(first);
        if first < cached_from {
            self.cached.clear();
        } else {
            self.cached.truncate(usize::try_from(first - cached_from).expect("no longer than what is in memory"));
        }
        self.cached_bytes = self.cached.iter().map(weight).sum();
        self.fetched.clear();
        for entry in entries {
            self.outline.push(entry.term, NOT_WRITTEN);
            self.cached_bytes += weight(entry);
            self.cached.push_back(entry.clone());
        }
        previous_term
    }

    /// Forgets the log for a snapshot that replaces it.
    pub(crate) fn restore(&mut self, point: Point, members: ConfState) {
        self.outline = Outline::after(point);
        self.members = members;
        self.cached.clear();
        self.cached_bytes = 0;
        self.fetched.clear();
    }

    /// Takes note of where an entry was written, if it is still the one.
    pub(crate) fn place(&mut self, placement: &Placement) {
        self.outline.place(placement);
    }

    /// Drops entries up to `index` from memory while more than `budget` bytes are held.
    pub(crate) fn evict(&mut self, index: u64, budget: usize) {
        while self.cached_bytes > budget && self.cached.front().is_some_and(|entry| entry.index <= index) {
            let entry = self.cached.pop_front().expect("looked at");
            self.cached_bytes -= weight(&entry);
        }
    }

    /// The last entry in segments up to `segment`, the base when there is none.
    pub(crate) fn last_in(&self, segment: u64) -> u64 {
        self.outline.last_in(segment)
    }

    /// Forgets the entries in segments up to `segment`, which are going away.
    pub(crate) fn purge(&mut self, segment: u64) {
        let last = self.last_in(segment);
        if last > self.base().index {
            self.outline.rebase(last);
            while self.cached.front().is_some_and(|entry| entry.index <= last) {
                let entry = self.cached.pop_front().expect("looked at");
                self.cached_bytes -= weight(&entry);
            }
            self.fetched.clear();
        }
    }

    pub(crate) fn take_fetches(&mut self) -> Vec<FetchRequest> {
        self.fetches.take()
    }

    pub(crate) fn take_snapshot_wanted(&mut self) -> bool {
        !self.snapshot_wanted.take().is_empty()
    }

    /// Keeps entries that were read back until [`GroupStore::drop_fetched`].
    pub(crate) fn keep_fetched(&mut self, entries: Vec<Entry>) {
        let fits = |entry: &Entry| self.term_of(entry.index) == Some(entry.term);
        if !entries.is_empty() && entries.iter().all(fits) {
            self.fetched.push(entries);
        }
    }

    pub(crate) fn has_fetched(&self, index: u64) -> bool {
        self.fetched.iter().any(|run| run.iter().any(|entry| entry.index == index))
    }

    pub(crate) fn drop_fetched(&mut self) {
        self.fetched.clear();
    }

    /// How to read `low..high`, at most about `bytes_max` and at least one entry.
    pub(crate) fn plan(&self, low: u64, high: u64, bytes_max: u64) -> FetchPlan {
        let mut plan = FetchPlan { group: self.group, low, places: Vec::new() };
        let segments = self.segments.lock();
        let mut bytes = 0;
        for index in low..high {
            let Some((term, location)) = self.outline.get(index) else { break };
            let Some(file) = segments.get(&location.segment) else { break };
            bytes += u64::from(location.bytes);
            if bytes > bytes_max && !plan.places.is_empty() {
                break;
            }
            match plan.places.last_mut() {
                // One read for neighbours: other groups' records lie between, so allow a gap.
                Some(run) if run.takes(location) => run.push(*term, *location),
                _ => plan.places.push(Run::new(file.clone(), *term, *location)),
            }
        }
        plan
    }

    fn slice(&self, entries: &VecDeque<Entry>, from: u64, low: u64, high: u64, bytes_max: u64) -> Vec<Entry> {
        let skip = usize::try_from(low - from).expect("no longer than what is in memory");
        let count = usize::try_from(high - low).expect("no longer than what is in memory");
        limited(entries.iter().skip(skip).take(count), bytes_max)
    }
}

impl Storage for GroupStore {
    fn initial_state(&self) -> raft::Result<RaftState> {
        let mut hard = HardState::default();
        hard.term = self.hard.term;
        hard.vote = self.hard.vote;
        hard.commit = self.hard.commit;
        Ok(RaftState::new(hard, self.members.clone()))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        if low <= self.base().index {
            return Err(RaftError::Store(StorageError::Compacted));
        }
        let bytes_max = max_size.into().unwrap_or(u64::MAX);
        if low >= self.cached_from() {
            return Ok(self.slice(&self.cached, self.cached_from(), low, high, bytes_max));
        }
        for run in &self.fetched {
            if run.first().is_some_and(|first| first.index <= low) && run.last().is_some_and(|last| last.index >= low) {
                return Ok(limited(run.iter().filter(|entry| entry.index >= low && entry.index < high), bytes_max));
            }
        }
        if context.can_async() {
            self.fetches.borrow_mut().push(FetchRequest { low, high: high.min(self.cached_from()), context });
            return Err(RaftError::Store(StorageError::LogTemporarilyUnavailable));
        }
        // The driver reads entries back before Raft needs them at once, so this is never reached in ordinary running; but
        // Raft has no way to wait here, and an entry late is better than a panic.
        tracing::warn!(group = %self.group, low, high, "reads the log on the reactor");
        let entries = self.plan(low, high, bytes_max.min(FETCH_BYTES)).run();
        entries.map_err(|error| RaftError::Store(StorageError::Other(Box::new(error))))
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        if index < self.base().index {
            return Err(RaftError::Store(StorageError::Compacted));
        }
        self.term_of(index).ok_or(RaftError::Store(StorageError::Unavailable))
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.base().index + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last().index)
    }

    /// Only names a snapshot; its bytes travel by themselves (see `snapshot`).
    fn snapshot(&self, request_index: u64, to: u64) -> raft::Result<Snapshot> {
        let names = |members: &ConfState| {
            [&members.voters, &members.learners, &members.voters_outgoing].into_iter().any(|list| list.contains(&to))
        };
        match &self.snapshot {
            // One that the log does not continue, or from before the receiver was a member, would be sent in vain.
            Some((point, members)) if point.index >= request_index.max(self.base().index) && names(members) => {
                let mut snapshot = Snapshot::default();
                snapshot.mut_metadata().index = point.index;
                snapshot.mut_metadata().term = point.term;
                snapshot.mut_metadata().set_conf_state(members.clone());
                Ok(snapshot)
            }
            _ => {
                self.snapshot_wanted.borrow_mut().insert(to);
                Err(RaftError::Store(StorageError::SnapshotTemporarilyUnavailable))
            }
        }
    }
}

/// What an entry takes in memory, about.
pub(crate) fn weight(entry: &Entry) -> usize {
    entry.data.len() + entry.context.len() + 128
}

/// At least one entry, then as many as stay under the limit.
fn limited<'a>(entries: impl Iterator<Item = &'a Entry>, bytes_max: u64) -> Vec<Entry> {
    let (mut taken, mut bytes) = (Vec::new(), 0);
    for entry in entries {
        bytes += (entry.data.len() + entry.context.len() + 24) as u64;
        if bytes > bytes_max && !taken.is_empty() {
            break;
        }
        taken.push(entry.clone());
    }
    taken
}

/// Entries to read back from the files.
pub(crate) struct FetchPlan {
    group: GroupId,
    low: u64,
    places: Vec<Run>,
}

/// Entries read with one call.
struct Run {
    file: Arc<dyn File>,
    start: u32,
    end: u32,
    entries: Vec<(u64, Location)>,
    segment: u64,
}

const RUN_GAP_BYTES: u32 = 64 << 10;
const RUN_BYTES_MAX: u32 = 4 << 20;

impl Run {
    fn new(file: Arc<dyn File>, term: u64, location: Location) -> Self {
        let (start, end) = (location.offset, location.offset + location.bytes);
        Self { file, start, end, entries: vec![(term, location)], segment: location.segment }
    }

    fn takes(&self, location: &Location) -> bool {
        location.segment == self.segment
            && location.offset >= self.end
            && location.offset - self.end <= RUN_GAP_BYTES
            && location.offset + location.bytes - self.start <= RUN_BYTES_MAX
    }

    fn push(&mut self, term: u64, location: Location) {
        self.end = location.offset + location.bytes;
        self.entries.push((term, location));
    }
}

impl FetchPlan {
    /// Reads and checks the entries. Blocks.
    pub(crate) fn run(self) -> Result<Vec<Entry>, LogError> {
        let mut entries = Vec::new();
        let mut index = self.low;
        for run in self.places {
            let damaged = |offset: u32| LogError::Damaged {
                path: std::path::PathBuf::from(format!("{:016x}.log", run.segment)),
                offset: u64::from(offset),
            };
            let mut bytes = vec![0; (run.end - run.start) as usize];
            run.file.read_exact_at(&mut bytes, u64::from(run.start)).map_err(|_| damaged(run.start))?;
            for (term, location) in run.entries {
                let from = (location.offset - run.start) as usize;
                let mut input = Decoder::new(&bytes[from..from + location.bytes as usize]);
                let entry = decode_entry(self.group, &mut input).map_err(|_| damaged(location.offset))?;
                if entry.index != index || entry.term != term {
                    return Err(damaged(location.offset));
                }
                entries.push(entry);
                index += 1;
            }
        }
        Ok(entries)
    }
}
