//! Identifiers. Random ids are 128 bits drawn from [`Env`](crate::Env)'s generator; they are never reused.

use std::fmt;
use std::str::FromStr;

use crate::codec::{Decode, DecodeError, Decoder, Encode, Encoder};
use crate::env::Env;

/// A text that is not an id: 32 lower-case hexadecimal digits are.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an id of 32 hexadecimal digits: {text:?}")]
pub struct InvalidId {
    pub text: String,
}

macro_rules! random_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(u128);

        impl $name {
            /// Draws a fresh id.
            pub fn random(env: &Env) -> Self {
                Self(env.random_u128())
            }

            pub const fn from_u128(value: u128) -> Self {
                Self(value)
            }

            pub const fn as_u128(self) -> u128 {
                self.0
            }

            pub const fn to_bytes(self) -> [u8; 16] {
                self.0.to_be_bytes()
            }

            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(u128::from_be_bytes(bytes))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:032x}", self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:032x})"), self.0)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                let invalid = || InvalidId { text: text.chars().take(64).collect() };
                if text.len() != 32 || !text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
                    return Err(invalid());
                }
                u128::from_str_radix(text, 16).map(Self).map_err(|_| invalid())
            }
        }

        impl Encode for $name {
            fn encode(&self, out: &mut Encoder) {
                out.u128(self.0);
            }
        }

        impl Decode for $name {
            fn decode(input: &mut Decoder<'_>) -> Result<Self, DecodeError> {
                input.u128().map(Self)
            }
        }
    };
}

random_id!(
    /// One Dozo cluster; drawn when the first nodes meet, checked on every disk and every internal handshake.
    ClusterId
);
random_id!(
    /// A storage node, written to its disks at first start.
    NodeId
);
random_id!(
    /// A disk, written to `disk.id` at first start. A removed disk's id is never accepted again.
    DiskId
);
random_id!(
    /// A bucket's incarnation: a bucket deleted and created again under the same name has another id.
    BucketId
);
random_id!(
    /// A run of up to 16 MiB of one object's bytes; never reused, never modified.
    ChunkId
);
random_id!(
    /// One attempt to change metadata, and the owner of the chunks written for it (I5, I9).
    TxnId
);
random_id!(
    /// A multipart upload.
    UploadId
);
random_id!(
    /// One client request, echoed as `x-amz-request-id`.
    RequestId
);

/// One run of a node's process. The node's directory numbers its runs, so that an earlier one is told from a later one; two
/// runs of one number, of a directory and of its copy, differ in the nonce.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Boot {
    pub number: u64,
    pub nonce: u64,
}
crate::codec_struct!(Boot { number, nonce });

impl fmt::Display for Boot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{:016x}", self.number, self.nonce)
    }
}

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($int:ident)) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub $int);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl Encode for $name {
            fn encode(&self, out: &mut Encoder) {
                self.0.encode(out);
            }
        }

        impl Decode for $name {
            fn decode(input: &mut Decoder<'_>) -> Result<Self, DecodeError> {
                $int::decode(input).map(Self)
            }
        }
    };
}

number!(
    /// The number of a cluster map; grows by one with every change.
    Epoch(u64)
);
number!(
    /// A Raft leadership.
    Term(u64)
);
number!(
    /// A Raft group. Group 0 is the system group; the others hold object metadata.
    GroupId(u32)
);
number!(
    /// A member of Raft groups; allocated once by the system group, never reused, never 0 (I12).
    ReplicaId(u64)
);
number!(
    /// One of the [`SLOTS`](crate::SLOTS) immutable slices of the metadata hash space; slots map to groups.
    Slot(u16)
);

impl GroupId {
    /// The system group: cluster map, buckets, users, policies, settings.
    pub const SYSTEM: GroupId = GroupId(0);
}

/// One disk's share of a chunk: the slot `index` of its k+m.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId {
    pub chunk: ChunkId,
    pub index: u8,
}

impl ShardId {
    /// The 17 bytes under which a disk's index files the shard: chunk id, then slot.
    pub fn to_bytes(self) -> [u8; 17] {
        let mut bytes = [0; 17];
        bytes[..16].copy_from_slice(&self.chunk.to_bytes());
        bytes[16] = self.index;
        bytes
    }

    pub fn from_bytes(bytes: [u8; 17]) -> Self {
        let mut chunk = [0; 16];
        chunk.copy_from_slice(&bytes[..16]);
        Self { chunk: ChunkId::from_bytes(chunk), index: bytes[16] }
    }
}

impl fmt::Display for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.chunk, self.index)
    }
}

crate::codec_struct!(ShardId { chunk, index });

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_32_lower_case_hexadecimal_digits() {
        let id = NodeId::from_u128(0xab);
        assert_eq!(id.to_string(), "000000000000000000000000000000ab");
        assert_eq!(id.to_string().parse(), Ok(id));
        for text in ["", "ab", "000000000000000000000000000000AB", "+00000000000000000000000000000ab"] {
            assert!(text.parse::<NodeId>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_shard_id_round_trips_through_its_index_key() {
        let shard = ShardId { chunk: ChunkId::from_u128(7 << 100), index: 5 };
        assert_eq!(ShardId::from_bytes(shard.to_bytes()), shard);
    }
}
