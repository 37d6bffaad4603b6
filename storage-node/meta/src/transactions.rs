//! What the group remembers of transactions: their outcomes (I9) and the fences of those that must not commit any more (I5).
//!
//! Both are forgotten by age. So that forgetting a fence does not let a late commit through, a command older than anything that
//! may be forgotten (the group's *floor*) is refused. This asks of proposers that a transaction does not outlive
//! [`FORGET_AGE_MIN`](crate::limits::FORGET_AGE_MIN). The floor never falls, and rises by steps: see
//! [`FORGET_STEP_MAX`](crate::limits::FORGET_STEP_MAX).

use bytes::Bytes;
use placement_types::{Timestamp, TxnId};
use storage_node_kv::{KvError, Overlay};
use storage_node_proto::command::Outcome;

use crate::apply::Entry;
use crate::format::{self, table};
use crate::limits::{FORGET_ROWS_MAX, FORGET_STEP_MAX};
use crate::view::View;

fn outcome_row(txn: TxnId) -> Vec<u8> {
    format::row(table::OUTCOMES, &[&txn.to_bytes()])
}

fn aborted_row(txn: TxnId) -> Vec<u8> {
    format::row(table::ABORTED, &[&txn.to_bytes()])
}

/// The first outcome of a transaction, as long as it is remembered.
pub(crate) fn outcome(view: View<'_>, txn: TxnId) -> Result<Option<Outcome>, KvError> {
    view.value("an outcome", &outcome_row(txn))
}

pub(crate) fn record(state: &mut Overlay<'_>, entry: Entry, outcome: &Outcome) {
    state.put(outcome_row(entry.txn), format::encode_value(outcome));
    expire(state, entry.time, &outcome_row(entry.txn));
}

/// Whether the transaction is fenced, or too old to know.
pub(crate) fn is_refused(view: View<'_>, entry: Entry) -> Result<bool, KvError> {
    Ok(entry.time < view.group()?.floor || view.has(&aborted_row(entry.txn))?)
}

/// Fences transactions. One that has an outcome keeps it: whether it owns data, only `Referenced` tells.
pub(crate) fn abort(state: &mut Overlay<'_>, entry: Entry, txns: &[TxnId]) -> Result<Outcome, KvError> {
    for txn in txns {
        if !View(&*state).has(&aborted_row(*txn))? {
            state.put(aborted_row(*txn), Bytes::new());
            expire(state, entry.time, &aborted_row(*txn));
        }
    }
    Ok(Outcome::Done)
}

/// Has `row` dropped by a Forget of what is older than just after `time`.
pub(crate) fn expire(state: &mut Overlay<'_>, time: Timestamp, row: &[u8]) {
    state.put(format::expiry_row(time, row), Bytes::new());
}

pub(crate) fn forget(state: &mut Overlay<'_>, before: Timestamp) -> Result<Outcome, KvError> {
    let mut group = View(&*state).group()?;
    let never = group.floor == Timestamp::default();
    let reach = match oldest(View(&*state))? {
        // The last command left something: that first.
        Some(oldest) if oldest < group.floor => group.floor,
        Some(oldest) if never => oldest.plus(FORGET_STEP_MAX),
        None if never => group.floor,
        _ => group.floor.plus(FORGET_STEP_MAX),
    };
    let before = before.min(reach);
    if before > group.floor {
        group.floor = before;
        state.put(vec![table::GROUP], format::encode_value(&group));
    }
    let end = format::expiry_row(before, &[]);
    let rows = View(&*state).rows(&[table::EXPIRY], &end, FORGET_ROWS_MAX + 1)?;
    let more = rows.len() > FORGET_ROWS_MAX;
    for (row, _) in rows.into_iter().take(FORGET_ROWS_MAX) {
        state.delete(row.slice(end.len()..));
        state.delete(row);
    }
    Ok(if more { Outcome::NotEmpty } else { Outcome::Done })
}

fn oldest(view: View<'_>) -> Result<Option<Timestamp>, KvError> {
    let rows = view.rows_under(&[table::EXPIRY], 1)?;
    rows.first().map(|(row, _)| format::expiry_time(row)).transpose()
}
