//! Chunks in a map, behind the coordinator's face; what the disks really hold is known, so that leaks show.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::{StreamExt as _, stream};
use parking_lot::Mutex;
use placement_types::{ByteRange, ChunkId, DiskId, Profile, ShardId};
use storage_node_proto::api::{
    ByteStream, ChunkApi, ChunkError, DiskReport, RestoreShards, ShardApi, ShardError, UpkeepApi, WriteChunk, WriteShard,
};
use storage_node_proto::damage::{ChunkVerdict, ContentVerdict, DamageReport, Held, ShardVerdict};
use storage_node_proto::object::ChunkEntry;
use storage_node_proto::upkeep::UpkeepReport;

use super::{Member, NODES};

/// What goes wrong with a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// The node cannot be connected to.
    Connect,
    /// It breaks after the first piece.
    AfterFirstPiece,
    /// A read delivers wrong bytes; a write acknowledges a wrong hash.
    WrongBytes,
    /// The chunk cannot be read through any disk the manifest names.
    Unreadable,
}

#[derive(Default)]
pub struct Chunks {
    contents: Mutex<BTreeMap<ChunkId, Bytes>>,
    shards: Mutex<BTreeSet<(DiskId, ShardId)>>,
    pub write_trouble: Mutex<VecDeque<Trouble>>,
    pub read_trouble: Mutex<VecDeque<Trouble>>,
    pub reads: Mutex<usize>,
    /// Bytes of chunks that readers hold, or that streams hold for them.
    lent: Arc<AtomicUsize>,
    /// The write of this number, counting down to it from now, waits for ever after its bytes came. 0: none.
    pub hang_write: AtomicUsize,
}

impl Chunks {
    /// Shards on any disk.
    pub fn shards(&self) -> usize {
        self.shards.lock().len()
    }

    /// Bytes that somebody keeps from being freed: a slice of a piece counts as the whole piece.
    pub fn lent(&self) -> usize {
        self.lent.load(Ordering::SeqCst)
    }

    /// Codes a chunk anew under another id, and deletes the old shards as gc does after the grace.
    pub fn recode(&self, old: &ChunkEntry, chunk: ChunkId) -> ChunkEntry {
        let profile = Profile::new(1, 2).expect("a legal profile");
        let new = ChunkEntry { chunk, profile, ..old.clone() };
        let content = self.contents.lock().remove(&old.chunk).expect("it was written");
        self.contents.lock().insert(chunk, content);
        let mut shards = self.shards.lock();
        for (index, disk) in (0u8..).zip(old.shards.iter().flatten()) {
            shards.remove(&(*disk, ShardId { chunk: old.chunk, index }));
            shards.insert((*disk, ShardId { chunk, index }));
        }
        new
    }

    /// Deletes the shards in one slot of every chunk.
    pub fn lose_slot(&self, slot: u8) {
        self.shards.lock().retain(|(_, shard)| shard.index != slot);
    }

    /// Deletes every shard there is, as gc does with those of objects that are no more.
    pub fn delete_all(&self) {
        self.shards.lock().clear();
    }
}

/// A piece, counted for as long as it is held.
struct Lent {
    piece: Bytes,
    lent: Arc<AtomicUsize>,
}

impl Lent {
    fn piece(piece: Bytes, lent: &Arc<AtomicUsize>) -> Bytes {
        lent.fetch_add(piece.len(), Ordering::SeqCst);
        Bytes::from_owner(Self { piece, lent: Arc::clone(lent) })
    }
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.piece
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.lent.fetch_sub(self.piece.len(), Ordering::SeqCst);
    }
}

const PIECE_BYTES: usize = 1 << 20;

#[async_trait]
impl ChunkApi for Member {
    async fn write_chunk(&self, request: WriteChunk, mut body: ByteStream<ChunkError>) -> Result<ChunkEntry, ChunkError> {
        let trouble = self.chunks.write_trouble.lock().pop_front();
        if trouble == Some(Trouble::Connect) {
            return Err(ChunkError::Unreachable { why: "trouble".into() });
        }
        let mut content = BytesMut::new();
        while let Some(piece) = body.next().await {
            content.extend_from_slice(&piece?);
            if trouble == Some(Trouble::AfterFirstPiece) {
                return Err(ChunkError::Unreachable { why: "trouble".into() });
            }
        }
        let countdown = self.chunks.hang_write.load(Ordering::SeqCst);
        if countdown > 0 {
            self.chunks.hang_write.store(countdown - 1, Ordering::SeqCst);
        }
        if countdown == 1 {
            std::future::pending::<()>().await;
        }
        if request.bytes.is_some_and(|bytes| bytes as usize != content.len()) {
            return Err(ChunkError::WrongLength { chunk: request.chunk });
        }
        let disks: Vec<DiskId> = (1..=NODES).map(DiskId::from_u128).collect();
        let hash = if trouble == Some(Trouble::WrongBytes) { [7; 32] } else { *blake3::hash(&content).as_bytes() };
        let entry = ChunkEntry {
            chunk: request.chunk,
            bytes: u32::try_from(content.len()).expect("a chunk's length fits"),
            profile: Profile::new(2, 1).expect("a legal profile"),
            hash,
            shards: disks.iter().copied().map(Some).collect(),
        };
        for (index, disk) in (0u8..).zip(disks) {
            self.chunks.shards.lock().insert((disk, ShardId { chunk: request.chunk, index }));
        }
        self.chunks.contents.lock().insert(request.chunk, content.freeze());
        Ok(entry)
    }

