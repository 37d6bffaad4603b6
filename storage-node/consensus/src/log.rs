//! The log: one append-only sequence of frames for all groups of this node.
//!
//! Guarantees: what [`Write::run`] returned `Ok` for survives a power cut; damage to it is an error at the next start, never a
//! silent step back. The fsync at the end of [`Write::run`] is the one that makes every vote and every entry of this node
//! true; nothing that depends on a record may leave the node before it.
//!
//! How it works: records are collected in memory ([`Log::push`]) while the write before them runs, then written as one frame
//! with one fsync ([`Log::begin_write`]). Frames fill segment files of a fixed size which were zero-filled, or used before:
//! an fsync into written blocks costs a third of one that allocates. A full segment is followed by a prepared *spare*; when
//! there is none (the disk is full) writing waits. Each segment begins with a checkpoint of all groups, so that older segments
//! can go once the state is flushed beyond their entries ([`Log::purge`]); they become spares.
//!
//! One owner (the driver) calls everything here without blocking; what blocks is in [`Write`], [`Spare`], [`Purged`] and
//! `recovery`, which run elsewhere.

mod outline;
mod recovery;
mod segment;

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use placement_types::codec::DecodeError;
use placement_types::{File, Fs, GroupId, OpenMode};

use crate::format::{CheckpointGroup, FRAME_HEADER_BYTES, FrameKind, Hard, Origin, Point, Record, encode_frame, padded};
use crate::limits::{FRAME_BYTES, LOG_PENDING_BYTES};

pub(crate) use outline::Outline;
pub(crate) use recovery::{RecoveredGroup, open};
use segment::{make_spare, segment_path};

/// Why the log cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error(
        "the log {path} is damaged at byte {offset}, before records that are known to have been durable. Starting would forget \
         votes or acknowledged entries: restore the file, or remove this replica from the cluster and add the node again \
         with an empty directory and a new id"
    )]
    Damaged { path: PathBuf, offset: u64 },
    #[error(
        "segment {number:016x} of the log in {dir} is missing. Restore it, or remove this replica from the cluster and add the \
         node again with an empty directory and a new id"
    )]
    Gap { dir: PathBuf, number: u64 },
    #[error("{path} at byte {offset} was written by another version: {error}")]
    Unreadable { path: PathBuf, offset: u64, error: DecodeError },
    #[error(
        "the log in {dir} has segments but its identity file is missing or broken. Restore it, or remove this replica from the \
         cluster and add the node again with an empty directory and a new id"
    )]
    NoIdentity { dir: PathBuf },
    #[error("{action} {path}")]
    Io { action: &'static str, path: PathBuf, source: io::Error },
}

/// Turns an I/O error into a [`LogError`] that says what was being done, to what.
pub(crate) fn io_error<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> LogError + 'a {
    move |source| LogError::Io { action, path: path.to_owned(), source }
}

/// Where an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Location {
    pub segment: u64,
    pub offset: u32,
    pub bytes: u32,
}

/// A location for an entry that is not on disk yet.
pub(crate) const NOT_WRITTEN: Location = Location { segment: u64::MAX, offset: 0, bytes: 0 };

/// An entry that now has a location.
pub(crate) struct Placement {
    pub group: GroupId,
    pub index: u64,
    pub term: u64,
    pub location: Location,
}

/// What the frames written so far amount to for one group: the content of the next checkpoint.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Logged {
    pub hard: Hard,
    pub last: Point,
    pub origin: Origin,
}

impl Logged {
    fn take(logged: &mut BTreeMap<GroupId, Logged>, record: &Record) {
        match record {
            Record::Checkpoint { .. } => {}
            Record::Created { group, members } => {
                let entry = logged.entry(*group).or_default();
                entry.last = FIRST_POINT;
                entry.origin = Origin { point: FIRST_POINT, members: members.clone(), file: 0 };
            }
            Record::Hard { group, hard } => logged.entry(*group).or_default().hard = *hard,
            Record::Entries { group, entries, .. } => {
                let last = entries.last().expect("records hold at least one entry");
                logged.entry(*group).or_default().last = Point { index: last.index, term: last.term };
            }
            Record::Snapshot { group, origin } => {
                let entry = logged.entry(*group).or_default();
                entry.last = origin.point;
                entry.origin = origin.clone();
            }
        }
    }
}

