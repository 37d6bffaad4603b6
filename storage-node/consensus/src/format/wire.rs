//! Messages between replicas.
//!
//! | message | bytes |
//! |---|---|
//! | every message | version `u16` = 1, kind `u8`, group `u32`, from `u64`, to `u64`, body, crc32c `u32` of everything before |
//! | 1 raft | type `u8`; term, log term, index, commit, commit term, reject hint: `u64` each; reject `u8`; context: `u32` length and bytes; `u32` count and entries |
//! | 2 snapshot chunk | transfer `u64`, term `u64`, point, members, file length `u64`, sequence `u32`, bytes: `u32` length and bytes |
//! | 3 snapshot ack | transfer `u64`, next sequence `u32`, refused `u8` |
//!
//! A snapshot message of Raft never travels: its data goes in chunks, and the receiver makes the message when it has them all.
//! Forwarded proposals and reads do not exist either: callers are told who leads.

use bytes::Bytes;
use placement_types::codec::{Decode, DecodeError, Decoder, Encode, Encoder};
use placement_types::{GroupId, ReplicaId};
use raft::eraftpb::{ConfState, Entry, Message, MessageType};

use super::{Point, decode_entry, decode_members, encode_entry, encode_members};
use crate::limits::{CHUNK_BYTES, MESSAGE_BYTES_MAX, MESSAGE_ENTRIES_MAX};

const VERSION: u16 = 1;

