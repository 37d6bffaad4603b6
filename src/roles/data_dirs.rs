//! The data directories of a node: which are its disks, and where its own state is.
//!
//! ```text
//! DIR/disk/      one disk: disk.id, segments/, index/           (every directory)
//! DIR/node/      identity, disks, log/, state/                  (the first directory)
//! ```
//!
//! The ids of new disks are drawn and written down (`node/disks`) before the node has a cluster, because it presents them when
//! the cluster is founded; the disks are formatted when it knows its cluster. From then on a directory without its disk is a
//! missing mount, never a place to format (D23).

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use placement_types::codec::{Decode, DecodeError, Decoder, Encode, Encoder};
use placement_types::{DiskId, Env};
use storage_node::DiskDir;

const FILE: &str = "disks";
const FILE_BYTES_MAX: u64 = 1 << 20;
const VERSION: u16 = 1;

/// What may be in a data directory that is not ours yet.
const HARMLESS: [&str; 1] = ["lost+found"];
const OURS: [&str; 4] = ["disk", "node", "root-credentials", "root-credentials.tmp"];

/// A node's directories and the disks that belong in them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataDirs {
    node_dir: PathBuf,
    disks: Vec<PlannedDisk>,
    stage: Stage,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct PlannedDisk {
    dir: String,
    disk: DiskId,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The ids are drawn; the directories may or may not be formatted.
    Planned,
    /// Every directory has been formatted once.
    Formatted,
}

impl DataDirs {
    /// Checks the directories and reads, or makes, the list of disks. Changes nothing in a directory that holds foreign data.
    ///
    /// # Errors
    /// A directory that is missing, no directory, not writable, given twice, holds foreign data, or is not one this node was
    /// founded with: the message names it and says what to do.
    pub fn open(env: &Env, dirs: &[String]) -> anyhow::Result<Self> {
        let Some(first) = dirs.first() else {
            bail!("no data directory is given: name at least one");
        };
        for (index, dir) in dirs.iter().enumerate() {
            if dirs[..index].contains(dir) {
                bail!("{dir} is given twice");
            }
            check_dir(env, Path::new(dir))?;
        }
        let node_dir = Path::new(first).join("node");
        let path = node_dir.join(FILE);
        if env.fs.metadata(&path).with_context(|| format!("cannot look at {}", path.display()))?.is_some() {
            let known = Self::read(env, node_dir, &path)?;
            return known.check_same(dirs);
        }
        if let Some(dir) = dirs.iter().find(|dir| exists(env, &Path::new(dir).join("disk").join("disk.id"))) {
            bail!(
                "{dir} holds a disk, but {} is missing: this node's own state is gone or its directory is not mounted. \
                 Give the directories in the order of the first start",
                path.display()
            );
        }
        env.fs
            .create_dir_all(&node_dir)
            .with_context(|| format!("cannot create {}: is {first} writable?", node_dir.display()))?;
        let disks = dirs.iter().map(|dir| PlannedDisk { dir: dir.clone(), disk: DiskId::random(env) }).collect();
        let planned = Self { node_dir, disks, stage: Stage::Planned };
        planned.write(env)?;
        env.fs.sync_dir(Path::new(first)).with_context(|| format!("cannot fsync {first}"))?;
        Ok(planned)
    }

    /// Where the node keeps what is not a disk: identity, Raft log, metadata state.
    pub fn node_dir(&self) -> &Path {
        &self.node_dir
    }

    /// The disks as the node is to open them.
    pub fn disk_dirs(&self) -> Vec<DiskDir> {
        let dir = |planned: &PlannedDisk| DiskDir {
            path: Path::new(&planned.dir).join("disk"),
            fresh: (self.stage == Stage::Planned).then_some(planned.disk),
        };
        self.disks.iter().map(dir).collect()
    }

    /// Every disk with the size of its file system.
    ///
    /// # Errors
    /// When a file system cannot be asked.
    pub fn capacities(&self, env: &Env) -> anyhow::Result<Vec<(DiskId, u64)>> {
        let capacity = |planned: &PlannedDisk| {
            let space =
                env.fs.space(Path::new(&planned.dir)).with_context(|| format!("cannot ask for the room on {}", planned.dir))?;
            Ok((planned.disk, space.total_bytes))
        };
        self.disks.iter().map(capacity).collect()
    }

    /// Records that every disk has been formatted.
    ///
    /// # Errors
    /// When the list cannot be written.
    pub fn mark_formatted(&mut self, env: &Env) -> anyhow::Result<()> {
        if self.stage == Stage::Planned {
            self.stage = Stage::Formatted;
            self.write(env)?;
        }
        Ok(())
    }

    fn check_same(self, dirs: &[String]) -> anyhow::Result<Self> {
        for dir in dirs {
            if !self.disks.iter().any(|known| known.dir == *dir) {
                let known: Vec<&str> = self.disks.iter().map(|known| known.dir.as_str()).collect();
                bail!(
                    "{dir} is not one of the directories this node was started with ({}); adding disks comes with a later release",
                    known.join(", ")
                );
            }
        }
        if let Some(missing) = self.disks.iter().find(|known| !dirs.contains(&known.dir)) {
            bail!("{} belongs to this node but was not given: name all of its directories", missing.dir);
        }
        Ok(self)
    }

