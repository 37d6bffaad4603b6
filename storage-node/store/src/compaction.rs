//! Gets the space of mostly dead segments back.
//!
//! The order, and what a crash after each step leaves (P20):
//! 1. Every shard with a record in the segment is appended again, as any shard is: *fsync, then index*. A crash leaves the old
//!    copy, the new one, or both of which replay takes the newer.
//! 2. Tombstones whose victims may still lie in another segment are appended again and fsynced: dropping them would bring the
//!    victims back when the index is rebuilt (K4).
//! 3. The index is checkpointed: durably nothing points into the segment, and no replay begins in it.
//! 4. The file is removed. A crash before leaves a segment in which nothing lives, which the next run removes.
//!
//! A shard that cannot be read keeps its segment: nothing is removed while the counts or the index say that something lives
//! there. The scrub finds such a shard, and once it is repaired and deleted the segment goes.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use placement_types::ShardId;

use crate::disk::Handle;
use crate::error::{ReadError, WriteError};
use crate::format::{Entry, RecordKind, Tombstone};
use crate::limits::COMPACT_DEAD_PERCENT;
use crate::log::{Append, Core};
use crate::position::{BLOCK_BYTES, Position};
use crate::read;
use crate::scan::{Scan, read_delete_table};
use crate::segment::Fill;
use crate::writer::{Purpose, ShardWriter, Stream};

/// What a run did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compaction {
    pub segment: u32,
    pub moved_shards: u64,
    /// Shards that cannot be read and keep their segment. Verify and repair them.
    pub stuck_shards: u64,
    /// Size of the removed segment without what moved; 0 when it had to stay.
    pub freed_bytes: u64,
}

/// Segments that could not be emptied, with the fill at which that was tried: only a change makes another try worth it.
#[derive(Default)]
pub(crate) struct Stuck(BTreeMap<u32, Fill>);

/// What a segment holds that still matters.
#[derive(Default)]
struct Contents {
    shards: BTreeSet<ShardId>,
    tombstones: Vec<Tombstone>,
}

pub(crate) async fn compact_once(disk: &Arc<Handle>) -> Result<Option<Compaction>, WriteError> {
    let mut stuck = disk.compacting.lock().await;
    disk.core.health.alive()?;
    // Segments before this one get no more records.
    let end = disk.ask(|reply| Append::Barrier { reply }).await?;
    let Some((segment, fill)) = choose(&disk.core, end, &stuck) else { return Ok(None) };
    let contents = blocking(disk, move |core| read_contents(core, segment)).await?;

    let mut run = Compaction { segment, moved_shards: 0, stuck_shards: 0, freed_bytes: 0 };
    for shard in &contents.shards {
        match move_shard(disk, *shard, segment).await? {
            Moved::Yes => run.moved_shards += 1,
            Moved::Gone => {}
            Moved::Unreadable(error) => {
                tracing::warn!(disk = %disk.core.identity.disk, %error, "a shard cannot be moved, its segment stays");
                run.stuck_shards += 1;
            }
        }
    }
    let tombstones = contents.tombstones;
    if !tombstones.is_empty() {
        disk.ask(|reply| Append::Keep { tombstones, reply }).await?;
    }
    let upto = disk.checkpoint().await?;
    assert!(upto.segment > segment, "the active segment is never compacted");

    let shards = contents.shards;
    let removed = blocking(disk, move |core| remove(core, segment, &shards)).await?;
    if removed {
        stuck.0.remove(&segment);
        run.freed_bytes = u64::from(fill.dead()) * BLOCK_BYTES;
        tracing::debug!(disk = %disk.core.identity.disk, segment, moved = run.moved_shards, "compacted a segment");
    } else {
        stuck.0.insert(segment, disk.core.segments.fill(segment).unwrap_or_default());
    }
    Ok(Some(run))
}

