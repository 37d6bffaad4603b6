//! Every maximum of the S3 surface, with its reason.

use std::time::Duration;

/// How much of an upload is handed on at once: MD5 and the hand-over between threads are paid per piece, not per read.
pub const PIECE_BYTES: usize = 512 << 10;

/// Hashing may fall this far behind a body before reading waits for it: bounds the memory of one upload.
pub const HASH_BACKLOG_BYTES_MAX: usize = 4 << 20;

/// Up to this much is hashed on the reactor (under 0.2 ms); a thread hand-over would cost a small object more.
pub const HASH_INLINE_BYTES_MAX: usize = 64 << 10;

/// One PUT or one part, as Amazon S3 limits it.
pub const PUT_BYTES_MAX: u64 = 5 << 30;

/// XML bodies: 10,000 parts of CompleteMultipartUpload with checksums and 1,000 keys of 1,024 bytes both fit.
pub const XML_BYTES_MAX: usize = 2 << 20;

/// A signed chunk is held in memory until its signature is verified.
pub const SIGNED_CHUNK_BYTES_MAX: usize = 16 << 20;

/// Every chunk of an aws-chunked body but the last has at least this much.
pub const CHUNK_BYTES_MIN: u64 = 8192;

/// Names and values of all request headers together, as Amazon S3 limits them.
pub const HEADER_SECTION_BYTES_MAX: usize = 8 << 10;

/// The read buffer of a connection, and so also the most that hyper takes in of a request's head before it answers 431 by
/// itself. Smaller buffers cost throughput: at 64 KiB a large upload is paid in system calls.
pub const READ_BUFFER_BYTES_MAX: usize = 256 << 10;

/// Header lines of one request.
pub const HEADERS_MAX: usize = 100;

/// The request target. Presigned URLs of clients with long session tokens stay well below.
pub const URI_BYTES_MAX: usize = 16 << 10;

/// Names and values of all user metadata.
pub const METADATA_BYTES_MAX: usize = 2 << 10;

pub const OBJECT_TAGS_MAX: usize = 10;
pub const TAG_KEY_CHARS_MAX: usize = 128;
pub const TAG_VALUE_CHARS_MAX: usize = 256;

pub const LIST_KEYS_MAX: u16 = 1000;
pub const LIST_BUCKETS_MAX: u32 = 10_000;
pub const DELETE_KEYS_MAX: usize = 1000;

/// A signature older or newer than this is refused.
pub const CLOCK_SKEW_MAX: Duration = Duration::from_secs(15 * 60);

/// A presigned URL lives at most a week.
pub const PRESIGNED_LIFETIME_MAX: Duration = Duration::from_secs(7 * 24 * 3600);

/// A request's head must be complete within this time, counted from the connection's start or the previous answer: it bounds
/// slow heads and idle connections alike.
pub const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// A request's body that makes no progress for this long is given up.
pub const BODY_IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// A client that takes nothing of its reply for this long is given up. Longer than for a request's body, because much less of
/// a client's progress is seen: its kernel opens a closed window by a sixteenth of its buffer at least, and ours reports room
/// only when 128 KiB have left. A client that reads 1 KB/s shows a sign of life every 200 s over a loopback, and every 520 s
/// when a fast start has given it a buffer of 6 MiB.
pub const REPLY_IDLE_TIMEOUT: Duration = Duration::from_secs(10 * 60);

/// A TLS handshake that takes longer is given up.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long accepting rests after it failed.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Requests at once on one HTTP/2 connection.
pub const H2_STREAMS_MAX: u32 = 128;

/// Upload bytes in flight of one stream: enough for a gigabit at 8 ms.
pub const H2_STREAM_WINDOW_BYTES: u32 = 1 << 20;

/// Upload bytes in flight of one connection.
pub const H2_CONNECTION_WINDOW_BYTES: u32 = 8 << 20;

/// Reply bytes buffered for one stream, besides the piece that passes the limit: what a client that stands still holds here.
pub const H2_SEND_BYTES_MAX: usize = 256 << 10;

/// Headers of one request after decompression, room for the 8 KiB of a legal one and the framing around it.
pub const H2_HEADER_LIST_BYTES_MAX: u32 = 32 << 10;

/// Streams that a client may open and reset before its connection is closed (rapid reset, CVE-2023-44487).
pub const H2_RESETS_PENDING_MAX: usize = 32;

/// How often a silent HTTP/2 connection is asked whether it is still there, and how long it may take to answer.
pub const H2_PING_INTERVAL: Duration = Duration::from_secs(20);
pub const H2_PING_TIMEOUT: Duration = Duration::from_secs(20);
