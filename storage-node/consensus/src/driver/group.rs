//! One group: Raft's state machine, and the work it asked for that is not done yet.
//!
//! # Invariants
//! - A message that promises something leaves only when the write that makes it true, and every write of the group before it,
//!   is durable (`outstanding` is released in order).
//! - Nothing leaves in a term that this node has not durably entered. raft-rs lets a leader send before its fsync, which is
//!   right only if the fsync of its vote came first; a group of one elects itself without any.
//! - `applied` is what the store shows; Raft itself is told that entries are applied when they are given out, because for it
//!   that only decides about memberships, which take effect when given out.

use std::cmp::Reverse;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use placement_types::{Env, GroupId, ReplicaId, Term};
use raft::eraftpb::{ConfState, Entry, EntryType, Message, MessageType};
use raft::{RawNode, Ready, StateRole};
use tokio::sync::oneshot;

use super::apply::ApplyItem;
use super::outbox::Outbox;
use super::receive::Incoming;
use super::requests::{MembersWaiter, NewProposal, Proposal, ReadRound, TransferWaiter};
use super::send::Outgoing;
use crate::config::Config;
use crate::error::{ReadError, StartError};
use crate::format::{Hard, Origin, Point, Record, decode_change};
use crate::limits::{APPEND_BYTES, APPENDS_IN_FLIGHT, APPLY_BYTES, READIES_PER_TURN, SLOW_WRITES, UNCOMMITTED_BYTES};
use crate::log::{Batch, Log};
use crate::machine::Machine;
use crate::snapshot::Built;
use crate::status::{GroupStatus, Leadership, Role};
use crate::store::GroupStore;

/// Work handed out by Raft whose durability is awaited.
struct Outstanding {
    number: u64,
    batch: Batch,
    term: u64,
    messages: Vec<Message>,
    /// The index of a snapshot that became the log.
    snapshot: Option<u64>,
}

pub(crate) struct Group {
    pub id: GroupId,
    pub raw: RawNode<GroupStore>,
    pub machine: Arc<dyn Machine>,
    outstanding: VecDeque<Outstanding>,
    last_batch: Batch,
    synced_term: u64,
    /// The last entry given out to be applied.
    pub handed: u64,
    /// The last entry that the store shows.
    pub applied: Point,
    /// The membership at `applied`.
    pub applied_members: ConfState,
    /// The last entry that the store has durably.
    pub flushed: u64,
    pub queue: VecDeque<ApplyItem>,
    pub queue_bytes: usize,
    pub applying: bool,
    /// The commit index moved without being logged; it is a hint, and rides with the next record.
    pub commit_unlogged: bool,
    pub new_proposals: Vec<NewProposal>,
    pub proposals: BTreeMap<u64, Proposal>,
    pub reads_waiting: Vec<oneshot::Sender<Result<(), ReadError>>>,
    pub read_round: Option<ReadRound>,
    pub reads_confirmed: Vec<ReadRound>,
    pub members_waiting: Vec<MembersWaiter>,
    pub transfer_waiting: Vec<TransferWaiter>,
    /// Become leader as soon as nothing is outstanding, without waiting for an election timeout.
    pub campaign: bool,
    /// Slow writes of this leader in a row by whose end a majority elsewhere had more.
    pub slow_writes: u32,
    /// What a majority elsewhere must have by the end of the write under way to have been faster.
    overtaken_at: u64,
    /// The last entry that came before this turn.
    pub sent: u64,
    /// What another replica said contradicts what this one has: it says nothing more in this group.
    pub quarantined: bool,
    /// Entries to apply are being read back; Raft is not asked for work until they are there.
    pub prefetching: bool,
    pub built: Option<Built>,
    pub building: bool,
    pub built_ticks: u32,
    pub outgoing: BTreeMap<ReplicaId, Outgoing>,
    pub incoming: Option<Incoming>,
    pub next_ticket: u64,
    election: Election,
    seen_role: StateRole,
    seen_term: u64,
}

