//! What callers ask of a group: proposals, reads, changes of members, handovers.

use std::collections::BTreeSet;

use bytes::Bytes;
use placement_types::ReplicaId;
use raft::eraftpb::{
    ConfChangeSingle, ConfChangeTransition, ConfChangeType, ConfChangeV2, ConfState, Entry, Message, MessageType,
};
use tokio::sync::oneshot;

use super::apply::{Applied, ENTRY_VERSION};
use super::group::Group;
use crate::consensus::MembersReply;
use crate::error::{MembersError, ProposeError, ReadError, TransferError};
use crate::format::encode_change;
use crate::limits::{APPEND_BYTES, APPLY_BACKLOG_BYTES, CAUGHT_UP_ENTRIES, PROPOSALS_PER_GROUP};

pub(crate) type ProposeReply = oneshot::Sender<Result<Bytes, ProposeError>>;

/// A proposal of this turn.
pub(crate) struct NewProposal {
    pub entry: Bytes,
    pub reply: ProposeReply,
}

/// A proposal that has a place in the log.
pub(crate) struct Proposal {
    term: u64,
    reply: ProposeReply,
    /// The tick at which this node stopped leading. Its entry may still be committed by the next leader; after a while the
    /// caller is told that nobody knows.
    orphaned: Option<u64>,
}

/// Callers that share a round of confirmation.
pub(crate) struct ReadRound {
    /// While waiting for it the round's number; once confirmed, the index to wait for.
    pub number: u64,
    pub replies: Vec<oneshot::Sender<Result<(), ReadError>>>,
}

pub(crate) struct MembersWaiter {
    voters: BTreeSet<u64>,
    learners: BTreeSet<u64>,
    reply: MembersReply,
}

pub(crate) struct TransferWaiter {
    pub deadline: u64,
    pub reply: oneshot::Sender<Result<(), TransferError>>,
}

impl Group {
    pub(crate) fn accept_proposal(&mut self, entry: Bytes, reply: ProposeReply) {
        if !self.is_leader() || self.quarantined {
            let _ = reply.send(Err(ProposeError::NotLeader { leader: self.leader() }));
        } else if self.proposals.len() + self.new_proposals.len() >= PROPOSALS_PER_GROUP || self.queue_bytes > APPLY_BACKLOG_BYTES
        {
            let _ = reply.send(Err(ProposeError::Busy));
        } else {
            self.new_proposals.push(NewProposal { entry, reply });
        }
    }

    /// Gives this turn's proposals to Raft, several to a message.
    pub(crate) fn propose_new(&mut self) {
        let mut waiting = std::mem::take(&mut self.new_proposals).into_iter().peekable();
        while waiting.peek().is_some() {
            let (mut entries, mut replies, mut bytes) = (Vec::new(), Vec::new(), 0);
            while let Some(next) = waiting.next_if(|next| entries.is_empty() || bytes + next.entry.len() < APPEND_BYTES as usize)
            {
                bytes += next.entry.len();
                entries.push(entry_of(&next.entry));
                replies.push(next.reply);
            }
            self.propose_together(entries, replies);
        }
    }

    fn propose_together(&mut self, entries: Vec<Entry>, replies: Vec<ProposeReply>) {
        let mut message = Message::default();
        message.msg_type = MessageType::MsgPropose;
        message.from = self.raw.raft.id;
        message.set_entries(entries.into());
        let mut index = self.raw.raft.raft_log.last_index();
        // Refused as a whole: leadership is being handed over, or too much is uncommitted.
        if !self.is_leader() || self.raw.step(message).is_err() {
            let leader = self.leader();
            let error = if self.is_leader() { ProposeError::Busy } else { ProposeError::NotLeader { leader } };
            for reply in replies {
                let _ = reply.send(Err(error.clone()));
            }
            return;
        }
        let term = self.raw.raft.term;
        for reply in replies {
            index += 1;
            if let Some(before) = self.proposals.insert(index, Proposal { term, reply, orphaned: None }) {
                // From an earlier leadership. Another replica may have that entry, and win with it.
                let _ = before.reply.send(Err(ProposeError::Unknown));
            }
        }
    }

