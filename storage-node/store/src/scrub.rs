//! Reading everything on a disk, a little at a time.
//!
//! The store does the steps; when to take the next is its caller's business:
//! 1. [`Disk::examine_next`] reads the shards in the order of their ids and puts what is bad in quarantine.
//! 2. [`Disk::search_dark`] goes through the segments for *dark data*: shards that the index does not know, though no tombstone
//!    says why. [`Disk::adopt`] puts those that are whole back into the index. From then on they are shards like any other: one
//!    that a manifest names counts again, and one that nothing refers to is an orphan, deleted behind the fence (I5). Nothing
//!    is deleted here.
//! 3. [`Disk::forget_missing_segments`] finds segment files that are gone under a running disk.
//!
//! How far a cycle is is kept beside the index by [`Disk::save_scrub`], so that a restart goes on where it was. It is not
//! synced of its own: a crash repeats a little.

use std::collections::BTreeMap;
use std::io;

use placement_types::codec::{Decode, DecodeError, Decoder, Encode, Encoder};
use placement_types::{ShardId, Timestamp, codec_struct};

use crate::disk::Disk;
use crate::error::{ReadError, WriteError};
use crate::format::{Entry, HEADER_BYTES, Header, RecordKind};
use crate::held::{self, Examined, Held};
use crate::limits::{DARK_SEALS_MAX, SCRUB_STEP_BYTES, SCRUB_STEP_SHARDS};
use crate::log::{Append, Core};
use crate::position::Position;
use crate::read;
use crate::scan::{Scan, read_delete_table, read_seal_table};

const STATE_VERSION: u8 = 1;

/// What a cycle of the scrub has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ScrubTally {
    pub began: Timestamp,
    pub shards: u64,
    pub bytes: u64,
    /// Shards that failed a check.
    pub damaged: u64,
    /// Shards that the index had lost and that were put back.
    pub dark: u64,
    /// Records of a shard that the index does not know and that is not whole: dead space, reported for the record.
    pub unreadable: u64,
}
codec_struct!(ScrubTally { began, shards, bytes, damaged, dark, unreadable });

/// A cycle that is complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FinishedScrub {
    pub at: Timestamp,
    pub tally: ScrubTally,
}
codec_struct!(FinishedScrub { at, tally });

/// How far the scrub of a disk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ScrubState {
    /// The cycle under way, with the last shard it read; `None` between two cycles.
    pub current: Option<(ScrubTally, Option<ShardId>)>,
    pub finished: Option<FinishedScrub>,
}

impl Encode for ScrubState {
    fn encode(&self, out: &mut Encoder) {
        out.u8(STATE_VERSION);
        self.current.encode(out);
        self.finished.encode(out);
    }
}

impl Decode for ScrubState {
    fn decode(input: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        match input.u8()? {
            STATE_VERSION => Ok(Self { current: Decode::decode(input)?, finished: Decode::decode(input)? }),
            version => Err(DecodeError::UnknownVersion { what: "scrub state", version: u16::from(version) }),
        }
    }
}

/// What one step of the scrub read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ScrubStep {
    pub examined: Vec<Examined>,
    /// Where to go on; `None` when there are no more shards.
    pub next: Option<ShardId>,
}

/// A search for dark data under way: seals that the index does not know, less those that a tombstone further on explains.
#[derive(Debug, Default)]
pub struct DarkSearch {
    /// The first segment not searched yet.
    next: u32,
    seals: BTreeMap<ShardId, Position>,
    /// Bytes the segments searched so far take.
    pub bytes: u64,
    pub is_complete: bool,
}

/// What came of a search.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Adopted {
    pub shards: Vec<ShardId>,
    pub unreadable: u64,
}

impl Disk {
    /// What the disk has of each of these shards, as far as it knows without reading them.
    pub async fn held(&self, shards: Vec<ShardId>) -> Result<Vec<Held>, ReadError> {
        self.blocking(move |core| held::held(core, &shards)).await
    }

    /// Reads all of a shard; what is bad is in quarantine from then on.
    pub async fn examine(&self, shard: ShardId) -> Result<Examined, ReadError> {
        self.blocking(move |core| held::examine(core, shard)).await
    }

    /// Reads some shards after `after` in the order of their ids.
    pub async fn examine_next(&self, after: Option<ShardId>) -> Result<ScrubStep, ReadError> {
        self.blocking(move |core| examine_next(core, after)).await
    }

    /// The shards in quarantine after `after`, at most `limit`.
    pub fn quarantined(&self, after: Option<ShardId>, limit: usize) -> Vec<ShardId> {
        self.handle.core.quarantine.page(after, limit)
    }

    pub async fn load_scrub(&self) -> Result<ScrubState, ReadError> {
        self.blocking(|core| {
            core.index.load_scrub().map_err(|source| {
                core.index_failed(&source);
                ReadError::Index { disk: core.identity.disk, source }
            })
        })
        .await
    }

    pub async fn save_scrub(&self, state: ScrubState) -> Result<(), WriteError> {
        self.blocking(move |core| core.index.save_scrub(&state).map_err(|error| core.index_failed(&error))).await
    }

    /// Searches one more segment for seals without an index entry.
    pub async fn search_dark(&self, mut search: DarkSearch) -> Result<DarkSearch, ReadError> {
        self.blocking(move |core| {
            let Some((segment, fill)) = core.segments.fills().range(search.next..).next().map(|(number, fill)| (*number, *fill))
            else {
                search.is_complete = true;
                return Ok(search);
            };
            match search_segment(core, segment, &mut search.seals) {
                // Compacted away in the meantime: its tombstones were appended again, further on.
                Err(SearchError::Io(error)) if error.kind() == io::ErrorKind::NotFound => {}
                // A tombstone that cannot be read makes a deleted shard look lost: it then is an orphan, and deleted once more.
                Err(SearchError::Io(error)) => {
                    tracing::warn!(disk = %core.identity.disk, segment, %error, "a segment was not searched to its end");
                }
                Err(SearchError::Read(error)) => return Err(error),
                Ok(()) => {}
            }
            search.bytes += u64::from(fill.end) * crate::position::BLOCK_BYTES;
            search.next = segment.saturating_add(1);
            search.is_complete = segment == u32::MAX;
            Ok(search)
        })
        .await
    }