/// The election timeout, drawn here because raft-rs draws it from a generator that no seed controls.
#[derive(Default)]
struct Election {
    attempts: u64,
    /// Attempts since somebody led.
    failures: u64,
    /// The term and the attempt that `ticks` was drawn for.
    drawn_for: Option<(u64, u64)>,
    ticks: usize,
}

impl Group {
    /// Sets Raft up over a store whose state has `applied`.
    pub(crate) fn new(
        id: GroupId,
        config: &Config,
        store: GroupStore,
        applied: Point,
        machine: Arc<dyn Machine>,
        logger: &slog::Logger,
    ) -> Result<Self, StartError> {
        let raft_config = raft::Config {
            id: config.replica.0,
            election_tick: config.election_ticks as usize,
            heartbeat_tick: config.heartbeat_ticks as usize,
            applied: applied.index,
            max_size_per_msg: APPEND_BYTES,
            max_inflight_msgs: APPENDS_IN_FLIGHT,
            check_quorum: true,
            pre_vote: true,
            read_only_option: raft::ReadOnlyOption::Safe,
            max_uncommitted_size: UNCOMMITTED_BYTES,
            max_committed_size_per_ready: APPLY_BYTES,
            ..raft::Config::default()
        };
        let (synced_term, members) = (store.hard.term, store.members.clone());
        let raw = RawNode::new(&raft_config, store, logger)
            .map_err(|error| StartError::Group { group: id, detail: error.to_string() })?;
        Ok(Self {
            id,
            raw,
            machine,
            outstanding: VecDeque::new(),
            last_batch: 0,
            synced_term,
            handed: applied.index,
            applied,
            applied_members: members,
            flushed: 0,
            queue: VecDeque::new(),
            queue_bytes: 0,
            applying: false,
            commit_unlogged: false,
            new_proposals: Vec::new(),
            proposals: BTreeMap::new(),
            reads_waiting: Vec::new(),
            read_round: None,
            reads_confirmed: Vec::new(),
            members_waiting: Vec::new(),
            transfer_waiting: Vec::new(),
            campaign: false,
            slow_writes: 0,
            overtaken_at: 0,
            sent: 0,
            quarantined: false,
            prefetching: false,
            built: None,
            building: false,
            built_ticks: 0,
            outgoing: BTreeMap::new(),
            incoming: None,
            next_ticket: 0,
            election: Election::default(),
            seen_role: StateRole::Follower,
            seen_term: synced_term,
        })
    }

    pub(crate) fn store(&self) -> &GroupStore {
        self.raw.store()
    }

    pub(crate) fn store_mut(&mut self) -> &mut GroupStore {
        self.raw.mut_store()
    }

    pub(crate) fn is_leader(&self) -> bool {
        self.raw.raft.state == StateRole::Leader
    }

    pub(crate) fn leader(&self) -> Option<ReplicaId> {
        (self.raw.raft.leader_id != 0 && !self.quarantined).then_some(ReplicaId(self.raw.raft.leader_id))
    }

    pub(crate) fn committed(&self) -> u64 {
        self.raw.raft.raft_log.committed
    }

    /// Whether Raft can look at all committed entries it has not given out, as it does before a campaign.
    pub(crate) fn sees_its_backlog(&self) -> bool {
        !self.awaits_snapshot() && (self.handed >= self.committed() || self.handed + 1 >= self.store().cached_from())
    }

    /// Whether the group has members, or only waits to be told by a leader what it is.
    pub(crate) fn is_initialized(&self) -> bool {
        self.store().base() != Point::default()
    }

    pub(crate) fn is_settled(&self) -> bool {
        self.outstanding.is_empty() && !self.applying && self.queue.is_empty() && !self.raw.has_ready()
    }

    /// A snapshot became the log and the write that says so is not durable yet.
    pub(crate) fn awaits_snapshot(&self) -> bool {
        self.handed < self.store().base().index
    }

