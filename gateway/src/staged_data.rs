//! The bytes of a body between their arrival and their commit.
//!
//! Chunks that are on disks before anything refers to them are this type's to account for: dropped, it deletes them; handed
//! to a commit, it is told whether they are referred to now. So no path out of a handler, a vanished client's included,
//! forgets them. What a crash leaves behind is found by the scrub.

use std::collections::VecDeque;
use std::mem;

use bytes::Bytes;
use placement_types::{Env, TxnId};
use storage_node_proto::object::{ChunkEntry, Data, DataRef};

use crate::coordinators::Coordinators;
use crate::limits::CLEANUP_DEADLINE;
use crate::stripe_writer::PendingChunk;

/// A body that is complete and verified, of the transaction that is to commit it.
pub struct StagedData {
    pub txn: TxnId,
    pub bytes: u64,
    inline: Option<Bytes>,
    chunks: StagedChunks,
}

impl StagedData {
    /// A body small enough to travel inside the command; `txn` may still change.
    pub fn inline(txn: TxnId, content: Bytes, coordinators: Coordinators) -> Self {
        Self { txn, bytes: content.len() as u64, inline: Some(content), chunks: StagedChunks::new(coordinators) }
    }

    pub fn chunked(txn: TxnId, bytes: u64, chunks: StagedChunks) -> Self {
        Self { txn, bytes, inline: None, chunks }
    }

    /// The same bytes for another transaction, should this one be refused: only of an inline body, as shards belong to the
    /// transaction that wrote them.
    pub fn spare(&self, env: &Env) -> Option<Self> {
        let content = self.inline.clone()?;
        let chunks = StagedChunks::new(self.chunks.coordinators.clone());
        Some(Self { txn: TxnId::random(env), bytes: self.bytes, inline: Some(content), chunks })
    }

    /// What a command carries; nothing for zero bytes.
    pub fn data(&self) -> Option<Data> {
        match &self.inline {
            Some(content) => (!content.is_empty()).then(|| Data::Inline(content.clone())),
            None => Some(Data::Chunks(self.chunks.acked.clone())),
        }
    }

    pub fn data_ref(&self) -> Option<DataRef> {
        (self.bytes > 0).then_some(DataRef { txn: self.txn, bytes: self.bytes })
    }

    /// A commit may refer to the chunks: they are no longer this type's to delete.
    pub fn keep(mut self) {
        self.chunks.acked.clear();
    }
}

/// Chunks nothing refers to yet. Dropping it deletes them.
pub struct StagedChunks {
    coordinators: Coordinators,
    pub(crate) acked: Vec<ChunkEntry>,
    pub(crate) pending: VecDeque<PendingChunk>,
}

impl StagedChunks {
    pub fn new(coordinators: Coordinators) -> Self {
        Self { coordinators, acked: Vec::new(), pending: VecDeque::new() }
    }
}

impl Drop for StagedChunks {
    fn drop(&mut self) {
        let (acked, pending) = (mem::take(&mut self.acked), mem::take(&mut self.pending));
        if acked.is_empty() && pending.is_empty() {
            return;
        }
        let coordinators = self.coordinators.clone();
        let env = coordinators.env.clone();
        let cleanup = env.spawn("delete chunks of a failed write", async move {
            let mut entries = acked;
            for chunk in pending {
                // Its coordinator is told that the body failed, and deletes what it wrote itself unless it had all of it.
                if let Ok(Ok(entry)) = coordinators.env.timeout(CLEANUP_DEADLINE, chunk.abandon()).await {
                    entries.push(entry);
                }
            }
            coordinators.delete_unreferenced(entries).await;
        });
        cleanup.detach();
    }
}
