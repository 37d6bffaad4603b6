//! Judges a history. Every promise that was broken is a [`Violation`]; an empty list is a pass.
//!
//! - K1, K4, K5: each key's operations must fit one order (`linearizable.rs`). A lost write and a resurrected delete are reads
//!   that fit none.
//! - K2, K3: no answer holds bytes, a length or an etag that nobody stored there.
//! - K5 for listings: keys that certainly existed throughout are listed, keys that certainly did not are not.
//! - K14: what starts well after the last fault succeeds.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use crate::history::{Action, Operation, Outcome};
use crate::linearizable::{ABSENT, Call, Step, Verdict, judge};

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

/// Judges what clients saw. Operations that start after `calm` have no excuse to fail.
pub fn check(history: &[Operation], calm: Duration) -> Vec<Violation> {
    let mut violations = Vec::new();
    for operation in history {
        if matches!(operation.action, Action::Wrong { .. }) {
            violations.push(Violation::WrongBytes { operation: operation.clone() });
        }
        if operation.started > calm && !operation.is_ok() {
            violations.push(Violation::NotServed { operation: operation.clone() });
        }
    }
    let keys: BTreeSet<u32> = history.iter().filter_map(Operation::key).collect();
    for key in &keys {
        check_key(history, *key, &mut violations);
    }
    for listing in history.iter().filter(|operation| operation.is_ok()) {
        if let Action::List { keys: listed } = &listing.action {
            check_listing(history, listing, listed, &keys, &mut violations);
        }
    }
    violations
}

fn check_key(history: &[Operation], key: u32, violations: &mut Vec<Violation>) {
    let mut calls = Vec::new();
    for operation in history.iter().filter(|operation| operation.key() == Some(key)) {
        let step = match operation.action {
            Action::Put { body, .. } => Step::Write(body),
            Action::Delete { .. } => Step::Write(ABSENT),
            Action::Get { seen, .. } => Step::Read(seen.unwrap_or(ABSENT)),
            Action::List { .. } | Action::Wrong { .. } => continue,
        };
        let required = match (&operation.outcome, step) {
            (Outcome::Ok, _) => true,
            (Outcome::Unknown(_), Step::Write(_)) => false,
            (Outcome::Unknown(_), Step::Read(_)) | (Outcome::Refused(_), _) => continue,
        };
        calls.push(Call { step, started: operation.started, until: operation.effective_until(), required });
    }
    match judge(&calls) {
        Verdict::Linearizable => {}
        Verdict::Undecided => violations.push(Violation::Undecided { key }),
        Verdict::Impossible => {
            let operations = history.iter().filter(|operation| operation.key() == Some(key)).cloned().collect();
            violations.push(Violation::NotLinearizable { key, operations });
        }
    }
}

fn check_listing(
    history: &[Operation],
    listing: &Operation,
    listed: &BTreeSet<u32>,
    keys: &BTreeSet<u32>,
    violations: &mut Vec<Violation>,
) {
    for key in keys.union(listed) {
        let of_key = || history.iter().filter(|operation| operation.key() == Some(*key));
        let puts = || of_key().filter(|operation| matches!(operation.action, Action::Put { .. }));
        let deletes = || of_key().filter(|operation| matches!(operation.action, Action::Delete { .. }));
        // Something of the other kind may have taken effect after `since` began and before the listing ended.
        let meddled = |mut others: Box<dyn Iterator<Item = &Operation> + '_>, since: Duration| {
            others.any(|other| {
                !matches!(other.outcome, Outcome::Refused(_))
                    && other.started <= listing.ended
                    && other.effective_until() >= since
            })
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

    const CALM: Duration = Duration::from_secs(1000);

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
        at(Action::List { keys: keys.iter().copied().collect() }, started, ended)
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
    fn failing_is_excused_only_while_there_are_faults() {
        let failed = unknown(get(None, 10, 20));
        assert_eq!(check(std::slice::from_ref(&failed), Duration::from_secs(10)), []);
        assert_eq!(check(std::slice::from_ref(&failed), Duration::from_secs(9)), [Violation::NotServed { operation: failed }]);
    }
}
