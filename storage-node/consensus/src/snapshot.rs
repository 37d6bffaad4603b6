//! Snapshot files: a group's whole state at one applied point.
//!
//! | part | bytes |
//! |---|---|
//! | head | magic `DZRSNAPS`, version `u16` = 1, group `u32`, point |
//! | pair | `u8` = 1, key: `u32` length and bytes, value: `u32` length and bytes |
//! | end | `u8` = 0, number of pairs `u64`, CRC-64/NVME `u64` of everything before |
//!
//! A file is read to its end and checked before it may replace anything, so a broken one costs a transfer and no state (D30).
//! Everything here blocks.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use placement_types::codec::{Decode, Decoder, Encode, Encoder};
use placement_types::{File, Fs, GroupId, OpenMode};
use raft::eraftpb::ConfState;
use storage_node_kv::{Durability, Kv, KvError, KvRead, Prefixed, Step, WriteBatch};

use crate::format::{GroupMeta, MetaState, Origin, Point, meta_key, state_prefix};
use crate::limits::{INSTALL_BATCH_BYTES, SNAPSHOT_KEY_BYTES_MAX, SNAPSHOT_VALUE_BYTES_MAX};

const MAGIC: [u8; 8] = *b"DZRSNAPS";
const VERSION: u16 = 1;
const HEAD_BYTES: usize = 8 + 2 + 4 + 16;
const PAIR: u8 = 1;
const END: u8 = 0;
const BUFFER_BYTES: usize = 1 << 20;

#[derive(Debug, thiserror::Error)]
pub(crate) enum SnapshotError {
    #[error("the snapshot file {path} is broken")]
    Broken { path: PathBuf },
    #[error("{action} {path}")]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    #[error(transparent)]
    Kv(#[from] KvError),
    #[error("the state of group {group} is not whole")]
    NotWhole { group: GroupId },
}

fn failed<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> SnapshotError + 'a {
    move |source| SnapshotError::Io { action, path: path.to_owned(), source }
}

/// A snapshot to send.
pub(crate) struct Built {
    pub point: Point,
    pub members: ConfState,
    pub path: PathBuf,
    pub file: Arc<dyn File>,
    pub bytes: u64,
}

/// Writes the group's state, as it is now, to a new file.
pub(crate) fn build(fs: &dyn Fs, path: &Path, kv: &dyn Kv, group: GroupId) -> Result<Built, SnapshotError> {
    let view = kv.snapshot();
    let meta = read_meta(&*view, group)?.filter(|meta| meta.state == MetaState::Whole);
    let meta = meta.ok_or(SnapshotError::NotWhole { group })?;
    let file = fs.open(path, OpenMode::CreateNew).map_err(failed("create", path))?;
    let mut writer = Writer::begin(&*file, path, group, meta.applied)?;
    let (mut pairs, mut outcome) = (0u64, Ok(()));
    Prefixed::new(&*view, state_prefix(group)).scan(b"", b"", &mut |key, value| {
        outcome = writer.pair(key, value);
        pairs += 1;
        if outcome.is_ok() { Step::Next } else { Step::Stop }
    })?;
    outcome?;
    let bytes = writer.end(pairs)?;
    Ok(Built { point: meta.applied, members: meta.members, path: path.to_owned(), file, bytes })
}

/// Writes these pairs as a group's whole state to a new file, durably: as if it had been received.
pub(crate) fn write(
    fs: &dyn Fs,
    path: &Path,
    group: GroupId,
    point: Point,
    pairs: &[(Bytes, Bytes)],
) -> Result<(), SnapshotError> {
    let file = fs.open(path, OpenMode::CreateNew).map_err(failed("create", path))?;
    let mut writer = Writer::begin(&*file, path, group, point)?;
    for (key, value) in pairs {
        writer.pair(key, value)?;
    }
    writer.end(pairs.len() as u64)?;
    accept(fs, path, &*file, group, point)
}

pub(crate) fn read_meta(kv: &dyn KvRead, group: GroupId) -> Result<Option<GroupMeta>, KvError> {
    let Some(bytes) = kv.get(&meta_key(group))? else { return Ok(None) };
    let corrupt = |error| KvError::Corrupt { detail: format!("the state record of group {group}: {error}") };
    GroupMeta::decode(&bytes).map(Some).map_err(corrupt)
}

fn digest() -> crc_fast::Digest {
    crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc64Nvme)
}

struct Writer<'a> {
    file: &'a dyn File,
    path: &'a Path,
    buffer: Vec<u8>,
    offset: u64,
    digest: crc_fast::Digest,
}

