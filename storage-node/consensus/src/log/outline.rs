//! What a node keeps of a group's log in memory for every entry, however old: its term, and where it is written.

use std::collections::VecDeque;

use super::{Location, Placement};
use crate::format::Point;

/// The entries of a group in the log, without their bytes.
///
/// # Invariants
/// The entries follow `base` without a gap.
#[derive(Debug, Default)]
pub(crate) struct Outline {
    /// The entry before the first.
    base: Point,
    /// Term and place of every entry after `base`.
    entries: VecDeque<(u64, Location)>,
}

impl Outline {
    /// No entries yet after `base`.
    pub(crate) fn after(base: Point) -> Self {
        Self { base, entries: VecDeque::new() }
    }

    pub(crate) fn base(&self) -> Point {
        self.base
    }

    pub(crate) fn last(&self) -> Point {
        match self.entries.back() {
            Some((term, _)) => Point { index: self.base.index + self.entries.len() as u64, term: *term },
            None => self.base,
        }
    }

    /// Of the base or an entry after it.
    pub(crate) fn term_of(&self, index: u64) -> Option<u64> {
        if index == self.base.index {
            return Some(self.base.term);
        }
        self.get(index).map(|(term, _)| *term)
    }

    /// Term and place of an entry after the base.
    pub(crate) fn get(&self, index: u64) -> Option<&(u64, Location)> {
        self.entries.get(self.position(index)?)
    }

    fn position(&self, index: u64) -> Option<usize> {
        usize::try_from(index.checked_sub(self.base.index + 1)?).ok()
    }

    /// Adds the entry after the last.
    pub(crate) fn push(&mut self, term: u64, location: Location) {
        self.entries.push_back((term, location));
    }

    /// Forgets an entry after the base and all that follow it.
    pub(crate) fn truncate(&mut self, first: u64) {
        self.entries.truncate(self.position(first).expect("an entry after the base, no further than memory reaches"));
    }

    /// Takes note of where an entry was written, if it is still the one.
    pub(crate) fn place(&mut self, placement: &Placement) {
        if let Some(position) = self.position(placement.index)
            && let Some((term, location)) = self.entries.get_mut(position)
            && *term == placement.term
        {
            *location = placement.location;
        }
    }

    /// The last entry in segments up to `segment`, the base when there is none.
    pub(crate) fn last_in(&self, segment: u64) -> u64 {
        self.base.index + self.entries.partition_point(|(_, location)| location.segment <= segment) as u64
    }

    /// Makes an entry the base, and forgets those before it.
    pub(crate) fn rebase(&mut self, index: u64) {
        let term = self.term_of(index).expect("it is in the log");
        self.entries.drain(..usize::try_from(index - self.base.index).expect("no longer than what is in memory"));
        self.base = Point { index, term };
    }
}

#[cfg(test)]
mod tests {
    use placement_types::GroupId;

    use super::*;

    fn at(segment: u64) -> Location {
        Location { segment, offset: 0, bytes: 1 }
    }

    fn placed(index: u64, term: u64, segment: u64) -> Placement {
        Placement { group: GroupId(1), index, term, location: at(segment) }
    }

    #[test]
    fn entries_are_found_by_index_from_the_base_on() {
        let mut outline = Outline::after(Point { index: 10, term: 2 });
        assert_eq!((outline.last(), outline.last_in(9)), (outline.base(), 10));
        for (term, segment) in [(2, 1), (3, 1), (3, 2)] {
            outline.push(term, at(segment));
        }
        let terms = |outline: &Outline| [9, 10, 11, 12, 13, 14].map(|index| outline.term_of(index));
        assert_eq!(terms(&outline), [None, Some(2), Some(2), Some(3), Some(3), None]);
        assert!(outline.get(10).is_none(), "the base itself is not here");
        assert_eq!((outline.last_in(0), outline.last_in(1), outline.last_in(2)), (10, 12, 13));

        outline.place(&placed(13, 2, 7));
        outline.place(&placed(10, 2, 7));
        assert_eq!(outline.last_in(2), 13, "a place is taken only for the very entry");
        outline.place(&placed(13, 3, 7));
        assert_eq!(outline.last_in(2), 12);

        outline.rebase(12);
        assert_eq!((outline.base(), outline.last()), (Point { index: 12, term: 3 }, Point { index: 13, term: 3 }));
        outline.truncate(13);
        assert_eq!(outline.last(), outline.base());
    }
}
