//! Judges a history. Every promise that was broken is a [`Violation`]; an empty list is a pass.
//!
//! - K1, K4, K5: each key's operations must fit one order (`linearizable.rs`). A lost write and a resurrected delete are reads
//!   that fit none.
//! - K2, K3: no answer holds bytes, a length or an etag that nobody stored there.
//! - K5 for listings: keys that certainly existed throughout are listed, keys that certainly did not are not.
//! - K14: what starts well after the last fault succeeds.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Range;
use std::time::Duration;

use crate::history::{Action, Operation, Outcome};
use crate::linearizable::{self, ABSENT, Call, Step, Verdict};
use crate::zones;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Violation {
    WrongBytes {
        operation: Operation,
    },
    /// With every operation on the key.
    NotLinearizable {
        key: u32,
        operations: Vec<Operation>,
    },
    /// The search took too long, so nothing is known.
    Undecided {
        key: u32,
    },
    ListingMisses {
        key: u32,
        listing: Operation,
    },
    ListingInvents {
        key: u32,
        listing: Operation,
    },
    /// It failed although all faults were over.
    NotServed {
        operation: Operation,
    },
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WrongBytes { operation } => write!(f, "K2 wrong bytes: {operation}"),
            Self::NotLinearizable { key, operations } => {
                writeln!(f, "K1/K4/K5 key {key}: no order of these operations explains them")?;
                operations.iter().try_for_each(|operation| writeln!(f, "    {operation}"))
            }
            Self::Undecided { key } => write!(f, "key {key}: the search for an order took too long"),
            Self::ListingMisses { key, listing } => write!(f, "K5 key {key} is missing: {listing}"),
            Self::ListingInvents { key, listing } => write!(f, "K5 key {key} did not exist: {listing}"),
            Self::NotServed { operation } => write!(f, "K14 failed without a fault: {operation}"),
        }
    }
}

impl Violation {
    /// Nothing was shown to be broken, and nothing was shown to hold.
    pub fn is_undecided(&self) -> bool {
        matches!(self, Self::Undecided { .. })
    }
}

/// Judges what clients saw. Operations within a calm time have no excuse to fail.
pub fn check(history: &[Operation], calm: &[Range<Duration>]) -> Vec<Violation> {
    let mut violations = Vec::new();
    let mut keys: BTreeMap<u32, Vec<&Operation>> = BTreeMap::new();
    for operation in history {
        if matches!(operation.action, Action::Wrong { .. }) {
            violations.push(Violation::WrongBytes { operation: operation.clone() });
        }
        let served = matches!(operation.outcome, Outcome::Ok | Outcome::Unmet);
        // What is still under way when the calm is over may have met the next fault.
        let is_within = |time: &Range<Duration>| time.contains(&operation.started) && operation.ended <= time.end;
        if !served && calm.iter().any(is_within) {
            violations.push(Violation::NotServed { operation: operation.clone() });
        }
        if let Some(key) = operation.key() {
            keys.entry(key).or_default().push(operation);
        }
    }
    for (key, operations) in &keys {
        check_key(*key, operations, &mut violations);
    }
    for listing in history.iter().filter(|operation| operation.is_ok()) {
        if let Action::List { scope, keys: listed } = &listing.action {
            check_listing(listing, scope, listed, &keys, &mut violations);
        }
    }
    violations
}

fn check_key(key: u32, operations: &[&Operation], violations: &mut Vec<Violation>) {
    let calls: Vec<Call> = operations.iter().filter_map(|operation| call(operation)).collect();
    match zones::judge(&calls).unwrap_or_else(|| linearizable::judge(&calls)) {
        Verdict::Linearizable => {}
        Verdict::Undecided => violations.push(Violation::Undecided { key }),
        Verdict::Impossible => {
            let operations = operations.iter().copied().cloned().collect();
            violations.push(Violation::NotLinearizable { key, operations });
        }
    }
}

