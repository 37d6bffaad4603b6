//! Every maximum, deadline and interval of this service, with its reason.
//!
//! Counts that bound memory are constants. Times are in [`Limits`], so that a test need not wait a quarter of an hour for a
//! grace period; production uses [`Limits::default`] and offers no option for them.

use std::time::Duration;

/// How many coded units may wait for one shard's writer. Two keep disk and network busy while the next stripe is coded; with
/// k+m writers a chunk in flight holds at most about three stripes.
pub(crate) const UNITS_QUEUED_MAX: usize = 2;

/// How many stripes a read fetches ahead of its consumer.
pub(crate) const STRIPES_AHEAD_MAX: usize = 1;

/// How many units the shard service reads from a disk at once for a stream: at most two stripes' worth.
pub(crate) const READ_BATCH_UNITS: u32 = 2;

/// How many reads and look-ups one disk answers at once. A disk that hangs keeps so many threads, of the runtime's 512.
pub(crate) const CALLS_PER_DISK_MAX: usize = 48;

/// A disk that does not tell its free space within this is reported dead until it does. A starved machine's takes seconds to be
/// asked at all.
pub(crate) const PROBE_DEADLINE: Duration = Duration::from_secs(5);

/// A disk that is at one write, fsync or read for longer hangs: it is reported dead, so that everybody goes around it, until it
/// gets on. Twice what a healthy disk under a starved machine was seen to take.
pub(crate) const STALL_DEADLINE: Duration = Duration::from_secs(10);

/// And for so long after it got on, so that one that hangs now and then is not taken for good in between.
pub(crate) const STALL_REST: Duration = Duration::from_secs(30);

/// How long a disk may take to finish its queue and checkpoint at shutdown.
pub(crate) const CLOSE_DEADLINE: Duration = Duration::from_secs(20);

/// How many entries of its gc or repair queue a group is asked for at once; with full manifest entries some 100 KiB.
pub(crate) const QUEUE_PAGE: u32 = 512;

/// How many chunks of one group are repaired or moved at a time: enough to keep the disks of an idle cluster busy.
pub(crate) const REPAIRS_AT_ONCE: usize = 4;

/// How many pieces of background work a node does at a time, whatever group they are for: each holds a few stripes.
pub(crate) const BACKGROUND_AT_ONCE: usize = 8;

/// While clients are served, background work rests this many times as long as it worked.
pub(crate) const BUSY_REST: u32 = 3;

/// But never longer at a stretch: a piece that waited for a deadline is no measure of the load.
pub(crate) const REST_MAX: Duration = Duration::from_secs(5);

/// Clients count as being served this long after their last request.
pub(crate) const BUSY_FOR: Duration = Duration::from_millis(250);

/// How many chunks of a survey are asked for at once; with full manifest entries some 400 KiB.
pub(crate) const SURVEY_PAGE: u32 = 2048;

/// How many chunks that need something one survey remembers, the most endangered: their entries take some 2 MiB. The next
/// survey finds the others.
pub(crate) const SURVEY_NEEDS_MAX: usize = 4096;

/// Re-coding leaves this much of a disk alone, or the number of bytes below if that is less: it is for clients, and what is
/// re-coded takes its room twice for a grace period.
pub(crate) const ROOM_PERCENT: u64 = 5;
pub(crate) const ROOM_BYTES: u64 = 8 << 30;

/// How long an answer to how full the disks are is good for: in that time a node writes little against the room left.
pub(crate) const ROOM_FRESH: Duration = Duration::from_secs(2);

/// A disk that did not take a shard so many times has something in the way of it: if there is no other, the chunk is written anew.
pub(crate) const RENEW_TRIES: u32 = 3;

/// After a survey that a report caused, the next such one waits so many times as long as it took.
pub(crate) const SURVEY_REST: u32 = 4;

/// After a change of the layout a group is surveyed once more when this long has passed: a write that began by the layout before
/// may commit after the first survey. What takes longer is found by the next one.
pub(crate) const LAYOUT_CONFIRM: Duration = Duration::from_secs(60);