impl<'a> Writer<'a> {
    fn begin(file: &'a dyn File, path: &'a Path, group: GroupId, point: Point) -> Result<Self, SnapshotError> {
        let mut writer = Self { file, path, buffer: Vec::with_capacity(2 * BUFFER_BYTES), offset: 0, digest: digest() };
        let mut head = Encoder::new();
        head.raw(&MAGIC);
        head.u16(VERSION);
        group.encode(&mut head);
        point.encode(&mut head);
        writer.write(&head.finish())?;
        Ok(writer)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), SnapshotError> {
        self.digest.update(bytes);
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= BUFFER_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), SnapshotError> {
        self.file.write_at(&self.buffer, self.offset).map_err(failed("write", self.path))?;
        self.offset += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    fn pair(&mut self, key: &[u8], value: &[u8]) -> Result<(), SnapshotError> {
        let length = |bytes: &[u8]| u32::try_from(bytes.len()).expect("keys and values are bounded").to_be_bytes();
        self.write(&[PAIR])?;
        self.write(&length(key))?;
        self.write(key)?;
        self.write(&length(value))?;
        self.write(value)
    }

    fn end(&mut self, pairs: u64) -> Result<u64, SnapshotError> {
        self.write(&[END])?;
        self.write(&pairs.to_be_bytes())?;
        let crc = self.digest.finalize();
        self.write(&crc.to_be_bytes())?;
        self.flush()?;
        Ok(self.offset)
    }
}

/// Checks a received file and makes it durable, so that the log may refer to it.
pub(crate) fn accept(fs: &dyn Fs, path: &Path, file: &dyn File, group: GroupId, point: Point) -> Result<(), SnapshotError> {
    read(file, path, group, point, &mut |_, _| Ok(()))?;
    file.sync_data().map_err(failed("sync", path))?;
    let dir = path.parent().expect("a snapshot lies in a directory");
    fs.sync_dir(dir).map_err(failed("sync", dir))
}

/// Replaces the group's state by the file's. Interrupted by a crash, it is to be run again: until it is done the state says
/// that it is not whole. Returns once the new state is durable; the file is not needed after that.
pub(crate) fn install(fs: &dyn Fs, path: &Path, kv: &dyn Kv, group: GroupId, origin: &Origin) -> Result<(), SnapshotError> {
    let file = fs.open(path, OpenMode::Read).map_err(failed("open", path))?;
    let prefix = state_prefix(group);
    let meta = |state| GroupMeta { state, applied: origin.point, members: origin.members.clone() }.encode();
    let mut batch = WriteBatch::new();
    // Batches become durable in the order written, so no part of the new state is ever found without this mark.
    batch.put(meta_key(group).to_vec(), meta(MetaState::Installing));
    batch.delete_range(prefix.to_vec(), Prefixed::end_of(&prefix));
    kv.write(&batch, Durability::Buffered)?;
    let (mut batch, mut bytes) = (WriteBatch::new(), 0);
    read(&*file, path, group, origin.point, &mut |key, value| {
        bytes += key.len() + value.len();
        batch.put([&prefix[..], key].concat(), value.to_vec());
        if bytes >= INSTALL_BATCH_BYTES {
            kv.write(&std::mem::take(&mut batch), Durability::Buffered)?;
            bytes = 0;
        }
        Ok(())
    })?;
    batch.put(meta_key(group).to_vec(), meta(MetaState::Whole));
    kv.write(&batch, Durability::Buffered)?;
    kv.flush()?;
    Ok(())
}

type OnPair<'a> = &'a mut dyn FnMut(&[u8], &[u8]) -> Result<(), SnapshotError>;

/// Reads a file to its end, and checks all of it.
fn read(file: &dyn File, path: &Path, group: GroupId, point: Point, on_pair: OnPair<'_>) -> Result<(), SnapshotError> {
    let broken = || SnapshotError::Broken { path: path.to_owned() };
    let length = file.len().map_err(failed("measure", path))?;
    let mut reader = Reader { file, path, buffer: Vec::new(), used: 0, offset: 0, length, digest: digest() };
    let head = reader.take(HEAD_BYTES)?.to_vec();
    let mut input = Decoder::new(&head);
    let magic = input.array::<8>().map_err(|_| broken())?;
    let version = input.u16().map_err(|_| broken())?;
    let whose = GroupId::decode(&mut input).map_err(|_| broken())?;
    let taken = Point::decode(&mut input).map_err(|_| broken())?;
    if magic != MAGIC || version != VERSION || whose != group || taken != point {
        return Err(broken());
    }
    let mut pairs = 0u64;
    while reader.take(1)?[0] == PAIR {
        let key_bytes = reader.length()?;
        if key_bytes > SNAPSHOT_KEY_BYTES_MAX {
            return Err(broken());
        }
        let key = reader.take(key_bytes)?.to_vec();
        let value_bytes = reader.length()?;
        if value_bytes > SNAPSHOT_VALUE_BYTES_MAX {
            return Err(broken());
        }
        on_pair(&key, reader.take(value_bytes)?)?;
        pairs += 1;
    }
    let counted = u64::from_be_bytes(reader.take(8)?.try_into().expect("eight bytes were taken"));
    let crc = reader.digest.finalize();
    let written = u64::from_be_bytes(reader.take(8)?.try_into().expect("eight bytes were taken"));
    if counted != pairs || crc != written || !reader.is_at_end() { Err(broken()) } else { Ok(()) }
}

struct Reader<'a> {
    file: &'a dyn File,
    path: &'a Path,
    buffer: Vec<u8>,
    used: usize,
    offset: u64,
    length: u64,
    digest: crc_fast::Digest,
}

impl Reader<'_> {
    /// The next `bytes` bytes. Nothing is reserved that the file cannot fill.
    fn take(&mut self, bytes: usize) -> Result<&[u8], SnapshotError> {
        let left = self.buffer.len() - self.used;
        if left < bytes {
            let in_file = self.length - self.offset;
            if ((bytes - left) as u64) > in_file {
                return Err(SnapshotError::Broken { path: self.path.to_owned() });
            }
            self.buffer.drain(..self.used);
            self.used = 0;
            let more = usize::try_from(in_file).unwrap_or(usize::MAX).min((bytes - left).max(BUFFER_BYTES));
            self.buffer.resize(left + more, 0);
            self.file.read_exact_at(&mut self.buffer[left..], self.offset).map_err(failed("read", self.path))?;
            self.offset += more as u64;
        }
        let taken = &self.buffer[self.used..self.used + bytes];
        self.used += bytes;
        self.digest.update(taken);
        Ok(taken)
    }

    fn length(&mut self) -> Result<usize, SnapshotError> {
        let bytes = self.take(4)?.try_into().expect("four bytes were taken");
        Ok(u32::from_be_bytes(bytes) as usize)
    }

    fn is_at_end(&self) -> bool {
        self.offset == self.length && self.used == self.buffer.len()
    }
}
