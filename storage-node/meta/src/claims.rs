//! Claims: which transactions own something that is referred to. The orphan scrub asks (`Referenced`) before it deletes what a
//! fenced transaction wrote, so this must be exact: too few would delete live shards, too many would leak dead ones.
//!
//! A transaction has one claim for
//! - every data record filed under it, as long as a version or a part has the record,
//! - every shard it moved or re-coded, as long as the record lists that shard,
//! - every entry of the gc queue that waits for shards it wrote.

use placement_types::TxnId;
use storage_node_kv::{KvError, Overlay};

use crate::format::{self, table};
use crate::view::View;

fn claims_row(txn: TxnId) -> Vec<u8> {
    format::row(table::CLAIMS, &[&txn.to_bytes()])
}

pub(crate) fn is_referenced(view: View<'_>, txn: TxnId) -> Result<bool, KvError> {
    view.has(&claims_row(txn))
}

pub(crate) fn add(state: &mut Overlay<'_>, txn: TxnId, more: u64) -> Result<(), KvError> {
    let count: u64 = View(&*state).value("a claim", &claims_row(txn))?.unwrap_or(0);
    if more > 0 {
        state.put(claims_row(txn), format::encode_value(&count.saturating_add(more)));
    }
    Ok(())
}

/// Takes one claim away; the last one takes the row.
pub(crate) fn release(state: &mut Overlay<'_>, txn: TxnId) -> Result<(), KvError> {
    match View(&*state).value::<u64>("a claim", &claims_row(txn))? {
        Some(count) if count > 1 => state.put(claims_row(txn), format::encode_value(&(count - 1))),
        Some(_) => state.delete(claims_row(txn)),
        // Counting is ours alone: a claim that is not there means that rows were lost.
        None => return Err(KvError::Corrupt { detail: format!("transaction {txn} has no claim to release") }),
    }
    Ok(())
}
