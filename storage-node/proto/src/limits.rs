//! Maximums of a storage node's messages and calls.

use std::time::Duration;

/// The largest message: a full listing page with large metadata, or a manifest of a 5 GiB body, with room to spare.
pub const MESSAGE_BYTES_MAX: usize = 16 << 20;

/// A metadata call that takes longer has an unknown outcome; it covers an election and a slow disk.
pub const META_DEADLINE: Duration = Duration::from_secs(8);

/// Small shard calls: deletes, disk reports.
pub const SHARD_DEADLINE: Duration = Duration::from_secs(10);

/// Reading all shards of a chunk, at most 64 MiB with the widest code, from disks that are busy.
pub const VERIFY_DEADLINE: Duration = Duration::from_secs(60);

/// Reading a chunk and writing some of its shards, over a poor network.
pub const RESTORE_DEADLINE: Duration = Duration::from_secs(60);

/// One item of a stream must arrive within this: a peer that drips or hangs is given up, however long the whole takes.
pub const PROGRESS_DEADLINE: Duration = Duration::from_secs(15);

/// A sender that has nothing to send yet says that it lives this often: three signs within the progress deadline.
pub const KEEP_ALIVE: Duration = Duration::from_secs(4);

/// Raft messages are repeated by the protocol; waiting longer than an election helps nobody.
pub const RAFT_DEADLINE: Duration = Duration::from_secs(2);
