//! The bytes of this crate: on disk (`frame`, `record`), in the state store (`meta`), between replicas (`wire`).
//!
//! raft-rs keeps its messages as protobuf, but protobuf 2.28 must not parse bytes from outside (RUSTSEC-2024-0437): every
//! field is written and read here by hand, in big-endian, and checked against limits before it reaches Raft.
//!
//! | shared value | bytes |
//! |---|---|
//! | point | index `u64`, term `u64` |
//! | hard state | term `u64`, vote `u64`, commit `u64` |
//! | members | voters, learners, voters outgoing, learners next: each `u32` count and `u64`s; auto leave `u8` |
//! | entry | crc32c `u32` of the rest with the group; kind `u8`; index `u64`; term `u64`; data, context: each `u32` length and bytes |
//! | change of members | version `u8` = 1; `u32` count; each: kind `u8` (1 voter, 2 learner, 3 remove), replica `u64` |

mod frame;
mod meta;
mod record;
mod wire;

pub(crate) use frame::{BLOCK_BYTES, FRAME_HEADER_BYTES, FrameHeader, FrameKind, Identity, encode_frame, padded};
pub use meta::state_prefix;
pub(crate) use meta::{GroupMeta, MetaState, decode_fixed, encode_fixed, fixed_key, group_of_meta_key, meta_key, meta_prefix};
pub(crate) use record::{CheckpointGroup, Origin, Record};
pub(crate) use wire::{Body, SnapshotChunk, Wire, travels};

use placement_types::GroupId;
use placement_types::codec::{Decode, DecodeError, Decoder, Encode, Encoder};
use raft::eraftpb::{ConfChangeSingle, ConfChangeTransition, ConfChangeType, ConfChangeV2, ConfState, Entry, EntryType};

use crate::limits::{ENTRY_BYTES_MAX, MEMBERS_MAX};

/// A place in a group's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Point {
    pub index: u64,
    pub term: u64,
}
placement_types::codec_struct!(Point { index, term });

/// Raft's promise: the term it is in and whom it voted for. `commit` is a hint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Hard {
    pub term: u64,
    pub vote: u64,
    pub commit: u64,
}
placement_types::codec_struct!(Hard { term, vote, commit });

pub(crate) fn encode_members(members: &ConfState, out: &mut Encoder) {
    for list in [&members.voters, &members.learners, &members.voters_outgoing, &members.learners_next] {
        list.encode(out);
    }
    members.auto_leave.encode(out);
}

/// Reads members and checks that they are what Raft can work with, which it asserts: no replica 0, none twice in a list, no
/// learner that votes, learners-to-be among the outgoing voters.
pub(crate) fn decode_members(input: &mut Decoder<'_>) -> Result<ConfState, DecodeError> {
    let mut members = ConfState::default();
    members.voters = Decode::decode(input)?;
    members.learners = Decode::decode(input)?;
    members.voters_outgoing = Decode::decode(input)?;
    members.learners_next = Decode::decode(input)?;
    members.auto_leave = bool::decode(input)?;
    let lists = [&members.voters, &members.learners, &members.voters_outgoing, &members.learners_next];
    let sets = lists.map(|list| list.iter().copied().collect::<std::collections::BTreeSet<u64>>());
    let [voters, learners, outgoing, next] = &sets;
    let distinct = lists.iter().zip(&sets).all(|(list, set)| list.len() == set.len() && list.len() <= MEMBERS_MAX);
    let valid = distinct
        && sets.iter().all(|set| !set.contains(&0))
        && learners.is_disjoint(voters)
        && learners.is_disjoint(outgoing)
        && next.is_subset(outgoing)
        && next.is_disjoint(voters)
        && (outgoing.is_empty() || !voters.is_empty())
        && (!members.auto_leave || !outgoing.is_empty())
        && (!voters.is_empty() || learners.is_empty());
    if valid { Ok(members) } else { Err(DecodeError::Invalid { what: "membership" }) }
}

const ENTRY_NORMAL: u8 = 1;
const ENTRY_MEMBERS: u8 = 2;

/// Bytes of an encoded entry besides its data and context.
pub(crate) const ENTRY_OVERHEAD: usize = 4 + 1 + 8 + 8 + 4 + 4;

