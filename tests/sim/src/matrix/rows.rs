//! The matrix itself: at which points processes die, and during what.

use placement_types::{Profile, Waypoint};
use tests_faults::Row;

use Waypoint::*;

/// What is going on when a process dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// An object of several stripes is stored.
    Put,
    /// One that stays within the metadata.
    PutSmall,
    /// One that stops in its gateway for longer than a write may take, with its shards durable, and then goes on.
    PutLate,
    Part,
    Complete,
    Abort,
    Delete,
    /// A deleted object's shards are collected.
    Collect,
    /// The orphans of a gateway that died are found.
    Scrub,
    /// A node comes back to chunks that were written without it.
    Refill,
    /// A node stays away until its shards are rebuilt elsewhere.
    Rebuild,
    /// The disks of a node are drained.
    Drain,
    /// New chunks get another profile, old ones follow.
    Recode,
}

/// One act, and the deaths in it, one after the other. The second number is how often the point is surely passed: the seed
/// chooses which time is the last.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    pub act: Act,
    pub deaths: &'static [(Waypoint, u64)],
}

/// Cases that one cluster goes through.
#[derive(Debug, Clone, Copy)]
pub struct Chapter {
    pub name: &'static str,
    pub profile: fn() -> Profile,
    pub cases: &'static [Case],
}

impl Chapter {
    pub fn named(name: &str) -> Option<&'static Self> {
        CHAPTERS.iter().find(|chapter| chapter.name == name)
    }
}

const fn case(act: Act, deaths: &'static [(Waypoint, u64)]) -> Case {
    Case { act, deaths }
}

/// Four nodes that need any two shards of four: all are written to, one may be missing.
fn striped() -> Profile {
    Profile::new(2, 2).expect("a legal profile")
}

/// Copies on three of four nodes: there is always another disk to go to.
fn copied() -> Profile {
    Profile::new(1, 2).expect("a legal profile")
}

