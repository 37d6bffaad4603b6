//! Receiving a snapshot: chunks into a file, checked and synced as a whole, then handed to Raft as one message.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use placement_types::{File, Fs, GroupId, OpenMode, ReplicaId};
use raft::eraftpb::{ConfState, Message, MessageType, Snapshot};

use super::group::Group;
use super::outbox::Outbox;
use super::send::chunks_of;
use crate::format::{Body, Point, SnapshotChunk};
use crate::limits::{CHUNK_BYTES, CHUNKS_IN_FLIGHT, TRANSFER_GIVE_UP_TICKS};
use crate::snapshot::{self, SnapshotError};

/// A snapshot that is arriving.
pub(crate) struct Incoming {
    from: ReplicaId,
    transfer: u64,
    term: u64,
    point: Point,
    members: ConfState,
    number: u128,
    path: PathBuf,
    file: Option<Arc<dyn File>>,
    chunks: u32,
    /// The next chunk to write.
    next: u32,
    /// A job works on the file.
    busy: bool,
    /// Chunks that came early.
    early: BTreeMap<u32, Bytes>,
    silent_ticks: u32,
}

/// Something to do to the file of a snapshot that is arriving.
pub(crate) struct ReceiveJob {
    pub group: GroupId,
    pub transfer: u64,
    fs: Arc<dyn Fs>,
    path: PathBuf,
    work: ReceiveWork,
}

enum ReceiveWork {
    Write { file: Option<Arc<dyn File>>, offset: u64, bytes: Bytes },
    Accept { file: Arc<dyn File>, point: Point },
}

/// What a job did.
pub(crate) struct Received {
    pub group: GroupId,
    pub transfer: u64,
    pub outcome: Result<ReceivedStep, SnapshotError>,
}

pub(crate) enum ReceivedStep {
    Written { file: Arc<dyn File> },
    Accepted,
}

impl ReceiveJob {
    /// Blocks.
    pub(crate) fn run(self) -> Received {
        let (fs, path) = (&*self.fs, self.path.as_path());
        let outcome = match self.work {
            ReceiveWork::Write { file, offset, bytes } => write(fs, path, file, offset, &bytes),
            ReceiveWork::Accept { file, point } => {
                snapshot::accept(fs, path, &*file, self.group, point).map(|()| ReceivedStep::Accepted)
            }
        };
        Received { group: self.group, transfer: self.transfer, outcome }
    }
}

fn write(
    fs: &dyn Fs,
    path: &Path,
    file: Option<Arc<dyn File>>,
    offset: u64,
    bytes: &[u8],
) -> Result<ReceivedStep, SnapshotError> {
    let failed = |action| move |source| SnapshotError::Io { action, path: path.to_owned(), source };
    let file = match file {
        Some(file) => file,
        None => fs.open(path, OpenMode::CreateNew).map_err(failed("create"))?,
    };
    file.write_at(bytes, offset).map_err(failed("write"))?;
    Ok(ReceivedStep::Written { file })
}

/// Where snapshots that arrive are kept.
pub(crate) fn incoming_path(dir: &Path, number: u128) -> PathBuf {
    dir.join(format!("in-{number:032x}.snap"))
}

/// What the driver lends for receiving.
pub(crate) struct ReceiveContext<'a> {
    pub fs: &'a Arc<dyn Fs>,
    pub dir: &'a Path,
    pub outbox: &'a mut Outbox,
    /// A fresh number, not 0, for a file.
    pub number: u128,
}

impl Group {
    /// Takes a chunk. Returns work for the file, and a file to remove.
    pub(crate) fn take_chunk(
        &mut self,
        from: ReplicaId,
        chunk: SnapshotChunk,
        context: ReceiveContext<'_>,
    ) -> (Option<ReceiveJob>, Option<PathBuf>) {
        let ack = |next, refused| Body::Ack { transfer: chunk.transfer, next, refused };
        let chunks = chunks_of(chunk.file_bytes);
        if chunk.term < self.raw.raft.term || self.awaits_snapshot() {
            context.outbox.send(self.id, from, ack(0, true));
            return (None, None);
        }
        let log = &self.raw.raft.raft_log;
        let here = log.match_term(chunk.point.index, chunk.point.term);
        if chunk.point.index == log.committed && !here {
            context.outbox.send(self.id, from, ack(0, true));
            return (None, None);
        }
        if chunk.point.index < log.committed || here {
            // Already here: Raft says so to the leader, and the bytes need not travel.
            context.outbox.send(self.id, from, ack(chunks, false));
            self.step_snapshot(from, chunk.term, chunk.point, chunk.members, Bytes::new());
            return (None, None);
        }
        let mut removed = None;
        if self.incoming.as_ref().is_none_or(|incoming| incoming.transfer != chunk.transfer) {
            if chunk.sequence != 0 || self.incoming.as_ref().is_some_and(|incoming| incoming.term > chunk.term) {
                return (None, None);
            }
            let incoming = Incoming {
                from,
                transfer: chunk.transfer,
                term: chunk.term,
                point: chunk.point,
                members: chunk.members.clone(),
                number: context.number,
                path: incoming_path(context.dir, context.number),
                file: None,
                chunks,
                next: 0,
                busy: false,
                early: BTreeMap::new(),
                silent_ticks: 0,
            };
            removed = self.incoming.replace(incoming).map(|before| before.path);
        }
        let incoming = self.incoming.as_mut().expect("it was put there above");
        incoming.silent_ticks = 0;
        if chunk.point != incoming.point || chunks != incoming.chunks || from != incoming.from {
            return (None, removed);
        }
        if chunk.sequence < incoming.next {
            // Its acknowledgement was lost. Never the last one from here: that means the whole file was accepted.
            context.outbox.send(self.id, from, ack(incoming.next.min(incoming.chunks - 1), false));
        } else if chunk.sequence - incoming.next <= 2 * CHUNKS_IN_FLIGHT {
            incoming.early.insert(chunk.sequence, chunk.bytes);
        }
        let group = self.id;
        (incoming.next_job(group, context.fs), removed)
    }

