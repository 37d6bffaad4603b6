//! Frames: what one fsync of the log covers; and the identity file.
//!
//! | frame | bytes |
//! |---|---|
//! | magic | 8: `DZRFRAME` |
//! | version | `u16` = 1 |
//! | kind | `u8`: 1 first of its segment, 2 later, 3 later and written by a graceful stop |
//! | reserved | `u8` = 0 |
//! | payload length | `u32` |
//! | segment | `u64`: the number in the file's name |
//! | sequence | `u64`: one more than the frame before |
//! | payload crc | `u64`: CRC-64/NVME |
//! | header crc | `u32`: CRC-32C of the log's salt and the 40 bytes above |
//! | payload | records ([`super::Record`]) one after the other, then zeros up to a multiple of 4 KiB |
//!
//! Frames start at multiples of 4 KiB, so that writing one never touches a block of the one before: a torn write cannot
//! damage what was durable. The salt, drawn when the log was made, keeps an entry that happens to contain a frame (or was
//! made to) from being taken for one. A frame is written only after the fsync of the frame before it succeeded: a valid frame
//! proves that every frame with a lower sequence was durable.
//!
//! | identity file | bytes |
//! |---|---|
//! | magic | 8: `DZRIDENT` |
//! | version | `u16` = 1 |
//! | replica | `u64` |
//! | salt | `u64` |
//! | crc | `u32`: CRC-32C of the above |

use placement_types::ReplicaId;
use placement_types::codec::{DecodeError, Decoder, Encoder};

use crate::limits::FRAME_BYTES_MAX;

/// What frames are aligned to: the block that a disk writes whole or, torn, alone.
pub(crate) const BLOCK_BYTES: u64 = 4096;
pub(crate) const FRAME_HEADER_BYTES: usize = 44;

const FRAME_MAGIC: [u8; 8] = *b"DZRFRAME";
const IDENTITY_MAGIC: [u8; 8] = *b"DZRIDENT";
const VERSION: u16 = 1;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FrameKind {
    First,
    Later,
    Stop,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    pub kind: FrameKind,
    pub payload_bytes: usize,
    pub segment: u64,
    pub sequence: u64,
    pub payload_crc: u64,
}

impl FrameHeader {
    fn encode(&self, salt: u64) -> bytes::Bytes {
        let mut out = Encoder::with_capacity(FRAME_HEADER_BYTES);
        out.raw(&FRAME_MAGIC);
        out.u16(VERSION);
        out.u8(match self.kind {
            FrameKind::First => 1,
            FrameKind::Later => 2,
            FrameKind::Stop => 3,
        });
        out.u8(0);
        out.u32(u32::try_from(self.payload_bytes).expect("frames are bounded far below 4 GiB"));
        out.u64(self.segment);
        out.u64(self.sequence);
        out.u64(self.payload_crc);
        let body = out.finish();
        let mut out = Encoder::with_capacity(FRAME_HEADER_BYTES);
        out.raw(&body);
        out.u32(salted_crc(salt, &body));
        out.finish()
    }

    pub(crate) fn decode(bytes: &[u8], salt: u64) -> Result<Self, DecodeError> {
        let mut input = Decoder::new(bytes);
        let body = input.raw(FRAME_HEADER_BYTES - 4)?;
        let crc = input.u32()?;
        let mut input = Decoder::new(body);
        if input.array::<8>()? != FRAME_MAGIC || salted_crc(salt, body) != crc {
            return Err(DecodeError::Invalid { what: "frame header" });
        }
        input.version("log frame", VERSION)?;
        let kind = match input.u8()? {
            1 => FrameKind::First,
            2 => FrameKind::Later,
            3 => FrameKind::Stop,
            tag => return Err(DecodeError::UnknownTag { what: "frame", tag }),
        };
        input.u8()?;
        let payload_bytes = input.u32()? as usize;
        if payload_bytes > FRAME_BYTES_MAX {
            return Err(DecodeError::Invalid { what: "frame length" });
        }
        Ok(Self { kind, payload_bytes, segment: input.u64()?, sequence: input.u64()?, payload_crc: input.u64()? })
    }

    pub(crate) fn payload_matches(&self, payload: &[u8]) -> bool {
        payload.len() == self.payload_bytes && crc_fast::crc64_nvme(payload) == self.payload_crc
    }
}

/// What a payload of this length takes in the file.
pub(crate) fn padded(payload_bytes: usize) -> u64 {
    ((FRAME_HEADER_BYTES + payload_bytes) as u64).next_multiple_of(BLOCK_BYTES)
}

/// A whole frame, padded.
pub(crate) fn encode_frame(kind: FrameKind, segment: u64, sequence: u64, payload: &[u8], salt: u64) -> Vec<u8> {
    let header =
        FrameHeader { kind, payload_bytes: payload.len(), segment, sequence, payload_crc: crc_fast::crc64_nvme(payload) };
    let bytes = usize::try_from(padded(payload.len())).expect("frames are bounded");
    let mut frame = Vec::with_capacity(bytes);
    frame.extend_from_slice(&header.encode(salt));
    frame.extend_from_slice(payload);
    frame.resize(bytes, 0);
    frame
}

fn salted_crc(salt: u64, body: &[u8]) -> u32 {
    let mut digest = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi);
    digest.update(&salt.to_be_bytes());
    digest.update(body);
    u32::try_from(digest.finalize()).expect("a CRC-32 has 32 bits")
}

/// Whose log this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    pub replica: ReplicaId,
    pub salt: u64,
}

impl Identity {
    pub(crate) const BYTES: usize = 8 + 2 + 8 + 8 + 4;

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Encoder::new();
        out.raw(&IDENTITY_MAGIC);
        out.u16(VERSION);
        out.u64(self.replica.0);
        out.u64(self.salt);
        let mut bytes = out.finish().to_vec();
        let crc = crc_fast::crc32_iscsi(&bytes);
        bytes.extend_from_slice(&crc.to_be_bytes());
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut input = Decoder::new(bytes);
        let body = input.raw(Self::BYTES - 4)?;
        let crc = input.u32()?;
        input.finish()?;
        let mut input = Decoder::new(body);
        if input.array::<8>()? != IDENTITY_MAGIC || crc_fast::crc32_iscsi(body) != crc {
            return Err(DecodeError::Invalid { what: "identity file" });
        }
        input.version("identity file", VERSION)?;
        Ok(Self { replica: ReplicaId(input.u64()?), salt: input.u64()? })
    }
}
