//! Applying one log entry: the gate every command passes, and who it is handed to.
//!
//! The order of the checks matters:
//! 1. A malformed command is refused by its form alone, so it is refused however often it comes.
//! 2. A transaction that has an outcome gets that one. It goes first so that a retry of a success is a success also after its
//!    bucket was deleted or a scrub fenced the transaction.
//! 3. A fenced transaction, or one so old that a fence may have been forgotten, is refused.
//! 4. A request to a deleted bucket is refused.
//! 5. The change itself checks its condition and writes, in one step.
//!
//! Refusals are outcomes too and are kept like successes. A proposer that was told no deletes the shards it wrote and answers
//! 4xx, "no effect": were the refusal forgotten, a delayed duplicate could commit after it, over deleted shards. Three are not
//! kept, as they stay true or lead nowhere: `Malformed` (of the form alone), `TxnAborted` (the fence is the memory), and
//! `PartsChanged`, which no client is told and whose list, once overtaken, never matches again.
//!
//! One transaction is one command: a proposer that tries again with other content takes a new id.

use bytes::Bytes;
use placement_types::{Timestamp, TxnId};
use storage_node_kv::{KvError, Overlay};
use storage_node_proto::command::{Change, Command, Outcome, Shelf};

use crate::format::Place;
use crate::view::View;
use crate::{check, data, garbage, shelves, transactions, uploads, versions};

/// Where in the log and by whom a change is made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry {
    pub(crate) index: u64,
    pub(crate) txn: TxnId,
    pub(crate) time: Timestamp,
}

/// Applies the log entry at `index` and returns the versioned bytes of its [`Outcome`].
///
/// After an error the state must be thrown away: it is the store that failed, and the entry may be half applied.
pub fn apply(state: &mut Overlay<'_>, index: u64, entry: &[u8]) -> Result<Bytes, KvError> {
    let outcome = match Command::from_versioned(entry) {
        Ok(command) => apply_command(state, index, &command)?,
        Err(error) => Outcome::Malformed { why: error.to_string() },
    };
    Ok(outcome.to_versioned())
}

/// [`apply`] for a command that is decoded already.
pub fn apply_command(state: &mut Overlay<'_>, index: u64, command: &Command) -> Result<Outcome, KvError> {
    if let Err(why) = check::command(command) {
        return Ok(Outcome::Malformed { why: why.to_owned() });
    }
    let entry = Entry { index, txn: command.txn, time: command.time };
    match &command.change {
        Change::Put { shelf, key, versioning, condition, record, data } => once(state, entry, Some(*shelf), |state| {
            versions::put(state, entry, Place { shelf: *shelf, key }, *versioning, condition, record, data.as_ref())
        }),
        Change::Delete { shelf, key, versioning, condition, selector } => once(state, entry, Some(*shelf), |state| {
            versions::delete(state, entry, Place { shelf: *shelf, key }, *versioning, condition, *selector)
        }),
        Change::SetAttributes { shelf, key, selector, written_by, attributes } => once(state, entry, Some(*shelf), |state| {
            versions::set_attributes(state, Place { shelf: *shelf, key }, *selector, *written_by, attributes)
        }),
        Change::CreateUpload { shelf, key, upload } => {
            once(state, entry, Some(*shelf), |state| uploads::create(state, Place { shelf: *shelf, key }, upload))
        }
        Change::PutPart { shelf, key, upload, number, md5, checksum, data } => once(state, entry, Some(*shelf), |state| {
            let content = uploads::PartContent { md5, checksum: checksum.as_ref(), data: data.as_ref() };
            uploads::put_part(state, entry, Place { shelf: *shelf, key }, *upload, *number, content)
        }),
        Change::CompleteUpload { shelf, key, upload, versioning, condition, record } => {
            once(state, entry, Some(*shelf), |state| {
                uploads::complete(state, entry, Place { shelf: *shelf, key }, *upload, *versioning, condition, record)
            })
        }
        Change::AbortUpload { shelf, key, upload } => {
            once(state, entry, Some(*shelf), |state| uploads::abort(state, entry, Place { shelf: *shelf, key }, *upload))
        }
        Change::FenceShelf { shelf } => once(state, entry, None, |state| shelves::fence(state, entry, *shelf)),
        Change::UnfenceShelf { shelf } => once(state, entry, None, |state| shelves::unfence(state, *shelf)),
        Change::PurgeShelf { shelf } => once(state, entry, None, |state| shelves::purge(state, entry, *shelf)),
        Change::MoveShard { shelf, key, owner, chunk, index, from, to } => once(state, entry, None, |state| {
            let slot = data::SlotOfChunk { owner: *owner, chunk: *chunk, index: *index };
            data::move_shard(state, entry, Place { shelf: *shelf, key }, slot, *from, *to)
        }),
        Change::Recode { shelf, key, owner, from, to } => {
            once(state, entry, None, |state| data::recode(state, entry, Place { shelf: *shelf, key }, *owner, from, to))
        }
        // The rest are idempotent by nature, so a repetition needs no memory.
        Change::AbortTxns { txns } => transactions::abort(state, entry, txns),
        Change::FinishGc { chunks, before } => garbage::finish(state, entry, chunks, *before),
        Change::FinishGcRows { rows } => garbage::finish_rows(state, entry, rows),
        Change::Forget { before } => transactions::forget(state, *before),
        Change::Nothing {} => Ok(Outcome::Done),
    }
}

/// Steps 2 to 5 of the gate. `shelf` is that of a client's request.
fn once(
    state: &mut Overlay<'_>,
    entry: Entry,
    shelf: Option<Shelf>,
    change: impl FnOnce(&mut Overlay<'_>) -> Result<Outcome, KvError>,
) -> Result<Outcome, KvError> {
    let view = View(&*state);
    if let Some(first) = transactions::outcome(view, entry.txn)? {
        return Ok(first);
    }
    if transactions::is_refused(view, entry)? {
        return Ok(Outcome::TxnAborted);
    }
    let outcome = match shelf {
        Some(shelf) if view.is_fenced(shelf)? => Outcome::BucketGone,
        _ => change(state)?,
    };
    if !matches!(outcome, Outcome::Malformed { .. } | Outcome::PartsChanged) {
        transactions::record(state, entry, &outcome);
    }
    Ok(outcome)
}
