//! The loop that owns all groups.
//!
//! A turn: take what arrived (results of jobs, messages, requests, the tick), let each group produce work, start the log's
//! next write when none runs, start what is to be applied, send. Nothing in a turn blocks; what does is a job that reports
//! back. While a write runs, turns go on and fill the next frame: that is the group commit.

mod apply;
mod group;
mod inbound;
mod jobs;
mod outbox;
mod receive;
mod recover;
mod requests;
mod send;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::FutureExt;
use futures::stream::FuturesUnordered;
use placement_types::{BoxFuture, Env, GroupId, ReplicaId};
use raft::eraftpb::ConfState;
use storage_node_kv::Kv;
use tokio::sync::{mpsc, oneshot};

use crate::config::Config;
use crate::consensus::{Machines, Request, Shown};
use crate::error::{CreateGroupError, MembersError, ProposeError, ReadError, StartError, TransferError};
use crate::format::{Body, Wire};
use crate::limits::{GROUPS_MAX, HANDOVER_TICKS, INBOUND_PER_TURN, MEMBERS_MAX, REQUESTS_PER_TURN, STALLED_WRITE_TICKS};
use crate::log::{Batch, FIRST_POINT, Log};
use crate::machine::Transport;
use crate::status::{Health, Leaders};
use crate::store::GroupStore;

pub(crate) use apply::ENTRY_VERSION;
pub(crate) use receive::incoming_path;
pub(crate) use recover::{recover, snapshot_dir};

use group::Group;
use jobs::Done;
use outbox::Outbox;

pub(crate) struct Driver {
    config: Config,
    env: Env,
    kv: Arc<dyn Kv>,
    transport: Arc<dyn Transport>,
    machines: Machines,
    shown: Arc<Shown>,
    requests: mpsc::Receiver<Request>,
    inbound: mpsc::Receiver<Vec<Wire>>,
    log: Log,
    groups: BTreeMap<GroupId, Group>,
    /// Groups to create once their current business is done.
    creations: Vec<Creation>,
    /// Creations whose record waits for its write.
    created: Vec<Created>,
    outbox: Outbox,
    jobs: FuturesUnordered<BoxFuture<'static, Done>>,
    logger: slog::Logger,
    snapshot_dir: PathBuf,
    now: u64,
    next_tick: Duration,
    builds: usize,
    /// The tick at which the log's last write began.
    write_began: u64,
    flushing: bool,
    flush_due: u64,
    making_spare: bool,
    spare_retry: u64,
    stopping: Option<Stopping>,
    failure: Option<String>,
    _alive: Alive,
    /// Held while the log is in use: by the driver, and by every job, which may outlive it.
    lock: Arc<dyn Send + Sync>,
}

/// Tells everybody when the driver ends in a way nobody planned, such as a panic.
struct Alive {
    shown: Arc<Shown>,
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.shown.health.send_if_modified(|health| {
            let unplanned = *health == Health::Running;
            if unplanned {
                *health = Health::Failed { reason: "the driver ended unexpectedly".to_owned() };
            }
            unplanned
        });
    }
}

struct Creation {
    group: GroupId,
    voters: Vec<ReplicaId>,
    reply: oneshot::Sender<Result<(), CreateGroupError>>,
}

struct Created {
    group: GroupId,
    batch: Batch,
    reply: oneshot::Sender<Result<(), CreateGroupError>>,
}

struct Stopping {
    deadline: u64,
    replies: Vec<oneshot::Sender<()>>,
}

impl Driver {
    #[allow(clippy::too_many_arguments)]
    pub(crate) async fn recover(
        config: Config,
        env: Env,
        kv: Arc<dyn Kv>,
        transport: Arc<dyn Transport>,
        machines: Machines,
        shown: Arc<Shown>,
        requests: mpsc::Receiver<Request>,
        inbound: mpsc::Receiver<Vec<Wire>>,
    ) -> Result<Self, StartError> {
        let (opening, opened_env, opened_kv) = (config.clone(), env.clone(), kv.clone());
        let recovered = env.run_blocking(move || recover::recover(&opening, &opened_env, &*opened_kv)).await?;
        let logger = crate::logger::logger();
        let mut groups = BTreeMap::new();
        for (id, store, applied) in recovered.groups {
            let mut group = Group::new(id, &config, store, applied, machines(id), &logger)?;
            group.campaign = is_alone(&group.store().members, config.replica);
            groups.insert(id, group);
        }
        let mut driver = Self {
            _alive: Alive { shown: shown.clone() },
            outbox: Outbox::new(config.replica),
            next_tick: env.monotonic() + config.tick,
            snapshot_dir: snapshot_dir(&config.log_dir),
            log: recovered.log,
            lock: recovered.lock,
            config,
            env,
            kv,
            transport,
            machines,
            shown,
            requests,
            inbound,
            groups,
            creations: Vec::new(),
            created: Vec::new(),
            jobs: FuturesUnordered::new(),
            logger,
            now: 0,
            builds: 0,
            write_began: 0,
            flushing: false,
            flush_due: 0,
            making_spare: false,
            spare_retry: 0,
            stopping: None,
            failure: None,
        };
        driver.show();
        Ok(driver)
    }

