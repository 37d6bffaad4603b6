//! Messages that leave at the end of a turn, one bundle per replica.

use std::collections::BTreeMap;

use bytes::Bytes;
use placement_types::{GroupId, ReplicaId};
use raft::eraftpb::{Message, MessageType};

use crate::format::{Body, Point, Wire, travels};
use crate::machine::Transport;

pub(crate) struct Outbox {
    replica: ReplicaId,
    bundles: BTreeMap<ReplicaId, Vec<Bytes>>,
    /// Snapshots that Raft decided to send.
    pub snapshots: Vec<SnapshotOrder>,
}

pub(crate) struct SnapshotOrder {
    pub group: GroupId,
    pub to: ReplicaId,
    pub term: u64,
    pub point: Point,
}

impl Outbox {
    pub(crate) fn new(replica: ReplicaId) -> Self {
        Self { replica, bundles: BTreeMap::new(), snapshots: Vec::new() }
    }

    /// Takes a message of Raft.
    pub(crate) fn raft(&mut self, group: GroupId, message: Message) {
        let to = ReplicaId(message.to);
        if message.msg_type == MessageType::MsgSnapshot {
            let metadata = message.get_snapshot().get_metadata();
            let point = Point { index: metadata.index, term: metadata.term };
            self.snapshots.push(SnapshotOrder { group, to, term: message.term, point });
        } else if travels(&message) {
            self.send(group, to, Body::Raft(Box::new(message)));
        }
    }

    pub(crate) fn send(&mut self, group: GroupId, to: ReplicaId, body: Body) {
        if to == self.replica || to.0 == 0 {
            return;
        }
        let bytes = Wire { group, from: self.replica, to, body }.encode_message();
        self.bundles.entry(to).or_default().push(bytes);
    }

    pub(crate) fn flush(&mut self, transport: &dyn Transport) {
        for (to, messages) in std::mem::take(&mut self.bundles) {
            transport.send(to, messages);
        }
    }
}
