//! The bytes of one file: what processes see, what a crash would leave, and the changes between the two.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use crate::sim::SimRandom;

pub(super) const PAGE_BYTES: u64 = 4096;

/// The unit in which a disk writes: a sector is old or new, never half of each.
pub(super) const SECTOR_BYTES: u64 = 512;

type Page = [u8; PAGE_BYTES as usize];

static ZEROS: LazyLock<Arc<Page>> = LazyLock::new(|| Arc::new([0; PAGE_BYTES as usize]));

/// Sparse bytes. Pages are shared between the live and the durable side until one of them writes.
#[derive(Clone, Default)]
struct Pages {
    bytes: u64,
    pages: BTreeMap<u64, Arc<Page>>,
}

/// A change that is visible but not yet synced.
enum Change {
    Write { offset: u64, bytes: Vec<u8> },
    Allocate { offset: u64, bytes: u64 },
    Punch { offset: u64, bytes: u64 },
    SetLen(u64),
}

/// One file.
#[derive(Default)]
pub(super) struct Content {
    live: Pages,
    durable: Pages,
    unsynced: Vec<Change>,
}

impl Content {
    pub(super) fn len(&self) -> u64 {
        self.live.bytes
    }

    /// What the file takes on disk.
    pub(super) fn allocated_bytes(&self) -> u64 {
        self.live.pages.len() as u64 * PAGE_BYTES
    }

    /// How much `allocated_bytes` would grow by a write or an allocation of this range.
    pub(super) fn growth(&self, offset: u64, bytes: u64) -> u64 {
        pages_of(offset, bytes).filter(|page| !self.live.pages.contains_key(page)).count() as u64 * PAGE_BYTES
    }

    pub(super) fn read(&self, out: &mut [u8], offset: u64) -> usize {
        let length = (out.len() as u64).min(self.live.bytes.saturating_sub(offset));
        let out = &mut out[..length as usize];
        for_each_page(offset, length, |page, in_page, in_range| match self.live.pages.get(&page) {
            Some(bytes) => out[in_range].copy_from_slice(&bytes[in_page]),
            None => out[in_range].fill(0),
        });
        out.len()
    }

    pub(super) fn write(&mut self, bytes: &[u8], offset: u64) {
        self.change(Change::Write { offset, bytes: bytes.to_vec() });
    }

    pub(super) fn allocate(&mut self, offset: u64, bytes: u64) {
        self.change(Change::Allocate { offset, bytes });
    }

    pub(super) fn punch_hole(&mut self, offset: u64, bytes: u64) {
        self.change(Change::Punch { offset, bytes });
    }

    pub(super) fn set_len(&mut self, bytes: u64) {
        self.change(Change::SetLen(bytes));
    }

    fn change(&mut self, change: Change) {
        self.live.apply(&change);
        self.unsynced.push(change);
    }

    /// A successful fdatasync. The durable side takes over the live pages that changed.
    pub(super) fn sync(&mut self) {
        for change in self.unsynced.drain(..) {
            if let Change::SetLen(bytes) = change {
                self.durable.set_len(bytes);
                continue;
            }
            let (offset, bytes) = change.range();
            for page in pages_of(offset, bytes) {
                match self.live.pages.get(&page) {
                    Some(bytes) => self.durable.pages.insert(page, bytes.clone()),
                    None => self.durable.pages.remove(&page),
                };
            }
        }
        self.durable.set_len(self.live.bytes);
    }

    /// A failed fdatasync, as Linux does it: the pages count as clean from now on, so that a later success proves nothing about
    /// them. Processes still see them; which of them the disk has is anyone's guess.
    pub(super) fn fail_sync(&mut self, random: &SimRandom) {
        self.tear(random);
    }

    /// The power goes. Unsynced changes are gone.
    pub(super) fn crash_losing_unsynced(&mut self) {
        self.unsynced.clear();
        self.live = self.durable.clone();
    }

    /// The power goes while the disk was writing: of the unsynced sectors some are there, some are not.
    pub(super) fn crash_torn(&mut self, random: &SimRandom) {
        self.tear(random);
        self.live = self.durable.clone();
    }

    /// Flips one bit on the disk and in the page cache.
    pub(super) fn flip_bit(&mut self, offset: u64, bit: u8) {
        for side in [&mut self.live, &mut self.durable] {
            if offset < side.bytes {
                let mut byte = [0];
                side.read_raw(&mut byte, offset);
                side.write(&[byte[0] ^ (1 << bit)], offset);
            }
        }
    }