pub(crate) fn encode_entry(group: GroupId, entry: &Entry, out: &mut Encoder) {
    let mut head = Encoder::with_capacity(ENTRY_OVERHEAD);
    head.u8(match entry.entry_type {
        EntryType::EntryNormal => ENTRY_NORMAL,
        EntryType::EntryConfChange | EntryType::EntryConfChangeV2 => ENTRY_MEMBERS,
    });
    head.u64(entry.index);
    head.u64(entry.term);
    let head = head.finish();
    out.u32(entry_crc(group, &head, &entry.data, &entry.context));
    out.raw(&head);
    out.bytes(&entry.data);
    out.bytes(&entry.context);
}

pub(crate) fn decode_entry(group: GroupId, input: &mut Decoder<'_>) -> Result<Entry, DecodeError> {
    let crc = input.u32()?;
    let head = input.raw(1 + 8 + 8)?;
    let data = input.bytes()?;
    let context = input.bytes()?;
    // One more than a caller's entry: the version byte before it.
    if data.len() > ENTRY_BYTES_MAX + 1 || context.len() > ENTRY_BYTES_MAX {
        return Err(DecodeError::Invalid { what: "entry size" });
    }
    if entry_crc(group, head, data, context) != crc {
        return Err(DecodeError::Invalid { what: "entry checksum" });
    }
    let mut head = Decoder::new(head);
    let mut entry = Entry::default();
    entry.entry_type = match head.u8()? {
        ENTRY_NORMAL => EntryType::EntryNormal,
        ENTRY_MEMBERS => EntryType::EntryConfChangeV2,
        tag => return Err(DecodeError::UnknownTag { what: "entry", tag }),
    };
    entry.index = head.u64()?;
    entry.term = head.u64()?;
    entry.data = bytes::Bytes::copy_from_slice(data);
    entry.context = bytes::Bytes::copy_from_slice(context);
    Ok(entry)
}

/// Over the group too, so that an entry of one group is never taken for another's.
fn entry_crc(group: GroupId, head: &[u8], data: &[u8], context: &[u8]) -> u32 {
    let mut digest = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi);
    for part in [&group.0.to_be_bytes()[..], head, &len_bytes(data), data, context] {
        digest.update(part);
    }
    u32::try_from(digest.finalize()).expect("a CRC-32 has 32 bits")
}

fn len_bytes(bytes: &[u8]) -> [u8; 8] {
    (bytes.len() as u64).to_be_bytes()
}

const CHANGE_VERSION: u8 = 1;

/// The change as it travels in the entry's context, beside the protobuf form that only the leader who wrote it ever parses.
pub(crate) fn encode_change(change: &ConfChangeV2) -> Vec<u8> {
    let mut out = Encoder::new();
    out.u8(CHANGE_VERSION);
    out.u32(u32::try_from(change.changes.len()).expect("a change names at most a few dozen members"));
    for single in change.changes.iter() {
        out.u8(match single.change_type {
            ConfChangeType::AddNode => 1,
            ConfChangeType::AddLearnerNode => 2,
            ConfChangeType::RemoveNode => 3,
        });
        out.u64(single.node_id);
    }
    out.finish().to_vec()
}

/// Reads a change. An empty context is the entry Raft itself appends to leave a joint membership.
pub(crate) fn decode_change(context: &[u8]) -> Result<ConfChangeV2, DecodeError> {
    let mut change = ConfChangeV2::default();
    if context.is_empty() {
        return Ok(change);
    }
    let mut input = Decoder::new(context);
    match input.u8()? {
        CHANGE_VERSION => {}
        version => return Err(DecodeError::UnknownVersion { what: "membership change", version: u16::from(version) }),
    }
    let count = input.u32()?;
    if count == 0 || count as usize > 4 * MEMBERS_MAX {
        return Err(DecodeError::Invalid { what: "membership change" });
    }
    let mut changes = Vec::new();
    for _ in 0..count {
        let mut single = ConfChangeSingle::default();
        single.change_type = match input.u8()? {
            1 => ConfChangeType::AddNode,
            2 => ConfChangeType::AddLearnerNode,
            3 => ConfChangeType::RemoveNode,
            tag => return Err(DecodeError::UnknownTag { what: "membership change", tag }),
        };
        single.node_id = input.u64()?;
        if single.node_id == 0 {
            return Err(DecodeError::Invalid { what: "membership change" });
        }
        changes.push(single);
    }
    input.finish()?;
    change.changes = changes.into();
    // Always joint, left automatically: one path for every change.
    change.transition = ConfChangeTransition::Implicit;
    Ok(change)
}
