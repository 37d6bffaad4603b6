//! The data directories of a node: which are its disks, and where its own state is.
//!
//! ```text
//! DIR/disk/      one disk: disk.id, segments/, index/           (every directory)
//! DIR/dozo.ballast  room for a start on a full disk             (every directory)
//! DIR/node/      identity, disks, log/, state/                  (the first directory)
//! ```
//!
//! The ids of new disks are drawn and written down (`node/disks`) before the node has a cluster, because it presents them when
//! the cluster is founded; the disks are formatted when it knows its cluster. From then on a directory without its disk is a
//! missing mount, never a place to format (D23). A directory that comes later is a further disk, with an id of its own. One
//! whose disk was removed from the cluster is left alone until somebody empties it.
//!
//! `node/disks`:
//!
//! | bytes | what |
//! |---|---|
//! | u16 | version: 2 |
//! | list | per disk: directory, disk id (16), stage (u8: 0 planned, 1 formatted, 2 removed) |
//! | 8 | the first bytes of the BLAKE3 of all before |

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use placement_types::codec::{Decode, DecodeError, Decoder, Encode, Encoder};
use placement_types::{DiskId, Env};
use storage_node::DiskDir;

use super::ballast;

const FILE: &str = "disks";
const FILE_BYTES_MAX: u64 = 1 << 20;
const VERSION: u16 = 2;

/// What may be in a data directory that is not ours yet.
const HARMLESS: [&str; 1] = ["lost+found"];
const OURS: [&str; 5] = ["disk", "node", ballast::FILE, "root-credentials", "root-credentials.tmp"];

/// A node's directories and the disks that belong in them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataDirs {
    node_dir: PathBuf,
    disks: Vec<PlannedDisk>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct PlannedDisk {
    dir: String,
    disk: DiskId,
    stage: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The id is drawn; the directory may or may not be formatted.
    Planned,
    /// The directory has been formatted once.
    Formatted,
    /// The cluster knows the disk no more.
    Removed,
}

placement_types::codec_struct!(PlannedDisk { dir, disk, stage });
placement_types::codec_enum!(Stage, "stage of a disk" { 0 => Planned {}, 1 => Formatted {}, 2 => Removed {} });

impl DataDirs {
    /// Checks the directories and reads, or makes, the list of disks. Changes nothing in a directory that holds foreign data.
    ///
    /// # Errors
    /// A directory that is missing, no directory, not writable, given twice, holds foreign data or another node's disk, or that
    /// belongs to this node and is not given: the message names it and says what to do.
    pub fn open(env: &Env, dirs: &[String]) -> anyhow::Result<Self> {
        let opened = Self::find(env, dirs)?;
        opened.mounted(env).iter().for_each(|dir| ballast::settle(env, dir));
        Ok(opened)
    }

