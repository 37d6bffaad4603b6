//! Whether one key's operations fit some order: Wing and Gong's search with Lowe's memo of visited states.
//!
//! The key is a register: writes of unique values, some under a condition, and observations. An observation that fits the
//! current value is taken at once, since it changes nothing; so the search branches over writes that overlap only.

use std::collections::BTreeSet;
use std::time::Duration;

/// The value of an absent object.
pub const ABSENT: u64 = u64::MAX;

/// Positions tried before the search gives up; some hundred megabytes of memory.
const STEPS_MAX: usize = 500_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Write(u64),
    /// A write that happens to an absent object only.
    Create(u64),
    /// A write that happens to this value only.
    Swap {
        expected: u64,
        value: u64,
    },
    Read(u64),
    /// What a refused create saw: some object.
    Present,
    /// What a refused swap saw: another value than this.
    Other(u64),
}

impl Step {
    /// The value after a write that is possible at this value.
    fn write(self, now: u64) -> Option<u64> {
        match self {
            Step::Write(value) => Some(value),
            Step::Create(value) => (now == ABSENT).then_some(value),
            Step::Swap { expected, value } => (now == expected).then_some(value),
            Step::Read(_) | Step::Present | Step::Other(_) => None,
        }
    }

    /// Whether it is an observation that this value explains.
    fn is_seen(self, now: u64) -> bool {
        match self {
            Step::Read(value) => now == value,
            Step::Present => now != ABSENT,
            Step::Other(value) => now != value,
            Step::Write(_) | Step::Create(_) | Step::Swap { .. } => false,
        }
    }

    /// The values that it proves to have been there.
    fn names(self) -> Option<u64> {
        match self {
            Step::Read(value) | Step::Swap { expected: value, .. } => Some(value),
            Step::Write(_) | Step::Create(_) | Step::Present | Step::Other(_) => None,
        }
    }

    fn written(self) -> Option<u64> {
        match self {
            Step::Write(value) | Step::Create(value) | Step::Swap { value, .. } => Some(value),
            Step::Read(_) | Step::Present | Step::Other(_) => None,
        }
    }
}

#[derive(Debug, Clone, Copy)]
pub struct Call {
    pub step: Step,
    pub started: Duration,
    /// The last moment it may have taken effect.
    pub until: Duration,
    /// It did happen. An optional write may never have.
    pub required: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Linearizable,
    Impossible,
    /// The search took too long. Not a pass.
    Undecided,
}

/// Judges the calls on a key that starts absent.
pub fn judge(calls: &[Call]) -> Verdict {
    // A write that may not have happened and that nobody saw constrains nothing: leaving it out of an order keeps it an order.
    // Unless somebody saw that there was something, whatever it was.
    let vague = calls.iter().any(|call| matches!(call.step, Step::Present | Step::Other(_)));
    let seen: BTreeSet<u64> = calls.iter().filter_map(|call| call.step.names()).collect();
    let matters = |call: &&Call| {
        call.required || vague || call.step.written().is_some_and(|value| value == ABSENT || seen.contains(&value))
    };
    let mut calls: Vec<Call> = calls.iter().filter(matters).copied().collect();
    calls.sort_by_key(|call| (call.started, call.until));
    let mut search = Search { calls: &calls, visited: BTreeSet::new() };
    let start = Position { done: vec![false; calls.len()], value: ABSENT };
    search.run(start)
}

struct Search<'a> {
    calls: &'a [Call],
    visited: BTreeSet<Position>,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Position {
    done: Vec<bool>,
    value: u64,
}