/// Where every created group's log begins: an entry that nobody has, so that a replica which starts empty always gets the
/// group's state, with its members, as a snapshot.
pub(crate) const FIRST_POINT: Point = Point { index: 1, term: 1 };

/// Names one write; later ones have higher numbers.
pub(crate) type Batch = u64;

/// The open segment files, shared with whoever reads entries.
pub(crate) type Segments = Arc<Mutex<BTreeMap<u64, Arc<dyn File>>>>;

/// Bytes collected into one frame, for segments of this size; also the most that one record may take, but for a single entry.
pub(crate) fn frame_bytes(segment_bytes: u64) -> usize {
    FRAME_BYTES.min(usize::try_from(segment_bytes / 8).unwrap_or(FRAME_BYTES))
}

struct Pending {
    batch: Batch,
    records: Vec<Record>,
    bytes: usize,
}

pub(crate) struct Log {
    fs: Arc<dyn Fs>,
    dir: PathBuf,
    salt: u64,
    segment_bytes: u64,
    segments: Segments,
    frame_bytes: usize,
    current: u64,
    tail: u64,
    next_sequence: u64,
    logged: BTreeMap<GroupId, Logged>,
    pending: VecDeque<Pending>,
    pending_bytes: usize,
    next_batch: Batch,
    synced: Batch,
    writing: bool,
    spares: Vec<PathBuf>,
    next_spare: u64,
    written_bytes: u64,
}

impl Log {
    /// Adds a record to the next write and returns the write it will be in.
    pub(crate) fn push(&mut self, record: Record) -> Batch {
        let bytes = approximate_bytes(&record);
        self.pending_bytes += bytes;
        match self.pending.back_mut() {
            Some(last) if last.bytes + bytes <= self.frame_bytes => {
                last.records.push(record);
                last.bytes += bytes;
                last.batch
            }
            _ => {
                let batch = self.next_batch;
                self.next_batch += 1;
                self.pending.push_back(Pending { batch, records: vec![record], bytes });
                batch
            }
        }
    }

    /// The last write that is durable.
    pub(crate) fn synced(&self) -> Batch {
        self.synced
    }

    pub(crate) fn is_writing(&self) -> bool {
        self.writing
    }

    pub(crate) fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Too much waits for the disk: no new work is to be produced.
    pub(crate) fn is_congested(&self) -> bool {
        self.pending_bytes > LOG_PENDING_BYTES
    }

    /// Bytes written since the last call of [`Log::reset_written_bytes`].
    pub(crate) fn written_bytes(&self) -> u64 {
        self.written_bytes
    }

    pub(crate) fn reset_written_bytes(&mut self) {
        self.written_bytes = 0;
    }

    pub(crate) fn segments(&self) -> &Segments {
        &self.segments
    }

    /// Whether the next write needs a spare that does not exist.
    pub(crate) fn is_starved(&self) -> bool {
        self.spares.is_empty() && self.pending.front().is_some_and(|pending| !self.fits(pending.bytes))
    }

    fn fits(&self, payload_bytes: usize) -> bool {
        self.tail + padded(payload_bytes) <= self.segment_bytes
    }

    /// Takes the next frame to write, unless one is being written, nothing waits, or there is no room.
    pub(crate) fn begin_write(&mut self) -> Option<Write> {
        if self.writing || self.is_starved() {
            return None;
        }
        let pending = self.pending.pop_front()?;
        self.pending_bytes -= pending.bytes;
        Some(self.seal(pending, FrameKind::Later))
    }

    /// The frame that a graceful stop ends the log with: it proves that everything before it was durable.
    pub(crate) fn begin_stop(&mut self) -> Option<Write> {
        if self.writing || !self.pending.is_empty() || !self.fits(0) {
            return None;
        }
        let batch = self.next_batch;
        self.next_batch += 1;
        Some(self.seal(Pending { batch, records: Vec::new(), bytes: 0 }, FrameKind::Stop))
    }

