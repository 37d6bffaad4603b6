//! Sizes and deadlines of the internal port.

use std::time::Duration;

/// HTTP/2 windows. With tonic's default of 64 KiB bulk streams cost three times the CPU (measured: 1.0-1.3 against
/// 0.36-0.47 CPU-seconds per GB, both ends).
pub const STREAM_WINDOW_BYTES: u32 = 4 << 20;
pub const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;

/// The largest HTTP/2 frame we ask for; bigger frames mean fewer of them for units of up to 1 MiB.
pub const FRAME_BYTES_MAX: u32 = 1 << 20;

/// A message holds at most one unit, stripe piece, metadata entry or batch of Raft messages, and some framing.
pub const MESSAGE_BYTES_MAX: usize = 8 << 20;

/// A peer that does not accept within this is treated as unreachable.
pub const CONNECT_DEADLINE: Duration = Duration::from_secs(2);

/// TLS and HTTP/2 must be up within this, or the accepted connection is dropped.
pub const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(5);

/// HTTP/2 pings find half-open connections: a frozen or cut-off peer is noticed after their sum.
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(3);
pub const KEEPALIVE_DEADLINE: Duration = Duration::from_secs(4);

/// Handshakes under way at once; further connections wait in the listen queue.
pub const HANDSHAKES_MAX: usize = 64;

/// Streams of one connection under way at once.
pub const STREAMS_MAX: u32 = 4096;

/// Clusters of which a process that belongs to none remembers the incarnation. One secret is for one cluster.
pub const CLUSTERS_HEARD_MAX: usize = 16;
