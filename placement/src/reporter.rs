//! A node's heartbeat: says every [`HEARTBEAT_INTERVAL`] that it is alive and how its disks are, and learns from the answer
//! whether this process still is the node.

use std::sync::Arc;
use std::time::Duration;

use placement_proto::api::{Heartbeat, PlacementApi, PlacementError};
use placement_proto::tenure::Tenure;
use placement_types::{DiskId, Env, TaskHandle};

use crate::limits::{HEARTBEAT_DEADLINE, HEARTBEAT_INTERVAL};

/// Disks that are not good; asked before every heartbeat, so it must not block.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DiskReport {
    pub full: Vec<DiskId>,
    pub dead: Vec<DiskId>,
}

/// Starts the heartbeats of a node through `placement` (a [`PlacementClient`](crate::PlacementClient), which finds the leader).
/// Dropping the handle stops them, and the node is soon taken for down.
pub fn start(
    env: Env,
    tenure: Tenure,
    placement: Arc<dyn PlacementApi>,
    disks: impl Fn() -> DiskReport + Send + 'static,
) -> TaskHandle {
    env.clone().spawn("heartbeat", async move {
        let mut heard = true;
        loop {
            let DiskReport { full, dead } = disks();
            let beat = Heartbeat { node: tenure.node(), boot: tenure.boot(), full, dead };
            let sent_at = env.monotonic();
            tenure.runs(sent_at);
            let sent = env.timeout(HEARTBEAT_DEADLINE, placement.heartbeat(beat)).await;
            match &sent {
                Ok(Ok(())) => tenure.confirmed(sent_at),
                Ok(Err(PlacementError::Superseded { .. })) => tenure.superseded(),
                Ok(Err(_)) | Err(_) => {}
            }
            tenure.runs(env.monotonic());
            let failure = match sent {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(error.to_string()),
                Err(elapsed) => Some(elapsed.to_string()),
            };
            match (&failure, heard) {
                (Some(error), true) => tracing::warn!(error, "the system group does not hear this node"),
                (None, false) => tracing::info!("the system group hears this node again"),
                _ => {}
            }
            heard = failure.is_none();
            env.sleep(jittered(&env, HEARTBEAT_INTERVAL)).await;
        }
    })
}

/// A little more or less, so that nodes started together do not call together.
fn jittered(env: &Env, interval: Duration) -> Duration {
    let millis = u64::try_from(interval.as_millis()).unwrap_or(u64::MAX).max(4);
    Duration::from_millis(millis - millis / 8 + env.random_below(millis / 4))
}