    /// Advances Raft's clock. A replica with unfinished business does not campaign: Raft asserts that a winner has its whole
    /// log on disk, and looks at the memberships among the committed entries.
    pub(crate) fn tick(&mut self, env: &Env, election_ticks: u32) {
        if self.quarantined {
            return;
        }
        if self.is_leader() {
            self.raw.tick();
            self.leave_joint();
            return;
        }
        if !self.outstanding.is_empty() || self.handed < self.committed() || self.awaits_snapshot() {
            return;
        }
        self.draw_election_timeout(env, u64::from(election_ticks));
        if self.raw.tick() {
            self.election.attempts += 1;
            self.election.failures += 1;
        }
    }

    fn draw_election_timeout(&mut self, env: &Env, election_ticks: u64) {
        if self.raw.raft.leader_id != 0 {
            self.election.failures = 0;
        }
        let occasion = (self.raw.raft.term, self.election.attempts);
        if self.election.drawn_for != Some(occasion) {
            self.election.drawn_for = Some(occasion);
            let draw = |bound: u64| usize::try_from(env.random_below(bound)).expect("a few ticks");
            self.election.ticks = election_ticks as usize + draw(election_ticks);
            // After a first split vote the next one comes sooner: nobody hears of a leader by waiting. Later ones take their
            // time again, because answers may simply be slow.
            if self.election.failures == 1 && self.raw.raft.state != StateRole::Follower {
                let rest = (election_ticks as usize / 2).max(1) + draw(election_ticks.div_ceil(2));
                let elapsed = self.election.ticks.saturating_sub(rest);
                self.raw.raft.election_elapsed = self.raw.raft.election_elapsed.max(elapsed);
            }
        }
        self.raw.raft.set_randomized_election_timeout(self.election.ticks);
    }

    /// Raft leaves a joint membership by itself, except when leadership changes at the wrong moment.
    fn leave_joint(&mut self) {
        let members = &self.store().members;
        if !members.voters_outgoing.is_empty() && !self.raw.raft.has_pending_conf() {
            let _ = self.raw.propose_conf_change(Vec::new(), raft::eraftpb::ConfChangeV2::default());
        }
    }

    pub(crate) fn maybe_campaign(&mut self) {
        if self.campaign && self.outstanding.is_empty() && self.handed >= self.committed() {
            self.campaign = false;
            let _ = self.raw.campaign();
        }
    }

    /// Lets Raft produce work, puts its records into the log's next write and its messages into the outbox.
    pub(crate) fn produce(&mut self, log: &mut Log, outbox: &mut Outbox, record_bytes: usize) {
        self.maybe_campaign();
        for _ in 0..READIES_PER_TURN {
            if self.quarantined || log.is_congested() || !self.raw.has_ready() || self.needs_prefetch() {
                return;
            }
            let ready = self.raw.ready();
            self.take(ready, log, outbox, record_bytes);
        }
    }

    /// The first entry to apply that Raft would look for in memory and not find.
    pub(crate) fn needs_prefetch(&self) -> bool {
        let next = self.handed + 1;
        let log = &self.raw.raft.raft_log;
        !self.awaits_snapshot()
            && next <= log.committed.min(log.persisted)
            && next < self.store().cached_from()
            && !self.store().has_fetched(next)
    }

