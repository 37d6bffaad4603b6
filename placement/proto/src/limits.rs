//! Maximums of the placement service's messages and calls.

use std::time::Duration;

/// The largest message: a cluster map of thousands of disks, or the list of all buckets.
pub const MESSAGE_BYTES_MAX: usize = 32 << 20;

/// A call that takes longer has an unknown outcome; it covers an election.
pub const CALL_DEADLINE: Duration = Duration::from_secs(8);

/// A node's process that was heard within this is taken to live: nobody else becomes the node. More than four heartbeats, and
/// so short that a restart after a `kill -9` is not noticed.
pub const CLAIM_SILENCE: Duration = Duration::from_secs(3);

/// How long [`crate::api::PlacementApi::newer_map`] waits for a newer map before it answers with what there is.
pub const MAP_POLL: Duration = Duration::from_secs(10);

/// The longest a map poll may take with everything around it.
pub const MAP_POLL_DEADLINE: Duration = Duration::from_secs(15);
