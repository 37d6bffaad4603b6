//! Copies of the system group's state on every node: what a cluster is had back from when every replica of it is gone.
//!
//! Each node, also one without a replica, asks for a copy every hour ([`COPY_INTERVAL`]) and when the layout of the cluster
//! changes, and keeps the newest few in `DIR/node/backup/`. Any replica answers, from what it has applied. A copy is whole and
//! durable before it has its name; a damaged one is passed over for the one before (D30).
//!
//! A copy holds the rows of the state without the outcomes of transactions: who sent those got their answers, or gave up, long
//! before anybody goes back to a copy. What changed since it was taken is not in it: buckets may be missing.
//!
//! | file | bytes |
//! |---|---|
//! | magic | 8: `DOZOCOPY` |
//! | version | `u16`: 1 |
//! | incarnation, epoch, taken | `u64` each |
//! | copy | cluster (16), term, index, rows: `u32` count; each: key, value, with `u32` length |
//! | crc | CRC-64/NVME `u64` of everything before |

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use placement_map::ClusterMap;
use placement_map::recovery::{CopyReport, KnownCluster, KnownNode};
use placement_proto::api::{MapWatch, PlacementApi, PlacementError, SystemCopy};
use placement_types::codec::{Decode, DecodeError, Decoder, Encode, Encoder};
use placement_types::{Env, Epoch, Incarnation, TaskHandle, Timestamp};
use storage_node_kv::KvRead;

use crate::limits::{COPIES_KEPT, COPY_BYTES_MAX, COPY_INTERVAL, COPY_RETRY, COPY_SETTLE};
use crate::rows;

const MAGIC: &[u8; 8] = b"DOZOCOPY";
const VERSION: u16 = 1;
const DIR: &str = "backup";
const EXTENSION: &str = "copy";

/// A copy as it is kept.
///
/// # Invariants
/// The rows hold a cluster map, of `copy.cluster` and `epoch`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backup {
    pub incarnation: Incarnation,
    pub epoch: Epoch,
    pub taken: Timestamp,
    pub copy: SystemCopy,
}

placement_types::codec_struct!(Backup { incarnation, epoch, taken, copy });

#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    #[error("access {path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("nobody gives one: {0}")]
    Placement(#[from] PlacementError),
    #[error("the copy that came is not one: {why}")]
    Broken { why: DecodeError },
}

impl Backup {
    fn new(incarnation: Incarnation, taken: Timestamp, copy: SystemCopy) -> Result<Self, DecodeError> {
        let epoch = map_in(&copy.rows)?.epoch;
        Ok(Self { incarnation, epoch, taken, copy })
    }

    fn encode_file(&self) -> Vec<u8> {
        let mut out = Encoder::new();
        out.raw(MAGIC);
        out.u16(VERSION);
        self.encode(&mut out);
        let mut bytes = out.finish().to_vec();
        bytes.extend_from_slice(&crc_fast::crc64_nvme(&bytes).to_be_bytes());
        bytes
    }

    fn decode_file(bytes: &[u8]) -> Result<Self, DecodeError> {
        let (content, crc) = bytes.split_last_chunk::<8>().ok_or(DecodeError::Truncated)?;
        if crc_fast::crc64_nvme(content) != u64::from_be_bytes(*crc) {
            return Err(DecodeError::Invalid { what: "copy: its checksum differs" });
        }
        let mut input = Decoder::new(content);
        if input.raw(MAGIC.len())? != MAGIC {
            return Err(DecodeError::Invalid { what: "copy" });
        }
        input.version("a copy of the system group", VERSION)?;
        let backup = Self::decode(&mut input)?;
        input.finish()?;
        let map = map_in(&backup.copy.rows)?;
        let fits = map.cluster == backup.copy.cluster && map.epoch == backup.epoch;
        if fits { Ok(backup) } else { Err(DecodeError::Invalid { what: "copy: its map is another one" }) }
    }

    /// For a plan of recovery.
    pub fn report(&self) -> CopyReport {
        let map = map_in(&self.copy.rows).expect("checked when it was made or read");
        CopyReport { place: self.copy.place, taken: self.taken, known: known_by(&map) }
    }
}

fn map_in(rows: &[(Bytes, Bytes)]) -> Result<ClusterMap, DecodeError> {
    let row = rows.iter().find(|(key, _)| *key == rows::MAP).ok_or(DecodeError::Invalid { what: "copy: it has no map" })?;
    ClusterMap::from_versioned(&row.1)
}

/// Who there is, by the map among these rows of the system group; `None` when there is none that can be read.
pub fn known_cluster(rows: &dyn KvRead) -> Option<KnownCluster> {
    rows::map(rows).ok().flatten().map(|map| known_by(&map))
}

fn known_by(map: &ClusterMap) -> KnownCluster {
    let node = |node: &placement_map::Node| KnownNode { node: node.id, replica: node.replica, address: node.address.clone() };
    KnownCluster { epoch: map.epoch, nodes: map.nodes.values().map(node).collect(), groups: map.groups.keys().copied().collect() }
}

/// The newest copy on a node that is not damaged. Blocks.
///
/// # Errors
/// When the directory cannot be read.
pub fn newest(env: &Env, node_dir: &Path) -> Result<Option<Backup>, BackupError> {
    for (_, path) in files(env, node_dir)?.into_iter().rev() {
        let bytes = env.fs.read_small(&path, COPY_BYTES_MAX);
        match bytes.map(|bytes| Backup::decode_file(&bytes)) {
            Ok(Ok(backup)) => return Ok(Some(backup)),
            Ok(Err(why)) => tracing::error!(path = %path.display(), %why, "a copy of the cluster's state is damaged"),
            Err(error) => tracing::error!(path = %path.display(), %error, "a copy of the cluster's state cannot be read"),
        }
    }
    Ok(None)
}