    fn take(&mut self, mut ready: Ready, log: &mut Log, outbox: &mut Outbox, record_bytes: usize) {
        let (number, term) = (ready.number(), self.raw.raft.term);
        let mut snapshot = None;
        if !ready.snapshot().is_empty() {
            let origin = origin_of(ready.snapshot());
            snapshot = Some(origin.point.index);
            self.last_batch = log.push(Record::Snapshot { group: self.id, origin: origin.clone() });
            self.store_mut().restore(origin.point, origin.members.clone());
            self.store_mut().snapshot = None;
            self.enqueue(ApplyItem::Install { origin });
        }
        if let Some(hard) = ready.hs() {
            let hard = Hard { term: hard.term, vote: hard.vote, commit: hard.commit };
            let before = std::mem::replace(&mut self.store_mut().hard, hard);
            if (before.term, before.vote) != (hard.term, hard.vote) {
                self.log_hard_state(log);
            } else {
                self.commit_unlogged = true;
            }
        }
        if !ready.entries().is_empty() {
            if self.commit_unlogged {
                self.log_hard_state(log);
            }
            let entries = ready.take_entries();
            let previous_term = self.store_mut().append(&entries);
            self.log_entries(log, previous_term, entries, record_bytes);
        }
        let mut held = Vec::new();
        let in_durable_term = self.synced_term >= term;
        for message in ready.take_messages() {
            if in_durable_term { outbox.raft(self.id, message) } else { held.push(message) }
        }
        for message in ready.take_persisted_messages() {
            // A heartbeat's answer promises nothing but the term, and must not wait behind a slow disk or a big append.
            let at_once = in_durable_term && message.msg_type == MessageType::MsgHeartbeatResponse;
            if at_once { outbox.raft(self.id, message) } else { held.push(message) }
        }
        let committed = ready.take_committed_entries();
        // That an entry is committed is a hint that may get lost, but not of a change of the members: a replica that forgot that
        // a joint membership was left would need votes of those who were let go, and may be gone for ever.
        if self.commit_unlogged && committed.iter().any(|entry| entry.entry_type != EntryType::EntryNormal) {
            self.log_hard_state(log);
        }
        for state in ready.take_read_states() {
            self.confirm_read(&state.request_ctx, state.index);
        }
        self.raw.advance_append_async(ready);
        self.outstanding.push_back(Outstanding { number, batch: self.last_batch, term, messages: held, snapshot });
        if !committed.is_empty() {
            self.store_mut().drop_fetched();
            self.hand_out(committed);
        }
        self.release(log.synced(), outbox);
    }

    pub(crate) fn log_hard_state(&mut self, log: &mut Log) {
        self.commit_unlogged = false;
        self.last_batch = log.push(Record::Hard { group: self.id, hard: self.store().hard });
    }

    /// Puts entries into the log, in records of a bounded size.
    fn log_entries(&mut self, log: &mut Log, mut previous_term: u64, entries: Vec<Entry>, record_bytes: usize) {
        let (mut record, mut bytes) = (Vec::new(), 0);
        for entry in entries {
            let more = crate::format::ENTRY_OVERHEAD + entry.data.len() + entry.context.len();
            if !record.is_empty() && bytes + more > record_bytes {
                previous_term = self.log_record(log, previous_term, std::mem::take(&mut record));
                bytes = 0;
            }
            bytes += more;
            record.push(entry);
        }
        self.log_record(log, previous_term, record);
    }

    fn log_record(&mut self, log: &mut Log, previous_term: u64, entries: Vec<Entry>) -> u64 {
        let last_term = entries.last().expect("a record holds at least one entry").term;
        self.last_batch = log.push(Record::Entries { group: self.id, previous_term, entries });
        last_term
    }

    /// Logs entries once more that keep an old segment from going: those from `first` on.
    pub(crate) fn log_again(&mut self, log: &mut Log, first: u64, entries: Vec<Entry>, record_bytes: usize) {
        let store = self.store();
        let unchanged = entries.iter().all(|entry| store.term_of(entry.index) == Some(entry.term));
        let whole = entries.last().is_some_and(|last| last.index == store.last().index);
        if let (true, true, Some(previous_term)) = (unchanged, whole, store.term_of(first - 1)) {
            self.log_entries(log, previous_term, entries, record_bytes);
        }
    }

    /// Records that the log and the members begin here, for a group that is created.
    pub(crate) fn log_created(&mut self, log: &mut Log, members: &ConfState) {
        self.last_batch = log.push(Record::Created { group: self.id, members: members.clone() });
        self.log_hard_state(log);
    }

