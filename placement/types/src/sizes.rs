//! Sizes and ranges of the data path.

use std::fmt;
use std::str::FromStr;

use crate::codec::{Decode, DecodeError, Decoder, Encode, Encoder};

/// A chunk holds at most this much of an object: the unit of placement and of a manifest entry.
pub const CHUNK_BYTES_MAX: u64 = 16 << 20;

/// A stripe is coded at once into k+m units; a node holds about one per stream in memory.
pub const STRIPE_BYTES: u64 = 1 << 20;

/// Objects up to this size live in the metadata entry and have no shards.
pub const INLINE_BYTES_MAX: u64 = 16 << 10;

/// The metadata hash space is cut into this many immutable slots, each owned by one Raft group.
pub const SLOTS: u16 = 1024;

const _: () = assert!(CHUNK_BYTES_MAX.is_multiple_of(STRIPE_BYTES));

/// A half-open run of bytes, `start..end`.
///
/// # Invariants
/// `start <= end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ByteRange {
    start: u64,
    end: u64,
}

impl ByteRange {
    /// `None` when `end < start`.
    pub fn new(start: u64, end: u64) -> Option<Self> {
        (start <= end).then_some(Self { start, end })
    }

    pub fn start(self) -> u64 {
        self.start
    }

    pub fn end(self) -> u64 {
        self.end
    }

    pub fn len(self) -> u64 {
        self.end - self.start
    }

    pub fn is_empty(self) -> bool {
        self.start == self.end
    }

    /// What of this range lies in `other`, or `None` when nothing does.
    pub fn intersect(self, other: ByteRange) -> Option<ByteRange> {
        let (start, end) = (self.start.max(other.start), self.end.min(other.end));
        (start < end).then_some(Self { start, end })
    }
}

impl Encode for ByteRange {
    fn encode(&self, out: &mut Encoder) {
        out.u64(self.start);
        out.u64(self.end);
    }
}

impl Decode for ByteRange {
    fn decode(input: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Self::new(input.u64()?, input.u64()?).ok_or(DecodeError::Invalid { what: "byte range" })
    }
}

/// An erasure-coding profile: k data units and m parity units to a stripe. Any k of the k+m shards rebuild a chunk.
///
/// # Invariants
/// `1 <= k <= 16`, `m <= 8`, `m <= k` unless `k == 1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Profile {
    data: u8,
    parity: u8,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a profile (k+m with 1 to 16 data and 0 to 8 parity units, such as 4+2): {text:?}")]
pub struct InvalidProfile {
    pub text: String,
}

impl Profile {
    /// One disk, no redundancy.
    pub const SINGLE: Profile = Profile { data: 1, parity: 0 };

    pub fn new(data: u8, parity: u8) -> Result<Self, InvalidProfile> {
        if !(1..=16).contains(&data) || parity > 8 || (data > 1 && parity > data) {
            return Err(InvalidProfile { text: format!("{data}+{parity}") });
        }
        Ok(Self { data, parity })
    }

    /// k: how many shards rebuild a chunk.
    pub fn data(self) -> usize {
        usize::from(self.data)
    }

    /// m: how many shards may be lost.
    pub fn parity(self) -> usize {
        usize::from(self.parity)
    }

    /// k+m.
    pub fn width(self) -> usize {
        self.data() + self.parity()
    }

    /// How many shards must be fsynced on distinct disks before a write may be acknowledged (I2): k+1, or k without parity.
    pub fn write_quorum(self) -> usize {
        self.data() + self.parity().min(1)
    }

    /// How many stripes a chunk of `chunk_bytes` has; an empty chunk has none.
    pub fn stripes(self, chunk_bytes: u64) -> u64 {
        chunk_bytes.div_ceil(STRIPE_BYTES)
    }

    /// The bytes of a chunk that lie in its stripe `stripe`.
    pub fn stripe_range(self, chunk_bytes: u64, stripe: u64) -> Option<ByteRange> {
        let start = stripe.checked_mul(STRIPE_BYTES)?;
        ByteRange::new(start, chunk_bytes.min(start.saturating_add(STRIPE_BYTES)))
    }

    /// How long each unit of a stripe of `stripe_bytes` is: the stripe split k ways, the last data unit padded with zeros.
    pub fn unit_bytes(self, stripe_bytes: u64) -> u64 {
        stripe_bytes.div_ceil(u64::from(self.data))
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{}", self.data, self.parity)
    }
}

impl FromStr for Profile {
    type Err = InvalidProfile;

    fn from_str(text: &str) -> Result<Self, InvalidProfile> {
        let invalid = || InvalidProfile { text: text.chars().take(32).collect() };
        let (data, parity) = text.split_once('+').ok_or_else(invalid)?;
        Self::new(data.parse().map_err(|_| invalid())?, parity.parse().map_err(|_| invalid())?)
    }
}

impl Encode for Profile {
    fn encode(&self, out: &mut Encoder) {
        out.u8(self.data);
        out.u8(self.parity);
    }
}

impl Decode for Profile {
    fn decode(input: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        Self::new(input.u8()?, input.u8()?).map_err(|_| DecodeError::Invalid { what: "profile" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_knows_its_quorum_and_units() {
        let check = |text: &str, quorum, unit| {
            let profile: Profile = text.parse().unwrap();
            assert_eq!(profile.to_string(), text);
            assert_eq!((profile.write_quorum(), profile.unit_bytes(10)), (quorum, unit), "{text}");
        };
        check("1+0", 1, 10);
        check("2+1", 3, 5);
        check("2+2", 3, 5);
        check("4+2", 5, 3);
        for bad in ["", "4", "0+2", "17+2", "4+9", "2+3", "4+-1"] {
            assert!(bad.parse::<Profile>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_last_stripe_of_a_chunk_is_short() {
        let profile = Profile::new(2, 1).unwrap();
        let chunk_bytes = STRIPE_BYTES + 5;
        assert_eq!(profile.stripes(chunk_bytes), 2);
        assert_eq!(profile.stripe_range(chunk_bytes, 1), ByteRange::new(STRIPE_BYTES, STRIPE_BYTES + 5));
        assert_eq!(profile.stripe_range(chunk_bytes, 3), None);
    }
}
