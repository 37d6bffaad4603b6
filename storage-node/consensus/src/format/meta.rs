//! What the driver keeps in the state store, beside the groups' states.
//!
//! | key | value |
//! |---|---|
//! | `s`, group `u32`, the machine's key | the machine's value |
//! | `f`, group `u32` | version `u16` = 1; the last entry `u64` whose change of members does not count (see `offline`) |
//! | `m`, group `u32` | version `u16` = 1; state `u8`: 1 whole, 2 a snapshot is being put in; applied point; members |
//!
//! The applied point changes in the same batch as the state (I8), so whatever suffix of batches a crash takes, the two fit.

use placement_types::GroupId;
use placement_types::codec::{Decode, DecodeError, Decoder, Encode, Encoder};
use raft::eraftpb::ConfState;

use super::{Point, decode_members, encode_members};

const VERSION: u16 = 1;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MetaState {
    Whole,
    /// The state is a mixture, and worth nothing until the snapshot is wholly in.
    Installing,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct GroupMeta {
    pub state: MetaState,
    pub applied: Point,
    /// The membership as of the applied point.
    pub members: ConfState,
}

impl GroupMeta {
    pub(crate) fn encode(&self) -> bytes::Bytes {
        let mut out = Encoder::new();
        out.u16(VERSION);
        out.u8(match self.state {
            MetaState::Whole => 1,
            MetaState::Installing => 2,
        });
        self.applied.encode(&mut out);
        encode_members(&self.members, &mut out);
        out.finish()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut input = Decoder::new(bytes);
        input.version("group state", VERSION)?;
        let state = match input.u8()? {
            1 => MetaState::Whole,
            2 => MetaState::Installing,
            tag => return Err(DecodeError::UnknownTag { what: "group state", tag }),
        };
        let meta = Self { state, applied: Point::decode(&mut input)?, members: decode_members(&mut input)? };
        input.finish()?;
        Ok(meta)
    }
}

/// Where a group's machine keeps its keys in the store.
pub fn state_prefix(group: GroupId) -> [u8; 5] {
    prefixed(b's', group)
}

pub(crate) fn meta_key(group: GroupId) -> [u8; 5] {
    prefixed(b'm', group)
}

pub(crate) fn meta_prefix() -> &'static [u8] {
    b"m"
}

pub(crate) fn group_of_meta_key(key: &[u8]) -> Option<GroupId> {
    let group = key.strip_prefix(meta_prefix())?;
    Some(GroupId(u32::from_be_bytes(group.try_into().ok()?)))
}

/// Where it is kept up to which entry changes of members do not count.
pub(crate) fn fixed_key(group: GroupId) -> [u8; 5] {
    prefixed(b'f', group)
}

pub(crate) fn encode_fixed(index: u64) -> bytes::Bytes {
    let mut out = Encoder::new();
    out.u16(VERSION);
    out.u64(index);
    out.finish()
}

pub(crate) fn decode_fixed(bytes: &[u8]) -> Result<u64, DecodeError> {
    let mut input = Decoder::new(bytes);
    input.version("fixed members", VERSION)?;
    let index = input.u64()?;
    input.finish()?;
    Ok(index)
}

fn prefixed(kind: u8, group: GroupId) -> [u8; 5] {
    let [a, b, c, d] = group.0.to_be_bytes();
    [kind, a, b, c, d]
}