    async fn read_chunk(&self, entry: ChunkEntry, range: ByteRange) -> Result<ByteStream<ChunkError>, ChunkError> {
        *self.chunks.reads.lock() += 1;
        let trouble = self.chunks.read_trouble.lock().pop_front();
        let unreadable = || ChunkError::Unreadable { chunk: entry.chunk, readable: 0, needed: 2, why: "gone".into() };
        match trouble {
            Some(Trouble::Connect) => return Err(ChunkError::Unreachable { why: "trouble".into() }),
            Some(Trouble::Unreadable) => return Err(unreadable()),
            Some(Trouble::AfterFirstPiece | Trouble::WrongBytes) | None => {}
        }
        let held = (0u8..).zip(&entry.shards).filter(|(index, disk)| {
            let shard = ShardId { chunk: entry.chunk, index: *index };
            disk.is_some_and(|disk| self.chunks.shards.lock().contains(&(disk, shard)))
        });
        if held.count() < entry.profile.data() {
            return Err(unreadable());
        }
        let content = self.chunks.contents.lock().get(&entry.chunk).cloned().ok_or_else(unreadable)?;
        let mut rest = content.slice(usize::try_from(range.start()).unwrap()..usize::try_from(range.end()).unwrap());
        if trouble == Some(Trouble::WrongBytes) {
            let mut wrong = BytesMut::from(&rest[..]);
            let last = wrong.len() - 1;
            wrong[last] ^= 1;
            rest = wrong.freeze();
        }
        let mut pieces = Vec::new();
        while !rest.is_empty() {
            pieces.push(Ok(Lent::piece(rest.split_to(rest.len().min(PIECE_BYTES)), &self.chunks.lent)));
            if trouble == Some(Trouble::AfterFirstPiece) {
                pieces.push(Err(ChunkError::Unreachable { why: "trouble".into() }));
                break;
            }
        }
        Ok(stream::iter(pieces).boxed())
    }

    async fn restore_shards(&self, _: RestoreShards) -> Result<Option<Vec<Option<DiskId>>>, ChunkError> {
        Ok(None)
    }

    async fn verify_chunk(&self, entry: ChunkEntry) -> Result<ChunkVerdict, ChunkError> {
        let held = |index: u8, disk| self.chunks.shards.lock().contains(&(disk, ShardId { chunk: entry.chunk, index }));
        let shard = |(index, disk): (u8, &Option<DiskId>)| match disk {
            Some(disk) if held(index, *disk) => ShardVerdict::Whole,
            Some(_) => ShardVerdict::Missing,
            None => ShardVerdict::Owed,
        };
        let shards: Vec<ShardVerdict> = (0u8..).zip(&entry.shards).map(shard).collect();
        let whole = shards.iter().filter(|shard| **shard == ShardVerdict::Whole).count();
        let content = if whole < entry.profile.data() { ContentVerdict::Lost } else { ContentVerdict::Right };
        Ok(ChunkVerdict { shards, content })
    }
}

#[async_trait]
impl ShardApi for Member {
    async fn write_shard(&self, _: WriteShard, _: ByteStream<ShardError>) -> Result<(), ShardError> {
        unreachable!("a gateway writes chunks, never shards")
    }

    async fn read_units(&self, _: DiskId, _: ShardId, _: u32, _: u32) -> Result<ByteStream<ShardError>, ShardError> {
        unreachable!("a gateway reads chunks, never shards")
    }

    async fn delete_shards(&self, disk: DiskId, shards: Vec<ShardId>) -> Result<(), ShardError> {
        assert_eq!(disk.as_u128(), self.id.as_u128(), "the disk is this node's");
        let mut held = self.chunks.shards.lock();
        for shard in shards {
            held.remove(&(disk, shard));
        }
        Ok(())
    }

    async fn check_shards(&self, _: DiskId, _: Vec<ShardId>) -> Result<Vec<Held>, ShardError> {
        unreachable!("a gateway asks about chunks, never about shards")
    }

    async fn disks(&self) -> Result<Vec<DiskReport>, ShardError> {
        Ok(Vec::new())
    }
}

#[async_trait]
impl UpkeepApi for Member {
    async fn upkeep(&self) -> Result<UpkeepReport, ShardError> {
        Ok(UpkeepReport::default())
    }

    async fn report_damage(&self, _: DamageReport) -> Result<(), ShardError> {
        unreachable!("a gateway reports no damage")
    }
}
