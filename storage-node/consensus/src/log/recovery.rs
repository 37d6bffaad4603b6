//! Reading the log back at start.
//!
//! Frames are replayed in sequence. Where they end, two cases are told apart: nothing valid follows, then the last write was
//! torn by a crash and its frame never acknowledged anything; or a later frame is valid, which proves that what is broken here
//! had been durable: [`LogError::Damaged`]. (Rot that hits exactly the last frame before a crash looks like a torn write; a
//! graceful stop leaves one more frame behind so that this window is open only after crashes.)
//!
//! What is read may sit in the page cache only, left by a process that was killed before its fsync: so the last segment is
//! synced before anybody acts on it.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use placement_types::{File, Fs, GroupId, OpenMode};

use super::segment::{Found, make_spare, read_frame, segment_number, segment_path};
use super::{Location, Log, LogError, Logged, Outline, io_error};
use crate::format::{BLOCK_BYTES, FRAME_HEADER_BYTES, FrameKind, Hard, Origin, Point, Record};

/// A group as the log has it.
#[derive(Debug, Default)]
pub(crate) struct RecoveredGroup {
    pub hard: Hard,
    pub origin: Origin,
    /// The entries that can be read.
    pub outline: Outline,
}

pub(crate) struct Recovered {
    pub log: Log,
    pub groups: BTreeMap<GroupId, RecoveredGroup>,
}

/// Opens the log in `dir`, making its first segment when there is none. Blocks.
pub(crate) fn open(fs: &Arc<dyn Fs>, dir: &Path, salt: u64, segment_bytes: u64) -> Result<Recovered, LogError> {
    let files = list(&**fs, dir, segment_bytes)?;
    let mut replay = Replay { salt, groups: BTreeMap::new(), expected: None, ended: None };
    let mut end: Option<End> = None;
    let mut unused: Vec<PathBuf> = Vec::new();
    let mut segments: BTreeMap<u64, Arc<dyn File>> = BTreeMap::new();
    for number in &files.segments {
        let path = segment_path(dir, *number);
        let file = fs.open(&path, OpenMode::ReadWrite).map_err(io_error("open", &path))?;
        let file_bytes = file.len().map_err(io_error("measure", &path))?;
        let stop = replay.segment(&*file, &path, file_bytes, *number)?;
        if stop == 0 {
            // Nothing valid at its head. A crash at rotation leaves such a segment, as the last one and with nothing in it.
            replay.refuse_later_frames(&*file, &path, file_bytes, *number, 0)?;
            unused.push(path);
            continue;
        }
        if let Some(empty) = unused.first() {
            return Err(LogError::Damaged { path: empty.clone(), offset: 0 });
        }
        segments.insert(*number, file.clone());
        replay.ended = Some((path.clone(), stop));
        end = Some(End { number: *number, path, file, file_bytes, tail: stop });
    }
    if let Some(end) = &end {
        replay.refuse_later_frames(&*end.file, &end.path, end.file_bytes, end.number, end.tail)?;
        end.file.sync_data().map_err(io_error("sync", &end.path))?;
    }
    for path in &unused {
        fs.remove_file(path).map_err(io_error("remove", path))?;
    }
    let mut log = Log {
        fs: fs.clone(),
        dir: dir.to_owned(),
        salt,
        segment_bytes,
        segments: Arc::new(Mutex::new(segments)),
        frame_bytes: super::frame_bytes(segment_bytes),
        current: end.as_ref().map_or(0, |end| end.number),
        tail: end.as_ref().map_or(segment_bytes, |end| end.tail),
        next_sequence: replay.expected.unwrap_or(1),
        logged: BTreeMap::new(),
        pending: VecDeque::new(),
        pending_bytes: 0,
        next_batch: 1,
        synced: 0,
        writing: false,
        next_spare: files.next_spare,
        spares: files.spares,
        written_bytes: 0,
    };
    for (group, recovered) in &replay.groups {
        let logged = Logged { hard: recovered.hard, last: recovered.outline.last(), origin: recovered.origin.clone() };
        log.logged.insert(*group, logged);
    }
    if end.is_none() && log.spares.is_empty() {
        let path = dir.join(format!("spare-{}", log.next_spare));
        log.next_spare += 1;
        make_spare(&**fs, &path, segment_bytes)?;
        log.spares.push(path);
    }
    fs.sync_dir(dir).map_err(io_error("sync", dir))?;
    Ok(Recovered { log, groups: replay.groups })
}

/// The last segment with a frame in it.
struct End {
    number: u64,
    path: PathBuf,
    file: Arc<dyn File>,
    file_bytes: u64,
    tail: u64,
}

struct Files {
    segments: Vec<u64>,
    spares: Vec<PathBuf>,
    next_spare: u64,
}