    fn read(env: &Env, node_dir: PathBuf, path: &Path) -> anyhow::Result<Self> {
        let bytes = env.fs.read_small(path, FILE_BYTES_MAX).with_context(|| format!("cannot read {}", path.display()))?;
        let (disks, stage) =
            decode(&bytes).with_context(|| format!("{} is damaged: restore it from a backup of this file", path.display()))?;
        Ok(Self { node_dir, disks, stage })
    }

    /// `u16` version, list of (directory, disk id), `u8` stage, then the first 8 bytes of the BLAKE3 of all before.
    fn write(&self, env: &Env) -> anyhow::Result<()> {
        let mut out = Encoder::new();
        out.u16(VERSION);
        let list: Vec<(String, DiskId)> = self.disks.iter().map(|planned| (planned.dir.clone(), planned.disk)).collect();
        list.encode(&mut out);
        out.u8(u8::from(self.stage == Stage::Formatted));
        let body = out.finish();
        let bytes = [body.as_ref(), &checksum(&body)].concat();
        let path = self.node_dir.join(FILE);
        env.fs.replace_durably(&path, &bytes).with_context(|| format!("cannot write {}", path.display()))
    }
}

fn decode(bytes: &[u8]) -> Result<(Vec<PlannedDisk>, Stage), DecodeError> {
    let (body, sum) = bytes.split_last_chunk::<8>().ok_or(DecodeError::Truncated)?;
    if checksum(body) != *sum {
        return Err(DecodeError::Invalid { what: "checksum" });
    }
    let mut input = Decoder::new(body);
    input.version("a list of disks", VERSION)?;
    let list = Vec::<(String, DiskId)>::decode(&mut input)?;
    let stage = if bool::decode(&mut input)? { Stage::Formatted } else { Stage::Planned };
    input.finish()?;
    Ok((list.into_iter().map(|(dir, disk)| PlannedDisk { dir, disk }).collect(), stage))
}

fn checksum(bytes: &[u8]) -> [u8; 8] {
    let hash = blake3::hash(bytes);
    let (head, _) = hash.as_bytes().split_first_chunk().expect("a hash has 32 bytes");
    *head
}

fn exists(env: &Env, path: &Path) -> bool {
    matches!(env.fs.metadata(path), Ok(Some(_)))
}

fn check_dir(env: &Env, dir: &Path) -> anyhow::Result<()> {
    let shown = dir.display();
    match env.fs.metadata(dir).with_context(|| format!("cannot look at {shown}"))? {
        None => bail!("{shown} does not exist: create it (mkdir -p {shown}), or mount the disk that belongs there"),
        Some(metadata) if !metadata.is_dir => bail!("{shown} is not a directory"),
        Some(_) => {}
    }
    let entries = env.fs.read_dir(dir).with_context(|| format!("cannot read {shown}"))?;
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let ours = entries.iter().any(|entry| matches!(name(&entry.path).as_str(), "disk" | "node"));
    let foreign = entries
        .iter()
        .map(|entry| name(&entry.path))
        .find(|name| !HARMLESS.contains(&name.as_str()) && !OURS.contains(&name.as_str()));
    if let Some(foreign) = foreign
        && !ours
    {
        bail!(
            "{shown} is not empty (it has {foreign:?}) and is no data directory of Dozo: give an empty directory; nothing was changed"
        );
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)]
mod tests {
    use super::*;

    fn dir(name: &str) -> (Env, PathBuf) {
        let path = std::env::temp_dir().join(format!("dozo-dirs-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        (placement_env::system(), path)
    }

    #[test]
    fn disk_ids_are_kept_from_the_first_start_on() {
        let (env, path) = dir("kept");
        let dirs = [path.display().to_string()];
        let mut first = DataDirs::open(&env, &dirs).unwrap();
        assert_eq!(DataDirs::open(&env, &dirs).unwrap(), first);
        assert!(first.disk_dirs()[0].fresh.is_some());
        first.mark_formatted(&env).unwrap();
        let again = DataDirs::open(&env, &dirs).unwrap();
        assert!(again.disk_dirs()[0].fresh.is_none());
        assert_eq!(again.capacities(&env).unwrap()[0].0, first.capacities(&env).unwrap()[0].0);
        std::fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn foreign_data_missing_and_unknown_directories_are_refused() {
        let (env, path) = dir("foreign");
        std::fs::write(path.join("photo.jpg"), b"precious").unwrap();
        let text = |dirs: &[String]| format!("{:#}", DataDirs::open(&env, dirs).unwrap_err());
        let shown = path.display().to_string();
        assert!(text(std::slice::from_ref(&shown)).contains("photo.jpg"));
        assert!(text(&[format!("{shown}/absent")]).contains("mkdir"));
        assert!(text(&[]).contains("no data directory"));
        let good = path.join("good").display().to_string();
        let other = path.join("other").display().to_string();
        std::fs::create_dir(&good).unwrap();
        std::fs::create_dir(&other).unwrap();
        assert!(text(&[good.clone(), good.clone()]).contains("twice"));
        DataDirs::open(&env, std::slice::from_ref(&good)).unwrap();
        assert!(text(&[good, other]).contains("not one of"));
        std::fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn any_bytes_decode_or_fail() {
        assert!(decode(b"").is_err());
        assert!(decode(&[0; 64]).is_err());
    }
}