    /// Queues what a created group's state begins with. Not before the log has the group: a state without a log is refused at
    /// the next start.
    pub(crate) fn begin_state(&mut self) {
        let item = ApplyItem::Members { point: self.store().base(), members: self.applied_members.clone() };
        self.queue_bytes += item.bytes();
        self.queue.push_front(item);
    }

    /// The write after which what was logged last is durable.
    pub(crate) fn last_batch(&self) -> Batch {
        self.last_batch
    }

    /// A write of the log begins. Entries that waited for it are on their way to others since they came, and on their disks sooner
    /// even if all disks are alike: only what came in this turn tells whose is faster, or what a majority elsewhere has already.
    pub(crate) fn begin_write(&mut self) {
        let log = &self.raw.raft.raft_log;
        self.overtaken_at = if log.committed > log.persisted { log.committed } else { self.sent + 1 };
    }

    /// A write ends that took long. A leader that is overtaken again and again asks the voter that is furthest to lead: its own
    /// disk holds up what a majority elsewhere has had for a while. To be told before [`Group::release`].
    pub(crate) fn end_slow_write(&mut self, synced: Batch) {
        if !self.is_leader() || self.outstanding.front().is_none_or(|front| front.batch > synced) {
            return;
        }
        let log = &self.raw.raft.raft_log;
        let overtaken = log.committed >= self.overtaken_at && log.committed > log.persisted;
        self.slow_writes = if overtaken { self.slow_writes + 1 } else { 0 };
        if self.slow_writes >= SLOW_WRITES {
            tracing::warn!(group = %self.id, "the disk of this node's log is slower than those of the others: one of them is asked to lead");
            self.slow_writes = 0;
            self.hand_over();
        }
    }

    /// Everything up to write `synced` is durable: sends what waited for it, and tells Raft.
    pub(crate) fn release(&mut self, synced: Batch, outbox: &mut Outbox) {
        let mut number = None;
        let mut snapshot = None;
        while let Some(front) = self.outstanding.front() {
            if front.batch > synced {
                break;
            }
            let done = self.outstanding.pop_front().expect("looked at");
            number = Some(done.number);
            self.synced_term = self.synced_term.max(done.term);
            snapshot = done.snapshot.or(snapshot);
            for message in done.messages {
                outbox.raft(self.id, message);
            }
        }
        if let Some(number) = number {
            self.raw.on_persist_ready(number);
        }
        if let Some(index) = snapshot {
            self.handed = self.handed.max(index);
            self.raw.advance_apply_to(self.handed);
        }
    }

    fn enqueue(&mut self, item: ApplyItem) {
        self.queue_bytes += item.bytes();
        self.queue.push_back(item);
    }

    /// Queues committed entries for the machine. Memberships take effect here.
    fn hand_out(&mut self, entries: Vec<Entry>) {
        for entry in entries {
            let point = Point { index: entry.index, term: entry.term };
            assert_eq!(point.index, self.handed + 1, "Raft gives entries out in order, each once");
            self.handed = point.index;
            match entry.entry_type {
                EntryType::EntryNormal if entry.data.is_empty() => self.enqueue(ApplyItem::Empty { point }),
                EntryType::EntryNormal => self.enqueue(ApplyItem::Entry { point, data: entry.data }),
                EntryType::EntryConfChange | EntryType::EntryConfChangeV2 if self.store().ignores_change_at(point.index) => {
                    self.enqueue(ApplyItem::Empty { point });
                }
                EntryType::EntryConfChange | EntryType::EntryConfChangeV2 => self.take_members(point, &entry.context),
            }
        }
        self.raw.advance_apply_to(self.handed);
    }

    /// Applies a change of members. One that does not fit is dropped, by every replica alike.
    fn take_members(&mut self, point: Point, context: &[u8]) {
        let changed = decode_change(context).ok().and_then(|change| self.raw.apply_conf_change(&change).ok());
        let Some(members) = changed else {
            tracing::warn!(group = %self.id, index = point.index, "a membership change does not fit and was dropped");
            self.enqueue(ApplyItem::Empty { point });
            return;
        };
        tracing::info!(group = %self.id, voters = ?members.voters, learners = ?members.learners, "members changed");
        self.store_mut().members = members.clone();
        self.enqueue(ApplyItem::Members { point, members: members.clone() });
        self.answer_members_waiters();
        let own = self.raw.raft.id;
        if self.is_leader() && members.voters_outgoing.is_empty() && !members.voters.contains(&own) {
            self.resign(&members);
        }
    }

