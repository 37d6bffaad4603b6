//! A machine with one disk that can be crashed and opened again.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use placement_env::sim::{self, SimControls, SimFs};
use placement_types::{ChunkId, ClusterId, DiskId, Env, NodeId, OpenMode, Profile, ShardId, Slot, TxnId};
use storage_node_kv::{Kv, KvError, MemoryKv};

use crate::{Disk, DiskIdentity, ExpectedIdentity, IndexOpener, OpenError, Options, Owner, ReadError, ShardWriter, WriteError};

pub const SEGMENT_BYTES: u64 = 2 << 20;
pub const IDENTITY: DiskIdentity =
    DiskIdentity { cluster: ClusterId::from_u128(1), node: NodeId::from_u128(2), disk: DiskId::from_u128(3) };
pub const OWNER: Owner = Owner { txn: TxnId::from_u128(9), slot: Slot(5) };
pub const OPTIONS: Options = Options { segment_bytes: SEGMENT_BYTES, reserve_bytes: 2 * SEGMENT_BYTES };

pub struct Machine {
    pub env: Env,
    pub fs: SimFs,
    /// The index's store; replaced when it is lost.
    pub kv: Arc<Mutex<MemoryKv>>,
    /// How often the index is found corrupt when it is opened.
    pub corrupt_opens: Arc<Mutex<u32>>,
}

impl Machine {
    /// With a formatted disk at [`path`].
    pub async fn new(seed: u64) -> Self {
        let (env, SimControls { fs, .. }) = sim::env(seed);
        Disk::format(&env, path(), IDENTITY).await.unwrap();
        Self { env, fs, kv: Arc::default(), corrupt_opens: Arc::default() }
    }

    pub fn opener(&self) -> IndexOpener {
        let (kv, corrupt) = (self.kv.clone(), self.corrupt_opens.clone());
        Arc::new(move |_: &Path| {
            let mut corrupt = corrupt.lock();
            if *corrupt > 0 {
                *corrupt -= 1;
                *kv.lock() = MemoryKv::new();
                return Err(KvError::Corrupt { detail: "a block does not match its checksum".into() });
            }
            Ok(Arc::new(kv.lock().clone()) as Arc<dyn Kv>)
        })
    }

    pub async fn try_open(&self) -> Result<Disk, OpenError> {
        Disk::open(&self.env, path(), ExpectedIdentity::exactly(IDENTITY), self.opener(), OPTIONS).await
    }

    pub async fn open(&self) -> Disk {
        self.try_open().await.unwrap()
    }

    /// The power goes: the disk keeps what was synced and some of the rest, the index `batches` of its unsynced batches.
    pub async fn crash(&self, disk: Disk, batches: usize) {
        drop(disk);
        // The disk's tasks are aborted and have to be gone before another process can be there.
        tokio::task::yield_now().await;
        self.fs.crash();
        self.kv.lock().crash_keeping(batches);
    }

    /// The index is gone, as if its directory had been removed.
    pub fn lose_index(&self) {
        *self.kv.lock() = MemoryKv::new();
    }

    pub fn segment_path(&self, number: u32) -> PathBuf {
        path().join(format!("segments/{number:08}.seg"))
    }

    /// The offsets at which `needle` is in a segment.
    pub fn find(&self, number: u32, needle: &[u8]) -> Vec<u64> {
        let bytes = (&self.fs as &dyn placement_types::Fs).read_small(&self.segment_path(number), SEGMENT_BYTES).unwrap();
        let mut found = Vec::new();
        let mut start = 0;
        while let Some(at) = memchr(&bytes[start..], needle) {
            found.push((start + at) as u64);
            start += at + 1;
        }
        found
    }

    pub fn overwrite(&self, number: u32, offset: u64, bytes: &[u8]) {
        let file = self.env.fs.open(&self.segment_path(number), OpenMode::ReadWrite).unwrap();
        file.write_at(bytes, offset).unwrap();
        file.sync_data().unwrap();
    }
}

fn memchr(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

pub fn path() -> &'static Path {
    Path::new("/disk")
}

pub fn shard(id: u128) -> ShardId {
    ShardId { chunk: ChunkId::from_u128(id), index: (id % 6) as u8 }
}

/// Units of the given sizes, whose bytes depend on `seed` and place.
pub fn units(seed: u64, sizes: &[usize]) -> Vec<Bytes> {
    let unit = |(index, size): (usize, &usize)| {
        let mut bytes = vec![0; *size];
        blake3::Hasher::new().update(&seed.to_be_bytes()).update(&index.to_be_bytes()).finalize_xof().fill(&mut bytes);
        Bytes::from(bytes)
    };
    sizes.iter().enumerate().map(unit).collect()
}

pub fn writer(disk: &Disk, id: ShardId) -> ShardWriter {
    disk.writer(id, OWNER, Profile::SINGLE)
}

pub async fn put(disk: &Disk, id: ShardId, units: &[Bytes]) -> Result<(), WriteError> {
    let mut writer = writer(disk, id);
    for unit in units {
        writer.append(unit.clone()).await?;
    }
    writer.finish().await
}

/// Stores shards whose units have these sizes and depend on the id.
pub async fn put_all(disk: &Disk, ids: impl IntoIterator<Item = u128>, sizes: &[usize]) {
    for id in ids {
        put(disk, shard(id), &units(id as u64, sizes)).await.unwrap();
    }
}

/// Whether shards are what [`put_all`] stored.
pub async fn check_all(disk: &Disk, ids: impl IntoIterator<Item = u128>, sizes: &[usize]) {
    for id in ids {
        assert_eq!(get(disk, shard(id)).await, Some(units(id as u64, sizes)), "{id}");
    }
}

/// Closes a disk and opens it again, perhaps without its index.
pub async fn reopened(machine: &Machine, disk: Disk, lose_index: bool) -> Disk {
    let _ = disk.close().await;
    if lose_index {
        machine.lose_index();
    }
    machine.open().await
}

/// All units of a shard, `None` when it is not there.
pub async fn get(disk: &Disk, id: ShardId) -> Option<Vec<Bytes>> {
    let count = match disk.stat(id).await {
        Ok(summary) => summary.units,
        Err(ReadError::NotFound { .. }) => return None,
        Err(error) => panic!("{error}"),
    };
    let units = disk.read_units(id, 0, count).await.unwrap();
    disk.verify_shard(id).await.unwrap();
    Some(units)
}
