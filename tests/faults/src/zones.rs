//! Linearizability of a key that is only written, with unique values, and read: Gibbons and Korach's zones, in n log n.
//!
//! A value and its reads are one cluster. Its zone lies between the earliest end and the latest start among them. When the
//! earliest end comes first the zone is *forward*: throughout it the key must hold this value. Otherwise it is *backward*: the
//! whole cluster may happen at one moment in it. The operations fit an order exactly when no two forward zones overlap, no
//! backward zone lies inside a forward one, and no read ends before its write starts.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::linearizable::{ABSENT, Call, Step, Verdict};

/// The shortest time there is.
const TICK: Duration = Duration::from_nanos(1);

#[derive(Clone, Copy)]
struct Cluster {
    min_end: Duration,
    max_start: Duration,
    /// When the write starts; `None` while only reads were met.
    written: Option<Duration>,
}

/// Judges the calls on a key that starts absent. `None` when they are not only unique writes and reads.
pub fn judge(calls: &[Call]) -> Option<Verdict> {
    let mut clusters: BTreeMap<u64, Cluster> = BTreeMap::new();
    let birth = Cluster { min_end: Duration::ZERO, max_start: Duration::ZERO, written: Some(Duration::ZERO) };
    clusters.insert(ABSENT, birth);
    for call in calls {
        let (value, is_write) = match call.step {
            Step::Write(ABSENT) | Step::Create(_) | Step::Swap { .. } | Step::Present | Step::Other(_) => return None,
            Step::Write(value) => (value, true),
            Step::Read(value) => (value, false),
        };
        // The birth is before everything, also before what starts at zero.
        let (started, until) = (call.started + TICK, call.until.saturating_add(TICK));
        let fresh = Cluster { min_end: Duration::MAX, max_start: Duration::ZERO, written: None };
        let cluster = clusters.entry(value).or_insert(fresh);
        if is_write {
            if cluster.written.is_some() {
                return None;
            }
            cluster.written = Some(started);
        }
        cluster.min_end = cluster.min_end.min(until);
        cluster.max_start = cluster.max_start.max(started);
    }
    // A write that may never have happened and that nobody saw has no end and constrains nothing: its zone is backward and
    // reaches into eternity.
    let mut forward = Vec::new();
    let mut backward = Vec::new();
    for cluster in clusters.values() {
        match cluster.written {
            // Seen but never written, or seen before it was.
            None => return Some(Verdict::Impossible),
            Some(started) if cluster.min_end < started => return Some(Verdict::Impossible),
            Some(_) => {}
        }
        if cluster.min_end < cluster.max_start {
            forward.push((cluster.min_end, cluster.max_start));
        } else {
            backward.push((cluster.max_start, cluster.min_end));
        }
    }
    forward.sort_unstable();
    let overlap = forward.windows(2).any(|pair| pair[0].1 > pair[1].0);
    let inside = backward.iter().any(|(from, to)| {
        let after = forward.partition_point(|(start, _)| start < from);
        after > 0 && *to < forward[after - 1].1
    });
    Some(if overlap || inside { Verdict::Impossible } else { Verdict::Linearizable })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linearizable;

    /// A small generator, so that cases are many and the same every time.
    struct Numbers(u64);

    impl Numbers {
        fn below(&mut self, limit: u64) -> u64 {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 33) % limit
        }
    }

    /// All moments differ: at equal ones the two judges may see the order of an end and a start differently.
    fn some_history(numbers: &mut Numbers) -> Vec<Call> {
        let count = 2 + numbers.below(6);
        let mut moments: Vec<u64> = (0..2 * count).collect();
        for last in (1..moments.len()).rev() {
            moments.swap(last, numbers.below(last as u64 + 1) as usize);
        }
        let writes = 1 + numbers.below(3);
        (0..count)
            .map(|index| {
                let (a, b) = (moments[2 * index as usize], moments[2 * index as usize + 1]);
                let (started, ended) = (Duration::from_secs(a.min(b)), Duration::from_secs(a.max(b)));
                if index < writes {
                    let required = numbers.below(4) > 0;
                    let until = if required { ended } else { Duration::MAX };
                    return Call { step: Step::Write(index), started, until, required };
                }
                let seen = numbers.below(writes + 1);
                let step = Step::Read(if seen == writes { ABSENT } else { seen });
                Call { step, started, until: ended, required: true }
            })
            .collect()
    }

    #[test]
    fn zones_and_the_search_agree() {
        let mut numbers = Numbers(7);
        let mut verdicts = [0, 0];
        for _ in 0..20_000 {
            let calls = some_history(&mut numbers);
            let zones = judge(&calls).expect("writes and reads only");
            assert_eq!(zones, linearizable::judge(&calls), "{calls:?}");
            verdicts[usize::from(zones == Verdict::Linearizable)] += 1;
        }
        assert!(verdicts.iter().all(|count| *count > 1000), "{verdicts:?}: the cases are of one kind");
    }

    #[test]
    fn many_operations_are_decided_at_once() {
        let at = |step, started: u64, ended: u64| Call {
            step,
            started: Duration::from_millis(started),
            until: Duration::from_millis(ended),
            required: true,
        };
        let mut calls = Vec::new();
        for number in 0..50_000 {
            calls.push(at(Step::Write(number), number * 10, number * 10 + 4));
            calls.push(at(Step::Read(number), number * 10 + 5, number * 10 + 8));
        }
        assert_eq!(judge(&calls), Some(Verdict::Linearizable));
        calls.push(at(Step::Read(49_998), 600_000, 600_001));
        assert_eq!(judge(&calls), Some(Verdict::Impossible));
        assert_eq!(judge(&[at(Step::Write(ABSENT), 0, 1)]), None);
    }
}
