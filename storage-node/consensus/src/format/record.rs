//! Records: what a frame's payload holds.
//!
//! | record | bytes |
//! |---|---|
//! | every record | kind `u8`, length `u32` of the rest, then: |
//! | 1 checkpoint | `u32` count; each: group `u32`, hard state, last point, origin |
//! | 2 created | group `u32`, members |
//! | 3 hard state | group `u32`, hard state |
//! | 4 entries | group `u32`, term of the entry before `u64`, `u32` count, entries |
//! | 5 snapshot | group `u32`, origin |
//! | origin | point, members, snapshot file `u128` (0: none) |
//!
//! A checkpoint is the first record of every segment, and says what the segments before it amounted to: with it they can be
//! deleted. Entries overwrite whatever the group had from the first one's index on; the term of the entry before them lets
//! replay begin in their midst.

use placement_types::GroupId;
use placement_types::codec::{Decode, DecodeError, Decoder, Encode, Encoder};
use raft::eraftpb::{ConfState, Entry};

use super::{Hard, Point, decode_entry, decode_members, encode_entry, encode_members};
use crate::limits::{GROUPS_MAX, MESSAGE_ENTRIES_MAX};

/// What a group's state machine started from: its creation, or the last snapshot.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Origin {
    pub point: Point,
    pub members: ConfState,
    /// The snapshot's file, 0 when there is none.
    pub file: u128,
}

impl Origin {
    fn encode(&self, out: &mut Encoder) {
        self.point.encode(out);
        encode_members(&self.members, out);
        out.u128(self.file);
    }

    fn decode(input: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Ok(Self { point: Point::decode(input)?, members: decode_members(input)?, file: input.u128()? })
    }
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct CheckpointGroup {
    pub group: GroupId,
    pub hard: Hard,
    pub last: Point,
    pub origin: Origin,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Record {
    Checkpoint { groups: Vec<CheckpointGroup> },
    Created { group: GroupId, members: ConfState },
    Hard { group: GroupId, hard: Hard },
    Entries { group: GroupId, previous_term: u64, entries: Vec<Entry> },
    Snapshot { group: GroupId, origin: Origin },
}

/// Where an entry was put, from the start of the payload.
pub(crate) struct EntryPlace {
    pub group: GroupId,
    pub index: u64,
    pub term: u64,
    pub offset: usize,
    pub bytes: usize,
}

impl Record {
    /// Appends the record to a payload, and the places of its entries to `places`.
    pub(crate) fn encode(&self, payload: &mut Vec<u8>, places: &mut Vec<EntryPlace>) {
        let mut body = Encoder::new();
        let start = payload.len() + 5;
        let kind = match self {
            Record::Checkpoint { groups } => {
                body.u32(u32::try_from(groups.len()).expect("groups are bounded"));
                for group in groups {
                    group.group.encode(&mut body);
                    group.hard.encode(&mut body);
                    group.last.encode(&mut body);
                    group.origin.encode(&mut body);
                }
                1
            }
            Record::Created { group, members } => {
                group.encode(&mut body);
                encode_members(members, &mut body);
                2
            }
            Record::Hard { group, hard } => {
                group.encode(&mut body);
                hard.encode(&mut body);
                3
            }
            Record::Entries { group, previous_term, entries } => {
                group.encode(&mut body);
                body.u64(*previous_term);
                body.u32(u32::try_from(entries.len()).expect("records are bounded"));
                let mut offset = start + 4 + 8 + 4;
                for entry in entries {
                    encode_entry(*group, entry, &mut body);
                    let bytes = super::ENTRY_OVERHEAD + entry.data.len() + entry.context.len();
                    places.push(EntryPlace { group: *group, index: entry.index, term: entry.term, offset, bytes });
                    offset += bytes;
                }
                4
            }
            Record::Snapshot { group, origin } => {
                group.encode(&mut body);
                origin.encode(&mut body);
                5
            }
        };
        let body = body.finish();
        payload.push(kind);
        payload.extend_from_slice(&u32::try_from(body.len()).expect("records are bounded").to_be_bytes());
        payload.extend_from_slice(&body);
    }

    /// All records of a payload, and where their entries are.
    pub(crate) fn decode_all(payload: &[u8]) -> Result<(Vec<Record>, Vec<EntryPlace>), DecodeError> {
        let mut input = Decoder::new(payload);
        let (mut records, mut places) = (Vec::new(), Vec::new());
        while input.left() > 0 {
            let kind = input.u8()?;
            let body = input.bytes()?;
            let start = payload.len() - input.left() - body.len();
            let mut input = Decoder::new(body);
            let record = match kind {
                1 => Self::decode_checkpoint(&mut input)?,
                2 => Record::Created { group: GroupId::decode(&mut input)?, members: decode_members(&mut input)? },
                3 => Record::Hard { group: GroupId::decode(&mut input)?, hard: Hard::decode(&mut input)? },
                4 => Self::decode_entries(&mut input, start, body.len(), &mut places)?,
                5 => Record::Snapshot { group: GroupId::decode(&mut input)?, origin: Origin::decode(&mut input)? },
                tag => return Err(DecodeError::UnknownTag { what: "log record", tag }),
            };
            input.finish()?;
            records.push(record);
        }
        Ok((records, places))
    }

    fn decode_checkpoint(input: &mut Decoder<'_>) -> Result<Record, DecodeError> {
        let count = input.u32()? as usize;
        if count > GROUPS_MAX {
            return Err(DecodeError::Invalid { what: "checkpoint" });
        }
        let mut groups = Vec::new();
        for _ in 0..count {
            groups.push(CheckpointGroup {
                group: GroupId::decode(input)?,
                hard: Hard::decode(input)?,
                last: Point::decode(input)?,
                origin: Origin::decode(input)?,
            });
        }
        Ok(Record::Checkpoint { groups })
    }

    /// Entries are consecutive from an index above 0, which replay relies on.
    fn decode_entries(
        input: &mut Decoder<'_>,
        start: usize,
        body_bytes: usize,
        places: &mut Vec<EntryPlace>,
    ) -> Result<Record, DecodeError> {
        let group = GroupId::decode(input)?;
        let previous_term = input.u64()?;
        let count = input.u32()? as usize;
        if count == 0 || count > MESSAGE_ENTRIES_MAX {
            return Err(DecodeError::Invalid { what: "entries record" });
        }
        let mut entries: Vec<Entry> = Vec::new();
        for _ in 0..count {
            let left = input.left();
            let entry = decode_entry(group, input)?;
            let expected = entries.last().map_or(entry.index.max(1), |last| last.index + 1);
            if entry.index != expected {
                return Err(DecodeError::Invalid { what: "entries record" });
            }
            let offset = start + body_bytes - left;
            places.push(EntryPlace { group, index: entry.index, term: entry.term, offset, bytes: left - input.left() });
            entries.push(entry);
        }
        Ok(Record::Entries { group, previous_term, entries })
    }
}
