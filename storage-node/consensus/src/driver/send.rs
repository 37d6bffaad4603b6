//! Sending a snapshot: a window of chunks, acknowledged one after the other, over a transport that may lose any of them.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use placement_types::{File, ReplicaId};
use raft::SnapshotStatus;
use raft::eraftpb::ConfState;

use super::group::Group;
use super::outbox::SnapshotOrder;
use crate::format::{Point, SnapshotChunk};
use crate::limits::{CHUNK_BYTES, CHUNK_RETRY_TICKS, CHUNKS_IN_FLIGHT, SNAPSHOT_KEPT_TICKS, TRANSFER_GIVE_UP_TICKS};

/// A snapshot on its way to one replica.
pub(crate) struct Outgoing {
    transfer: u64,
    term: u64,
    point: Point,
    members: ConfState,
    file: Arc<dyn File>,
    file_bytes: u64,
    chunks: u32,
    /// The next chunk the receiver wants.
    acked: u32,
    /// The next chunk to send.
    next: u32,
    ticks_since_progress: u32,
    ticks_since_ack: u32,
}

/// A chunk to read from the file and send.
pub(crate) struct ChunkRead {
    pub to: ReplicaId,
    pub chunk: SnapshotChunk,
    pub file: Arc<dyn File>,
}

impl ChunkRead {
    /// Blocks.
    pub(crate) fn run(mut self) -> Option<(ReplicaId, SnapshotChunk)> {
        let start = u64::from(self.chunk.sequence) * CHUNK_BYTES as u64;
        let length = (self.chunk.file_bytes - start).min(CHUNK_BYTES as u64);
        let mut bytes = vec![0; usize::try_from(length).expect("at most a chunk")];
        self.file.read_exact_at(&mut bytes, start).ok()?;
        self.chunk.bytes = Bytes::from(bytes);
        Some((self.to, self.chunk))
    }
}

impl Group {
    /// Begins a transfer that Raft ordered. When the file is not the one it meant, or too many are on their way, Raft is told
    /// that it failed, and asks again after a heartbeat.
    pub(crate) fn begin_sending(&mut self, order: &SnapshotOrder, transfer: u64, room: bool) {
        let Some(built) = self.built.as_ref().filter(|built| built.point == order.point && room) else {
            self.raw.report_snapshot(order.to.0, SnapshotStatus::Failure);
            return;
        };
        let outgoing = Outgoing {
            transfer,
            term: order.term,
            point: built.point,
            members: built.members.clone(),
            file: built.file.clone(),
            file_bytes: built.bytes,
            chunks: chunks_of(built.bytes),
            acked: 0,
            next: 0,
            ticks_since_progress: 0,
            ticks_since_ack: 0,
        };
        tracing::info!(group = %self.id, to = %order.to, bytes = outgoing.file_bytes, "sends a snapshot");
        self.outgoing.insert(order.to, outgoing);
    }

    /// The chunks that the windows have room for.
    pub(crate) fn chunks_to_read(&mut self) -> Vec<ChunkRead> {
        let mut reads = Vec::new();
        for (to, outgoing) in &mut self.outgoing {
            while outgoing.next < outgoing.chunks.min(outgoing.acked.saturating_add(CHUNKS_IN_FLIGHT)) {
                let chunk = SnapshotChunk {
                    transfer: outgoing.transfer,
                    term: outgoing.term,
                    point: outgoing.point,
                    members: outgoing.members.clone(),
                    file_bytes: outgoing.file_bytes,
                    sequence: outgoing.next,
                    bytes: Bytes::new(),
                };
                reads.push(ChunkRead { to: *to, chunk, file: outgoing.file.clone() });
                outgoing.next += 1;
            }
        }
        reads
    }

    pub(crate) fn take_ack(&mut self, from: ReplicaId, transfer: u64, next: u32, refused: bool) {
        let Some(outgoing) = self.outgoing.get_mut(&from).filter(|outgoing| outgoing.transfer == transfer) else { return };
        outgoing.ticks_since_ack = 0;
        if next > outgoing.acked && next <= outgoing.chunks {
            outgoing.acked = next;
            outgoing.next = outgoing.next.max(next);
            outgoing.ticks_since_progress = 0;
        }
        if refused || outgoing.acked == outgoing.chunks {
            let status = if refused { SnapshotStatus::Failure } else { SnapshotStatus::Finish };
            self.outgoing.remove(&from);
            self.raw.report_snapshot(from.0, status);
        }
    }

    /// Sends again what was not acknowledged, and gives up on replicas that do not answer.
    pub(crate) fn tick_sending(&mut self) {
        let mut given_up = Vec::new();
        for (to, outgoing) in &mut self.outgoing {
            outgoing.ticks_since_progress += 1;
            outgoing.ticks_since_ack += 1;
            if outgoing.ticks_since_ack > TRANSFER_GIVE_UP_TICKS {
                given_up.push(*to);
            } else if outgoing.ticks_since_progress % CHUNK_RETRY_TICKS == 0 {
                outgoing.next = outgoing.acked;
            }
        }
        for to in given_up {
            self.outgoing.remove(&to);
            self.raw.report_snapshot(to.0, SnapshotStatus::Failure);
        }
    }

    /// Lets go of a snapshot that nobody has been sent for a while. Returns its file, to remove.
    pub(crate) fn tick_built(&mut self) -> Option<PathBuf> {
        self.built_ticks = if self.outgoing.is_empty() { self.built_ticks + 1 } else { 0 };
        if self.built_ticks < SNAPSHOT_KEPT_TICKS {
            return None;
        }
        self.built_ticks = 0;
        self.store_mut().snapshot = None;
        self.built.take().map(|built| built.path)
    }
}

pub(crate) fn chunks_of(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(CHUNK_BYTES as u64)).unwrap_or(u32::MAX)
}