    fn find(env: &Env, dirs: &[String]) -> anyhow::Result<Self> {
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
            let mut known = Self::read(env, node_dir, &path)?;
            // Before anything is written.
            known.mounted(env).iter().for_each(|dir| ballast::settle(env, dir));
            known.take_in(env, dirs)?;
            return Ok(known);
        }
        if let Some(dir) = dirs.iter().find(|dir| holds_disk(env, Path::new(dir))) {
            bail!(
                "{dir} holds a disk, but {} is missing: this node's own state is gone or its directory is not mounted. \
                 Give the directories in the order of the first start",
                path.display()
            );
        }
        env.fs
            .create_dir_all(&node_dir)
            .with_context(|| format!("cannot create {}: is {first} writable?", node_dir.display()))?;
        let planned = Self { node_dir, disks: dirs.iter().map(|dir| PlannedDisk::new(env, dir)).collect() };
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
            fresh: (planned.stage == Stage::Planned).then_some(planned.disk),
        };
        self.present().map(dir).collect()
    }

    /// The directories of all disks, whether they are mounted or not.
    pub fn paths(&self) -> Vec<PathBuf> {
        self.present().map(|planned| PathBuf::from(&planned.dir)).collect()
    }

    /// The directories that have their disks, or get them now: where one is missing, that is somebody else's file system.
    fn mounted(&self, env: &Env) -> Vec<PathBuf> {
        let here = |planned: &&PlannedDisk| planned.stage == Stage::Planned || holds_disk(env, Path::new(&planned.dir));
        self.present().filter(here).map(|planned| PathBuf::from(&planned.dir)).collect()
    }

    fn present(&self) -> impl Iterator<Item = &PlannedDisk> {
        self.disks.iter().filter(|planned| planned.stage != Stage::Removed)
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
        self.present().map(capacity).collect()
    }

    /// Records that every disk has been formatted.
    ///
    /// # Errors
    /// When the list cannot be written.
    pub fn mark_formatted(&mut self, env: &Env) -> anyhow::Result<()> {
        self.set_stages(env, |planned| if planned.stage == Stage::Planned { Stage::Formatted } else { planned.stage })
    }

    /// Records which disks the cluster has removed: their directories need not be given any more, and are not used if they are.
    ///
    /// # Errors
    /// When the list cannot be written.
    pub fn mark_removed(&mut self, env: &Env, removed: &BTreeSet<DiskId>) -> anyhow::Result<()> {
        self.set_stages(env, |planned| if removed.contains(&planned.disk) { Stage::Removed } else { planned.stage })
    }

    fn set_stages(&mut self, env: &Env, stage: impl Fn(&PlannedDisk) -> Stage) -> anyhow::Result<()> {
        let mut after = self.clone();
        after.disks.iter_mut().for_each(|planned| planned.stage = stage(planned));
        self.replace(env, after)
    }

    /// Becomes `after` once that is written.
    fn replace(&mut self, env: &Env, after: Self) -> anyhow::Result<()> {
        if after != *self {
            after.write(env)?;
            *self = after;
        }
        Ok(())
    }

    /// Compares the directories given with those known, and adds the new ones.
    fn take_in(&mut self, env: &Env, dirs: &[String]) -> anyhow::Result<()> {
        if let Some(missing) = self.present().find(|known| !dirs.contains(&known.dir)) {
            bail!(
                "{0} belongs to this node but was not given: name all of its directories. To take disk {1} out of the cluster, \
                 drain it first: dozo admin apply drain {1}",
                missing.dir,
                missing.disk
            );
        }
        let mut after = self.clone();
        for dir in dirs.iter().filter(|dir| !self.present().any(|known| known.dir == **dir)) {
            let removed = after.disks.iter().position(|known| known.dir == *dir);
            match (removed, holds_disk(env, Path::new(dir))) {
                (Some(known), true) => {
                    let disk = after.disks[known].disk;
                    tracing::warn!(dir, %disk, "this disk was removed from the cluster: empty its directory to use it as a new one");
                    continue;
                }
                (None, true) => bail!(
                    "{dir} holds a disk that is not this node's: give an empty directory, or start the node it belongs to with it"
                ),
                (Some(known), false) => drop(after.disks.remove(known)),
                (None, false) => {}
            }
            after.disks.push(PlannedDisk::new(env, dir));
        }
        self.replace(env, after)
    }

    fn read(env: &Env, node_dir: PathBuf, path: &Path) -> anyhow::Result<Self> {
        let bytes = env.fs.read_small(path, FILE_BYTES_MAX).with_context(|| format!("cannot read {}", path.display()))?;
        let disks =
            decode(&bytes).with_context(|| format!("{} is damaged: restore it from a backup of this file", path.display()))?;
        Ok(Self { node_dir, disks })
    }

    fn write(&self, env: &Env) -> anyhow::Result<()> {
        let mut out = Encoder::new();
        out.u16(VERSION);
        self.disks.encode(&mut out);
        let body = out.finish();
        let bytes = [body.as_ref(), &checksum(&body)].concat();
        let path = self.node_dir.join(FILE);
        env.fs.replace_durably(&path, &bytes).with_context(|| format!("cannot write {}", path.display()))
    }
}

impl PlannedDisk {
    fn new(env: &Env, dir: &str) -> Self {
        Self { dir: dir.to_owned(), disk: DiskId::random(env), stage: Stage::Planned }
    }
}

/// Version 1 had one stage for all disks, after the list.
fn decode(bytes: &[u8]) -> Result<Vec<PlannedDisk>, DecodeError> {
    let (body, sum) = bytes.split_last_chunk::<8>().ok_or(DecodeError::Truncated)?;
    if checksum(body) != *sum {
        return Err(DecodeError::Invalid { what: "checksum" });
    }
    let mut input = Decoder::new(body);
    let disks = match input.version("a list of disks", VERSION)? {
        1 => {
            let list = Vec::<(String, DiskId)>::decode(&mut input)?;
            let stage = if bool::decode(&mut input)? { Stage::Formatted } else { Stage::Planned };
            list.into_iter().map(|(dir, disk)| PlannedDisk { dir, disk, stage }).collect()
        }
        _ => Vec::<PlannedDisk>::decode(&mut input)?,
    };
    input.finish()?;
    Ok(disks)
}

fn checksum(bytes: &[u8]) -> [u8; 8] {
    let hash = blake3::hash(bytes);
    let (head, _) = hash.as_bytes().split_first_chunk().expect("a hash has 32 bytes");
    *head
}

