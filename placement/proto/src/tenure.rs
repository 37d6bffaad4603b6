//! Whether this process still is its node.
//!
//! A node's directory can be copied, and its process can be paused while the copy claims the node. What makes only one of the
//! two act:
//! - The system group has one run of each node on record. It registers another one only when the one before was not heard for
//!   [`CLAIM_SILENCE`], and never one whose directory has not seen it (`SystemChange::Claim`).
//! - Every process refuses the Raft messages of a run that it knows to be superseded, and says so. A process that hears this
//!   from anybody, or from the answer to its heartbeat, or from the map, has lost the node for good and ends.
//! - A process that finds that it did not run for as long as it takes to be replaced acknowledges nothing until the system
//!   group has heard it again ([`Tenure::holds`]). One that ran all the time and does not reach the system group goes on: the
//!   path of the data does not depend on it. If it was replaced behind a partition, what it stores meanwhile is what a disk
//!   restored from an image lacks, and is repaired like it.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use placement_map::ClusterMap;
use placement_types::{Boot, NodeId};
use tokio::sync::watch;

use crate::limits::CLAIM_SILENCE;

/// Cheap to clone; clones share what they learn.
#[derive(Debug, Clone)]
pub struct Tenure {
    node: NodeId,
    boot: Boot,
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    lost: watch::Sender<Option<Loss>>,
    life: Mutex<Life>,
}

#[derive(Debug, Clone, Copy)]
struct Life {
    /// When this process was last seen to run, on its monotonic clock. `None` until somebody looks: it has only just claimed
    /// the node.
    ran: Option<Duration>,
    /// It did not run for so long that it may have been replaced.
    doubtful: bool,
}

/// Why a process is its node no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Loss {
    #[error(
        "another process is node {node}: its data directory was copied, and the copy was started while this process was not \
         heard. Keep one of the two directories, and start only that"
    )]
    Superseded { node: NodeId },
    #[error("node {node} was removed from the cluster: start it with an empty data directory to add it again, as a new node")]
    Removed { node: NodeId },
}

impl Tenure {
    /// Of a run that begins.
    pub fn new(node: NodeId, boot: Boot) -> Self {
        let inner = Inner { lost: watch::Sender::new(None), life: Mutex::new(Life { ran: None, doubtful: false }) };
        Self { node, boot, inner: Arc::new(inner) }
    }

    pub fn node(&self) -> NodeId {
        self.node
    }

    pub fn boot(&self) -> Boot {
        self.boot
    }

    /// Whether this process may acknowledge what it did as the node.
    pub fn holds(&self, now: Duration) -> bool {
        let mut life = self.inner.life.lock();
        life.look(now);
        !life.doubtful && self.inner.lost.borrow().is_none()
    }

    /// This process runs: to be called at least every second or two.
    pub fn runs(&self, now: Duration) {
        let mut life = self.inner.life.lock();
        life.look(now);
        life.ran = life.ran.max(Some(now));
    }

    /// The system group heard what was sent at `sent`, and takes this process for the node.
    pub fn confirmed(&self, sent: Duration) {
        let mut life = self.inner.life.lock();
        // Sent before a pause, it says nothing about afterwards.
        if life.ran.is_none_or(|ran| sent >= ran) {
            *life = Life { ran: Some(sent), doubtful: false };
        }
    }

    /// Learns from a map.
    pub fn learn_map(&self, map: &ClusterMap) {
        if map.removed_nodes.contains(&self.node) {
            self.lose(Loss::Removed { node: self.node });
        } else if map.is_superseded(self.node, self.boot) {
            self.superseded();
        }
    }

    /// Somebody who knows says that another run is the node.
    pub fn superseded(&self) {
        self.lose(Loss::Superseded { node: self.node });
    }

    fn lose(&self, loss: Loss) {
        self.inner.lost.send_if_modified(|known| {
            let first = known.is_none();
            if first {
                *known = Some(loss);
            }
            first
        });
    }

    /// Resolves when this process has lost the node.
    pub async fn lost(&self) -> Loss {
        let mut lost = self.inner.lost.subscribe();
        let lost = lost.wait_for(Option::is_some).await.map(|loss| *loss);
        lost.ok().flatten().expect("the sender is in `self`, and what is waited for is there")
    }
}

impl Life {
    fn look(&mut self, now: Duration) {
        if self.ran.is_some_and(|ran| now.saturating_sub(ran) >= CLAIM_SILENCE) {
            self.doubtful = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: NodeId = NodeId::from_u128(1);

    fn tenure() -> Tenure {
        let tenure = Tenure::new(NODE, Boot { number: 5, nonce: 1 });
        tenure.runs(Duration::ZERO);
        tenure
    }

    fn at(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    #[test]
    fn a_process_that_was_paused_acknowledges_nothing_until_it_is_heard() {
        let tenure = tenure();
        (0..10).for_each(|tick| tenure.runs(at(tick * 700)));
        assert!(tenure.holds(at(6_300 + 2_900)));
        assert!(!tenure.holds(at(6_300 + 3_000)), "nobody noted that it runs");
        tenure.runs(at(60_000));
        assert!(!tenure.holds(at(60_001)), "it may have been replaced");
        tenure.confirmed(at(60_002));
        assert!(tenure.holds(at(60_003)));
    }

    #[test]
    fn an_answer_to_what_was_sent_before_a_pause_confirms_nothing() {
        let tenure = tenure();
        tenure.runs(at(60_000));
        tenure.confirmed(at(1_000));
        assert!(!tenure.holds(at(60_001)));
        tenure.confirmed(at(60_000));
        assert!(tenure.holds(at(60_001)));
    }

    #[test]
    fn a_process_that_runs_goes_on_without_the_system_group() {
        let tenure = tenure();
        (0..1000).for_each(|tick| tenure.runs(at(tick * 1000)));
        assert!(tenure.holds(at(999_500)));
    }

    #[tokio::test]
    async fn what_is_lost_stays_lost() {
        let tenure = tenure();
        tenure.superseded();
        tenure.confirmed(at(10));
        assert!(!tenure.holds(at(11)));
        assert_eq!(tenure.lost().await, Loss::Superseded { node: NODE });
    }
}
