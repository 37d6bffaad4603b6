//! Raft messages to other replicas.
//!
//! Best effort, as the protocol wants it: messages to one peer wait in a bounded queue while a call to it is under way and
//! then leave together; what does not fit is dropped and repeated by Raft. Each call says which process it is from; one that
//! hears that another is its node by now, has lost it.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use placement_map::ClusterMap;
use placement_proto::tenure::Tenure;
use placement_types::{Env, NodeId, ReplicaId, TaskHandle};
use storage_node_consensus::Transport;
use storage_node_proto::api::{RaftApi, RaftSender, SUPERSEDED};
use tokio::sync::mpsc;

use super::peers::Peers;

/// Messages that wait for one peer.
const QUEUE_MAX: usize = 4096;

/// One call carries at most this much.
const CALL_BYTES_MAX: usize = 4 << 20;

pub struct RaftTransport {
    env: Env,
    peers: Option<Arc<Peers>>,
    tenure: Tenure,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    addresses: BTreeMap<ReplicaId, (NodeId, String)>,
    senders: BTreeMap<ReplicaId, (String, mpsc::Sender<Bytes>, TaskHandle)>,
}

impl RaftTransport {
    pub fn new(env: Env, peers: Option<Arc<Peers>>, tenure: Tenure) -> Self {
        Self { env, peers, tenure, state: Mutex::default() }
    }

    /// Learns where a replica is, before there is a map to tell.
    pub fn learn(&self, replica: ReplicaId, node: NodeId, address: &str) {
        self.state.lock().addresses.insert(replica, (node, address.to_owned()));
    }

    /// Learns every replica's address.
    pub fn learn_map(&self, map: &ClusterMap) {
        let mut state = self.state.lock();
        for node in map.nodes.values() {
            state.addresses.insert(node.replica, (node.id, node.address.clone()));
        }
    }
}

impl Transport for RaftTransport {
    fn send(&self, to: ReplicaId, messages: Vec<Bytes>) {
        let Some(peers) = &self.peers else { return };
        let mut state = self.state.lock();
        let Some((node, address)) = state.addresses.get(&to).cloned() else { return };
        let stale = state.senders.get(&to).is_none_or(|(known, sender, _)| *known != address || sender.is_closed());
        if stale {
            let Some(clients) = peers.of(node, &address) else { return };
            let (sender, queue) = mpsc::channel(QUEUE_MAX);
            let task = self.env.spawn("raft-sender", send_loop(clients.node.clone(), self.tenure.clone(), queue));
            state.senders.insert(to, (address, sender, task));
        }
        let (_, sender, _) = &state.senders[&to];
        for message in messages {
            if sender.try_send(message).is_err() {
                break;
            }
        }
    }
}

async fn send_loop(peer: Arc<dyn RaftApi>, tenure: Tenure, mut queue: mpsc::Receiver<Bytes>) {
    let sender = RaftSender { node: tenure.node(), boot: tenure.boot() };
    while let Some(first) = queue.recv().await {
        let mut bytes = first.len();
        let mut messages = vec![first];
        while bytes < CALL_BYTES_MAX {
            let Ok(next) = queue.try_recv() else { break };
            bytes += next.len();
            messages.push(next);
        }
        if let Err(status) = peer.raft(sender, messages).await {
            if status.code() == SUPERSEDED {
                tenure.superseded();
            }
            tracing::debug!(code = ?status.code(), "raft messages were not delivered");
        }
    }
}