/// Contexts are read tickets and the mark of a transfer, both short.
const CONTEXT_BYTES_MAX: usize = 64;

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Wire {
    pub group: GroupId,
    pub from: ReplicaId,
    pub to: ReplicaId,
    pub body: Body,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Body {
    Raft(Box<Message>),
    Chunk(SnapshotChunk),
    Ack { transfer: u64, next: u32, refused: bool },
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SnapshotChunk {
    pub transfer: u64,
    /// The sender's term.
    pub term: u64,
    pub point: Point,
    pub members: ConfState,
    pub file_bytes: u64,
    pub sequence: u32,
    pub bytes: Bytes,
}

impl Wire {
    pub(crate) fn encode_message(&self) -> Bytes {
        let mut out = Encoder::with_capacity(256);
        out.u16(VERSION);
        out.u8(match self.body {
            Body::Raft(_) => 1,
            Body::Chunk(_) => 2,
            Body::Ack { .. } => 3,
        });
        self.group.encode(&mut out);
        self.from.encode(&mut out);
        self.to.encode(&mut out);
        match &self.body {
            Body::Raft(message) => encode_raft(self.group, message, &mut out),
            Body::Chunk(chunk) => {
                out.u64(chunk.transfer);
                out.u64(chunk.term);
                chunk.point.encode(&mut out);
                encode_members(&chunk.members, &mut out);
                out.u64(chunk.file_bytes);
                out.u32(chunk.sequence);
                out.bytes(&chunk.bytes);
            }
            Body::Ack { transfer, next, refused } => {
                out.u64(*transfer);
                out.u32(*next);
                refused.encode(&mut out);
            }
        }
        let mut bytes = Vec::from(out.finish());
        let crc = crc_fast::crc32_iscsi(&bytes);
        bytes.extend_from_slice(&crc.to_be_bytes());
        bytes.into()
    }

    pub(crate) fn decode_message(bytes: &[u8]) -> Result<Self, DecodeError> {
        if bytes.len() > MESSAGE_BYTES_MAX {
            return Err(DecodeError::Invalid { what: "message length" });
        }
        let (body, crc) = bytes.split_last_chunk::<4>().ok_or(DecodeError::Truncated)?;
        if crc_fast::crc32_iscsi(body) != u32::from_be_bytes(*crc) {
            return Err(DecodeError::Invalid { what: "message checksum" });
        }
        let mut input = Decoder::new(body);
        input.version("message", VERSION)?;
        let kind = input.u8()?;
        let group = GroupId::decode(&mut input)?;
        let from = ReplicaId::decode(&mut input)?;
        let to = ReplicaId::decode(&mut input)?;
        if from.0 == 0 || to.0 == 0 || from == to {
            return Err(DecodeError::Invalid { what: "message address" });
        }
        let body = match kind {
            1 => {
                let mut message = decode_raft(group, &mut input)?;
                message.from = from.0;
                message.to = to.0;
                Body::Raft(Box::new(message))
            }
            2 => Body::Chunk(decode_chunk(&mut input)?),
            3 => Body::Ack { transfer: input.u64()?, next: input.u32()?, refused: bool::decode(&mut input)? },
            tag => return Err(DecodeError::UnknownTag { what: "message", tag }),
        };
        input.finish()?;
        Ok(Self { group, from, to, body })
    }
}

/// The types that may come from another replica; all others are local to Raft.
const TYPES: [(u8, MessageType); 9] = [
    (1, MessageType::MsgAppend),
    (2, MessageType::MsgAppendResponse),
    (3, MessageType::MsgRequestVote),
    (4, MessageType::MsgRequestVoteResponse),
    (5, MessageType::MsgHeartbeat),
    (6, MessageType::MsgHeartbeatResponse),
    (7, MessageType::MsgTimeoutNow),
    (8, MessageType::MsgRequestPreVote),
    (9, MessageType::MsgRequestPreVoteResponse),
];

/// Whether a message is one that travels.
pub(crate) fn travels(message: &Message) -> bool {
    TYPES.iter().any(|(_, kind)| *kind == message.msg_type)
}

fn encode_raft(group: GroupId, message: &Message, out: &mut Encoder) {
    let (kind, _) = TYPES.iter().find(|(_, kind)| *kind == message.msg_type).expect("only types that travel are sent");
    out.u8(*kind);
    for number in [message.term, message.log_term, message.index, message.commit, message.commit_term, message.reject_hint] {
        out.u64(number);
    }
    message.reject.encode(out);
    out.bytes(&message.context);
    out.u32(u32::try_from(message.entries.len()).expect("messages are bounded"));
    for entry in message.entries.iter() {
        encode_entry(group, entry, out);
    }
}

/// Reads a message and checks what Raft takes for granted: a term, and consecutive entries from `index` on with terms that
/// never fall and never pass the sender's.
fn decode_raft(group: GroupId, input: &mut Decoder<'_>) -> Result<Message, DecodeError> {
    let mut message = Message::default();
    let tag = input.u8()?;
    message.msg_type =
        TYPES.iter().find(|(kind, _)| *kind == tag).ok_or(DecodeError::UnknownTag { what: "raft message", tag })?.1;
    message.term = input.u64()?;
    message.log_term = input.u64()?;
    message.index = input.u64()?;
    message.commit = input.u64()?;
    message.commit_term = input.u64()?;
    message.reject_hint = input.u64()?;
    message.reject = bool::decode(input)?;
    let context = input.bytes()?;
    let count = input.u32()? as usize;
    if message.term == 0 || message.index > u64::MAX / 2 || context.len() > CONTEXT_BYTES_MAX || count > MESSAGE_ENTRIES_MAX {
        return Err(DecodeError::Invalid { what: "raft message" });
    }
    message.context = Bytes::copy_from_slice(context);
    let mut entries: Vec<Entry> = Vec::new();
    let mut before = Point { index: message.index, term: message.log_term };
    for _ in 0..count {
        let entry = decode_entry(group, input)?;
        if entry.index != before.index + 1 || entry.term < before.term || entry.term > message.term {
            return Err(DecodeError::Invalid { what: "raft message" });
        }
        before = Point { index: entry.index, term: entry.term };
        entries.push(entry);
    }
    if !entries.is_empty() && message.msg_type != MessageType::MsgAppend {
        return Err(DecodeError::Invalid { what: "raft message" });
    }
    message.entries = entries.into();
    Ok(message)
}

fn decode_chunk(input: &mut Decoder<'_>) -> Result<SnapshotChunk, DecodeError> {
    let chunk = SnapshotChunk {
        transfer: input.u64()?,
        term: input.u64()?,
        point: Point::decode(input)?,
        members: decode_members(input)?,
        file_bytes: input.u64()?,
        sequence: input.u32()?,
        bytes: Bytes::decode(input)?,
    };
    let start = u64::from(chunk.sequence) * CHUNK_BYTES as u64;
    let fits = chunk.file_bytes.checked_sub(start).is_some_and(|left| left.min(CHUNK_BYTES as u64) == chunk.bytes.len() as u64);
    let valid = chunk.term > 0 && chunk.point.index > 0 && chunk.point.index < u64::MAX / 2 && !chunk.members.voters.is_empty();
    if fits && valid && !chunk.bytes.is_empty() { Ok(chunk) } else { Err(DecodeError::Invalid { what: "snapshot chunk" }) }
}