    /// Runs until it is told to stop, every handle is gone, or the disk fails.
    pub(crate) async fn run(mut self) {
        loop {
            let wait = self.next_tick.saturating_sub(self.env.monotonic());
            let tick = self.env.clock.sleep(wait);
            tokio::select! {
                biased;
                Some(done) = self.jobs.next(), if !self.jobs.is_empty() => self.take_done(done),
                Some(messages) = self.inbound.recv() => self.take_messages(messages),
                request = self.requests.recv() => match request {
                    Some(request) => self.take_request(request),
                    None => return,
                },
                () = tick => {}
            }
            self.take_waiting();
            self.turn();
            if let Some(reason) = self.failure.take() {
                tracing::error!(reason, "consensus stops: nothing is acknowledged any more");
                self.shown.status.write().clear();
                self.shown.leaders.send_replace(Leaders::default());
                self.shown.health.send_replace(Health::Failed { reason });
                return;
            }
            if self.may_stop() {
                self.stop().await;
                return;
            }
        }
    }

    /// Takes the rest of what has arrived, so that one fsync serves all of it.
    fn take_waiting(&mut self) {
        while let Some(Some(done)) = self.jobs.next().now_or_never() {
            self.take_done(done);
        }
        for _ in 0..INBOUND_PER_TURN {
            let Ok(messages) = self.inbound.try_recv() else { break };
            self.take_messages(messages);
        }
        for _ in 0..REQUESTS_PER_TURN {
            let Ok(request) = self.requests.try_recv() else { break };
            self.take_request(request);
        }
        let now = self.env.monotonic();
        if now >= self.next_tick {
            // One tick, however long this process was stopped: a pause must not look like a missing leader.
            self.next_tick = now + self.config.tick;
            self.tick();
        }
    }

    fn tick(&mut self) {
        self.now += 1;
        let patience = 2 * u64::from(self.config.election_ticks);
        let mut removed = Vec::new();
        for group in self.groups.values_mut() {
            group.tick(&self.env, self.config.election_ticks);
            group.expire(self.now, patience);
            group.tick_sending();
            removed.extend(group.tick_built());
            removed.extend(group.tick_receiving());
        }
        for path in removed {
            self.remove_file(path);
        }
        let stalled = self.log.is_writing() && self.now - self.write_began >= STALLED_WRITE_TICKS;
        if stalled && (self.now - self.write_began).is_multiple_of(STALLED_WRITE_TICKS) {
            tracing::error!(ticks = self.now - self.write_began, "the log's disk does not answer");
        }
        if stalled || self.stopping.as_ref().is_some_and(|stopping| self.now < stopping.deadline) {
            self.hand_over();
        }
    }

    fn take_messages(&mut self, messages: Vec<Wire>) {
        for message in messages {
            self.take_message(message);
        }
    }

    fn take_message(&mut self, wire: Wire) {
        let introduced = match &wire.body {
            Body::Raft(message) => inbound::introduces(message),
            Body::Chunk(_) => true,
            Body::Ack { .. } => false,
        };
        let known = self.groups.contains_key(&wire.group) || (introduced && self.add_empty_group(wire.group));
        if !known {
            return;
        }
        let group = self.groups.get_mut(&wire.group).expect("it is there or was just added");
        match wire.body {
            Body::Raft(message) => group.step(*message),
            Body::Ack { transfer, next, refused } => group.take_ack(wire.from, transfer, next, refused),
            Body::Chunk(chunk) => {
                let context = receive::ReceiveContext {
                    fs: &self.env.fs,
                    dir: &self.snapshot_dir,
                    outbox: &mut self.outbox,
                    number: self.env.random_u128().max(1),
                };
                let (job, removed) = group.take_chunk(wire.from, chunk, context);
                self.receive(job, removed);
            }
        }
    }

