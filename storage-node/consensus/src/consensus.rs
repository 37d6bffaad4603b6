//! The handle through which everybody talks to the driver.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use placement_types::{Env, GroupId, ReplicaId, TaskHandle};
use storage_node_kv::{Kv, KvRead, Prefixed};
use tokio::sync::{mpsc, oneshot, watch};

use crate::config::Config;
use crate::driver::Driver;
use crate::error::{CreateGroupError, MembersError, ProposeError, ReadError, ReadStateError, StartError, TransferError};
use crate::format::{MetaState, Wire, state_prefix};
use crate::limits::{ENTRY_BYTES_MAX, INBOUND_WAITING, REQUESTS_WAITING};
use crate::machine::{Machine, Transport};
use crate::offline::LogPosition;
use crate::snapshot::read_meta;
use crate::status::{GroupStatus, Health, Leaders};

/// Makes the machine of a group, when the group is first seen or recovered.
pub type Machines = Arc<dyn Fn(GroupId) -> Arc<dyn Machine> + Send + Sync>;

/// What the driver is asked.
pub(crate) enum Request {
    Create { group: GroupId, voters: Vec<ReplicaId>, reply: oneshot::Sender<Result<(), CreateGroupError>> },
    Propose { group: GroupId, entry: Bytes, reply: oneshot::Sender<Result<Bytes, ProposeError>> },
    Read { group: GroupId, reply: oneshot::Sender<Result<(), ReadError>> },
    Members { group: GroupId, voters: Vec<ReplicaId>, learners: Vec<ReplicaId>, reply: MembersReply },
    Lagging { group: GroupId, reply: oneshot::Sender<Option<Vec<ReplicaId>>> },
    Transfer { group: GroupId, to: ReplicaId, reply: oneshot::Sender<Result<(), TransferError>> },
    Shutdown { reply: oneshot::Sender<()> },
}

pub(crate) type MembersReply = oneshot::Sender<Result<(), MembersError>>;

/// What the driver shows without being asked.
pub(crate) struct Shown {
    pub status: RwLock<BTreeMap<GroupId, GroupStatus>>,
    pub leaders: watch::Sender<Leaders>,
    pub health: watch::Sender<Health>,
}

/// A running multi-group Raft node. Clones share it; when the last one is dropped the driver stops where it is, as in a crash.
#[derive(Clone)]
pub struct Consensus {
    inner: Arc<Inner>,
}

struct Inner {
    requests: mpsc::Sender<Request>,
    inbound: mpsc::Sender<Vec<Wire>>,
    shown: Arc<Shown>,
    replica: ReplicaId,
    kv: Arc<dyn Kv>,
    entry_bytes_max: usize,
    task: Mutex<Option<TaskHandle>>,
}

impl Consensus {
    /// Recovers every group in the log and runs the driver. Committed entries that the state does not have yet are applied
    /// again in the background; a [`Consensus::read_barrier`] waits for them.
    pub async fn start(
        config: Config,
        env: Env,
        kv: Arc<dyn Kv>,
        transport: Arc<dyn Transport>,
        machines: Machines,
    ) -> Result<Self, StartError> {
        let replica = config.replica;
        // Segments are small only in tests; a frame must fit one.
        let entry_bytes_max = ENTRY_BYTES_MAX.min(usize::try_from(config.segment_bytes / 8).unwrap_or(ENTRY_BYTES_MAX));
        let shown = Arc::new(Shown {
            status: RwLock::default(),
            leaders: watch::Sender::new(Leaders::default()),
            health: watch::Sender::new(Health::Running),
        });
        let (requests, asked) = mpsc::channel(REQUESTS_WAITING);
        let (inbound, arrived) = mpsc::channel(INBOUND_WAITING);
        let driver = Driver::recover(config, env.clone(), kv.clone(), transport, machines, shown.clone(), asked, arrived).await?;
        let task = env.spawn("consensus", driver.run());
        Ok(Self {
            inner: Arc::new(Inner { requests, inbound, shown, replica, kv, entry_bytes_max, task: Mutex::new(Some(task)) }),
        })
    }

    pub fn replica(&self) -> ReplicaId {
        self.inner.replica
    }

    /// Gives a group its first members. Every one of them is to be told, with the same list; telling one again changes
    /// nothing. Returns once it is durable here. A group of one elects itself at once.
    pub async fn create_group(&self, group: GroupId, voters: Vec<ReplicaId>) -> Result<(), CreateGroupError> {
        self.ask(|reply| Request::Create { group, voters, reply }).await.unwrap_or(Err(CreateGroupError::Stopped))
    }

    /// Replicates an entry and returns what the machine replied: then the entry is fsynced on a majority of the group and
    /// applied here. Dropping the future does not withdraw the entry.
    pub async fn propose(&self, group: GroupId, entry: Bytes) -> Result<Bytes, ProposeError> {
        let bytes_max = self.inner.entry_bytes_max;
        if entry.len() > bytes_max {
            return Err(ProposeError::TooLarge { bytes: entry.len(), bytes_max });
        }
        match self.ask(|reply| Request::Propose { group, entry, reply }).await {
            Ok(reply) => reply,
            Err(Unasked::Refused) => Err(ProposeError::Stopped),
            // The driver took the request and died with it.
            Err(Unasked::Forgotten) => Err(ProposeError::Unknown),
        }
    }

    /// Returns once the store here holds every entry that was acknowledged before the call, on any node (ReadIndex: a
    /// majority confirms this leader first). A read of the store after it is linearizable. Many callers share one round.
    pub async fn read_barrier(&self, group: GroupId) -> Result<(), ReadError> {
        self.ask(|reply| Request::Read { group, reply }).await.unwrap_or(Err(ReadError::Stopped))
    }

