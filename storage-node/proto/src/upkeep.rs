//! What a node knows of the state of the data in the metadata groups it leads: the outcome of its surveys, and how fast it
//! repairs and moves.

use placement_types::{DiskId, Epoch, GroupId, NodeId, Profile, Timestamp, ZoneName};

/// How much data something concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Distinct keys.
    pub keys: u64,
    pub chunks: u64,
    /// Of data, without redundancy.
    pub bytes: u64,
}

/// Shards to be written somewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Work {
    pub shards: u64,
    /// What they take on disk.
    pub bytes: u64,
    /// Those of them that wait, because nothing can be done about them now.
    pub stuck: u64,
}

/// One pass over all chunks of a metadata group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupSurvey {
    pub group: GroupId,
    /// The newest map by which what was found still holds.
    pub epoch: Epoch,
    /// When the pass ended.
    pub at: Timestamp,
    pub all: Tally,
    /// Shards that are nowhere: to be rebuilt.
    pub lost: Work,
    /// Shards on disks that are being drained.
    pub leaving: Work,
    /// Shards elsewhere than the ring says.
    pub misplaced: Work,
    /// Shards of chunks that are to be coded anew, because new chunks have another profile by now.
    pub outdated: Work,
    /// How much is coded how.
    pub profiles: Vec<(Profile, Tally)>,
    /// Fewer than k shards can be read now.
    pub unreadable: Tally,
    /// Fewer than k shards are left, waiting included: the data is gone unless a disk that was given up comes back.
    pub gone: Tally,
    /// By how many more shards may be lost: none, one, two ...
    pub margins: Vec<Tally>,
    /// What could not be read if this disk, node or zone failed now; those that nothing hangs on are left out.
    pub without_disk: Vec<(DiskId, Tally)>,
    pub without_node: Vec<(NodeId, Tally)>,
    pub without_zone: Vec<(ZoneName, Tally)>,
}

/// A node's upkeep of the groups it leads.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UpkeepReport {
    /// Groups whose first survey under this leader is not done yet are missing.
    pub surveys: Vec<GroupSurvey>,
    /// Bytes of shards written by repair, rebalance and re-coding within the last minute.
    pub bytes_last_minute: u64,
    /// The same since the process started.
    pub bytes_total: u64,
    /// When the node's newest copy of the system group's state was taken.
    pub system_copied: Option<Timestamp>,
}

/// What reading through a disk has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ScrubTally {
    pub began: Timestamp,
    pub shards: u64,
    pub bytes: u64,
    /// Shards that failed a check.
    pub damaged: u64,
    /// Shards that the disk's index had lost and that were put back.
    pub dark: u64,
    /// Records of shards that the index does not know and that are not whole.
    pub unreadable: u64,
}

/// How far the scrub of a disk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ScrubReport {
    /// The cycle under way; `None` between two.
    pub current: Option<ScrubTally>,
    /// The last one that was completed, and when.
    pub finished: Option<(Timestamp, ScrubTally)>,
}

impl Tally {
    pub fn add(&mut self, other: Tally) {
        self.keys += other.keys;
        self.chunks += other.chunks;
        self.bytes += other.bytes;
    }
}

impl Work {
    pub fn add(&mut self, other: Work) {
        self.shards += other.shards;
        self.bytes += other.bytes;
        self.stuck += other.stuck;
    }
}
