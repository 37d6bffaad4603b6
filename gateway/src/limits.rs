//! Every maximum of the gateway, with its reason.

use std::time::Duration;

/// How long one metadata call may take in all, retries included. A group elects a new leader well within it, so that a
/// write under way survives a leader's death (K14).
pub const META_DEADLINE: Duration = Duration::from_secs(10);

/// How long one node may take to answer one try before another is asked: a node behind a dead link must not eat the deadline.
pub const META_TRY: Duration = Duration::from_secs(3);

/// The pauses between rounds of tries: short at first because most leader changes are over at once, then doubling.
pub const BACKOFF_MIN: Duration = Duration::from_millis(20);
pub const BACKOFF_MAX: Duration = Duration::from_millis(400);

/// How long a call waits for a newer cluster map when the one it used turned out stale.
pub const MAP_WAIT: Duration = Duration::from_millis(300);

/// How long a bucket's settings may be used without asking again. Its deletion is noticed at once by the fence; a changed
/// setting within this time (X14 allows 5 s).
pub const BUCKET_FRESH: Duration = Duration::from_secs(3);

/// Buckets remembered. One entry is a few hundred bytes; past it the cache starts over.
pub const BUCKETS_CACHED_MAX: usize = 10_000;

/// How often a request starts over because its bucket was deleted, or deleted and created again, under it.
pub const BUCKET_RETRIES_MAX: u32 = 2;

/// Pieces of a chunk waiting for its coordinator. A piece is about 512 KiB, so this is some 2 MiB per upload.
pub const WRITE_PIECES_MAX: usize = 4;

/// A body piece longer than this is cut, so that the bound above holds whatever the source sends.
pub const WRITE_PIECE_BYTES_MAX: usize = 1 << 20;

/// Chunks of one upload under way: the one being sent, and the one before it that waits for its fsyncs.
pub const CHUNKS_IN_FLIGHT_MAX: usize = 2;

/// A coordinator that takes no byte and answers nothing for this long is given up.
pub const CHUNK_STALL: Duration = Duration::from_secs(30);

/// A coordinator that delivers no byte of a read for this long is replaced by another.
pub const READ_STALL: Duration = Duration::from_secs(10);

/// How many coordinators are tried for a chunk nobody has taken a byte of yet.
pub const COORDINATORS_MAX: usize = 3;

/// What is queued for a client that keeps up; one piece more is ready, and the chunk streams behind it read on.
pub const READ_AHEAD_BYTES: usize = 3 << 20;

/// What is queued for a client of which that is not known: a stripe, the least that can be read and verified.
pub const READ_STRIPE_BYTES: usize = 1 << 20;

/// What a connection gets at once, in memory of its own. hyper takes more as soon as it has less than 256 KiB left to send,
/// so a client that stands still holds at most three of them; smaller ones cost throughput.
pub const SMALL_PIECE_BYTES: usize = 128 << 10;

/// What a client may leave in the queue for good at the end of its object: watching over less would cost every small read a
/// change of tasks.
pub const READ_LEFTOVER_BYTES: usize = 64 << 10;

/// A client that has taken nothing for this long gets its reading parked.
pub const READ_PATIENCE: Duration = Duration::from_secs(1);

/// Reading ahead is for clients that take more than this, over the last few seconds. Slower ones have a quarter of a second
/// per stripe, and their connection's buffers, to wait for the next.
pub const PACE_BYTES_PER_SECOND: u64 = 4 << 20;

/// Credit from which the next stripe is read while one is taken: what a quick client has after its first one. It is more than
/// a connection swallows for a client that reads nothing (some 760 KiB), so that such clients cost a stripe each at most, and
/// that for [`READ_PATIENCE`] only. Others lose nothing: while their second stripe is read they are sent what their
/// connection holds of the first.
pub const PACE_STEADY_BYTES: u64 = 896 << 10;

/// Credit from which chunks are read ahead.
pub const PACE_BRISK_BYTES: u64 = 4 << 20;