/// The oldest segment in which nothing lives, else the one with the largest dead share, if that is large enough. Oldest first,
/// so that a leftover copy of a moved shard goes before the tombstone that kills it can.
fn choose(core: &Core, end: Position, stuck: &Stuck) -> Option<(u32, Fill)> {
    let fills = core.segments.fills();
    let mut candidates: Vec<(u32, Fill)> = fills
        .into_iter()
        .filter(|(number, fill)| *number < end.segment && fill.open == 0 && stuck.0.get(number) != Some(fill))
        .collect();
    if let Some(empty) = candidates.iter().find(|(_, fill)| fill.live == 0) {
        return Some(*empty);
    }
    candidates.retain(|(_, fill)| u64::from(fill.dead()) * 100 > u64::from(fill.end) * COMPACT_DEAD_PERCENT);
    // Compared crosswise: dead/end without a division. Of equals the older.
    candidates.into_iter().reduce(|best, next| {
        let share = |a: Fill, b: Fill| u64::from(a.dead()) * u64::from(b.end);
        if share(next.1, best.1) > share(best.1, next.1) { next } else { best }
    })
}

fn read_contents(core: &Core, segment: u32) -> Result<Contents, WriteError> {
    let failed = |error: io::Error| {
        core.health.kill(format_args!("cannot read {} to compact it: {error}", core.segments.path(segment).display()))
    };
    let mut contents = Contents::default();
    let file = core.segments.file(segment).map_err(failed)?;
    let mut scan = Scan::new(&file, &core.key, Position { segment, block: 0 }).map_err(failed)?;
    while let Some(header) = scan.next().map_err(failed)? {
        match header.kind {
            RecordKind::Unit | RecordKind::Seal => {
                if live_entry(core, header.shard)?.is_some_and(|entry| entry.touches(segment)) {
                    contents.shards.insert(header.shard);
                }
            }
            RecordKind::Delete => {
                let table = read_delete_table(&file, &header).map_err(failed)?;
                let tombstones = table.map(|table| table.tombstones).unwrap_or_default();
                // Without the victim's segment there is nothing left to kill.
                let needed =
                    |tombstone: &Tombstone| tombstone.newest.segment != segment && core.segments.exists(tombstone.newest.segment);
                contents.tombstones.extend(tombstones.into_iter().filter(needed));
            }
        }
    }
    Ok(contents)
}

enum Moved {
    Yes,
    /// Deleted, or moved already.
    Gone,
    Unreadable(ReadError),
}

/// Appends a shard again, with its owner and time, one unit in memory at a time.
async fn move_shard(disk: &Arc<Handle>, shard: ShardId, segment: u32) -> Result<Moved, WriteError> {
    let entry = blocking(disk, move |core| live_entry(core, shard)).await?;
    let Some(entry) = entry.filter(|entry| entry.touches(segment)) else { return Ok(Moved::Gone) };
    let purpose = Purpose::Move { from: entry.seal };
    let stream = Stream::new(shard, entry.owner, entry.profile, entry.written_at, purpose);
    let mut writer = ShardWriter::new(disk.clone(), stream);
    for unit in 0..u32::try_from(entry.units.len()).expect("at most UNITS_MAX") {
        match blocking(disk, move |core| read::read_units(core, shard, unit, 1)).await {
            Ok(units) => {
                for data in units {
                    writer.append(data).await?;
                }
            }
            Err(ReadError::NotFound { .. }) => return Ok(Moved::Gone),
            Err(error) => return Ok(Moved::Unreadable(error)),
        }
    }
    writer.finish().await?;
    Ok(Moved::Yes)
}

/// Removes the segment unless something lives in it; the index is asked once more about every shard that was found there.
fn remove(core: &Core, segment: u32, shards: &BTreeSet<ShardId>) -> Result<bool, WriteError> {
    let Some(fill) = core.segments.fill(segment) else { return Ok(false) };
    if fill.live > 0 || fill.open > 0 {
        return Ok(false);
    }
    for shard in shards {
        if live_entry(core, *shard)?.is_some_and(|entry| entry.touches(segment)) {
            return Ok(false);
        }
    }
    let failed = |error| core.health.kill(format_args!("cannot remove {}: {error}", core.segments.path(segment).display()));
    core.segments.remove(segment).map_err(failed)?;
    Ok(true)
}

fn live_entry(core: &Core, shard: ShardId) -> Result<Option<Entry>, WriteError> {
    core.index.get(shard).map_err(|error| core.index_failed(&error))
}

async fn blocking<T: Send + 'static>(disk: &Arc<Handle>, work: impl FnOnce(&Core) -> T + Send + 'static) -> T {
    let core = disk.core.clone();
    disk.core.env.run_blocking(move || work(&core)).await
}