/// The copies by their numbers, oldest first.
fn files(env: &Env, node_dir: &Path) -> Result<Vec<(u64, PathBuf)>, BackupError> {
    let dir = node_dir.join(DIR);
    let failed = |source| BackupError::Io { path: dir.clone(), source };
    if env.fs.metadata(&dir).map_err(failed)?.is_none() {
        return Ok(Vec::new());
    }
    let number = |path: &Path| {
        let name = path.file_name()?.to_str()?.strip_suffix(EXTENSION)?.strip_suffix('.')?.strip_prefix("system-")?;
        u64::from_str_radix(name, 16).ok()
    };
    let entries = env.fs.read_dir(&dir).map_err(failed)?;
    let mut files: Vec<(u64, PathBuf)> =
        entries.into_iter().filter_map(|entry| Some((number(&entry.path)?, entry.path))).collect();
    files.sort_unstable();
    Ok(files)
}

/// Puts a copy down, durably, and then removes those it makes superfluous. Blocks.
fn put(env: &Env, node_dir: &Path, backup: &Backup) -> Result<(), BackupError> {
    let dir = node_dir.join(DIR);
    let at = |path: &Path| {
        let path = path.to_owned();
        move |source| BackupError::Io { path, source }
    };
    env.fs.create_dir_all(&dir).map_err(at(&dir))?;
    env.fs.sync_dir(node_dir).map_err(at(node_dir))?;
    let mut files = files(env, node_dir)?;
    let number = files.last().map_or(1, |(number, _)| number.saturating_add(1));
    let path = dir.join(format!("system-{number:016x}.{EXTENSION}"));
    env.fs.replace_durably(&path, &backup.encode_file()).map_err(at(&path))?;
    files.push((number, path));
    let superfluous = files.len().saturating_sub(COPIES_KEPT);
    for (_, old) in files.drain(..superfluous) {
        env.fs.remove_file(&old).map_err(at(&old))?;
    }
    Ok(())
}

/// What keeps the copies of a node fresh.
pub struct Keeper {
    pub env: Env,
    pub node_dir: PathBuf,
    pub incarnation: Incarnation,
    pub placement: Arc<dyn PlacementApi>,
    pub maps: MapWatch,
    /// Told when the newest copy was taken.
    pub taken: Arc<dyn Fn(Timestamp) + Send + Sync>,
}

impl Keeper {
    /// Starts it. Dropping the handle stops it.
    pub fn start(self) -> TaskHandle {
        self.env.clone().spawn("system-copies", self.run())
    }

    async fn run(self) {
        let newest = self.load().await;
        let mut maps = self.maps.clone();
        let mut layout = newest.as_ref().and_then(|backup| Some(map_in(&backup.copy.rows).ok()?.layout));
        let age = newest.map(|backup| self.env.now().since(backup.taken));
        let mut wait = COPY_INTERVAL.saturating_sub(age.unwrap_or_default());
        loop {
            let differs = |map: &Option<Arc<ClusterMap>>| map.as_ref().is_some_and(|map| Some(map.layout) != layout);
            let changed = async { maps.wait_for(differs).await.map(|_| ()) };
            match self.env.timeout(wait, changed).await {
                // The process is going down.
                Ok(Err(_)) => return,
                // Not all nodes at once, and one copy for changes that come together.
                Ok(Ok(())) => self.env.sleep(COPY_SETTLE + self.up_to(COPY_SETTLE)).await,
                Err(_) => {}
            }
            match self.copy().await {
                Ok(copied) => {
                    layout = Some(copied);
                    wait = COPY_INTERVAL - self.up_to(COPY_INTERVAL / 8);
                }
                Err(error) => {
                    tracing::warn!(%error, "the cluster's state could not be copied to this node yet");
                    self.env.sleep(COPY_RETRY + self.up_to(COPY_RETRY)).await;
                    wait = Duration::ZERO;
                }
            }
        }
    }

    fn up_to(&self, limit: Duration) -> Duration {
        let millis = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        Duration::from_millis(self.env.random_below(millis.max(1)))
    }

    async fn load(&self) -> Option<Backup> {
        let (env, dir) = (self.env.clone(), self.node_dir.clone());
        match self.env.run_blocking(move || newest(&env, &dir)).await {
            Ok(found) => {
                if let Some(backup) = &found {
                    (self.taken)(backup.taken);
                }
                found
            }
            Err(error) => {
                tracing::warn!(%error, "the copies of the cluster's state cannot be read");
                None
            }
        }
    }

    /// Returns the layout of what was copied.
    async fn copy(&self) -> Result<u64, BackupError> {
        let copy = self.placement.system_copy().await?;
        let taken = self.env.now();
        let backup = Backup::new(self.incarnation, taken, copy).map_err(|why| BackupError::Broken { why })?;
        let layout = map_in(&backup.copy.rows).map_err(|why| BackupError::Broken { why })?.layout;
        let (env, dir) = (self.env.clone(), self.node_dir.clone());
        self.env.run_blocking(move || put(&env, &dir, &backup)).await?;
        (self.taken)(taken);
        Ok(layout)
    }
}

#[cfg(test)]
mod tests;