/// The window in which the rate of repair, rebalance and re-coding is measured.
pub(crate) const RATE_WINDOW: Duration = Duration::from_secs(60);

/// How many rows of one group's gc queue that are dated ahead are remembered: some 4 MiB. The others wait for these to go, also
/// for those on a disk that is away.
pub(crate) const AHEAD_MAX: usize = 64 << 10;

/// How many shards one delete call names.
pub(crate) const DELETE_BATCH: usize = 1024;

/// How many a peer may name in one call: what no own caller exceeds.
pub(crate) const SHARDS_PER_CALL_MAX: usize = 16 << 10;

/// How many shards a disk is asked about at once: as many look-ups in its index, a few tens of milliseconds.
pub(crate) const CHECK_BATCH: usize = 2048;

/// How many chunks reports may name before everything is asked about instead.
pub(crate) const REPORTED_CHUNKS_MAX: usize = 10_000;

/// How many findings wait to be told; beyond that the disk is reported as a whole.
pub(crate) const FINDINGS_MAX: usize = 4096;

/// How many shards one report names.
pub(crate) const REPORT_SHARDS_MAX: usize = 2048;

/// How many reports wait for nodes that do not answer, and how often each is tried: a leader that is away that long asks about
/// everything when it leads again.
pub(crate) const PARCELS_MAX: usize = 64;
pub(crate) const PARCEL_TRIES_MAX: u32 = 30;

/// The scrub is not slower than this, whatever the cycle: 4.5 TB in 14 days, and what any disk gives without noticing.
pub(crate) const SCRUB_BYTES_PER_SECOND_MIN: f64 = 4.0 * 1024.0 * 1024.0;

/// What reading a shard costs besides its bytes, for the pace: small shards are seeks.
pub(crate) const SHARD_READ_BYTES: u64 = 64 << 10;

/// The search for dark data reads headers: about one part in so many of a segment.
pub(crate) const DARK_READ_SHARE: u64 = 8;

/// How many transactions one `Referenced` query or `AbortTxns` command names.
pub(crate) const TXNS_BATCH: usize = 1000;

/// How many index entries of a disk the scrub holds at once.
pub(crate) const SCRUB_PAGE: usize = 4096;

/// How many pages of a group's queue one round works through at most; what is left waits for the next round.
pub(crate) const PAGES_PER_ROUND_MAX: usize = 1000;

/// How many segments of a disk one maintenance round compacts, so that the other disks and the checkpoint get their turn.
pub(crate) const COMPACTIONS_PER_ROUND_MAX: usize = 4;

/// How many `Forget` commands one round sends to a group; each drops a bounded number of rows.
pub(crate) const FORGETS_PER_ROUND_MAX: usize = 100;

/// How many voters in a row a group call asks before it gives up: two rounds over three voters, hints included.
pub(crate) const LEADER_HOPS_MAX: usize = 8;