    /// A leader that is no longer a member hands over to the voter that has most; Raft would let it sit there for ever.
    fn resign(&mut self, members: &ConfState) {
        let matched = |id: &u64| self.raw.raft.prs().get(*id).map_or(0, |progress| progress.matched);
        if let Some(best) = members.voters.iter().copied().max_by_key(|id| (matched(id), *id)) {
            self.raw.raft.send_timeout_now(best);
        }
        let term = self.raw.raft.term;
        self.raw.raft.become_follower(term, 0);
    }

    /// The voter that is furthest, beside this one; of several the next one in a circle, so that each has its turn.
    pub(crate) fn best_successor(&self) -> Option<ReplicaId> {
        let raft = &self.raw.raft;
        let matched = |id: &u64| raft.prs().get(*id).map_or(0, |progress| progress.matched);
        let others = self.store().members.voters.iter().copied().filter(|id| *id != raft.id);
        others.max_by_key(|id| (matched(id), Reverse(id.wrapping_sub(raft.id)))).map(ReplicaId)
    }

    /// Whether role or term changed since the last call, and whether leadership was lost by it.
    pub(crate) fn observe(&mut self) -> Option<bool> {
        let (role, term) = (self.raw.raft.state, self.raw.raft.term);
        if (role, term) == (self.seen_role, self.seen_term) {
            return None;
        }
        let lost = self.seen_role == StateRole::Leader;
        (self.seen_role, self.seen_term) = (role, term);
        Some(lost)
    }

    pub(crate) fn leadership(&self) -> Leadership {
        Leadership { leader: self.leader(), term: Term(self.raw.raft.term) }
    }

    /// Whether a status differs from this group's in nothing but its indexes.
    pub(crate) fn shows_as(&self, status: &GroupStatus) -> bool {
        let members = &self.store().members;
        let same = |shown: &[ReplicaId], now: &[u64]| shown.iter().map(|replica| replica.0).eq(now.iter().copied());
        status.role == self.role()
            && status.leader == self.leader()
            && status.term.0 == self.raw.raft.term
            && same(&status.voters, &members.voters)
            && same(&status.learners, &members.learners)
            && same(&status.voters_outgoing, &members.voters_outgoing)
    }

    fn role(&self) -> Role {
        match self.raw.raft.state {
            StateRole::Leader => Role::Leader,
            StateRole::Follower => Role::Follower,
            StateRole::Candidate | StateRole::PreCandidate => Role::Candidate,
        }
    }

    pub(crate) fn status(&self) -> GroupStatus {
        let replicas = |ids: &[u64]| ids.iter().copied().map(ReplicaId).collect();
        let members = &self.store().members;
        GroupStatus {
            group: self.id,
            role: self.role(),
            leader: self.leader(),
            term: Term(self.raw.raft.term),
            committed: self.committed(),
            applied: self.applied.index,
            voters: replicas(&members.voters),
            learners: replicas(&members.learners),
            voters_outgoing: replicas(&members.voters_outgoing),
        }
    }
}

/// What a snapshot that Raft accepted stands for; its data is the number of the file.
fn origin_of(snapshot: &raft::eraftpb::Snapshot) -> Origin {
    let metadata = snapshot.get_metadata();
    let file: [u8; 16] = Bytes::as_ref(&snapshot.data).try_into().expect("snapshots are made in `receive`, with a file number");
    Origin {
        point: Point { index: metadata.index, term: metadata.term },
        members: metadata.get_conf_state().clone(),
        file: u128::from_be_bytes(file),
    }
}