    /// A group that a peer says exists: it has no members here until the leader sends its state.
    fn add_empty_group(&mut self, id: GroupId) -> bool {
        if self.groups.len() >= GROUPS_MAX || self.stopping.is_some() {
            return false;
        }
        let store = GroupStore::new(id, self.log.segments().clone());
        let machine = (self.machines)(id);
        match Group::new(id, &self.config, store, Default::default(), machine, &self.logger) {
            Ok(group) => self.groups.insert(id, group).is_none(),
            Err(error) => {
                tracing::error!(group = %id, %error, "a group could not be added");
                false
            }
        }
    }

    fn take_request(&mut self, request: Request) {
        if self.stopping.is_some() {
            return self.refuse(request);
        }
        match request {
            Request::Create { group, voters, reply } => self.creations.push(Creation { group, voters, reply }),
            Request::Propose { group, entry, reply } => match self.groups.get_mut(&group) {
                Some(group) => group.accept_proposal(entry, reply),
                None => drop(reply.send(Err(ProposeError::NoGroup { group }))),
            },
            Request::Read { group, reply } => match self.groups.get_mut(&group) {
                Some(group) => group.reads_waiting.push(reply),
                None => drop(reply.send(Err(ReadError::NoGroup { group }))),
            },
            Request::Members { group, voters, learners, reply } => match self.groups.get_mut(&group) {
                Some(_) if !are_members(&voters, &learners) => drop(reply.send(Err(MembersError::Members { group }))),
                Some(group) => group.change_members(&voters, &learners, reply),
                None => drop(reply.send(Err(MembersError::NoGroup { group }))),
            },
            Request::Lagging { group, reply } => {
                let _ = reply.send(self.groups.get(&group).and_then(Group::lagging));
            }
            Request::Transfer { group, to, reply } => match self.groups.get_mut(&group) {
                Some(group) => group.transfer(to, self.now + u64::from(self.config.election_ticks) + 1, reply),
                None => drop(reply.send(Err(TransferError::NoGroup { group }))),
            },
            Request::Shutdown { reply } => {
                let deadline = self.now + u64::from(HANDOVER_TICKS);
                self.stopping = Some(Stopping { deadline, replies: vec![reply] });
                self.hand_over();
            }
        }
    }

    fn refuse(&mut self, request: Request) {
        match request {
            Request::Create { reply, .. } => drop(reply.send(Err(CreateGroupError::Stopped))),
            Request::Propose { reply, .. } => drop(reply.send(Err(ProposeError::Stopped))),
            Request::Read { reply, .. } => drop(reply.send(Err(ReadError::Stopped))),
            Request::Members { reply, .. } => drop(reply.send(Err(MembersError::Stopped))),
            Request::Lagging { reply, .. } => drop(reply.send(None)),
            Request::Transfer { reply, .. } => drop(reply.send(Err(TransferError::Stopped))),
            Request::Shutdown { reply } => {
                let stopping = self.stopping.as_mut().expect("requests are refused only while stopping");
                stopping.replies.push(reply);
            }
        }
    }

    /// Does everything that can be done without waiting.
    fn turn(&mut self) {
        self.create_groups();
        let record_bytes = crate::log::frame_bytes(self.config.segment_bytes) / 2;
        let budget = self.config.cache_bytes / self.groups.len().max(1);
        for group in self.groups.values_mut() {
            group.sent = group.raw.raft.raft_log.last_index();
            group.propose_new();
            group.start_reads();
            group.produce(&mut self.log, &mut self.outbox, record_bytes);
            if group.observe() == Some(true) {
                group.lose_leadership(self.now);
            }
            let handed = group.handed;
            group.store_mut().evict(handed, budget);
        }
        self.start_jobs();
        self.outbox.flush(&*self.transport);
        self.show();
    }

    fn create_groups(&mut self) {
        for creation in std::mem::take(&mut self.creations) {
            let voters = &creation.voters;
            if !are_members(voters, &[]) {
                let _ = creation.reply.send(Err(CreateGroupError::Members { group: creation.group }));
            } else if self.groups.get(&creation.group).is_some_and(Group::is_initialized) {
                let _ = creation.reply.send(Ok(()));
            } else if self.groups.get(&creation.group).is_some_and(|group| !group.is_settled()) {
                // It was heard of, and perhaps voted: that must be on disk before Raft is set up anew.
                self.creations.push(creation);
            } else if self.groups.len() >= GROUPS_MAX {
                let _ = creation.reply.send(Err(CreateGroupError::Full));
            } else {
                self.create_group(creation);
            }
        }
    }

