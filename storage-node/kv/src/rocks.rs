//! RocksDB behind [`Kv`](crate::Kv).
//!
//! RocksDB does its own input and output: it is the one exception to `Env`, and the simulation runs on `MemoryKv` instead.
//!
//! - **With a log** (`wal`): a [`Durability::Synced`] write returns after the fdatasync of the write-ahead log, which is what
//!   makes it durable. RocksDB's default recovery stops silently at the first damaged record and forgets all after it; here a
//!   damaged record refuses to open. Only an incomplete last record is dropped: a write that the crash interrupted, so it was
//!   never acknowledged. `inspection.rs` looks at the log first, because RocksDB cannot tell such a tail from some kinds of
//!   damage. (`AbsoluteConsistency` would refuse the tail too, and with it every store whose machine lost its power in the
//!   middle of a write.) No recycled log files: their old tail looks like a torn one.
//! - **Without**: writes are in memory until a flush. The owner replays the rest from a log of its own.
//! - Every block is checksummed, and checked at each read. Missing files are noticed when the store is opened.
//! - A failed background write makes RocksDB refuse all later ones: the next call reports it.

mod inspection;

use std::path::Path;

use bytes::Bytes;
use rocksdb::{
    BlockBasedOptions, Cache, DB, DBCompressionType, DBRawIterator, DBRecoveryMode, ErrorKind, FlushOptions, Options,
    ReadOptions, Snapshot, WriteBatch as RocksBatch, WriteOptions,
};

use crate::{Durability, Kv, KvError, KvRead, Step, WriteBatch, WriteOp};

const BLOCK_BYTES: usize = 16 << 10;
const FILES_OPEN_MAX: i32 = 512;
const BACKGROUND_JOBS_MAX: i32 = 4;
const WRITE_BUFFERS_MAX: i32 = 3;
/// RocksDB's own text log, of which a few small files are kept for the curious.
const TEXT_LOG_BYTES_MAX: usize = 4 << 20;
const TEXT_LOG_FILES_MAX: usize = 2;

/// How a store is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RocksOptions {
    /// Whether there is a write-ahead log. Without one a synced write is a flush.
    pub wal: bool,
    /// Memory for blocks read.
    pub block_cache_bytes: usize,
    /// Memory for each of up to three buffers of changes on their way to disk.
    pub write_buffer_bytes: usize,
}

impl Default for RocksOptions {
    /// A log, 64 MiB of cache, 16 MiB buffers.
    fn default() -> Self {
        Self { wal: true, block_cache_bytes: 64 << 20, write_buffer_bytes: 16 << 20 }
    }
}

/// A RocksDB in a directory of its own.
pub struct RocksKv {
    db: DB,
    wal: bool,
}

impl RocksKv {
    /// Opens the store in `path`, or makes an empty one in a directory that is missing or holds nothing. Blocks while the log
    /// is replayed.
    pub fn open(path: &Path, options: RocksOptions) -> Result<Self, KvError> {
        inspection::inspect(path)?;
        let db = DB::open(&database_options(options), path).map_err(|error| open_error(path, &error))?;
        Ok(Self { db, wal: options.wal })
    }
}

impl KvRead for RocksKv {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, KvError> {
        let value = self.db.get_pinned(key).map_err(kv_error)?;
        Ok(value.map(|value| Bytes::copy_from_slice(&value)))
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> Step) -> Result<(), KvError> {
        // An iterator pins the state it was made on: one consistent snapshot.
        visit_pairs(self.db.raw_iterator_opt(scan_options(to)), from, visit)
    }
}

impl Kv for RocksKv {
    fn write(&self, batch: &WriteBatch, durability: Durability) -> Result<(), KvError> {
        let mut rocks = RocksBatch::default();
        for op in batch.ops() {
            match op {
                WriteOp::Put { key, value } => rocks.put(key, value),
                WriteOp::Delete { key } => rocks.delete(key),
                WriteOp::DeleteRange { from, to } if from < to => rocks.delete_range(from, to),
                WriteOp::DeleteRange { .. } => {}
            }
        }
        let mut options = WriteOptions::default();
        if self.wal {
            options.set_sync(durability == Durability::Synced);
        } else {
            options.disable_wal(true);
        }
        self.db.write_opt(rocks, &options).map_err(kv_error)?;
        if durability == Durability::Synced && !self.wal { self.flush() } else { Ok(()) }
    }

