//! The segment files of a disk: names, open handles, and how much of each is alive.
//!
//! A segment is a preallocated file that only grows at its written end; freed records inside become holes. Counts are in blocks
//! and live in memory: opening a disk derives them from the index, every commit keeps them.
//!
//! # Invariants
//! For every segment `live + open <= end`: *live* blocks belong to indexed shards, *open* ones to shards that are still being
//! written. A segment file is removed only when both are 0.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use placement_types::{File, Fs, OpenMode};

use crate::limits::OPEN_SEGMENTS_MAX;
use crate::position::{BLOCK_BYTES, Extent};

/// How much of a segment is used, in blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Fill {
    pub end: u32,
    pub live: u32,
    pub open: u32,
}

impl Fill {
    pub fn dead(self) -> u32 {
        self.end.saturating_sub(self.live).saturating_sub(self.open)
    }
}

pub(crate) struct Segments {
    fs: Arc<dyn Fs>,
    dir: PathBuf,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    fills: BTreeMap<u32, Fill>,
    handles: BTreeMap<u32, Handle>,
    /// Counts uses, to find the handle unused for longest.
    clock: u64,
}

struct Handle {
    file: Arc<dyn File>,
    used_at: u64,
}

impl Segments {
    pub fn new(fs: Arc<dyn Fs>, dir: PathBuf) -> Self {
        Self { fs, dir, state: Mutex::default() }
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub fn path(&self, number: u32) -> PathBuf {
        self.dir.join(format!("{number:08}.seg"))
    }

    /// The numbers of the segment files there are, ascending. What is not named like one of ours is left alone (D29).
    pub fn list(&self) -> io::Result<Vec<u32>> {
        let mut numbers = Vec::new();
        for entry in self.fs.read_dir(&self.dir)? {
            let number = entry.path.file_name().and_then(|name| name.to_str()).and_then(number_of);
            match number.filter(|_| !entry.is_dir) {
                Some(number) => numbers.push(number),
                None => tracing::warn!(path = %entry.path.display(), "not a segment, ignored"),
            }
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// Makes a segment of `bytes`, durable by name and size.
    pub fn create(&self, number: u32, bytes: u64) -> io::Result<Arc<dyn File>> {
        let path = self.path(number);
        let file = self.fs.open(&path, OpenMode::CreateNew)?;
        if let Err(error) = file.allocate(0, bytes) {
            // Without preallocation appends still work, only slower; without room there is no segment.
            if error.kind() != io::ErrorKind::Unsupported {
                drop(file);
                self.fs.remove_file(&path)?;
                return Err(error);
            }
        }
        file.sync_data()?;
        self.fs.sync_dir(&self.dir)?;
        let mut state = self.state.lock();
        state.fills.insert(number, Fill::default());
        state.remember(number, &file);
        Ok(file)
    }

    /// The file of a segment, to read; `NotFound` when it was compacted away.
    pub fn file(&self, number: u32) -> io::Result<Arc<dyn File>> {
        {
            let mut state = self.state.lock();
            state.clock += 1;
            let now = state.clock;
            if let Some(handle) = state.handles.get_mut(&number) {
                handle.used_at = now;
                return Ok(handle.file.clone());
            }
        }
        let file = self.fs.open(&self.path(number), OpenMode::Read)?;
        self.state.lock().remember(number, &file);
        Ok(file)
    }

    /// The file of a segment, to write. Not remembered: only recovery and hole punching need it.
    pub fn file_to_write(&self, number: u32) -> io::Result<Arc<dyn File>> {
        self.fs.open(&self.path(number), OpenMode::ReadWrite)
    }

    /// Forgets and removes a segment nothing lives in. The caller made durable that the index no longer points to it.
    pub fn remove(&self, number: u32) -> io::Result<()> {
        {
            let mut state = self.state.lock();
            if let Some(fill) = state.fills.get(&number) {
                assert!(fill.live == 0 && fill.open == 0, "segment {number} is removed while something lives in it");
            }
            state.fills.remove(&number);
            state.handles.remove(&number);
        }
        self.fs.remove_file(&self.path(number))?;
        self.fs.sync_dir(&self.dir)
    }

    /// Forgets segments whose files are gone though nobody here removed them; returns their numbers. What they held is lost
    /// now, and not only when the last open handle is.
    pub fn forget_missing(&self) -> io::Result<Vec<u32>> {
        let known = self.fills();
        let there: BTreeSet<u32> = self.list()?.into_iter().collect();
        let mut state = self.state.lock();
        // A segment that was removed in the meantime lost its fill before its file.
        let missing = |number: &u32| !there.contains(number) && state.fills.contains_key(number);
        let missing: Vec<u32> = known.into_keys().filter(missing).collect();
        for number in &missing {
            state.fills.remove(number);
            state.handles.remove(number);
        }
        Ok(missing)
    }

    pub fn fills(&self) -> BTreeMap<u32, Fill> {
        self.state.lock().fills.clone()
    }

    pub fn fill(&self, number: u32) -> Option<Fill> {
        self.state.lock().fills.get(&number).copied()
    }

    pub fn exists(&self, number: u32) -> bool {
        self.state.lock().fills.contains_key(&number)
    }

    pub fn set_fill(&self, number: u32, fill: Fill) {
        self.state.lock().fills.insert(number, fill);
    }

    /// A record of a shard that is not sealed yet was written.
    pub fn add_open(&self, extent: Extent) {
        self.change(&[extent], |fill, extent| {
            fill.end = fill.end.max(extent.at.block + extent.blocks);
            fill.open += extent.blocks;
        });
    }

    /// A record that never lives, such as a tombstone, was written.
    pub fn add_dead(&self, extent: Extent) {
        self.change(&[extent], |fill, extent| fill.end = fill.end.max(extent.at.block + extent.blocks));
    }

    /// The open records were given up.
    pub fn abandon(&self, extents: &[Extent]) {
        self.change(extents, |fill, extent| fill.open -= extent.blocks);
    }

    /// The open records became an indexed shard.
    pub fn settle(&self, extents: &[Extent]) {
        self.change(extents, |fill, extent| {
            fill.open -= extent.blocks;
            fill.live += extent.blocks;
        });
    }

    /// The indexed shard's records died.
    pub fn bury(&self, extents: &[Extent]) {
        self.change(extents, |fill, extent| fill.live -= extent.blocks);
    }

    /// Blocks that an index entry claims, while the counts are built. A segment that is gone claims nothing.
    pub fn claim(&self, extents: &[Extent]) {
        self.change(extents, |fill, extent| {
            fill.live += extent.blocks;
            fill.end = fill.end.max(extent.at.block.saturating_add(extent.blocks));
        });
    }

    fn change(&self, extents: &[Extent], change: impl Fn(&mut Fill, &Extent)) {
        let mut state = self.state.lock();
        for extent in extents {
            // Missing when the file was lost under an index that still names it.
            if let Some(fill) = state.fills.get_mut(&extent.at.segment) {
                change(fill, extent);
            }
        }
    }

    /// Bytes in all, and of them alive (or being written).
    pub fn totals(&self) -> (u64, u64) {
        let state = self.state.lock();
        let sum = |blocks: fn(&Fill) -> u32| state.fills.values().map(|fill| u64::from(blocks(fill)) * BLOCK_BYTES).sum();
        (sum(|fill| fill.end), sum(|fill| fill.end - fill.dead()))
    }
}

impl State {
    fn remember(&mut self, number: u32, file: &Arc<dyn File>) {
        self.clock += 1;
        while self.handles.len() >= OPEN_SEGMENTS_MAX {
            let oldest = self.handles.iter().min_by_key(|(_, handle)| handle.used_at).map(|(number, _)| *number);
            self.handles.remove(&oldest.expect("the map is not empty"));
        }
        self.handles.insert(number, Handle { file: file.clone(), used_at: self.clock });
    }
}

/// The number in a segment's name; only the exact form [`Segments::path`] writes counts.
fn number_of(name: &str) -> Option<u32> {
    let digits = name.strip_suffix(".seg")?;
    let number: u32 = digits.parse().ok()?;
    (format!("{number:08}") == digits).then_some(number)
}

#[cfg(test)]
mod name_tests {
    use super::number_of;

    #[test]
    fn only_our_own_names_are_segments() {
        assert_eq!(number_of("00000001.seg"), Some(1));
        assert_eq!(number_of("4294967295.seg"), Some(u32::MAX));
        for foreign in ["1.seg", "+0000001.seg", "00000001.seg.bak", "00000001", "99999999999.seg", "0000\n001.seg", ".seg"] {
            assert_eq!(number_of(foreign), None, "{foreign:?}");
        }
    }
}