    /// Gives a group its first members. What it promised before, as a group without members, stays promised.
    fn create_group(&mut self, creation: Creation) {
        let id = creation.group;
        let mut members = ConfState::default();
        members.voters = creation.voters.iter().map(|replica| replica.0).collect();
        let mut store = GroupStore::new(id, self.log.segments().clone());
        if let Some(before) = self.groups.remove(&id) {
            store.hard = before.store().hard;
        }
        store.hard.term = store.hard.term.max(FIRST_POINT.term);
        store.hard.commit = FIRST_POINT.index;
        store.restore(FIRST_POINT, members.clone());
        let machine = (self.machines)(id);
        let mut group = match Group::new(id, &self.config, store, FIRST_POINT, machine, &self.logger) {
            Ok(group) => group,
            Err(error) => return self.fail(format!("group {id}: {error}")),
        };
        group.log_created(&mut self.log, &members);
        // The first of several asks at once instead of letting all wait for an election timeout; it is only a head start.
        group.campaign = creation.voters.first() == Some(&self.config.replica);
        self.created.push(Created { group: id, batch: group.last_batch(), reply: creation.reply });
        self.groups.insert(id, group);
    }

    fn hand_over(&mut self) {
        self.groups.values_mut().for_each(Group::hand_over);
    }

    /// Whether nobody needs this node to go on: every group is led elsewhere, or only lives here, or time is up.
    fn may_stop(&self) -> bool {
        let Some(stopping) = &self.stopping else { return false };
        let leads_others = |group: &Group| group.is_leader() && group.best_successor().is_some();
        self.now >= stopping.deadline || !self.groups.values().any(leads_others)
    }

    /// Brings everything to disk and leaves the mark of a graceful stop.
    async fn stop(mut self) {
        for group in self.groups.values_mut() {
            if group.commit_unlogged {
                group.log_hard_state(&mut self.log);
            }
        }
        while self.failure.is_none() && !self.is_at_rest() {
            self.start_jobs();
            // A spare that cannot be made (the disk is full) leaves what waits for it unwritten, as a crash would.
            let Some(done) = self.jobs.next().await else { break };
            self.take_done(done);
        }
        let kv = self.kv.clone();
        if let Err(error) = self.env.run_blocking(move || kv.flush()).await {
            tracing::error!(%error, "the state could not be flushed; it is replayed at the next start");
        } else if let Some(write) = self.log.begin_stop()
            && let Err(error) = self.env.run_blocking(move || write.run()).await
        {
            tracing::error!(%error, "the log could not be closed");
        }
        self.outbox.flush(&*self.transport);
        self.shown.status.write().clear();
        self.shown.leaders.send_replace(Leaders::default());
        self.shown.health.send_replace(Health::Stopped);
        for reply in self.stopping.take().map(|stopping| stopping.replies).unwrap_or_default() {
            let _ = reply.send(());
        }
    }

    fn is_at_rest(&self) -> bool {
        !self.log.is_writing()
            && !self.log.has_pending()
            && self.groups.values().all(|group| !group.applying && group.queue.is_empty())
    }

    fn fail(&mut self, reason: String) {
        self.failure.get_or_insert(reason);
    }

    /// Publishes what changed.
    fn show(&mut self) {
        let mut shown = self.shown.status.write();
        for (id, group) in &self.groups {
            match shown.get_mut(id) {
                // The common case: only the indexes move.
                Some(status) if group.shows_as(status) => {
                    (status.committed, status.applied) = (group.committed(), group.applied.index);
                }
                _ => drop(shown.insert(*id, group.status())),
            }
        }
        drop(shown);
        self.shown.leaders.send_if_modified(|leaders| {
            let changed = leaders.len() != self.groups.len()
                || self.groups.iter().any(|(id, group)| leaders.get(id) != Some(&group.leadership()));
            if changed {
                *leaders = Arc::new(self.groups.iter().map(|(id, group)| (*id, group.leadership())).collect());
            }
            changed
        });
    }
}

/// Whether this replica alone decides.
fn is_alone(members: &ConfState, replica: ReplicaId) -> bool {
    members.voters == [replica.0] && members.voters_outgoing.is_empty()
}

fn are_members(voters: &[ReplicaId], learners: &[ReplicaId]) -> bool {
    let mut all: Vec<u64> = voters.iter().chain(learners).map(|replica| replica.0).collect();
    all.sort_unstable();
    let distinct = all.windows(2).all(|pair| pair[0] != pair[1]);
    !voters.is_empty() && all.len() <= MEMBERS_MAX && distinct && all[0] != 0
}
