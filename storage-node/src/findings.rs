//! What this node finds out about its own disks, on its way to the leaders that can repair it.
//!
//! A read that meets a missing or corrupt shard notes it here, and so does the scrub; the client has been served from the
//! other shards by then. A round reads each shard that was noted once more, as a whole: what is bad goes into quarantine on
//! its disk. Then every node is told, for which of them leads the metadata group of a missing shard nobody here knows; those
//! that lead none forget it. A leader looks the shard up in its manifests and asks the disk before it repairs anything
//! ([`crate::absence`]), so a report is a hint: lost, doubled or wrong ones do no harm.
//!
//! A node that starts reports each of its disks as a whole: it may have been restored from an old image, or lost a file while
//! nobody looked. What stays in quarantine is reported again from time to time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use parking_lot::Mutex;
use placement_types::{DiskId, NodeId, ShardId};
use storage_node_proto::damage::DamageReport;
use storage_node_store::Held;

use crate::disks::Disks;
use crate::duties::Duties;
use crate::limits::{FINDINGS_MAX, PARCEL_TRIES_MAX, PARCELS_MAX, REPORT_SHARDS_MAX};
use crate::local_disk::Called;
use crate::metrics;
use crate::survey::Surveys;

/// Where reads and scrubs note what they meet. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Findings {
    noted: Arc<Mutex<Noted>>,
}

#[derive(Default)]
struct Noted {
    /// To be read once more.
    suspects: BTreeSet<(DiskId, ShardId)>,
    /// Known to be bad.
    bad: BTreeSet<ShardId>,
    disks: BTreeSet<DiskId>,
}

impl Findings {
    /// A shard could not be read, or is not there.
    pub fn suspect(&self, disk: DiskId, shard: ShardId) {
        let mut noted = self.noted.lock();
        if noted.suspects.len() < FINDINGS_MAX {
            noted.suspects.insert((disk, shard));
        } else {
            // So many at once are not rot; one look at the whole disk is cheaper than a list.
            noted.disks.insert(disk);
        }
    }

    /// A shard is bad, and in quarantine.
    pub fn bad(&self, disk: DiskId, shard: ShardId) {
        let mut noted = self.noted.lock();
        if noted.bad.len() < FINDINGS_MAX {
            noted.bad.insert(shard);
        } else {
            noted.disks.insert(disk);
        }
    }

    /// Anything on the disk may be missing.
    pub fn disk(&self, disk: DiskId) {
        self.noted.lock().disks.insert(disk);
    }

    fn take(&self) -> Noted {
        std::mem::take(&mut *self.noted.lock())
    }
}

/// A report on its way.
struct Parcel {
    report: DamageReport,
    /// Who has not got it yet.
    nodes: BTreeSet<NodeId>,
    tries: u32,
}

/// Takes what was noted to the leaders, round by round.
#[derive(Default)]
pub(crate) struct Courier {
    parcels: Vec<Parcel>,
    /// Suspects looked at lately, and until when they are not looked at again: a popular object meets its bad shard often.
    recent: BTreeMap<(DiskId, ShardId), Duration>,
    /// When the quarantined shards were reported last.
    repeated_at: Duration,
}

impl Courier {
    pub async fn round(&mut self, duties: &Duties, disks: &Disks, findings: &Findings, surveys: &Surveys) {
        // Without a map there is nobody to tell; what was noted waits.
        let Some(map) = duties.holders.maps.borrow().clone() else { return };
        let Noted { suspects, mut bad, disks: whole } = findings.take();
        self.examine(duties, disks, suspects, &mut bad).await;
        self.repeat_quarantined(duties, disks, &mut bad);
        let bad: Vec<ShardId> = bad.into_iter().collect();
        let of_shards = bad.chunks(REPORT_SHARDS_MAX).map(|shards| DamageReport::Shards { shards: shards.to_vec() });
        for report in of_shards.chain(whole.into_iter().map(|disk| DamageReport::Disk { disk })) {
            surveys.reports.note(&report);
            let nodes: BTreeSet<NodeId> = map.nodes.keys().copied().filter(|node| *node != duties.holders.me).collect();
            if !nodes.is_empty() && self.parcels.len() < PARCELS_MAX {
                self.parcels.push(Parcel { report, nodes, tries: 0 });
            }
        }
        self.deliver(duties).await;
    }

    /// Looks at what readers met, and keeps what is really bad.
    async fn examine(
        &mut self,
        duties: &Duties,
        disks: &Disks,
        suspects: BTreeSet<(DiskId, ShardId)>,
        bad: &mut BTreeSet<ShardId>,
    ) {
        let now = duties.env.monotonic();
        self.recent.retain(|_, until| *until > now);
        for (id, shard) in suspects {
            let Some(disk) = disks.get(id).filter(|_| !self.recent.contains_key(&(id, shard))) else { continue };
            if self.recent.len() < FINDINGS_MAX {
                self.recent.insert((id, shard), now + duties.limits.suspect_again);
            }
            match duties.throttle.background(disk.examine(shard)).await {
                Called::Answered(Ok(examined)) => {
                    if examined.news {
                        metrics::bitrot_detected();
                    }
                    if examined.held != Held::Whole {
                        bad.insert(shard);
                    }
                }
                Called::Answered(Err(error)) => tracing::warn!(disk = %id, %shard, %error, "a bad shard could not be examined"),
                Called::Lost => return,
            }
        }
    }

    fn repeat_quarantined(&mut self, duties: &Duties, disks: &Disks, bad: &mut BTreeSet<ShardId>) {
        let now = duties.env.monotonic();
        if now.saturating_sub(self.repeated_at) < duties.limits.quarantine_repeat {
            return;
        }
        self.repeated_at = now;
        for disk in disks.all() {
            bad.extend(disk.store().quarantined(None, REPORT_SHARDS_MAX));
        }
    }

    async fn deliver(&mut self, duties: &Duties) {
        for parcel in &mut self.parcels {
            parcel.tries += 1;
            let report = &parcel.report;
            let sends = parcel.nodes.iter().map(|node| async move {
                let peer = duties.holders.nodes.node(*node)?;
                let sent = duties.env.timeout(duties.limits.call, peer.report_damage(report.clone())).await;
                matches!(sent, Ok(Ok(()))).then_some(*node)
            });
            for node in join_all(sends).await.into_iter().flatten() {
                parcel.nodes.remove(&node);
            }
        }
        self.parcels.retain(|parcel| !parcel.nodes.is_empty() && parcel.tries < PARCEL_TRIES_MAX);
    }
}
