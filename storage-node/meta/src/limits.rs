//! Every maximum of the state machine, each with its reason. They bound what one command or query can cost a group.

use std::time::Duration;

/// Items of a listing page, parts, garbage or degraded chunks in one answer: S3 asks for at most 1,000, a merge may read ahead.
pub const PAGE_ITEMS_MAX: u32 = 10_000;

/// Transactions, chunks or data records named by one command or query: as many as an upload may have parts.
pub const NAMES_MAX: usize = 10_000;

/// S3's highest part number.
pub const PART_NUMBER_MAX: u16 = 10_000;

/// Chunks of one data record. A part of 5 GiB has 320 when they are full; writers may cut smaller ones.
pub const CHUNKS_MAX: usize = 16_384;

/// Bytes of an ETag; ours have at most 38.
pub const ETAG_BYTES_MAX: usize = 128;

/// Rows that one Forget drops, so that the entry applies within a few tens of milliseconds.
pub const FORGET_ROWS_MAX: usize = 20_000;

/// Parts that one PurgeShelf drops, for the same reason.
pub const PURGE_PARTS_MAX: usize = 10_000;

/// Forget keeps at least this much: a command under way is never older, so none in flight loses its fence or its outcome.
pub const FORGET_AGE_MIN: Duration = Duration::from_secs(60 * 60);

/// One Forget raises the floor by no more than this, whatever the clock of the leader says: were it a year ahead, every command
/// would be refused for a year once it is right again. A leader forgets once an hour, and keeps a week: such a clock does no harm
/// before half a day, and a group that slept for a month catches up in three.
pub const FORGET_STEP_MAX: Duration = Duration::from_secs(12 * 60 * 60);

/// How long after a shard's deletion the same slot of its chunk may not return to that disk. A deletion is by shard id, so
/// one that a deposed leader still has under way would hit the returned shard; no such call lives nearly as long. A chunk that
/// cannot wait is written anew under another id.
pub const RETURN_AFTER: Duration = Duration::from_secs(60 * 60);

/// How much later than its worker says a deletion may have been, where the garbage itself is dated later still.
pub const CLOCK_DOUBT: Duration = Duration::from_secs(24 * 60 * 60);