/// Deadlines and intervals.
#[derive(Debug, Clone)]
pub struct Limits {
    /// How long one unit may wait for a place in a writer's queue. A disk that takes none for so long has left the write (D21).
    pub unit_push: Duration,
    /// How long the other writers of a chunk wait altogether for those that lag, once the others are a quorum.
    pub lag_total: Duration,
    /// How long after the last unit a quorum of fsyncs may take.
    pub finish: Duration,
    /// How long the rest may take once the quorum is there. What misses it is repaired later.
    pub finish_straggler: Duration,
    /// How long either lasts for disks that are not expected to answer.
    pub doubtful: Duration,
    /// How long a disk that missed a deadline is not expected to answer.
    pub suspicion: Duration,
    /// A unit that has not come by then is read from another shard as well.
    pub read_hedge: Duration,
    /// How long a stripe may take altogether.
    pub read_stripe: Duration,
    /// A delete, query or other small call to a peer.
    pub call: Duration,
    /// Copying one shard to another disk: at most 16 MiB, also over a poor network.
    pub move_shard: Duration,
    /// How long a failed write may try to delete what it left before it says so.
    pub cleanup: Duration,
    /// A proposal or read barrier: it covers an election and a slow disk, and ends before a peer stops waiting for it.
    pub propose: Duration,
    /// Garbage is kept this long for readers that still hold its manifest (X3).
    pub gc_grace: Duration,
    pub gc_interval: Duration,
    /// How long the shards of an uncommitted transaction are left alone: longer than any PUT of one body may take.
    pub orphan_lease: Duration,
    /// With the lease it bounds how long the shards of a dead write stay (P2).
    pub orphan_interval: Duration,
    /// How often all shards are asked about, not only those whose lease ran out: it finds what a disk brought back.
    pub orphan_full_interval: Duration,
    pub repair_interval: Duration,
    /// How often the node looks whether a group it leads wants a survey: when the map places otherwise than at the last one, or
    /// the last one left something to do.
    pub survey_look: Duration,
    /// How long to wait before the next survey when nothing that the last one found could be done.
    pub survey_rest: Duration,
    /// How long a disk that did not take a shard is not tried for it again: time to try others, and little more than a node needs
    /// to restart. A chunk that could not be written anew rests as long.
    pub target_rest: Duration,
    /// How long after a survey the next one may follow because of a report: bad shards come in crowds.
    pub report_rest: Duration,
    /// How often what was found on this node's disks is examined and told.
    pub findings_interval: Duration,
    /// How often it is seen whether all segment files are there: a listing of a directory.
    pub segments_interval: Duration,
    /// A shard that was examined is not examined again for a while, however often readers meet it.
    pub suspect_again: Duration,
    /// How often the shards in quarantine are reported again.
    pub quarantine_repeat: Duration,
    /// How often it is seen whether a disk is to be scrubbed, and at what pace.
    pub scrub_look: Duration,
    /// How often the place of a scrub under way is written down.
    pub scrub_save: Duration,
    /// How long a verification waits for a unit.
    pub verify_unit: Duration,
    /// A group is surveyed at least this often, for the risk view.
    pub survey_interval: Duration,
    /// Checkpoints bound how much of a segment's tail a restart has to scan.
    pub maintenance_interval: Duration,
    /// Transaction outcomes and fences older than this are forgotten; no request is retried for so long.
    pub forget_after: Duration,
    pub forget_interval: Duration,
    /// How often the node looks whether it became a voter of a group, besides at every new map.
    pub groups_interval: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            unit_push: Duration::from_secs(5),
            lag_total: Duration::from_secs(5),
            finish: Duration::from_secs(15),
            finish_straggler: Duration::from_secs(3),
            doubtful: Duration::from_millis(100),
            suspicion: Duration::from_secs(10),
            read_hedge: Duration::from_secs(1),
            read_stripe: Duration::from_secs(20),
            call: Duration::from_secs(10),
            move_shard: Duration::from_secs(60),
            cleanup: Duration::from_secs(3),
            propose: Duration::from_secs(7),
            gc_grace: Duration::from_secs(15 * 60),
            gc_interval: Duration::from_secs(30),
            orphan_lease: Duration::from_secs(60 * 60),
            orphan_interval: Duration::from_secs(20 * 60),
            orphan_full_interval: Duration::from_secs(24 * 60 * 60),
            repair_interval: Duration::from_secs(5),
            survey_look: Duration::from_secs(2),
            survey_rest: Duration::from_secs(20),
            target_rest: Duration::from_secs(60),
            report_rest: Duration::from_secs(2),
            findings_interval: Duration::from_secs(1),
            segments_interval: Duration::from_secs(5),
            suspect_again: Duration::from_secs(60),
            quarantine_repeat: Duration::from_secs(5 * 60),
            scrub_look: Duration::from_secs(10),
            scrub_save: Duration::from_secs(10),
            verify_unit: Duration::from_secs(10),
            survey_interval: Duration::from_secs(60 * 60),
            maintenance_interval: Duration::from_secs(30),
            forget_after: Duration::from_secs(7 * 24 * 60 * 60),
            forget_interval: Duration::from_secs(60 * 60),
            groups_interval: Duration::from_secs(5),
        }
    }
}
