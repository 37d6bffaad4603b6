//! Where a record is in the log.
//!
//! Segments are numbered in the order they are begun, numbers are never reused, and inside a segment records only ever go
//! behind what is there. So positions grow with time, and serve as the log's sequence numbers: of two records about one shard
//! the one at the larger position is the newer.

use placement_types::codec_struct;

/// Records begin on multiples of this.
pub(crate) const BLOCK_BYTES: u64 = 4096;

/// A place in the log: a block of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Position {
    pub segment: u32,
    pub block: u32,
}
codec_struct!(Position { segment, block });

impl Position {
    pub const START: Position = Position { segment: 0, block: 0 };

    /// The byte in the segment file.
    pub fn offset(self) -> u64 {
        u64::from(self.block) * BLOCK_BYTES
    }

    pub fn to_u64(self) -> u64 {
        u64::from(self.segment) << 32 | u64::from(self.block)
    }

    pub fn from_u64(value: u64) -> Self {
        Self { segment: (value >> 32) as u32, block: value as u32 }
    }
}

/// The blocks a record fills.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extent {
    pub at: Position,
    pub blocks: u32,
}

impl Extent {
    pub fn bytes(self) -> u64 {
        u64::from(self.blocks) * BLOCK_BYTES
    }

    /// Joins extents that touch, so that a shard written in one piece is punched in one call.
    pub fn merge(mut extents: Vec<Extent>) -> Vec<Extent> {
        extents.sort_by_key(|extent| extent.at);
        let mut merged: Vec<Extent> = Vec::with_capacity(extents.len());
        for extent in extents {
            match merged.last_mut() {
                Some(last) if last.at.segment == extent.at.segment && last.at.block + last.blocks == extent.at.block => {
                    last.blocks += extent.blocks;
                }
                _ => merged.push(extent),
            }
        }
        merged
    }
}

/// How many blocks hold so many bytes.
pub(crate) fn blocks_of(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(BLOCK_BYTES)).expect("no file of ours is longer than 2^32 blocks")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_order_by_segment_then_block() {
        let at = |segment, block| Position { segment, block };
        assert!(at(1, 9) < at(2, 0) && at(2, 0) < at(2, 1));
        assert_eq!(Position::from_u64(at(7, u32::MAX).to_u64()), at(7, u32::MAX));
        assert!(at(1, u32::MAX).to_u64() < at(2, 0).to_u64());
    }

    #[test]
    fn touching_extents_merge_within_a_segment_only() {
        let extent = |segment, block, blocks| Extent { at: Position { segment, block }, blocks };
        let merged = Extent::merge(vec![extent(1, 4, 2), extent(1, 0, 4), extent(2, 6, 1), extent(1, 7, 1)]);
        assert_eq!(merged, [extent(1, 0, 6), extent(1, 7, 1), extent(2, 6, 1)]);
    }
}