    fn seal(&mut self, pending: Pending, kind: FrameKind) -> Write {
        let mut payload = Vec::with_capacity(pending.bytes);
        let mut places = Vec::new();
        let encode = |payload: &mut Vec<u8>, places: &mut Vec<_>| {
            for record in &pending.records {
                record.encode(payload, places);
            }
        };
        encode(&mut payload, &mut places);
        let mut kind = kind;
        let mut from_spare = None;
        if !self.fits(payload.len()) {
            (payload, places) = (Vec::with_capacity(pending.bytes), Vec::new());
            self.checkpoint().encode(&mut payload, &mut places);
            encode(&mut payload, &mut places);
            kind = FrameKind::First;
            from_spare = Some(self.spares.pop().expect("a starved log begins no write"));
            self.current += 1;
            self.tail = 0;
        }
        for record in &pending.records {
            Logged::take(&mut self.logged, record);
        }
        let (segment, offset) = (self.current, self.tail);
        let frame = encode_frame(kind, segment, self.next_sequence, &payload, self.salt);
        assert!(offset + frame.len() as u64 <= self.segment_bytes, "a frame fits an empty segment");
        self.next_sequence += 1;
        self.tail += frame.len() as u64;
        self.written_bytes += frame.len() as u64;
        self.writing = true;
        let placements = places
            .into_iter()
            .map(|place| Placement {
                group: place.group,
                index: place.index,
                term: place.term,
                location: Location {
                    segment,
                    offset: u32::try_from(offset as usize + FRAME_HEADER_BYTES + place.offset).expect("segments are below 4 GiB"),
                    bytes: u32::try_from(place.bytes).expect("entries are bounded"),
                },
            })
            .collect();
        let file = match from_spare {
            None => WriteTo::Open(self.segments.lock().get(&segment).expect("the current segment is open").clone()),
            Some(spare) => WriteTo::Spare { spare, fs: self.fs.clone(), dir: self.dir.clone() },
        };
        let path = segment_path(&self.dir, segment);
        Write { batch: pending.batch, segment, path, file, offset, frame, placements }
    }

    fn checkpoint(&self) -> Record {
        let groups = self.logged.iter().map(|(group, logged)| CheckpointGroup {
            group: *group,
            hard: logged.hard,
            last: logged.last,
            origin: logged.origin.clone(),
        });
        Record::Checkpoint { groups: groups.collect() }
    }

    /// Takes note that a write is durable. Returns where its entries are.
    pub(crate) fn finish_write(&mut self, written: Written) -> Vec<Placement> {
        self.writing = false;
        self.synced = written.batch;
        self.segments.lock().insert(written.segment, written.file);
        written.placements
    }

    /// A spare to make, when the current segment is half full and there is none.
    pub(crate) fn wants_spare(&mut self) -> Option<Spare> {
        if !self.spares.is_empty() || (self.tail < self.segment_bytes / 2 && !self.is_starved()) {
            return None;
        }
        let path = self.dir.join(format!("spare-{}", self.next_spare));
        self.next_spare += 1;
        Some(Spare { fs: self.fs.clone(), path, bytes: self.segment_bytes })
    }

    pub(crate) fn add_spare(&mut self, path: PathBuf) {
        self.spares.push(path);
    }

    /// The oldest segments, up to `keep` younger ones, that `is_needed` does not name. They are forgotten here at once; the
    /// files are dealt with by [`Purged::run`]. A segment that somebody still reads from stays.
    pub(crate) fn purge(&mut self, keep: usize, is_needed: impl Fn(u64) -> bool) -> Option<Purged> {
        let mut paths = Vec::new();
        let mut segments = self.segments.lock();
        while segments.len() > keep.max(1) && !self.writing {
            let (number, file) = segments.first_key_value().expect("there is more than one");
            if *number == self.current || Arc::strong_count(file) > 1 || is_needed(*number) {
                break;
            }
            paths.push(segment_path(&self.dir, *number));
            segments.pop_first();
        }
        drop(segments);
        if paths.is_empty() {
            return None;
        }
        let spare = self.spares.is_empty().then(|| self.dir.join(format!("spare-{}", self.next_spare)));
        self.next_spare += 1;
        Some(Purged { fs: self.fs.clone(), dir: self.dir.clone(), paths, spare })
    }