    fn flush(&self) -> Result<(), KvError> {
        let mut options = FlushOptions::default();
        options.set_wait(true);
        self.db.flush_opt(&options).map_err(kv_error)
    }

    fn snapshot(&self) -> Box<dyn KvRead + '_> {
        Box::new(RocksSnapshot { snapshot: self.db.snapshot() })
    }

    fn as_read(&self) -> &dyn KvRead {
        self
    }
}

struct RocksSnapshot<'a> {
    snapshot: Snapshot<'a>,
}

impl KvRead for RocksSnapshot<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, KvError> {
        let value = self.snapshot.get_pinned(key).map_err(kv_error)?;
        Ok(value.map(|value| Bytes::copy_from_slice(&value)))
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> Step) -> Result<(), KvError> {
        visit_pairs(self.snapshot.raw_iterator_opt(scan_options(to)), from, visit)
    }
}

fn visit_pairs(mut pairs: DBRawIterator<'_>, from: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> Step) -> Result<(), KvError> {
    pairs.seek(from);
    while let Some((key, value)) = pairs.item() {
        match visit(key, value) {
            Step::Next => pairs.next(),
            Step::Seek(next) if next.as_slice() <= key => pairs.next(),
            Step::Seek(next) => pairs.seek(next),
            Step::Stop => break,
        }
    }
    // An iterator that met a damaged block looks as if it had come to the end.
    pairs.status().map_err(kv_error)
}

fn scan_options(to: &[u8]) -> ReadOptions {
    let mut options = ReadOptions::default();
    options.set_verify_checksums(true);
    if !to.is_empty() {
        options.set_iterate_upper_bound(to);
    }
    options
}

fn database_options(options: RocksOptions) -> Options {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(&Cache::new_lru_cache(options.block_cache_bytes));
    table.set_block_size(BLOCK_BYTES);
    table.set_bloom_filter(10.0, false);
    // Index and filter blocks count towards the cache, so that its size bounds the memory.
    table.set_cache_index_and_filter_blocks(true);
    table.set_pin_l0_filter_and_index_blocks_in_cache(true);

    let mut database = Options::default();
    database.create_if_missing(true);
    database.set_paranoid_checks(true);
    database.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
    database.set_recycle_log_file_num(0);
    database.set_track_and_verify_wals_in_manifest(true);
    database.set_block_based_table_factory(&table);
    database.set_compression_type(DBCompressionType::Lz4);
    database.set_write_buffer_size(options.write_buffer_bytes);
    database.set_max_write_buffer_number(WRITE_BUFFERS_MAX);
    database.set_level_compaction_dynamic_level_bytes(true);
    database.set_max_background_jobs(BACKGROUND_JOBS_MAX);
    database.set_bytes_per_sync(1 << 20);
    database.set_max_open_files(FILES_OPEN_MAX);
    database.set_keep_log_file_num(TEXT_LOG_FILES_MAX);
    database.set_max_log_file_size(TEXT_LOG_BYTES_MAX);
    database.set_stats_dump_period_sec(0);
    database.set_stats_persist_period_sec(0);
    database
}

fn kv_error(error: rocksdb::Error) -> KvError {
    let detail = error.to_string();
    match error.kind() {
        ErrorKind::Corruption => KvError::Corrupt { detail },
        _ => KvError::Io { detail },
    }
}

fn open_error(path: &Path, error: &rocksdb::Error) -> KvError {
    let path = path.display();
    match error.kind() {
        ErrorKind::Corruption => {
            KvError::Corrupt { detail: format!("{path} cannot be opened, a file in it is damaged or missing: {error}") }
        }
        ErrorKind::IOError if is_lock_failure(error) => {
            KvError::Io { detail: format!("{path} is in use, by this or another process that holds {path}/LOCK: {error}") }
        }
        _ => KvError::Io { detail: format!("{path} cannot be opened: {error}") },
    }
}

/// RocksDB has no error code for it: "While lock file: ..." or "lock hold by current process".
fn is_lock_failure(error: &rocksdb::Error) -> bool {
    let text = error.as_ref();
    text.contains("lock file") || text.contains("lock hold")
}
