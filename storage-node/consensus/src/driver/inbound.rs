//! Messages from other replicas, checked against what this one knows before Raft sees them: raft-rs asserts what a correct
//! peer never violates, and a peer that lost its disk or runs something else must not bring this process down.

use raft::StateRole;
use raft::eraftpb::{Message, MessageType};

use super::group::Group;
use crate::limits::APPLY_BACKLOG_BYTES;

/// Whether a message may bring a group into being here that this node has not heard of.
pub(crate) fn introduces(message: &Message) -> bool {
    matches!(
        message.msg_type,
        MessageType::MsgAppend | MessageType::MsgHeartbeat | MessageType::MsgRequestVote | MessageType::MsgRequestPreVote
    )
}

impl Group {
    pub(crate) fn step(&mut self, message: Message) {
        if self.quarantined {
            return;
        }
        if let Some(contradiction) = self.contradiction(&message) {
            tracing::error!(
                group = %self.id,
                from = message.from,
                contradiction,
                "this replica or the other has forgotten what it acknowledged; the group stays silent here"
            );
            self.quarantined = true;
            return;
        }
        let refused = match message.msg_type {
            // The leader sends again; until then nothing more piles up here.
            MessageType::MsgAppend => self.queue_bytes > APPLY_BACKLOG_BYTES,
            MessageType::MsgTimeoutNow => !self.sees_its_backlog(),
            // An answer about entries that were never sent.
            MessageType::MsgAppendResponse => !message.reject && message.index > self.raw.raft.raft_log.last_index(),
            _ => false,
        };
        if !refused {
            // An error means that the sender is not a member, or the message too old: both are ordinary.
            let _ = self.raw.step(message);
        }
    }

    /// What a leader says that cannot be true unless one of the two lost acknowledged data.
    fn contradiction(&self, message: &Message) -> Option<&'static str> {
        let raft = &self.raw.raft;
        if message.term < raft.term {
            return None;
        }
        match message.msg_type {
            MessageType::MsgAppend | MessageType::MsgHeartbeat
                if raft.state == StateRole::Leader && message.term == raft.term =>
            {
                Some("two leaders in one term")
            }
            MessageType::MsgHeartbeat if message.commit > raft.raft_log.last_index() => {
                Some("the leader believes entries to be here that are not")
            }
            MessageType::MsgAppend => {
                let committed = raft.raft_log.committed;
                let conflicts = message.entries.iter().take_while(|entry| entry.index <= committed).any(|entry| {
                    // Terms of entries before the log's beginning are not known any more.
                    raft.raft_log.term(entry.index).is_ok_and(|term| term != 0 && term != entry.term)
                });
                conflicts.then_some("the leader replaces a committed entry")
            }
            _ => None,
        }
    }
}
