//! Opening a disk: make the index agree with the log.
//!
//! 1. Open the index. One that cannot be read, or whose entries do not decode, is wiped; one without a checkpoint (new, lost or
//!    wiped) starts from nothing. "Corrupt" is never "not found" (D8 to D10).
//! 2. Replay the log from the checkpoint, or all of it: seals put shards, tombstones take them, in order. Units without a seal
//!    were never acknowledged; nothing names them, so they are dead space.
//! 3. Write what may not be durable once more, and fsync it. After a mere process death the page cache may show records that
//!    are not on disk, and from now on they count as durable. An fsync alone is not enough: if one failed before, the kernel may
//!    call the lost pages clean (D31).
//! 4. Checkpoint, so that the next opening starts here, and count what lives in each segment.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;

use parking_lot::Mutex;
use placement_types::Env;
use storage_node_kv::KvError;
use tokio::sync::mpsc;

use crate::append::Active;
use crate::disk::{IndexOpener, Options};
use crate::error::OpenError;
use crate::format::RecordKey;
use crate::health::Health;
use crate::identity::{self, ExpectedIdentity};
use crate::index::Index;
use crate::log::{Core, Durable, Pending};
use crate::position::{BLOCK_BYTES, Extent, Position, blocks_of};
use crate::progress::Progress;
use crate::quarantine::Quarantine;
use crate::replay::{LogFiles, Replay, ReplayError};
use crate::segment::Segments;

const SEGMENTS_DIR: &str = "segments";
const INDEX_DIR: &str = "index";

/// A disk ready to be served.
pub(crate) struct Opened {
    pub core: Core,
    pub active: Option<Active>,
    pub next_number: u32,
}

/// Opens the disk at `path`; what dies on it is to go to `reclaim`. Blocks.
pub(crate) fn open(
    env: Env,
    path: PathBuf,
    expected: &ExpectedIdentity,
    opener: &IndexOpener,
    options: Options,
    reclaim: mpsc::Sender<Vec<Extent>>,
) -> Result<Opened, OpenError> {
    let options = options.within_limits();
    let identity = identity::read_expected(&env, &path, expected)?;
    let lock = identity::lock(&env, &path)?;
    let device = identity::device_of(&env, &path)?;
    let (segments_dir, index_dir) = (path.join(SEGMENTS_DIR), path.join(INDEX_DIR));
    for dir in [&segments_dir, &index_dir] {
        env.fs.create_dir_all(dir).map_err(|source| identity::unwritable_or_io(dir, source))?;
    }
    env.fs.sync_dir(&path).map_err(|source| identity::unwritable_or_io(&path, source))?;

    let key = RecordKey::new(&identity);
    let segments = Segments::new(env.fs.clone(), segments_dir);
    let numbers = segments.list().map_err(|source| OpenError::Io { path: segments.dir().to_owned(), source })?;
    let log = LogFiles { env: &env, disk: identity.disk, key: &key, segments: &segments, numbers: &numbers };
    let recovered = recover(&log, opener, &index_dir)?;
    let active = resume(&segments, &options, &recovered);
    // Numbers are never reused: neither those of files nor those the checkpoint knows of.
    let used = recovered.from.segment + u32::from(recovered.from.block > 0);
    let next_number = numbers.last().map_or(0, |number| number + 1).max(used);
    let core = Core {
        env,
        path,
        identity,
        device,
        key,
        options,
        segments,
        index: recovered.index,
        health: Health::new(identity.disk),
        progress: Progress::default(),
        pending: Pending::default(),
        quarantine: recovered.quarantine,
        durable: Durable::new(recovered.end),
        shards: AtomicU64::new(recovered.shards),
        reclaim,
        lock: Mutex::new(Some(lock)),
    };
    Ok(Opened { core, active, next_number })
}