/// Credit kept: a brisk client that becomes slow is known as slow within some four seconds.
pub const PACE_BYTES_MAX: u64 = 12 << 20;

/// How often one run of a chunk may start over on another node or from a newer manifest.
pub const READ_RETRIES_MAX: usize = 8;

/// The pause before every node was asked in vain and all are asked again.
pub const READ_PAUSE: Duration = Duration::from_millis(100);

/// How often a GET looks its key up again because the version it found was replaced before its first byte.
pub const OVERTAKEN_MAX: u32 = 5;

/// Data records asked for at once: a record of a 5 GiB part lists 320 chunks, some 50 KiB.
pub const DATA_RECORDS_PER_QUERY: usize = 8;

/// Shards deleted per call after a failed write.
pub const DELETE_SHARDS_PER_CALL: usize = 256;

/// How long cleaning up after a failed write may take per node; what is left is the scrub's (I5).
pub const CLEANUP_DEADLINE: Duration = Duration::from_secs(20);

/// Index shards asked at the same time by one listing.
pub const SHELVES_AT_ONCE: usize = 32;

/// Entries asked of one index shard at once.
pub const SHELF_PAGE_MAX: u32 = 1001;

/// Deletes of one DeleteObjects under way: they share the groups' fsyncs, so more would only queue.
pub const DELETES_AT_ONCE: usize = 32;

/// A part other than the last has at least this much, as Amazon S3 has it.
pub const PART_BYTES_MIN: u64 = 5 << 20;

/// One object. Amazon S3 raised its limit from 5 TiB in 2025; at 10,000 parts of 5 GiB nothing larger can be uploaded.
pub const OBJECT_BYTES_MAX: u64 = 10_000 * (5 << 30);

/// CopyObject takes a source up to this size; larger ones are copied part by part.
pub const COPY_BYTES_MAX: u64 = 5 << 30;

/// Parts asked for at once when an upload is completed.
pub const PARTS_PER_QUERY: u32 = 1000;

/// How often CompleteMultipartUpload reads the parts again because one was replaced under it.
pub const COMPLETE_RETRIES_MAX: u32 = 5;

/// A driver of DeleteBucket stops by itself after this long; with the metadata deadline added it is still far below the
/// system group's lease, so that two drivers never work on one bucket.
pub const DELETE_DRIVE: Duration = Duration::from_secs(30);

/// How long a readiness verdict may be repeated.
pub const READY_FRESH: Duration = Duration::from_secs(1);

/// How long one readiness probe may take.
pub const READY_DEADLINE: Duration = Duration::from_secs(2);

/// Admin requests older or newer than this are refused.
pub const ADMIN_SKEW_MAX: Duration = Duration::from_secs(15 * 60);

/// Chunks that one explain answer describes.
pub const EXPLAIN_CHUNKS_MAX: usize = 1000;

/// How long one page of a verification may go on reading; then it ends after the chunks under way. With those and the
/// listing an answer takes less than two minutes, at worst.
pub const VERIFY_PAGE_TIME: Duration = Duration::from_secs(10);

/// Versions of one page of a verification: an answer has some 200 bytes for each.
pub const VERIFY_PAGE_VERSIONS: usize = 1000;

/// Chunks verified at a time: their nodes read and hash one while the next one's units come.
pub const VERIFY_CHUNKS_AT_ONCE: usize = 4;

/// How many nodes are asked to verify a chunk before it counts as unknown.
pub const VERIFY_NODES_MAX: usize = 2;

/// Records that a metadata group goes through per question whether a disk holds anything.
pub const HOLDINGS_PAGE: u32 = 10_000;

/// Versions that one explain answer describes.
pub const EXPLAIN_VERSIONS_MAX: u32 = 100;

/// A head of an admin request must be complete within this.
pub const ADMIN_HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// Admin connections at a time.
pub const ADMIN_CONNECTIONS_MAX: usize = 256;