    /// Goes on after a job. Returns the next one, and a file to remove.
    pub(crate) fn take_received(
        &mut self,
        received: Received,
        fs: &Arc<dyn Fs>,
        outbox: &mut Outbox,
    ) -> (Option<ReceiveJob>, Option<PathBuf>) {
        let Some(incoming) = self.incoming.as_mut().filter(|incoming| incoming.transfer == received.transfer) else {
            return (None, None);
        };
        let ack = |next, refused| Body::Ack { transfer: received.transfer, next, refused };
        incoming.busy = false;
        match received.outcome {
            Ok(ReceivedStep::Written { file }) => {
                incoming.file = Some(file);
                incoming.next += 1;
                outbox.send(self.id, incoming.from, ack(incoming.next.min(incoming.chunks - 1), false));
                let group = self.id;
                (incoming.next_job(group, fs), None)
            }
            Ok(ReceivedStep::Accepted) => {
                let incoming = self.incoming.take().expect("looked at");
                outbox.send(self.id, incoming.from, ack(incoming.chunks, false));
                let data = Bytes::copy_from_slice(&incoming.number.to_be_bytes());
                let taken = self.step_snapshot(incoming.from, incoming.term, incoming.point, incoming.members, data);
                (None, (!taken).then_some(incoming.path))
            }
            Err(error) => {
                tracing::warn!(group = %self.id, %error, "a snapshot could not be received");
                let incoming = self.incoming.take().expect("looked at");
                outbox.send(self.id, incoming.from, ack(0, true));
                (None, Some(incoming.path))
            }
        }
    }

    /// Gives Raft a snapshot message. Returns whether it will become the log.
    fn step_snapshot(&mut self, from: ReplicaId, term: u64, point: Point, members: ConfState, data: Bytes) -> bool {
        let mut snapshot = Snapshot::default();
        snapshot.data = data;
        snapshot.mut_metadata().index = point.index;
        snapshot.mut_metadata().term = point.term;
        snapshot.mut_metadata().set_conf_state(members);
        let mut message = Message::default();
        message.msg_type = MessageType::MsgSnapshot;
        message.from = from.0;
        message.to = self.raw.raft.id;
        message.term = term;
        message.set_snapshot(snapshot);
        let _ = self.raw.step(message);
        self.raw.snap().is_some_and(|pending| pending.get_metadata().index == point.index)
    }

    /// Gives up on a snapshot whose sender fell silent. Returns the file to remove.
    pub(crate) fn tick_receiving(&mut self) -> Option<PathBuf> {
        let incoming = self.incoming.as_mut()?;
        incoming.silent_ticks += 1;
        if incoming.silent_ticks <= 2 * TRANSFER_GIVE_UP_TICKS || incoming.busy {
            return None;
        }
        self.incoming.take().map(|incoming| incoming.path)
    }
}

impl Incoming {
    fn next_job(&mut self, group: GroupId, fs: &Arc<dyn Fs>) -> Option<ReceiveJob> {
        if self.busy {
            return None;
        }
        let work = if self.next == self.chunks {
            ReceiveWork::Accept { file: self.file.clone()?, point: self.point }
        } else {
            let bytes = self.early.remove(&self.next)?;
            let offset = u64::from(self.next) * CHUNK_BYTES as u64;
            ReceiveWork::Write { file: self.file.clone(), offset, bytes }
        };
        self.busy = true;
        Some(ReceiveJob { group, transfer: self.transfer, fs: fs.clone(), path: self.path.clone(), work })
    }
}