    /// Gives `read` a consistent view of the group's state, under the machine's own keys. After a [`Consensus::read_barrier`]
    /// what it sees is linearizable. Blocks: call it where blocking is allowed. A replica that lost the leadership since may be
    /// replacing its state by a snapshot; a view of that mixture is refused.
    pub fn read_state<T>(&self, group: GroupId, read: impl FnOnce(&dyn KvRead) -> T) -> Result<T, ReadStateError> {
        self.read_state_at(group, |_, state| read(state))
    }

    /// The same, and after which entry the state is as it is seen.
    pub fn read_state_at<T>(
        &self,
        group: GroupId,
        read: impl FnOnce(LogPosition, &dyn KvRead) -> T,
    ) -> Result<T, ReadStateError> {
        let view = self.inner.kv.snapshot();
        match read_meta(&*view, group)? {
            Some(meta) if meta.state == MetaState::Whole => {
                let at = LogPosition { term: meta.applied.term, index: meta.applied.index };
                Ok(read(at, &Prefixed::new(&*view, state_prefix(group))))
            }
            _ => Err(ReadStateError::NotWhole { group }),
        }
    }

    /// Hands over messages that another replica's transport carried here. Unreadable ones are dropped, and all of them when
    /// the driver cannot keep up: Raft sends again.
    pub fn step(&self, messages: Vec<Bytes>) {
        let mut readable = Vec::with_capacity(messages.len());
        for bytes in messages {
            match Wire::decode_message(&bytes) {
                Ok(message) if message.to == self.inner.replica => readable.push(message),
                Ok(message) => tracing::warn!(to = %message.to, "dropped a message for another replica"),
                Err(error) => tracing::warn!(%error, "dropped an unreadable message"),
            }
        }
        if !readable.is_empty() && self.inner.inbound.try_send(readable).is_err() {
            tracing::debug!("dropped messages: the driver is busy or has stopped");
        }
    }

    pub fn status(&self) -> Vec<GroupStatus> {
        self.inner.shown.status.read().values().cloned().collect()
    }

    pub fn group_status(&self, group: GroupId) -> Option<GroupStatus> {
        self.inner.shown.status.read().get(&group).cloned()
    }

    /// Who led the group when this node last heard of it.
    pub fn leader(&self, group: GroupId) -> Option<ReplicaId> {
        self.inner.shown.leaders.borrow().get(&group).and_then(|leadership| leadership.leader)
    }

    /// Whether this node leads the group, as far as it knows.
    pub fn leads(&self, group: GroupId) -> bool {
        self.leader(group) == Some(self.inner.replica)
    }

    /// The leaders of all groups; changes with every change of leader or term.
    pub fn leaders(&self) -> watch::Receiver<Leaders> {
        self.inner.shown.leaders.subscribe()
    }

    /// Whether the driver runs. After [`Health::Failed`] every call answers `Stopped`.
    pub fn health(&self) -> watch::Receiver<Health> {
        self.inner.shown.health.subscribe()
    }

    /// Replaces the members by joint consensus. Returns once the new membership alone decides. A replica that was not a
    /// member catches up by itself, from the log or a snapshot. Asking for what already is succeeds.
    pub async fn change_members(
        &self,
        group: GroupId,
        voters: Vec<ReplicaId>,
        learners: Vec<ReplicaId>,
    ) -> Result<(), MembersError> {
        match self.ask(|reply| Request::Members { group, voters, learners, reply }).await {
            Ok(reply) => reply,
            Err(Unasked::Refused) => Err(MembersError::Stopped),
            Err(Unasked::Forgotten) => Err(MembersError::Unknown),
        }
    }

    /// The voters and learners that are not known to have nearly all of the log; `None` when this node does not lead the group,
    /// or has stopped. A learner that does not lag may become a voter without holding anybody up.
    pub async fn lagging(&self, group: GroupId) -> Option<Vec<ReplicaId>> {
        self.ask(|reply| Request::Lagging { group, reply }).await.ok().flatten()
    }

    /// Hands leadership to another voter; proposals meanwhile hear `Busy`. Returns once this node follows.
    pub async fn transfer_leadership(&self, group: GroupId, to: ReplicaId) -> Result<(), TransferError> {
        self.ask(|reply| Request::Transfer { group, to, reply }).await.unwrap_or(Err(TransferError::Stopped))
    }

    /// Hands leaderships over, flushes the state, closes the log and stops. Idempotent.
    pub async fn shutdown(&self) {
        let _ = self.ask(|reply| Request::Shutdown { reply }).await;
        let task = self.inner.task.lock().take();
        if let Some(task) = task {
            task.join().await;
        }
    }

    /// Stops the driver where it is, whoever else holds a handle: a crash, for tests.
    #[cfg(test)]
    pub(crate) fn abort(&self) {
        self.inner.task.lock().take();
    }

    async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> Result<T, Unasked> {
        let (sender, receiver) = oneshot::channel();
        self.inner.requests.send(request(sender)).await.map_err(|_| Unasked::Refused)?;
        receiver.await.map_err(|_| Unasked::Forgotten)
    }
}

impl std::fmt::Debug for Consensus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Consensus").field("replica", &self.inner.replica).finish_non_exhaustive()
    }
}

enum Unasked {
    /// The driver had stopped before the request reached it.
    Refused,
    /// The driver stopped with the request in its hands.
    Forgotten,
}