    /// Puts what a complete search found back into the index, each shard after reading all of it.
    ///
    /// # Panics
    /// When the search is not complete: a tombstone may still be to come.
    pub async fn adopt(&self, search: DarkSearch) -> Result<Adopted, WriteError> {
        assert!(search.is_complete, "only a complete search knows what is dark");
        // Compaction removes segments in which nothing lives, and dark data lives for nobody else.
        let _no_compaction = self.handle.compacting.lock().await;
        let mut adopted = Adopted::default();
        for (shard, at) in search.seals {
            match self.blocking(move |core| dark_entry(core, shard, at)).await? {
                Dark::Explained => {}
                Dark::Unreadable => adopted.unreadable += 1,
                Dark::Whole(entry) => {
                    self.handle.ask(|reply| Append::Adopt { shard, entry, reply }).await?;
                    adopted.shards.push(shard);
                }
            }
        }
        Ok(adopted)
    }

    /// Forgets segments whose files are gone, so that the shards in them count as damaged; returns their numbers. Nothing more
    /// is written to them.
    pub async fn forget_missing_segments(&self) -> Result<Vec<u32>, WriteError> {
        // Where the disk was unmounted there are none either (D23).
        self.check_identity().await?;
        let missing = self.blocking(|core| {
            core.segments
                .forget_missing()
                .map_err(|error| core.health.kill(format_args!("cannot list {}: {error}", core.segments.dir().display())))
        });
        let missing = missing.await?;
        for segment in missing.iter().copied() {
            tracing::error!(disk = %self.identity().disk, segment, "a segment file is gone, what it held is to be repaired");
            self.handle.ask(|reply| Append::Retire { segment, reply }).await?;
        }
        Ok(missing)
    }
}

fn examine_next(core: &Core, after: Option<ShardId>) -> Result<ScrubStep, ReadError> {
    let page = core.index.page(after, SCRUB_STEP_SHARDS).map_err(|source| {
        core.index_failed(&source);
        ReadError::Index { disk: core.identity.disk, source }
    })?;
    let is_last = page.len() < SCRUB_STEP_SHARDS;
    let mut step = ScrubStep::default();
    let mut bytes = 0;
    let shards = page.len();
    for (done, (shard, entry)) in page.into_iter().enumerate() {
        step.examined.push(held::examine(core, shard)?);
        bytes += entry.bytes;
        if bytes >= SCRUB_STEP_BYTES || done + 1 == shards {
            step.next = (done + 1 < shards || !is_last).then_some(shard);
            break;
        }
    }
    Ok(step)
}

enum SearchError {
    Io(io::Error),
    Read(ReadError),
}

impl From<io::Error> for SearchError {
    fn from(error: io::Error) -> Self {
        SearchError::Io(error)
    }
}

/// Adds the segment's unexplained seals, and takes away what its tombstones explain. The segments come in ascending order, and
/// a tombstone is always behind what it kills.
fn search_segment(core: &Core, segment: u32, seals: &mut BTreeMap<ShardId, Position>) -> Result<(), SearchError> {
    let file = core.segments.file(segment)?;
    let mut scan = Scan::new(&file, &core.key, Position { segment, block: 0 })?;
    while let Some(header) = scan.next()? {
        match header.kind {
            RecordKind::Unit => {}
            RecordKind::Seal => {
                let (shard, at) = (header.shard, header.at);
                // Behind the last fsync it may be a write under way.
                if at >= core.durable.upto() || seals.len() >= DARK_SEALS_MAX || is_known(core, shard)? {
                    continue;
                }
                seals.insert(shard, at);
            }
            RecordKind::Delete => {
                let table = read_delete_table(&file, &header)?;
                for tombstone in table.into_iter().flat_map(|table| table.tombstones) {
                    if seals.get(&tombstone.shard).is_some_and(|at| *at <= tombstone.newest) {
                        seals.remove(&tombstone.shard);
                    }
                }
            }
        }
    }
    Ok(())
}

fn is_known(core: &Core, shard: ShardId) -> Result<bool, SearchError> {
    match core.index.get(shard) {
        Ok(entry) => Ok(entry.is_some()),
        Err(source) => {
            core.index_failed(&source);
            Err(SearchError::Read(ReadError::Index { disk: core.identity.disk, source }))
        }
    }
}

enum Dark {
    /// It was written, deleted or removed since the search.
    Explained,
    Unreadable,
    Whole(Entry),
}

fn dark_entry(core: &Core, shard: ShardId, at: Position) -> Result<Dark, WriteError> {
    if core.latest(shard)?.is_some() || !core.segments.exists(at.segment) {
        return Ok(Dark::Explained);
    }
    let entry = || -> io::Result<Option<Entry>> {
        let file = core.segments.file(at.segment)?;
        let mut head = [0; HEADER_BYTES];
        file.read_exact_at(&mut head, at.offset())?;
        let Ok(header) = Header::read(&head, &core.key, at) else { return Ok(None) };
        Ok(read_seal_table(&file, &header)?.map(|table| Entry::of_seal(&header, &table)))
    };
    let entry = entry().unwrap_or_default().filter(|entry| read::verify_entry(core, shard, entry).is_ok());
    Ok(entry.map_or(Dark::Unreadable, Dark::Whole))
}