/// The files of the log. Spares of another size (the configuration changed) and unfinished ones are removed.
fn list(fs: &dyn Fs, dir: &Path, segment_bytes: u64) -> Result<Files, LogError> {
    let mut files = Files { segments: Vec::new(), spares: Vec::new(), next_spare: 0 };
    for entry in fs.read_dir(dir).map_err(io_error("list", dir))? {
        if let Some(number) = segment_number(&entry.path) {
            files.segments.push(number);
            continue;
        }
        let name = entry.path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let Some(number) = name.strip_prefix("spare-") else { continue };
        let whole = fs.metadata(&entry.path).map_err(io_error("look at", &entry.path))?;
        match number.parse::<u64>() {
            Ok(number) if whole.is_some_and(|metadata| metadata.bytes == segment_bytes) => {
                files.next_spare = files.next_spare.max(number + 1);
                files.spares.push(entry.path);
            }
            _ => fs.remove_file(&entry.path).map_err(io_error("remove", &entry.path))?,
        }
    }
    files.segments.sort_unstable();
    for pair in files.segments.windows(2) {
        if pair[1] != pair[0] + 1 {
            return Err(LogError::Gap { dir: dir.to_owned(), number: pair[0] + 1 });
        }
    }
    Ok(files)
}

struct Replay {
    salt: u64,
    groups: BTreeMap<GroupId, RecoveredGroup>,
    /// The sequence of the next frame; unknown before the first.
    expected: Option<u64>,
    /// Where the segment before ended.
    ended: Option<(PathBuf, u64)>,
}

impl Replay {
    /// Replays a segment's frames and returns where they end.
    fn segment(&mut self, file: &dyn File, path: &Path, file_bytes: u64, number: u64) -> Result<u64, LogError> {
        let mut offset = 0;
        loop {
            let (header, payload, next) = match read_frame(file, path, file_bytes, number, offset, self.salt)? {
                Found::Frame { header, payload, next } => (header, payload, next),
                Found::Nothing => return Ok(offset),
                Found::Unreadable(error) => return Err(LogError::Unreadable { path: path.to_owned(), offset, error }),
            };
            let first = header.kind == FrameKind::First;
            if first != (offset == 0) || self.expected.is_some_and(|expected| header.sequence != expected) {
                // Its checksum is right, so it was written: what should come before it is what is wrong.
                let (path, offset) = match self.ended.take() {
                    Some(ended) if offset == 0 => ended,
                    _ => (path.to_owned(), offset),
                };
                return Err(LogError::Damaged { path, offset });
            }
            let unreadable = |error| LogError::Unreadable { path: path.to_owned(), offset, error };
            let (records, places) = Record::decode_all(&payload).map_err(unreadable)?;
            let mut places = places.into_iter().map(|place| Location {
                segment: number,
                offset: (offset as usize + FRAME_HEADER_BYTES + place.offset) as u32,
                bytes: place.bytes as u32,
            });
            for record in records {
                if !self.record(record, &mut places) {
                    return Err(LogError::Damaged { path: path.to_owned(), offset });
                }
            }
            self.expected = Some(header.sequence + 1);
            offset = next;
        }
    }

    /// Returns whether the record fits what came before it.
    fn record(&mut self, record: Record, places: &mut impl Iterator<Item = Location>) -> bool {
        match record {
            Record::Checkpoint { groups } => {
                // Only the oldest segment's says anything new.
                if self.expected.is_none() {
                    for group in groups {
                        let outline = Outline::after(group.last);
                        let recovered = RecoveredGroup { hard: group.hard, origin: group.origin, outline };
                        self.groups.insert(group.group, recovered);
                    }
                }
            }
            Record::Created { group, members } => {
                let recovered = self.groups.entry(group).or_default();
                recovered.outline = Outline::after(super::FIRST_POINT);
                recovered.origin = Origin { point: super::FIRST_POINT, members, file: 0 };
            }
            Record::Hard { group, hard } => self.groups.entry(group).or_default().hard = hard,
            Record::Snapshot { group, origin } => {
                let recovered = self.groups.entry(group).or_default();
                recovered.outline = Outline::after(origin.point);
                recovered.origin = origin;
            }
            Record::Entries { group, previous_term, entries } => {
                let outline = &mut self.groups.entry(group).or_default().outline;
                let first = entries[0].index;
                if first > outline.last().index + 1 {
                    return false;
                }
                if first <= outline.base().index {
                    *outline = Outline::after(Point { index: first - 1, term: previous_term });
                }
                outline.truncate(first);
                for entry in entries {
                    outline.push(entry.term, places.next().expect("each entry of a record has its place"));
                }
            }
        }
        true
    }

    /// Looks for a frame after the end of the log, which would prove that the end is damage.
    fn refuse_later_frames(&self, file: &dyn File, path: &Path, file_bytes: u64, number: u64, from: u64) -> Result<(), LogError> {
        let mut offset = from;
        while offset + BLOCK_BYTES <= file_bytes {
            match read_frame(file, path, file_bytes, number, offset, self.salt)? {
                Found::Nothing => {}
                Found::Frame { header, .. } if self.expected.is_some_and(|expected| header.sequence < expected) => {}
                Found::Frame { .. } | Found::Unreadable(_) => {
                    return Err(LogError::Damaged { path: path.to_owned(), offset: from });
                }
            }
            offset += BLOCK_BYTES;
        }
        Ok(())
    }
}