    /// Answers whoever waited for what was applied.
    pub(crate) fn answer_applied(&mut self, applied: &mut Applied) {
        for (point, reply) in applied.replies.drain(..) {
            if let Some(proposal) = self.proposals.remove(&point.index) {
                let _ = proposal.reply.send(if proposal.term == point.term {
                    Ok(reply)
                } else {
                    // Another entry was committed in its place, so it never will be.
                    Err(ProposeError::NotLeader { leader: self.leader() })
                });
            }
        }
        let later = self.proposals.split_off(&(applied.point.index + 1));
        for proposal in std::mem::replace(&mut self.proposals, later).into_values() {
            // Its place went to an entry of Raft itself or into a snapshot. Of the snapshot nobody knows what was in it.
            let _ = proposal.reply.send(Err(ProposeError::Unknown));
        }
        self.answer_reads();
    }

    /// Sends one round for all reads that wait, unless one is on its way or this leader does not know yet what is committed.
    pub(crate) fn start_reads(&mut self) {
        if self.reads_waiting.is_empty() {
            return;
        }
        if !self.is_leader() || self.quarantined {
            self.refuse_reads();
        } else if self.read_round.is_none() && self.raw.raft.commit_to_current_term() {
            self.next_ticket += 1;
            self.read_round = Some(ReadRound { number: self.next_ticket, replies: std::mem::take(&mut self.reads_waiting) });
            self.raw.read_index(self.next_ticket.to_be_bytes().to_vec());
        }
    }

    fn refuse_reads(&mut self) {
        let leader = self.leader();
        let round = self.read_round.take().map(|round| round.replies).unwrap_or_default();
        for reply in self.reads_waiting.drain(..).chain(round) {
            let _ = reply.send(Err(ReadError::NotLeader { leader }));
        }
    }

    /// A majority confirmed the round: its callers wait for the index only.
    pub(crate) fn confirm_read(&mut self, ticket: &[u8], index: u64) {
        let Some(round) = self.read_round.take_if(|round| ticket == round.number.to_be_bytes()) else { return };
        self.reads_confirmed.push(ReadRound { number: index, replies: round.replies });
        self.answer_reads();
    }

    fn answer_reads(&mut self) {
        let applied = self.applied.index;
        for round in self.reads_confirmed.extract_if(.., |round| round.number <= applied) {
            for reply in round.replies {
                let _ = reply.send(Ok(()));
            }
        }
    }

    pub(crate) fn change_members(&mut self, voters: &[ReplicaId], learners: &[ReplicaId], reply: MembersReply) {
        let waiter = MembersWaiter {
            voters: voters.iter().map(|replica| replica.0).collect(),
            learners: learners.iter().map(|replica| replica.0).collect(),
            reply,
        };
        let members = &self.store().members;
        if !self.is_leader() || self.quarantined {
            let _ = waiter.reply.send(Err(MembersError::NotLeader { leader: self.leader() }));
        } else if !members.voters_outgoing.is_empty() || self.raw.raft.has_pending_conf() {
            let _ = waiter.reply.send(Err(MembersError::Busy));
        } else if waiter.is_met_by(members) {
            let _ = waiter.reply.send(Ok(()));
        } else {
            let change = change_between(members, &waiter);
            match self.raw.propose_conf_change(encode_change(&change), change) {
                Ok(()) => self.members_waiting.push(waiter),
                Err(_) => {
                    let _ = waiter.reply.send(Err(MembersError::Busy));
                }
            }
        }
    }

    /// See [`Consensus::lagging`](crate::Consensus::lagging).
    pub(crate) fn lagging(&self) -> Option<Vec<ReplicaId>> {
        if !self.is_leader() {
            return None;
        }
        let near = self.committed().saturating_sub(CAUGHT_UP_ENTRIES);
        let progress = self.raw.raft.prs().iter();
        Some(progress.filter(|(_, progress)| progress.matched < near).map(|(id, _)| ReplicaId(*id)).collect())
    }

