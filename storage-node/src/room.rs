//! Which disks are too full for work that can wait.
//!
//! Re-coding writes new shards while the old ones are kept for a grace, so it may take as much room as it can write in that
//! time. What is left of a disk belongs to clients: below [`ROOM_PERCENT`] of its size, or [`ROOM_BYTES`] of a large one,
//! nothing is re-coded onto it until garbage collection has made room. What does not answer is not known to be full.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use parking_lot::Mutex;
use placement_types::{DiskId, NodeId};
use storage_node_proto::api::{DiskReport, ShardApi};

use crate::duties::Duties;
use crate::limits::{ROOM_BYTES, ROOM_FRESH, ROOM_PERCENT};

#[derive(Default)]
pub(crate) struct Room {
    /// The disks that were short of room when all were asked last, and when that was.
    short: Mutex<Option<(Duration, BTreeSet<DiskId>)>>,
}

impl Room {
    /// Whether one of these disks is to be left alone.
    pub async fn is_short(&self, duties: &Duties, disks: &[Option<DiskId>]) -> bool {
        let is_short = |short: &BTreeSet<DiskId>| disks.iter().flatten().any(|disk| short.contains(disk));
        let now = duties.env.monotonic();
        let fresh = |asked: &Option<(Duration, BTreeSet<DiskId>)>| {
            asked.as_ref().filter(|(at, _)| now.saturating_sub(*at) < ROOM_FRESH).map(|(_, short)| is_short(short))
        };
        let known = fresh(&self.short.lock());
        if let Some(known) = known {
            return known;
        }
        let short = ask(duties).await;
        let found = is_short(&short);
        *self.short.lock() = Some((now, short));
        found
    }
}

async fn ask(duties: &Duties) -> BTreeSet<DiskId> {
    let Some(map) = duties.holders.maps.borrow().clone() else { return BTreeSet::new() };
    let up: BTreeSet<NodeId> = map.disks.values().filter(|disk| map.takes_shards(disk.id)).map(|disk| disk.node).collect();
    let answers = up.into_iter().filter_map(|node| {
        let shards: Arc<dyn ShardApi> =
            if node == duties.holders.me { duties.holders.local.clone() } else { duties.holders.nodes.node(node)? };
        Some(async move { duties.env.timeout(duties.limits.call, shards.disks()).await })
    });
    let reports = join_all(answers).await.into_iter().flatten().flatten().flatten();
    reports.filter(is_full).map(|report| report.disk).collect()
}

fn is_full(report: &DiskReport) -> bool {
    report.available_bytes < (report.total_bytes / 100 * ROOM_PERCENT).min(ROOM_BYTES)
}

#[cfg(test)]
mod tests {
    use storage_node_proto::api::DiskHealth;

    use super::*;

    #[test]
    fn a_small_disk_keeps_a_share_and_a_large_one_some_gigabytes() {
        let check = |total_bytes, available_bytes, full| {
            let (disk, path, health) = (DiskId::from_u128(1), String::new(), DiskHealth::Good);
            let (shard_bytes, shards, quarantined, scrub) = Default::default();
            let report = DiskReport { disk, path, health, total_bytes, available_bytes, shard_bytes, shards, quarantined, scrub };
            assert_eq!(is_full(&report), full, "{available_bytes} of {total_bytes}");
        };
        check(100 << 30, 5 << 30, false);
        check(100 << 30, (5 << 30) - (1 << 20), true);
        check(20 << 40, 8 << 30, false);
        check(20 << 40, (8 << 30) - 1, true);
        check(0, 0, false);
    }
}
