//! Every maximum of the store, with its reason.

/// A unit is one stripe's share of a shard; with profile 1+0 it is the whole stripe.
pub const UNIT_BYTES_MAX: usize = 1 << 20;

/// Units of one shard. A chunk has 16 stripes; the rest is room for smaller stripes. It bounds a seal's table to 12 KiB.
pub const UNITS_MAX: usize = 256;

/// Tombstones in one delete record: bounds its table to 400 KiB.
pub(crate) const TOMBSTONES_MAX: usize = 16 << 10;

/// No table is longer; a header that claims more is not a header.
pub(crate) const TABLE_BYTES_MAX: u32 = 512 << 10;

/// Unit bytes that wait to be written, per disk. Two write batches: one being written, one collecting.
pub(crate) const QUEUE_BYTES_MAX: usize = 32 << 20;

/// Messages that wait for the append stage; bounds what small shards and deletes queue.
pub(crate) const QUEUE_MESSAGES_MAX: usize = 4096;

/// What one run of the append stage takes, so that a seal in it need not wait long for its fsync.
pub(crate) const BATCH_BYTES_MAX: usize = 8 << 20;
pub(crate) const BATCH_MESSAGES_MAX: usize = 1024;

/// Written batches that wait for the commit stage while an fsync runs.
pub(crate) const WRITTEN_BATCHES_MAX: usize = 16;

/// Lists of dead extents that wait to be punched. What does not fit is left to compaction.
pub(crate) const RECLAIM_LISTS_MAX: usize = 4096;

/// Open segment files kept for reading, per disk.
pub(crate) const OPEN_SEGMENTS_MAX: usize = 256;

/// The smallest and the largest segment; the largest bounds what a scan believes of a file's length.
pub(crate) const SEGMENT_BYTES_MIN: u64 = 2 << 20;
pub(crate) const SEGMENT_BYTES_MAX: u64 = 4 << 30;

/// The end of each segment is left to delete records, so that a full disk can still delete its way out (D14).
pub(crate) const DELETE_HEADROOM_BYTES: u64 = 256 << 10;

/// What maintenance asks for when not even the reserve holds a whole segment any more.
pub(crate) const SMALL_SEGMENT_BYTES: u64 = 1 << 20;

/// How much a scan reads at once while it looks for headers.
pub(crate) const SCAN_WINDOW_BYTES: usize = 64 << 10;

/// Changes a replay stages before it writes them to the index.
pub(crate) const REPLAY_STAGED_MAX: usize = 4096;

/// A segment is rewritten when more than this share of it is dead.
pub(crate) const COMPACT_DEAD_PERCENT: u64 = 50;

/// How often a read follows a shard that compaction moves under it.
pub(crate) const READ_ATTEMPTS_MAX: usize = 4;

/// `disk.id` is far smaller; more is not ours.
pub(crate) const IDENTITY_BYTES_MAX: u64 = 4096;

/// Damaged shards that a disk remembers, some 5 MiB. More than that is not rot but a disk to replace.
pub(crate) const QUARANTINE_MAX: usize = 100_000;

/// What one step of a scrub reads: half a second of a slow disk, so that clients never wait long behind it.
pub(crate) const SCRUB_STEP_BYTES: u64 = 8 << 20;
pub(crate) const SCRUB_STEP_SHARDS: usize = 64;

/// Seals without an index entry that one search for dark data keeps in memory. Nearly all dead seals are punched away; what
/// does not fit is found by a later search.
pub(crate) const DARK_SEALS_MAX: usize = 100_000;

/// Shards in one page of a listing.
pub(crate) const LIST_MAX: usize = 10_000;