/// Goes on in the last segment when it has room, so that restarts do not leave a trail of short segments.
fn resume(segments: &Segments, options: &Options, recovered: &Recovered) -> Option<Active> {
    let number = recovered.last_segment?;
    let end = segments.fill(number)?.end;
    let start = u64::from(end) * BLOCK_BYTES;
    if start >= options.segment_bytes {
        return None;
    }
    let file = segments.file_to_write(number).ok()?;
    match file.allocate(start, options.segment_bytes - start) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::Unsupported => {}
        Err(_) => return None,
    }
    Some(Active { number, file, end, limit: blocks_of(options.segment_bytes), from_reserve: true })
}

struct Recovered {
    index: Index,
    /// Where the replay began.
    from: Position,
    end: Position,
    last_segment: Option<u32>,
    shards: u64,
    quarantine: Quarantine,
}

/// What an index is brought up to date from.
#[derive(Clone, Copy)]
enum Basis {
    Checkpoint,
    Segments,
}

/// Opens the index and brings it up to date, rebuilding it if it has to be.
fn recover(log: &LogFiles<'_>, opener: &IndexOpener, index_dir: &Path) -> Result<Recovered, OpenError> {
    let broken = match open_and_replay(log, opener, index_dir, Basis::Checkpoint) {
        Ok(recovered) => return Ok(recovered),
        Err(ReplayError::Log(error)) => return Err(error),
        Err(ReplayError::Index(error)) => error,
    };
    if let KvError::Io { .. } = broken {
        return Err(OpenError::Index { path: index_dir.to_owned(), source: broken });
    }
    tracing::warn!(disk = %log.disk, error = %broken, "the index is corrupt, rebuilding it from the segments");
    wipe(log, index_dir)?;
    open_and_replay(log, opener, index_dir, Basis::Segments).map_err(|error| match error {
        ReplayError::Log(error) => error,
        ReplayError::Index(source) => OpenError::Index { path: index_dir.to_owned(), source },
    })
}

/// Removes the files of the index. All it held is in the segments.
fn wipe(log: &LogFiles<'_>, dir: &Path) -> Result<(), OpenError> {
    let io = |source| OpenError::Io { path: dir.to_owned(), source };
    for entry in log.env.fs.read_dir(dir).map_err(io)? {
        if entry.is_dir {
            wipe(log, &entry.path)?;
        } else {
            log.env.fs.remove_file(&entry.path).map_err(io)?;
        }
    }
    log.env.fs.sync_dir(dir).map_err(io)
}

fn open_and_replay(log: &LogFiles<'_>, opener: &IndexOpener, index_dir: &Path, basis: Basis) -> Result<Recovered, ReplayError> {
    let index = Index::new(opener(index_dir)?, log.disk);
    let checkpoint = match basis {
        Basis::Checkpoint => index.load_checkpoint()?,
        Basis::Segments => None,
    };
    let from = match checkpoint {
        Some(upto) => upto,
        None => {
            // Entries without a checkpoint are of unknown age.
            index.clear()?;
            if !log.numbers.is_empty() {
                tracing::warn!(disk = %log.disk, "no usable index, building it from the segments");
            }
            Position::START
        }
    };
    let mut replay = Replay::new(log, &index, from);
    for number in log.numbers {
        replay.segment(*number)?;
    }
    let durable = replay.finish()?;
    let shards = count_live(log, &index)?;
    // What is replayed was fsynced by `Replay::finish`, so the mark may cover all of it.
    let end = durable.max(from);
    index.checkpoint(end)?;
    let quarantine = Quarantine::load(&index)?;
    let last_segment = log.numbers.last().copied().filter(|number| *number >= from.segment);
    Ok(Recovered { index, from, end, last_segment, shards, quarantine })
}

/// Counts what lives in each segment; decoding every entry also finds an index that is corrupt inside.
fn count_live(log: &LogFiles<'_>, index: &Index) -> Result<u64, KvError> {
    let (mut shards, mut lost) = (0, 0_u64);
    index.for_each(&mut |_, entry| {
        shards += 1;
        let extents = entry.extents();
        lost += u64::from(extents.iter().any(|extent| !log.segments.exists(extent.at.segment)));
        log.segments.claim(&extents);
    })?;
    if lost > 0 {
        tracing::error!(disk = %log.disk, shards = lost, "segment files of indexed shards are missing");
    }
    Ok(shards)
}
