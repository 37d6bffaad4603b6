//! Every maximum and every pace of the placement service.

use std::time::Duration;

/// How often a node says that it is alive.
pub const HEARTBEAT_INTERVAL: Duration = Duration::from_millis(700);

/// A heartbeat that takes longer is given up; the next one follows at once.
pub const HEARTBEAT_DEADLINE: Duration = Duration::from_secs(2);

/// Silence after which a node counts as down that was heard regularly. Five heartbeats: one lost election (1 to 3 s) must not
/// take nodes down.
pub const DOWN_AFTER: Duration = Duration::from_secs(4);

/// The same for a node that is heard at long intervals, as on a starved machine: whoever needs longer is of no use to anybody.
pub const DOWN_AFTER_MAX: Duration = Duration::from_secs(20);

/// A node counts as down after this many times the longest gap in its heartbeats lately.
pub const GAPS_TO_DOWN: u32 = 2;

/// Each heartbeat makes what is remembered of the longest gap shorter by this part: half of it after 44 of them, half a minute.
pub const GAP_FADES: u32 = 64;

/// How long a starting node looks for somebody who takes its claim, before it takes part without one: an election. Only when
/// a cluster starts as a whole is there nobody.
pub const CLAIM_PATIENCE: Duration = Duration::from_secs(3);

/// The same once somebody has answered, that the process before may be alive: then there is a quorum that elects another
/// leader, or it needs this process, and waiting for it would be in vain.
pub const CLAIM_PATIENCE_ONCE_ANSWERED: Duration = Duration::from_secs(15);

/// So many answers in which the process before was heard anew are proof that it lives: heartbeats 0.7 s apart, so some 4 s.
pub const SIGNS_OF_LIFE: u32 = 4;

/// How often a claim is made again while the process before may be alive.
pub const CLAIM_RETRY: Duration = Duration::from_millis(300);

/// How often the leader looks who is silent.
pub const DETECT_INTERVAL: Duration = Duration::from_millis(500);

/// By how much a look may be late. What it is later, this process did not run, and that is nobody's silence.
pub const LOOK_TOLERANCE: Duration = Duration::from_millis(500);

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

/// How often a node takes a copy of the system group's state, when nothing calls for one earlier.
pub const COPY_INTERVAL: Duration = Duration::from_secs(3600);

/// After the layout has changed, copies are taken within this and twice this: further changes may follow at once.
pub const COPY_SETTLE: Duration = Duration::from_secs(5);

/// How soon a copy is asked for again that could not be had, at least.
pub const COPY_RETRY: Duration = Duration::from_secs(60);

/// Copies kept on a node: the newest may be damaged.
pub const COPIES_KEPT: usize = 3;

/// The largest copy: what comes in one message, and its frame.
pub const COPY_BYTES_MAX: u64 = 40 << 20;
