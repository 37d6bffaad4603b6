//! Every maximum and every pace of the placement service.

use std::time::Duration;

/// How often a node says that it is alive.
pub const HEARTBEAT_INTERVAL: Duration = Duration::from_millis(700);

/// A heartbeat that takes longer is given up; the next one follows at once.
pub const HEARTBEAT_DEADLINE: Duration = Duration::from_secs(2);

/// Silence after which a node counts as down. Five heartbeats: one lost election (1 to 3 s) must not take nodes down.
pub const DOWN_AFTER: Duration = Duration::from_secs(4);

/// How often the leader looks who is silent.
pub const DETECT_INTERVAL: Duration = Duration::from_millis(500);

/// When the leader's own look comes later than this, it was paused and could not hear anybody: everybody gets a new grace.
pub const PAUSE_SUSPECTED: Duration = Duration::from_secs(2);

/// State changes proposed per look; the rest follow at the next.
pub const CHANGES_PER_LOOK: usize = 64;

/// How often the ring makes a step while it is not settled. Only new writes follow a step at once.
pub const REBALANCE_INTERVAL: Duration = Duration::from_secs(10);

/// How often a metadata group gets another voter, while some should: one by one, so that their snapshots do not all travel at
/// once.
pub const VOTERS_INTERVAL: Duration = Duration::from_secs(3);

/// How long a call to the system group is tried, over elections and dead nodes, unless the caller says otherwise.
pub const CLIENT_DEADLINE: Duration = Duration::from_secs(10);

/// One try of a call to one node.
pub const TRY_DEADLINE: Duration = Duration::from_secs(4);

/// Pauses between rounds of tries.
pub const BACKOFF_MIN: Duration = Duration::from_millis(30);
pub const BACKOFF_MAX: Duration = Duration::from_millis(500);

/// Leaders followed from hint to hint before the client pauses: two nodes may each believe in the other.
pub const HINTS_MAX: usize = 2;

/// What the service allows for a proposal or a barrier, a little less than the caller's own deadline.
pub const PROPOSE_DEADLINE: Duration = Duration::from_secs(7);

/// How often a node without a cluster asks its peers.
pub const MEETING_INTERVAL: Duration = Duration::from_millis(300);

/// One call to a peer of the meeting.
pub const MEETING_CALL_DEADLINE: Duration = Duration::from_secs(3);

/// A peer that was silent for longer is not counted as met.
pub const MET_EXPIRES: Duration = Duration::from_secs(30);

/// How long a node waits to be asked into a cluster that its peers already belong to, before it says that it is not part of it.
pub const JOIN_PATIENCE: Duration = Duration::from_secs(60);

/// An identity file: a membership names three nodes, a founding record up to 256 with all their disks.
pub const IDENTITY_BYTES_MAX: u64 = 4 << 20;
