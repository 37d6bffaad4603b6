//! What a node does unasked: the context of its background duties.
//!
//! Duties about a metadata group (gc, repair, forgetting) are done by its leader alone; two leaders for a moment do no harm,
//! since each step is idempotent or a compare-and-swap. A round that fails is logged and tried again at the next interval.

use std::sync::Arc;
use std::time::Duration;

use placement_types::{Env, GroupId, TxnId};
use storage_node_proto::api::MetaError;
use storage_node_proto::command::{Change, Command, Outcome};

use crate::coordinator::Coordinator;
use crate::group_client::GroupClient;
use crate::holders::Holders;
use crate::limits::Limits;
use crate::meter::Meter;
use crate::room::Room;
use crate::throttle::Throttle;

/// Tells which metadata groups this node leads. Advice: the proof comes with each query and proposal.
pub(crate) trait Leadership: Send + Sync {
    fn led_groups(&self) -> Vec<GroupId>;
}

/// What every duty needs. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Duties {
    pub env: Env,
    pub limits: Arc<Limits>,
    pub leadership: Arc<dyn Leadership>,
    pub groups: GroupClient,
    pub holders: Holders,
    pub coordinator: Coordinator,
    pub throttle: Arc<Throttle>,
    pub meter: Arc<Meter>,
    pub room: Arc<Room>,
}

impl Duties {
    /// A half to one and a half intervals, so that nodes and restarts do not march in step.
    pub async fn pause(&self, interval: Duration) {
        let millis = u64::try_from(interval.as_millis()).unwrap_or(u64::MAX).max(1);
        self.env.sleep(Duration::from_millis(millis / 2 + self.env.random_below(millis))).await;
    }

    /// Proposes a change under a fresh transaction.
    pub async fn propose(&self, group: GroupId, change: Change) -> Result<Outcome, MetaError> {
        let command = Command { txn: TxnId::random(&self.env), time: self.env.now(), change };
        self.groups.mutate(group, &command).await
    }
}