    fn tear(&mut self, random: &SimRandom) {
        // All, nothing, or each sector by itself: the mixed case alone would almost never leave a long write whole.
        let choice = random.below(4);
        let keep = |random: &SimRandom| match choice {
            0 => false,
            1 => true,
            _ => random.coin(),
        };
        for change in std::mem::take(&mut self.unsynced) {
            let Change::Write { offset, bytes } = &change else {
                if keep(random) {
                    self.durable.apply(&change);
                }
                continue;
            };
            let end = offset + bytes.len() as u64;
            let mut at = *offset;
            while at < end {
                let sector_end = end.min((at / SECTOR_BYTES + 1) * SECTOR_BYTES);
                if keep(random) {
                    self.durable.write(&bytes[(at - offset) as usize..(sector_end - offset) as usize], at);
                }
                at = sector_end;
            }
        }
    }
}

impl Change {
    fn range(&self) -> (u64, u64) {
        match self {
            Change::Write { offset, bytes } => (*offset, bytes.len() as u64),
            Change::Allocate { offset, bytes } | Change::Punch { offset, bytes } => (*offset, *bytes),
            Change::SetLen(bytes) => (*bytes, 0),
        }
    }
}

impl Pages {
    fn apply(&mut self, change: &Change) {
        match change {
            Change::Write { offset, bytes } => self.write(bytes, *offset),
            Change::Allocate { offset, bytes } => {
                for page in pages_of(*offset, *bytes) {
                    self.pages.entry(page).or_insert_with(|| ZEROS.clone());
                }
                self.bytes = self.bytes.max(offset + bytes);
            }
            Change::Punch { offset, bytes } => self.punch(*offset, *bytes),
            Change::SetLen(bytes) => self.set_len(*bytes),
        }
    }

    fn read_raw(&self, out: &mut [u8], offset: u64) {
        for_each_page(offset, out.len() as u64, |page, in_page, in_range| {
            if let Some(bytes) = self.pages.get(&page) {
                out[in_range].copy_from_slice(&bytes[in_page]);
            }
        });
    }

    fn write(&mut self, bytes: &[u8], offset: u64) {
        for_each_page(offset, bytes.len() as u64, |page, in_page, in_range| {
            let target = self.pages.entry(page).or_insert_with(|| ZEROS.clone());
            Arc::make_mut(target)[in_page].copy_from_slice(&bytes[in_range]);
        });
        if !bytes.is_empty() {
            self.bytes = self.bytes.max(offset + bytes.len() as u64);
        }
    }

    fn punch(&mut self, offset: u64, bytes: u64) {
        let end = offset.saturating_add(bytes).min(self.bytes.next_multiple_of(PAGE_BYTES));
        for_each_page(offset, end.saturating_sub(offset), |page, in_page, _| {
            if in_page.len() as u64 == PAGE_BYTES {
                self.pages.remove(&page);
            } else if let Some(target) = self.pages.get_mut(&page) {
                Arc::make_mut(target)[in_page].fill(0);
            }
        });
    }

    fn set_len(&mut self, bytes: u64) {
        if bytes < self.bytes {
            // What is cut off must read as zeros should the file grow again.
            let tail = bytes.next_multiple_of(PAGE_BYTES);
            self.punch(bytes, tail - bytes);
            self.pages.split_off(&(tail / PAGE_BYTES));
        }
        self.bytes = bytes;
    }
}

fn pages_of(offset: u64, bytes: u64) -> std::ops::Range<u64> {
    offset / PAGE_BYTES..if bytes == 0 { offset / PAGE_BYTES } else { (offset + bytes).div_ceil(PAGE_BYTES) }
}

/// Calls `visit(page, the range within the page, the range within the given one)` for each page that the range touches.
fn for_each_page(offset: u64, bytes: u64, mut visit: impl FnMut(u64, std::ops::Range<usize>, std::ops::Range<usize>)) {
    let end = offset + bytes;
    let mut at = offset;
    while at < end {
        let page = at / PAGE_BYTES;
        let stop = end.min((page + 1) * PAGE_BYTES);
        let start_in_page = (at - page * PAGE_BYTES) as usize;
        let start_in_range = (at - offset) as usize;
        let length = (stop - at) as usize;
        visit(page, start_in_page..start_in_page + length, start_in_range..start_in_range + length);
        at = stop;
    }
}