/// What an operation says about its key; `None` when it says nothing.
fn call(operation: &Operation) -> Option<Call> {
    let step = match (&operation.action, &operation.outcome) {
        (_, Outcome::Refused(_)) | (Action::Get { .. }, Outcome::Unknown(_)) => return None,
        (Action::Create { .. }, Outcome::Unmet) => Step::Present,
        (Action::Swap { expected, .. }, Outcome::Unmet) => Step::Other(*expected),
        (_, Outcome::Unmet) => return None,
        (Action::Put { body, .. }, _) => Step::Write(*body),
        (Action::Create { body, .. }, _) => Step::Create(*body),
        (Action::Swap { expected, body, .. }, _) => Step::Swap { expected: *expected, value: *body },
        (Action::Delete { .. }, _) => Step::Write(ABSENT),
        (Action::Get { seen, .. }, _) => Step::Read(seen.unwrap_or(ABSENT)),
        (Action::List { .. } | Action::Wrong { .. }, _) => return None,
    };
    let required = !matches!(operation.outcome, Outcome::Unknown(_));
    Some(Call { step, started: operation.started, until: operation.effective_until(), required })
}

fn check_listing(
    listing: &Operation,
    scope: &Range<u32>,
    listed: &BTreeSet<u32>,
    keys: &BTreeMap<u32, Vec<&Operation>>,
    violations: &mut Vec<Violation>,
) {
    let touched: BTreeSet<u32> = keys.range(scope.clone()).map(|(key, _)| *key).collect();
    for key in touched.union(listed) {
        let of_key = || keys.get(key).into_iter().flatten().copied();
        let is_put =
            |operation: &&Operation| matches!(operation.action, Action::Put { .. } | Action::Create { .. } | Action::Swap { .. });
        let puts = || of_key().filter(is_put);
        let deletes = || of_key().filter(|operation| matches!(operation.action, Action::Delete { .. }));
        // Something of the other kind may have taken effect after `since` began and before the listing ended.
        let meddled = |mut others: Box<dyn Iterator<Item = &Operation> + '_>, since: Duration| {
            others.any(|other| !other.is_void() && other.started <= listing.ended && other.effective_until() >= since)
        };
        let before = |operation: &&Operation| operation.is_ok() && operation.ended < listing.started;
        let certain = puts().filter(before).any(|put| !meddled(Box::new(deletes()), put.started));
        if certain && !listed.contains(key) {
            violations.push(Violation::ListingMisses { key: *key, listing: listing.clone() });
        }
        let never = !meddled(Box::new(puts()), Duration::ZERO);
        let gone = never || deletes().filter(before).any(|delete| !meddled(Box::new(puts()), delete.started));
        if gone && listed.contains(key) {
            violations.push(Violation::ListingInvents { key: *key, listing: listing.clone() });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Never.
    const CALM: &[Range<Duration>] = &[];

    fn at(action: Action, started: u64, ended: u64) -> Operation {
        let (started, ended) = (Duration::from_secs(started), Duration::from_secs(ended));
        Operation { client: 0, action, started, ended, outcome: Outcome::Ok }
    }

    fn unknown(operation: Operation) -> Operation {
        Operation { outcome: Outcome::Unknown("503".into()), ..operation }
    }

    fn put(body: u64, started: u64, ended: u64) -> Operation {
        at(Action::Put { key: 1, body }, started, ended)
    }

    fn delete(started: u64, ended: u64) -> Operation {
        at(Action::Delete { key: 1 }, started, ended)
    }

    fn get(seen: Option<u64>, started: u64, ended: u64) -> Operation {
        at(Action::Get { key: 1, seen }, started, ended)
    }

    fn list(keys: &[u32], started: u64, ended: u64) -> Operation {
        at(Action::List { scope: 0..9, keys: keys.iter().copied().collect() }, started, ended)
    }

    fn is_unordered(history: &[Operation]) -> bool {
        matches!(check(history, CALM).as_slice(), [Violation::NotLinearizable { key: 1, .. }])
    }

    #[test]
    fn an_honest_history_passes() {
        let history = [
            put(1, 0, 2),
            get(Some(1), 3, 4),
            list(&[1], 3, 5),
            unknown(put(2, 5, 9)),
            get(Some(1), 10, 11),
            get(Some(2), 12, 13),
            delete(14, 15),
            get(None, 16, 17),
            list(&[], 16, 17),
        ];
        assert_eq!(check(&history, CALM), []);
    }

    #[test]
    fn a_lost_write_is_found() {
        assert!(is_unordered(&[put(1, 0, 1), get(None, 2, 3)]));
        assert!(is_unordered(&[put(1, 0, 1), put(2, 2, 3), get(Some(1), 4, 5)]));
    }

    #[test]
    fn wrong_bytes_are_found() {
        let wrong = at(Action::Wrong { key: 1, what: "one bit".into() }, 2, 3);
        assert_eq!(check(&[put(1, 0, 1), wrong.clone()], CALM), [Violation::WrongBytes { operation: wrong }]);
    }

    #[test]
    fn another_keys_body_is_found() {
        let elsewhere = at(Action::Put { key: 2, body: 7 }, 0, 1);
        assert!(is_unordered(&[elsewhere, get(Some(7), 2, 3)]));
    }

    #[test]
    fn a_resurrected_delete_is_found() {
        assert!(is_unordered(&[put(1, 0, 1), delete(2, 3), get(Some(1), 4, 5)]));
        assert!(is_unordered(&[put(1, 0, 1), unknown(delete(2, 3)), get(None, 4, 5), get(Some(1), 6, 7)]));
    }

    #[test]
    fn a_refused_write_must_have_no_effect() {
        let refused = Operation { outcome: Outcome::Refused("412".into()), ..put(2, 2, 3) };
        assert!(is_unordered(&[put(1, 0, 1), refused, get(Some(2), 4, 5)]));
    }

    #[test]
    fn a_short_listing_is_found_and_so_is_an_invented_key() {
        let short = list(&[], 2, 3);
        assert_eq!(check(&[put(1, 0, 1), short.clone()], CALM), [Violation::ListingMisses { key: 1, listing: short }]);
        let stale = list(&[1], 4, 5);
        let deleted = [put(1, 0, 1), delete(2, 3), stale.clone()];
        assert_eq!(check(&deleted, CALM), [Violation::ListingInvents { key: 1, listing: stale }]);
        let foreign = list(&[9], 4, 5);
        assert_eq!(check(std::slice::from_ref(&foreign), CALM), [Violation::ListingInvents { key: 9, listing: foreign }]);
    }

    #[test]
    fn a_listing_may_go_either_way_on_what_changes_meanwhile() {
        for listed in [list(&[1], 2, 6), list(&[], 2, 6)] {
            assert_eq!(check(&[put(1, 3, 4), listed.clone()], CALM), []);
            assert_eq!(check(&[unknown(put(1, 0, 1)), listed.clone()], CALM), []);
            assert_eq!(check(&[put(1, 0, 1), delete(3, 4), listed], CALM), []);
        }
    }

    #[test]
    fn of_two_creations_one_is_refused() {
        let create = |body, outcome| Operation { outcome, ..at(Action::Create { key: 1, body }, 0, 5) };
        assert_eq!(check(&[create(1, Outcome::Ok), create(2, Outcome::Unmet), get(Some(1), 6, 7)], CALM), []);
        assert!(is_unordered(&[create(1, Outcome::Ok), create(2, Outcome::Ok)]));
        assert!(is_unordered(&[create(1, Outcome::Unmet)]));
    }

    #[test]
    fn failing_is_excused_only_while_there_are_faults() {
        let failed = unknown(get(None, 10, 20));
        let seconds = |from, to| Duration::from_secs(from)..Duration::from_secs(to);
        assert_eq!(check(std::slice::from_ref(&failed), &[seconds(1, 10), seconds(11, 30)]), []);
        assert_eq!(check(std::slice::from_ref(&failed), &[seconds(9, 19)]), [], "the next fault came meanwhile");
        assert_eq!(check(std::slice::from_ref(&failed), &[seconds(9, 20)]), [Violation::NotServed { operation: failed }]);
    }
}