    /// The oldest segment there is.
    pub(crate) fn oldest(&self) -> u64 {
        self.segments.lock().keys().next().copied().unwrap_or(self.current)
    }

    /// The oldest segment, once there are more than `keep`.
    pub(crate) fn oldest_beyond(&self, keep: usize) -> Option<u64> {
        let segments = self.segments.lock();
        segments.keys().next().copied().filter(|oldest| segments.len() > keep.max(1) && *oldest != self.current)
    }
}

/// What a record takes at most: where the log decides whether a frame fits, it must not be less than the truth.
fn approximate_bytes(record: &Record) -> usize {
    match record {
        Record::Entries { entries, .. } => {
            21 + entries.iter().map(|entry| crate::format::ENTRY_OVERHEAD + entry.data.len() + entry.context.len()).sum::<usize>()
        }
        Record::Checkpoint { .. } | Record::Created { .. } | Record::Hard { .. } | Record::Snapshot { .. } => 2048,
    }
}

enum WriteTo {
    Open(Arc<dyn File>),
    Spare { spare: PathBuf, fs: Arc<dyn Fs>, dir: PathBuf },
}

/// A frame to write.
pub(crate) struct Write {
    batch: Batch,
    segment: u64,
    path: PathBuf,
    file: WriteTo,
    offset: u64,
    frame: Vec<u8>,
    placements: Vec<Placement>,
}

/// A frame that is durable.
pub(crate) struct Written {
    batch: Batch,
    segment: u64,
    file: Arc<dyn File>,
    placements: Vec<Placement>,
}

impl Write {
    /// Writes the frame and waits for the disk. An error means that the log is dead: what the disk holds is unknown, and
    /// asking again would be answered by the page cache, not the disk (I14).
    pub(crate) fn run(self) -> Result<Written, LogError> {
        let path = self.path.as_path();
        let file = match self.file {
            WriteTo::Open(file) => file,
            WriteTo::Spare { spare, fs, dir } => {
                fs.rename(&spare, path).map_err(io_error("rename a spare to", path))?;
                fs.sync_dir(&dir).map_err(io_error("sync", &dir))?;
                fs.open(path, OpenMode::ReadWrite).map_err(io_error("open", path))?
            }
        };
        file.write_at(&self.frame, self.offset).map_err(io_error("write", path))?;
        // This is the fsync that makes every vote, entry and acknowledgement of this node true.
        file.sync_data().map_err(io_error("sync", path))?;
        Ok(Written { batch: self.batch, segment: self.segment, file, placements: self.placements })
    }
}

/// A spare segment to make.
pub(crate) struct Spare {
    fs: Arc<dyn Fs>,
    path: PathBuf,
    bytes: u64,
}

impl Spare {
    /// Makes the file. A full disk is an ordinary answer here; nothing is lost by it.
    pub(crate) fn run(self) -> Result<PathBuf, LogError> {
        make_spare(&*self.fs, &self.path, self.bytes)?;
        Ok(self.path)
    }
}

/// Segments that nothing needs any more.
pub(crate) struct Purged {
    fs: Arc<dyn Fs>,
    dir: PathBuf,
    paths: Vec<PathBuf>,
    spare: Option<PathBuf>,
}

impl Purged {
    /// Removes the files, oldest first so that a crash leaves no gap, and keeps one as a spare.
    pub(crate) fn run(mut self) -> Result<Option<PathBuf>, LogError> {
        let mut made = None;
        for path in &self.paths {
            match self.spare.take() {
                Some(spare) => {
                    self.fs.rename(path, &spare).map_err(io_error("rename", path))?;
                    made = Some(spare);
                }
                None => self.fs.remove_file(path).map_err(io_error("remove", path))?,
            }
        }
        self.fs.sync_dir(&self.dir).map_err(io_error("sync", &self.dir))?;
        Ok(made)
    }
}