pub fn holds_disk(env: &Env, dir: &Path) -> bool {
    matches!(env.fs.metadata(&dir.join("disk").join("disk.id")), Ok(Some(_)))
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
        std::fs::create_dir(format!("{other}/disk")).unwrap();
        std::fs::write(format!("{other}/disk/disk.id"), b"of another node").unwrap();
        DataDirs::open(&env, std::slice::from_ref(&good)).unwrap();
        assert!(text(&[good, other]).contains("not this node's"));
        std::fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn a_full_disk_gives_its_ballast_up_before_anything_is_written_and_a_missing_one_gets_none() {
        let (env, controls) = placement_env::sim::env(1);
        let dirs = ["/one", "/two"].map(str::to_owned);
        dirs.iter().for_each(|dir| env.fs.create_dir_all(Path::new(dir)).unwrap());
        let ballast = |dir: &str| env.fs.metadata(&Path::new(dir).join(ballast::FILE)).unwrap().map(|metadata| metadata.bytes);
        controls.fs.set_capacity(1 << 30);
        let mut first = DataDirs::open(&env, &dirs[..1]).unwrap();
        first.mark_formatted(&env).unwrap();
        env.fs.create_dir_all(Path::new("/one/disk")).unwrap();
        env.fs.open(Path::new("/one/disk/disk.id"), placement_types::OpenMode::CreateNew).unwrap();
        assert!(ballast("/one").is_some());

        // A second directory has to be written down on a disk without a free byte.
        let space = env.fs.space(Path::new("/one")).unwrap();
        controls.fs.set_capacity(space.total_bytes - space.available_bytes);
        let mut both = DataDirs::open(&env, &dirs).unwrap();
        assert_eq!((ballast("/one"), ballast("/two")), (None, None));
        assert_eq!(both.mounted(&env).len(), 2, "one is a disk and one is to be");

        // The first is not mounted at the next start.
        both.mark_formatted(&env).unwrap();
        controls.fs.set_capacity(1 << 30);
        env.fs.remove_file(Path::new("/one/disk/disk.id")).unwrap();
        assert!(DataDirs::open(&env, &dirs).unwrap().mounted(&env).is_empty());
        assert_eq!((ballast("/one"), ballast("/two")), (None, None));
    }

    #[test]
    fn a_further_directory_is_a_new_disk_and_a_removed_one_is_let_go() {
        let (env, path) = dir("grown");
        let [one, two] = ["one", "two"].map(|name| path.join(name).display().to_string());
        [&one, &two].iter().for_each(|dir| std::fs::create_dir(dir).unwrap());
        let first = std::slice::from_ref(&one);
        let both = [one.clone(), two.clone()];
        DataDirs::open(&env, first).unwrap().mark_formatted(&env).unwrap();
        let mut grown = DataDirs::open(&env, &both).unwrap();
        let fresh: Vec<bool> = grown.disk_dirs().iter().map(|dir| dir.fresh.is_some()).collect();
        assert_eq!(fresh, [false, true]);
        let added = grown.disk_dirs()[1].fresh.unwrap();
        grown.mark_formatted(&env).unwrap();
        let error = format!("{:#}", DataDirs::open(&env, first).unwrap_err());
        assert!(error.contains(&two) && error.contains("drain"), "{error}");

        // As the store does when it formats the disk.
        std::fs::create_dir(format!("{two}/disk")).unwrap();
        std::fs::write(format!("{two}/disk/disk.id"), b"id").unwrap();
        grown.mark_removed(&env, &BTreeSet::from([added])).unwrap();
        assert_eq!(DataDirs::open(&env, first).unwrap().disk_dirs().len(), 1);
        assert_eq!(DataDirs::open(&env, &both).unwrap().disk_dirs().len(), 1, "it still holds the removed disk");
        std::fs::remove_dir_all(format!("{two}/disk")).unwrap();
        let again = DataDirs::open(&env, &both).unwrap();
        assert_eq!(again.disk_dirs().len(), 2);
        assert!(again.disk_dirs()[1].fresh.is_some_and(|disk| disk != added));
        std::fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn the_first_releases_list_is_read() {
        let disk = DiskId::from_u128(7);
        let mut out = Encoder::new();
        out.u16(1);
        vec![("/data".to_owned(), disk)].encode(&mut out);
        out.u8(1);
        let body = out.finish();
        let bytes = [body.as_ref(), &checksum(&body)].concat();
        assert_eq!(decode(&bytes), Ok(vec![PlannedDisk { dir: "/data".into(), disk, stage: Stage::Formatted }]));
    }

    #[test]
    fn any_bytes_decode_or_fail() {
        assert!(decode(b"").is_err());
        assert!(decode(&[0; 64]).is_err());
    }
}
