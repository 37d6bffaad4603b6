//! Metadata groups without Raft: the real state machine, one leader per group, and mischief on demand.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use parking_lot::Mutex;
use placement_types::{GroupId, NodeId, ReplicaId};
use storage_node_kv::{Durability, Kv as _, MemoryKv, Overlay};
use storage_node_proto::api::{MetaApi, MetaError};
use storage_node_proto::command::{Change, Command, Outcome};
use storage_node_proto::query::{Answer, Query};
use tokio::sync::oneshot;

use super::{GROUPS, Member, node_id};

/// What goes wrong with the next command that reaches a leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mischief {
    /// It is applied, and the answer is lost.
    LoseAnswer,
    /// It is refused for now.
    Refuse,
    /// It is neither applied nor answered.
    Swallow,
}

pub struct Groups {
    states: BTreeMap<GroupId, Mutex<State>>,
    mischief: Mutex<VecDeque<Mischief>>,
    queries_forbidden: AtomicBool,
    data_gate: Mutex<Option<Gate>>,
    stopped: Mutex<BTreeSet<GroupId>>,
    /// Every command that was applied, for looking at.
    pub applied: Mutex<Vec<Change>>,
}

/// Where one call is held: it says that it came, and goes on when it may.
struct Gate {
    came: oneshot::Sender<()>,
    may_pass: oneshot::Receiver<()>,
}

struct State {
    kv: MemoryKv,
    index: u64,
    leader: NodeId,
}

impl Groups {
    pub fn new() -> Self {
        let state = |group: u32| State { kv: MemoryKv::new(), index: 0, leader: node_id(1 + u128::from(group) % super::NODES) };
        Self {
            states: (1..=GROUPS).map(|group| (GroupId(group), Mutex::new(state(group)))).collect(),
            mischief: Mutex::default(),
            queries_forbidden: AtomicBool::new(false),
            data_gate: Mutex::default(),
            stopped: Mutex::default(),
            applied: Mutex::default(),
        }
    }

    /// The next commands meet this, in order.
    pub fn plan(&self, mischief: impl IntoIterator<Item = Mischief>) {
        self.mischief.lock().extend(mischief);
    }

    pub fn planned(&self) -> usize {
        self.mischief.lock().len()
    }

    pub fn drop_plans(&self) {
        self.mischief.lock().clear();
    }

    /// A query that comes while they are forbidden fails the test.
    pub fn forbid_queries(&self, forbidden: bool) {
        self.queries_forbidden.store(forbidden, Ordering::SeqCst);
    }

    /// Holds the next query for a version's data. The first future resolves when it came; sending lets it pass.
    pub fn hold_data_query(&self) -> (oneshot::Receiver<()>, oneshot::Sender<()>) {
        let (came, has_come) = oneshot::channel();
        let (pass, may_pass) = oneshot::channel();
        *self.data_gate.lock() = Some(Gate { came, may_pass });
        (has_come, pass)
    }

    /// The group has lost its majority.
    pub fn stop(&self, group: GroupId) {
        self.stopped.lock().insert(group);
    }

    /// Every group gets another leader.
    pub fn move_leaders(&self) {
        for state in self.states.values() {
            let mut state = state.lock();
            state.leader = node_id(state.leader.as_u128() % super::NODES + 1);
        }
    }

    fn state(&self, node: NodeId, group: GroupId) -> Result<parking_lot::MutexGuard<'_, State>, MetaError> {
        if self.stopped.lock().contains(&group) {
            return Err(MetaError::NotLeader { group, leader: None });
        }
        let state = self.states.get(&group).ok_or(MetaError::NoSuchGroup { group })?.lock();
        if state.leader != node {
            return Err(MetaError::NotLeader { group, leader: Some(state.leader) });
        }
        Ok(state)
    }
}

#[async_trait]
impl MetaApi for Member {
    async fn mutate(&self, group: GroupId, command: Command) -> Result<Outcome, MetaError> {
        let mischief = {
            let _leader = self.groups.state(self.id, group)?;
            self.groups.mischief.lock().pop_front()
        };
        match mischief {
            Some(Mischief::Refuse) => return Err(MetaError::Unavailable { group, why: "mischief".into() }),
            Some(Mischief::Swallow) => std::future::pending::<()>().await,
            Some(Mischief::LoseAnswer) | None => {}
        }
        let outcome = {
            let mut state = self.groups.state(self.id, group)?;
            state.index += 1;
            let mut overlay = Overlay::new(state.kv.as_read());
            let outcome = storage_node_meta::apply_command(&mut overlay, state.index, &command).expect("memory does not fail");
            let batch = overlay.into_batch(b"");
            state.kv.write(&batch, Durability::Synced).expect("memory does not fail");
            outcome
        };
        self.groups.applied.lock().push(command.change);
        if mischief == Some(Mischief::LoseAnswer) {
            return Err(MetaError::Unknown { group, why: "mischief".into() });
        }
        Ok(outcome)
    }

    async fn query(&self, group: GroupId, query: Query) -> Result<Answer, MetaError> {
        // Everything crosses a real await in a real cluster; without one here, concurrent requests would never interleave.
        tokio::task::yield_now().await;
        assert!(!self.groups.queries_forbidden.load(Ordering::SeqCst), "no backend may be touched");
        if matches!(query, Query::Data { .. }) {
            let gate = self.groups.data_gate.lock().take();
            if let Some(Gate { came, may_pass }) = gate {
                let _ = came.send(());
                let _ = may_pass.await;
            }
        }
        if query == Query::Members {
            return Ok(Answer::Members { replicas: (1..=super::NODES as u64).map(ReplicaId).collect() });
        }
        let state = self.groups.state(self.id, group)?;
        Ok(storage_node_meta::answer(state.kv.as_read(), &query).expect("memory does not fail"))
    }
}
