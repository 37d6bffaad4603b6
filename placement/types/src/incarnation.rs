//! Which life of a cluster somebody belongs to.

use std::fmt;

use crate::codec::{Decode, DecodeError, Decoder, Encode, Encoder};

/// A cluster that lost the majority of one of its Raft groups for ever, and goes on by an operator's decision without the nodes
/// that are gone, is a new incarnation of itself: nothing that belongs to another one may take part in it.
///
/// The upper half is a number that grows by one, the lower half is drawn: two decisions that were made apart from each other
/// never pass for the same one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Incarnation(u64);

/// How two incarnations stand to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kinship {
    /// They are the same, or one of them is not known yet.
    Same,
    /// The other one came after this one.
    Later,
    /// The other one came before, or both came of different decisions.
    Foreign,
}

impl Incarnation {
    /// Of who belongs to no cluster yet, or only asks: gateways, and nodes that are about to join.
    pub const UNKNOWN: Self = Self(0);
    /// Of every cluster that was founded and never recovered.
    pub const FIRST: Self = Self(1 << 32);

    pub const fn from_u64(value: u64) -> Self {
        Self(value)
    }

    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// How many lives the cluster has had.
    pub const fn number(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// One that follows this one; `drawn` is random, and not 0.
    pub const fn next(self, drawn: u32) -> Self {
        Self((self.number() as u64 + 1) << 32 | drawn as u64)
    }

    /// How `other` stands to this one.
    pub fn kinship(self, other: Self) -> Kinship {
        if self == other || self == Self::UNKNOWN || other == Self::UNKNOWN {
            Kinship::Same
        } else if other.number() > self.number() {
            Kinship::Later
        } else {
            Kinship::Foreign
        }
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 as u32 {
            0 => write!(f, "{}", self.number()),
            drawn => write!(f, "{}-{drawn:08x}", self.number()),
        }
    }
}

impl fmt::Debug for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Incarnation({self})")
    }
}

impl Encode for Incarnation {
    fn encode(&self, out: &mut Encoder) {
        out.u64(self.0);
    }
}

impl Decode for Incarnation {
    fn decode(input: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        input.u64().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lives_follow_each_other_and_decisions_made_apart_are_strangers() {
        let [second, other, third] = [2 << 32 | 7, 2 << 32 | 8, 3 << 32 | 7].map(Incarnation::from_u64);
        let kinships = [
            (Incarnation::FIRST, Incarnation::FIRST, Kinship::Same),
            (Incarnation::FIRST, second, Kinship::Later),
            (second, Incarnation::FIRST, Kinship::Foreign),
            (second, other, Kinship::Foreign),
            (second, third, Kinship::Later),
            (Incarnation::UNKNOWN, third, Kinship::Same),
            (third, Incarnation::UNKNOWN, Kinship::Same),
        ];
        for (one, two, kinship) in kinships {
            assert_eq!(one.kinship(two), kinship, "{one} {two}");
        }
        assert_eq!((Incarnation::FIRST.to_string(), second.to_string()), ("1".to_owned(), "2-00000007".to_owned()));
    }
}