    pub(crate) fn answer_members_waiters(&mut self) {
        let members = self.store().members.clone();
        for waiter in self.members_waiting.extract_if(.., |waiter| waiter.is_met_by(&members)) {
            let _ = waiter.reply.send(Ok(()));
        }
    }

    pub(crate) fn transfer(&mut self, to: ReplicaId, deadline: u64, reply: oneshot::Sender<Result<(), TransferError>>) {
        let error = if !self.is_leader() || self.quarantined {
            TransferError::NotLeader { leader: self.leader() }
        } else if !self.store().members.voters.contains(&to.0) {
            TransferError::NotVoter { group: self.id, to }
        } else if to.0 == self.raw.raft.id {
            let _ = reply.send(Ok(()));
            return;
        } else {
            self.raw.transfer_leader(to.0);
            self.transfer_waiting.push(TransferWaiter { deadline, reply });
            return;
        };
        let _ = reply.send(Err(error));
    }

    /// Asks another voter to lead, when this one does and there is another.
    pub(crate) fn hand_over(&mut self) {
        if self.is_leader()
            && let Some(successor) = self.best_successor()
        {
            self.raw.transfer_leader(successor.0);
        }
    }

    /// This node stopped leading.
    pub(crate) fn lose_leadership(&mut self, now: u64) {
        self.slow_writes = 0;
        self.refuse_reads();
        let leader = self.leader();
        for new in self.new_proposals.drain(..) {
            let _ = new.reply.send(Err(ProposeError::NotLeader { leader }));
        }
        for proposal in self.proposals.values_mut() {
            proposal.orphaned.get_or_insert(now);
        }
        for waiter in self.members_waiting.drain(..) {
            let _ = waiter.reply.send(Err(MembersError::Unknown));
        }
        for waiter in self.transfer_waiting.drain(..) {
            let _ = waiter.reply.send(Ok(()));
        }
        self.outgoing.clear();
    }

    /// Gives up what has waited too long.
    pub(crate) fn expire(&mut self, now: u64, patience: u64) {
        let expired = |proposal: &Proposal| proposal.orphaned.is_some_and(|since| since + patience <= now);
        for (_, proposal) in self.proposals.extract_if(.., |_, proposal| expired(proposal)) {
            let _ = proposal.reply.send(Err(ProposeError::Unknown));
        }
        for waiter in self.transfer_waiting.extract_if(.., |waiter| waiter.deadline <= now) {
            let _ = waiter.reply.send(Err(TransferError::TimedOut));
        }
    }
}

impl MembersWaiter {
    fn is_met_by(&self, members: &ConfState) -> bool {
        members.voters_outgoing.is_empty()
            && members.voters.iter().copied().collect::<BTreeSet<u64>>() == self.voters
            && members.learners.iter().copied().collect::<BTreeSet<u64>>() == self.learners
    }
}

fn entry_of(entry: &Bytes) -> Entry {
    let mut data = Vec::with_capacity(1 + entry.len());
    data.push(ENTRY_VERSION);
    data.extend_from_slice(entry);
    let mut made = Entry::default();
    made.data = data.into();
    made
}

/// The steps from what is to what is wanted; never none.
fn change_between(members: &ConfState, wanted: &MembersWaiter) -> ConfChangeV2 {
    let mut changes = Vec::new();
    let mut add = |kind, id| {
        let mut single = ConfChangeSingle::default();
        single.change_type = kind;
        single.node_id = id;
        changes.push(single);
    };
    for id in wanted.voters.iter().filter(|id| !members.voters.contains(id)) {
        add(ConfChangeType::AddNode, *id);
    }
    for id in wanted.learners.iter().filter(|id| !members.learners.contains(id)) {
        add(ConfChangeType::AddLearnerNode, *id);
    }
    let gone = |id: &&u64| !wanted.voters.contains(*id) && !wanted.learners.contains(*id);
    for id in members.voters.iter().chain(&members.learners).filter(gone) {
        add(ConfChangeType::RemoveNode, *id);
    }
    let mut change = ConfChangeV2::default();
    change.changes = changes.into();
    change.transition = ConfChangeTransition::Implicit;
    change
}