pub const CHAPTERS: &[Chapter] = &[
    Chapter {
        name: "put",
        profile: striped,
        cases: &[
            case(Act::Put, &[(PutBegun, 1)]),
            case(Act::PutSmall, &[(PutBegun, 1)]),
            case(Act::Put, &[(StripeSent, 3)]),
            case(Act::Put, &[(ChunkSent, 1)]),
            case(Act::Put, &[(UnitAppended, 12)]),
            case(Act::Put, &[(ShardDurable, 4)]),
            case(Act::Put, &[(ShardAcknowledged, 4)]),
            case(Act::Put, &[(ChunkDurable, 1)]),
            case(Act::Put, &[(PutStaged, 1)]),
            case(Act::PutSmall, &[(PutStaged, 1)]),
            case(Act::Put, &[(CommandReceived, 1)]),
            case(Act::PutSmall, &[(CommandReceived, 1)]),
            case(Act::Put, &[(CommandApplied, 1)]),
            case(Act::PutSmall, &[(CommandApplied, 1)]),
            case(Act::Put, &[(PutCommitted, 1)]),
            case(Act::PutSmall, &[(PutCommitted, 1)]),
        ],
    },
    Chapter {
        name: "multipart",
        profile: striped,
        cases: &[
            case(Act::Part, &[(PartBegun, 1)]),
            case(Act::Part, &[(StripeSent, 3)]),
            case(Act::Part, &[(ShardDurable, 4)]),
            case(Act::Part, &[(PartStaged, 1)]),
            case(Act::Part, &[(CommandApplied, 1)]),
            case(Act::Part, &[(PartCommitted, 1)]),
            case(Act::Complete, &[(CompleteAssembled, 1)]),
            case(Act::Complete, &[(CommandReceived, 1)]),
            case(Act::Complete, &[(CommandApplied, 1)]),
            case(Act::Complete, &[(CompleteCommitted, 1)]),
            case(Act::Abort, &[(AbortBegun, 1)]),
            case(Act::Abort, &[(CommandApplied, 1)]),
            case(Act::Abort, &[(AbortCommitted, 1)]),
        ],
    },
    Chapter {
        name: "delete",
        profile: striped,
        cases: &[
            case(Act::Delete, &[(DeleteBegun, 1)]),
            case(Act::Delete, &[(CommandReceived, 1)]),
            case(Act::Delete, &[(CommandApplied, 1)]),
            case(Act::Delete, &[(DeleteCommitted, 1)]),
            case(Act::Collect, &[(GarbageListed, 1)]),
            case(Act::Collect, &[(GarbageLeftDisk, 4)]),
            case(Act::Collect, &[(GarbageDeleted, 1)]),
            case(Act::Collect, &[(GarbageFinished, 1)]),
            case(Act::Scrub, &[(PutStaged, 1), (OrphansSuspected, 2)]),
            case(Act::Scrub, &[(PutStaged, 1), (OrphansFenced, 2)]),
            case(Act::Scrub, &[(PutStaged, 1), (OrphansDeleted, 2)]),
            case(Act::PutLate, &[]),
        ],
    },
    Chapter {
        name: "repair",
        profile: striped,
        cases: &[
            case(Act::Refill, &[(RepairBegun, 2)]),
            case(Act::Refill, &[(RepairDecoded, 3)]),
            case(Act::Refill, &[(RepairWritten, 2)]),
            case(Act::Refill, &[(RepairSwapped, 2)]),
        ],
    },
    Chapter {
        name: "move",
        profile: copied,
        cases: &[
            case(Act::Rebuild, &[(RepairBegun, 1)]),
            case(Act::Rebuild, &[(RepairDecoded, 1)]),
            case(Act::Rebuild, &[(RepairWritten, 1)]),
            case(Act::Rebuild, &[(RepairSwapped, 1), (GarbageLeftDisk, 1)]),
            case(Act::Drain, &[(MoveBegun, 1)]),
            case(Act::Drain, &[(MoveRead, 2)]),
            case(Act::Drain, &[(MoveCopied, 1)]),
            case(Act::Drain, &[(MoveSwapped, 1), (GarbageDeleted, 1)]),
            case(Act::Recode, &[(RecodeBegun, 2)]),
            case(Act::Recode, &[(RecodeWritten, 2)]),
            case(Act::Recode, &[(RecodeSwapped, 2), (GarbageDeleted, 1)]),
        ],
    },
];

/// The row of the catalogue that a death at this point shows.
pub fn row_of(waypoint: Waypoint) -> Option<Row> {
    match waypoint {
        PutBegun => Some(Row::P1),
        StripeSent | ChunkSent => Some(Row::P2),
        PutStaged => Some(Row::P3),
        PutCommitted => Some(Row::P5),
        UnitAppended => Some(Row::P6),
        ShardDurable => Some(Row::P8),
        PartBegun | PartStaged | PartCommitted => Some(Row::P12),
        CompleteAssembled | CompleteCommitted => Some(Row::P13),
        AbortBegun | AbortCommitted => Some(Row::P14),
        DeleteBegun | DeleteCommitted | GarbageListed | GarbageLeftDisk | GarbageDeleted | GarbageFinished => Some(Row::P15),
        MoveBegun | MoveRead | MoveCopied | MoveSwapped => Some(Row::P18),
        RepairBegun | RepairDecoded | RepairWritten | RepairSwapped => Some(Row::P19),
        ShardAcknowledged | ChunkDurable | CommandReceived | CommandApplied => None,
        OrphansSuspected | OrphansFenced | OrphansDeleted => None,
        RecodeBegun | RecodeWritten | RecodeSwapped => None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_waypoint_is_in_the_matrix() {
        let cases = CHAPTERS.iter().flat_map(|chapter| chapter.cases);
        let died_at: BTreeSet<Waypoint> = cases.flat_map(|case| case.deaths).map(|(waypoint, _)| *waypoint).collect();
        assert_eq!(died_at, Waypoint::ALL.iter().copied().collect());
    }
}
