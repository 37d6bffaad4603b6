//! Disks that can lose their power: sparse images on loop devices, each with a file system of its own.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::command::run;

/// What an image may grow to. Six of them stay below 3 GB; XFS makes none below 300 MB.
const IMAGE_BYTES: u64 = 440 << 20;

/// `EXT4_IOC_SHUTDOWN` and `XFS_IOC_GOINGDOWN` are one number; 2 says that not even the log is flushed. There is no safe form of
/// an ioctl in Rust, and Python is here for the clients anyhow.
const SHUTDOWN: &str = "import fcntl, os, struct, sys
fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), 0x8004587d, struct.pack('I', 2))";

/// The data directory of a node, below the root of the file system, so that a disk that is not mounted has none.
pub const DATA: &str = "data";

/// As few inodes as both take: somebody wants to use them all up. A node needs dozens.
const EXT4: [&str; 5] = ["mkfs.ext4", "-q", "-F", "-N", "4096"];
const XFS: [&str; 5] = ["mkfs.xfs", "-q", "-f", "-i", "maxpct=1"];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileSystem {
    Ext4,
    Xfs,
    /// A directory of the machine, where nothing can be mounted: its power cannot be cut.
    Plain,
}

/// One disk, mounted. Unmounted and removed when dropped.
pub struct Disk {
    kind: FileSystem,
    image: PathBuf,
    pub mount: PathBuf,
    mounted: bool,
}

impl Disk {
    /// Makes an empty disk called `name` below `dir`, and mounts it.
    ///
    /// # Errors
    /// When it cannot be formatted or mounted.
    pub fn create(dir: &Path, name: &str, kind: FileSystem) -> anyhow::Result<Self> {
        let mut disk = Self { kind, image: dir.join(format!("{name}.img")), mount: dir.join(name), mounted: false };
        fs::create_dir(&disk.mount)?;
        disk.format()?;
        Ok(disk)
    }

    /// Another disk with all that this one has, down to the identity of its file system. Nothing may use this one meanwhile.
    ///
    /// # Errors
    /// When it cannot be unmounted, copied or mounted.
    pub fn copy(&mut self, dir: &Path, name: &str) -> anyhow::Result<Self> {
        let mut copy = Self { kind: self.kind, image: dir.join(format!("{name}.img")), mount: dir.join(name), mounted: false };
        fs::create_dir(&copy.mount)?;
        self.unmount()?;
        run(&["cp", "--sparse=always", &self.image.display().to_string(), &copy.image.display().to_string()])?;
        self.mount()?;
        copy.mount()?;
        Ok(copy)
    }

    /// Lets nobody write to it until that is dropped.
    ///
    /// # Errors
    /// When the file system cannot be frozen.
    pub fn freeze(&self) -> anyhow::Result<Frozen> {
        run(&["fsfreeze", "--freeze", &self.mount.display().to_string()])?;
        Ok(Frozen { mount: self.mount.clone() })
    }

    /// An empty file system instead of what there was: a blank replacement disk.
    ///
    /// # Errors
    /// When it cannot be formatted or mounted.
    pub fn wipe(&mut self) -> anyhow::Result<()> {
        self.unmount()?;
        if self.kind == FileSystem::Plain {
            fs::remove_dir_all(self.data())?;
        }
        self.format()
    }

    fn format(&mut self) -> anyhow::Result<()> {
        let image = self.image.display().to_string();
        if self.kind != FileSystem::Plain {
            // Truncated first, so that what the old one took is given back.
            let _ = fs::remove_file(&self.image);
            fs::File::create(&self.image)?.set_len(IMAGE_BYTES)?;
        }
        match self.kind {
            FileSystem::Ext4 => run(&[EXT4.as_slice(), &[&image]].concat()).map(drop)?,
            FileSystem::Xfs => run(&[XFS.as_slice(), &[&image]].concat()).map(drop)?,
            FileSystem::Plain => {}
        }
        self.mount()?;
        fs::create_dir_all(self.data())?;
        Ok(())
    }

    /// The data directory of the node.
    pub fn data(&self) -> PathBuf {
        self.mount.join(DATA)
    }

    pub fn can_lose_power(&self) -> bool {
        self.kind != FileSystem::Plain
    }

    /// What the file system has not made durable is lost. Nothing may use it any more.
    ///
    /// # Errors
    /// When the file system does not do as it is told.
    pub fn cut_power(&mut self) -> anyhow::Result<()> {
        run(&["python3", "-c", SHUTDOWN, &self.mount.display().to_string()]).context("cannot shut the file system down")?;
        self.unmount()?;
        self.mount()
    }

    fn mount(&mut self) -> anyhow::Result<()> {
        if self.kind != FileSystem::Plain {
            // XFS would not mount a copy beside its original.
            let options = if self.kind == FileSystem::Xfs { "loop,nouuid" } else { "loop" };
            run(&["mount", "-o", options, &self.image.display().to_string(), &self.mount.display().to_string()])?;
            self.mounted = true;
        }
        Ok(())
    }

    fn unmount(&mut self) -> anyhow::Result<()> {
        if self.mounted {
            run(&["umount", &self.mount.display().to_string()])?;
            self.mounted = false;
        }
        Ok(())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.mounted && self.unmount().is_err() {
            let _ = run(&["umount", "--lazy", &self.mount.display().to_string()]);
        }
        let _ = fs::remove_file(&self.image);
    }
}

/// A file system that takes no write. It does again when this is dropped: nothing that waits for it can end before.
pub struct Frozen {
    mount: PathBuf,
}

impl Drop for Frozen {
    fn drop(&mut self) {
        let _ = run(&["fsfreeze", "--unfreeze", &self.mount.display().to_string()]);
    }
}

/// Two directories, each with what belongs in the other, until this is dropped.
pub struct Swapped {
    /// In the order in which they were covered.
    covered: Vec<PathBuf>,
}

impl Swapped {
    /// Nothing may use either; `aside` is an empty directory.
    ///
    /// # Errors
    /// When a directory cannot be mounted upon another.
    pub fn swap(one: &Path, other: &Path, aside: &Path) -> anyhow::Result<Self> {
        let mut swapped = Self { covered: Vec::new() };
        for (from, to) in [(one, aside), (other, one), (aside, other)] {
            run(&["mount", "--bind", &from.display().to_string(), &to.display().to_string()])?;
            swapped.covered.push(to.to_owned());
        }
        Ok(swapped)
    }
}

impl Drop for Swapped {
    fn drop(&mut self) {
        for covered in self.covered.iter().rev() {
            let _ = run(&["umount", &covered.display().to_string()]);
        }
    }
}

/// Whether images can be mounted here; why not, otherwise.
///
/// # Errors
/// When they cannot.
pub fn probe(dir: &Path) -> anyhow::Result<()> {
    for (name, kind) in [("probe-ext4", FileSystem::Ext4), ("probe-xfs", FileSystem::Xfs)] {
        let mut disk = Disk::create(dir, name, kind)?;
        disk.cut_power()?;
        fs::remove_dir(disk.data()).or_else(|_| fs::create_dir_all(disk.data()))?;
    }
    Ok(())
}