impl Search<'_> {
    fn run(&mut self, start: Position) -> Verdict {
        let mut waiting = vec![start];
        while let Some(mut position) = waiting.pop() {
            while self.take_fitting_read(&mut position) {}
            if !self.calls.iter().zip(&position.done).any(|(call, done)| call.required && !done) {
                return Verdict::Linearizable;
            }
            if self.visited.contains(&position) {
                continue;
            }
            if self.visited.len() >= STEPS_MAX {
                return Verdict::Undecided;
            }
            let horizon = self.horizon(&position);
            for (index, call) in self.calls.iter().enumerate() {
                if !position.done[index]
                    && call.started <= horizon
                    && let Some(value) = call.step.write(position.value)
                {
                    let mut next = position.clone();
                    next.done[index] = true;
                    next.value = value;
                    waiting.push(next);
                }
            }
            self.visited.insert(position);
        }
        Verdict::Impossible
    }

    /// The next call of the order starts before every call that is left has ended.
    fn horizon(&self, position: &Position) -> Duration {
        let left = self.calls.iter().zip(&position.done).filter(|(call, done)| call.required && !**done);
        left.map(|(call, _)| call.until).min().unwrap_or(Duration::MAX)
    }

    fn take_fitting_read(&self, position: &mut Position) -> bool {
        let horizon = self.horizon(position);
        let fits =
            |index: usize, call: &Call| !position.done[index] && call.started <= horizon && call.step.is_seen(position.value);
        let Some(index) = self.calls.iter().enumerate().position(|(index, call)| fits(index, call)) else { return false };
        position.done[index] = true;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(step: Step, started: u64, ended: u64) -> Call {
        Call { step, started: Duration::from_secs(started), until: Duration::from_secs(ended), required: true }
    }

    fn maybe(step: Step, started: u64) -> Call {
        Call { until: Duration::MAX, required: false, ..call(step, started, 0) }
    }

    use Step::{Create, Other, Present, Read, Swap, Write};

    #[test]
    fn of_conditional_writes_each_needs_its_value() {
        let swap = |expected, value| Swap { expected, value };
        let race = |second: Step| judge(&[call(Create(1), 0, 10), call(second, 0, 10)]);
        assert_eq!(race(Create(2)), Verdict::Impossible);
        assert_eq!(race(Present), Verdict::Linearizable);
        assert_eq!(race(swap(1, 2)), Verdict::Linearizable);
        assert_eq!(race(swap(3, 2)), Verdict::Impossible);
        assert_eq!(judge(&[call(Create(1), 0, 1), call(Other(1), 2, 3)]), Verdict::Impossible);
        assert_eq!(judge(&[call(Present, 2, 3)]), Verdict::Impossible);
        // Two swaps of one value: a lost update.
        let lost = [call(Write(1), 0, 1), call(swap(1, 2), 2, 9), call(swap(1, 3), 2, 9)];
        assert_eq!(judge(&lost), Verdict::Impossible);
        // A write of unknown outcome explains a refusal although nobody saw it.
        assert_eq!(judge(&[maybe(Write(1), 0), call(Present, 2, 3)]), Verdict::Linearizable);
        assert_eq!(judge(&[maybe(Create(1), 0), call(Create(2), 2, 3)]), Verdict::Linearizable);
    }

    #[test]
    fn overlapping_writes_may_take_either_order_but_readers_agree() {
        let writes = [call(Write(1), 0, 10), call(Write(2), 0, 10)];
        let then = |reads: &[Call]| judge(&[writes.as_slice(), reads].concat());
        assert_eq!(then(&[call(Read(1), 11, 12), call(Read(1), 13, 14)]), Verdict::Linearizable);
        assert_eq!(then(&[call(Read(2), 11, 12), call(Read(2), 13, 14)]), Verdict::Linearizable);
        assert_eq!(then(&[call(Read(1), 11, 12), call(Read(2), 13, 14)]), Verdict::Impossible);
        assert_eq!(then(&[call(Read(1), 5, 6), call(Read(2), 7, 8)]), Verdict::Linearizable);
    }

    #[test]
    fn a_read_sees_the_last_write_that_ended() {
        assert_eq!(judge(&[call(Read(ABSENT), 0, 1)]), Verdict::Linearizable);
        assert_eq!(judge(&[call(Write(1), 0, 1), call(Read(ABSENT), 2, 3)]), Verdict::Impossible);
        assert_eq!(judge(&[call(Write(1), 0, 1), call(Write(2), 2, 3), call(Read(1), 4, 5)]), Verdict::Impossible);
        assert_eq!(judge(&[call(Read(1), 0, 1), call(Write(1), 2, 3)]), Verdict::Impossible);
    }

    #[test]
    fn an_unknown_write_happens_once_at_any_later_time_or_never() {
        let first = call(Write(1), 0, 1);
        let doubtful = maybe(Write(2), 2);
        assert_eq!(judge(&[first, doubtful, call(Read(1), 50, 51)]), Verdict::Linearizable);
        assert_eq!(judge(&[first, doubtful, call(Read(1), 50, 51), call(Read(2), 60, 61)]), Verdict::Linearizable);
        let back = [first, doubtful, call(Read(2), 50, 51), call(Read(1), 60, 61)];
        assert_eq!(judge(&back), Verdict::Impossible);
        assert_eq!(judge(&[first, doubtful, call(Read(2), 0, 1)]), Verdict::Impossible);
    }

    #[test]
    fn many_overlapping_writes_are_decided() {
        let mut calls: Vec<Call> = (0..14).map(|number| call(Write(number), 0, 100)).collect();
        calls.extend((0..14).map(|number| call(Read(number), 200 + number, 200 + number)));
        assert_eq!(judge(&calls[..15]), Verdict::Linearizable);
        assert_eq!(judge(&calls), Verdict::Impossible);
    }
}
