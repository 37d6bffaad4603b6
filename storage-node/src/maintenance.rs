//! Housekeeping of the disks and of the transaction memory of the groups this node leads.
//!
//! - A checkpoint bounds how much of a log a restart replays; compaction gives mostly dead segments back.
//! - `Forget` drops transaction outcomes and fences that nobody can ask about any more.

use placement_types::{GroupId, Timestamp};
use storage_node_proto::api::MetaError;
use storage_node_proto::command::{Change, Outcome};

use crate::duties::Duties;
use crate::findings::Findings;
use crate::limits::{COMPACTIONS_PER_ROUND_MAX, FORGETS_PER_ROUND_MAX};
use crate::local_disk::LocalDisk;

/// One round over a disk.
pub(crate) async fn disk_round(disk: &LocalDisk) {
    let (id, store) = (disk.id, disk.store());
    // A disk that was unmounted or swapped under us is dead from here on (D23, D24).
    if store.check_identity().await.is_err() {
        return;
    }
    for _ in 0..COMPACTIONS_PER_ROUND_MAX {
        match store.compact_once().await {
            Ok(Some(compaction)) => tracing::debug!(disk = %id, ?compaction, "a segment was compacted"),
            Ok(None) => break,
            Err(error) => {
                tracing::warn!(disk = %id, %error, "a segment could not be compacted");
                break;
            }
        }
    }
    if let Err(error) = store.checkpoint().await {
        tracing::warn!(disk = %id, %error, "a disk's index could not be checkpointed");
    }
}

/// Looks whether the files of a disk are there. An open file goes on being read when its name is gone, until the next restart:
/// what it holds is to be repaired before that.
pub(crate) async fn watch_segments(disk: &LocalDisk, findings: &Findings) {
    match disk.store().forget_missing_segments().await {
        Ok(missing) if missing.is_empty() => {}
        Ok(_) => findings.disk(disk.id),
        Err(error) => tracing::debug!(disk = %disk.id, %error, "it was not seen whether the segments of a disk are there"),
    }
}

/// One round over the groups this node leads.
pub(crate) async fn forget_round(duties: &Duties) {
    for group in duties.leadership.led_groups() {
        if let Err(error) = forget(duties, group).await {
            tracing::info!(%group, %error, "forgetting was put off");
        }
    }
}

pub(crate) async fn forget(duties: &Duties, group: GroupId) -> Result<(), MetaError> {
    let age = u64::try_from(duties.limits.forget_after.as_millis()).unwrap_or(u64::MAX);
    let before = Timestamp::from_millis(duties.env.now().as_millis().saturating_sub(age));
    for _ in 0..FORGETS_PER_ROUND_MAX {
        match duties.propose(group, Change::Forget { before }).await? {
            Outcome::NotEmpty => {}
            _ => break,
        }
    }
    Ok(())
}
