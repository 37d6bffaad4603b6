//! A file system in memory that fails the way disks do.
//!
//! It keeps what a crash would leave beside what processes see. Bytes get there by `sync_data`, names by `sync_dir` of their
//! directory, and by nothing else. In particular:
//!
//! - A file whose bytes were synced but whose directory was not is gone after a crash; so is everything in a directory whose
//!   own name was not synced.
//! - [`SimFs::crash`] lets the seed decide which unsynced sectors of 512 bytes reached the disk, in no order, and how many of
//!   the unsynced name changes did, in order. [`SimFs::crash_losing_unsynced`] loses them all.
//! - A failed `sync_data` leaves its bytes visible and forgotten: a later success does not make them durable.
//! - Handles and locks from before a crash are dead.
//!
//! What it leaves out: hard links, symbolic links, and renaming directories (`Unsupported`).

mod content;
mod faults;
mod names;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use placement_types::{DirEntry, File, FileMetadata, Fs, OpenMode, Space};

pub use faults::{Fault, FaultKind};

use self::faults::Faults;
use self::names::{Inode, Names, Node};
use super::random::SimRandom;

/// What a file system without a set capacity claims to hold.
const CAPACITY_BYTES_DEFAULT: u64 = 1 << 40;

/// The device number of everything that [`SimFs::set_device`] did not name.
const DEVICE_DEFAULT: u64 = 1;

/// The birthmark of everything that [`SimFs::set_birthmark`] did not name.
const BIRTHMARK_DEFAULT: u64 = 1;

/// A shared handle: clones see the same disk, also after the node that used it is gone.
#[derive(Clone)]
pub struct SimFs {
    state: Arc<Mutex<State>>,
}

struct State {
    random: SimRandom,
    names: Names,
    faults: Faults,
    capacity_bytes: u64,
    devices: BTreeMap<PathBuf, u64>,
    birthmarks: BTreeMap<PathBuf, u64>,
    locks: BTreeMap<PathBuf, u64>,
    lock_id_next: u64,
    /// How many crashes there were; a handle of an earlier life is refused.
    life: u64,
}

impl SimFs {
    /// An empty file system: only `/` exists.
    pub fn new(seed: u64) -> Self {
        let state = State {
            random: SimRandom::new(seed),
            names: Names::default(),
            faults: Faults::default(),
            capacity_bytes: CAPACITY_BYTES_DEFAULT,
            devices: BTreeMap::new(),
            birthmarks: BTreeMap::new(),
            locks: BTreeMap::new(),
            lock_id_next: 0,
            life: 0,
        };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// Cuts the power. Of what was not synced, the seed decides what is left.
    pub fn crash(&self) {
        let state = &mut *self.state.lock();
        let kept = state.random.below(state.names.unsynced() as u64 + 1) as usize;
        for inode in state.names.crash(kept) {
            inode.lock().crash_torn(&state.random);
        }
        state.start_new_life();
    }

    /// Cuts the power. Nothing is left of what was not synced.
    pub fn crash_losing_unsynced(&self) {
        let state = &mut *self.state.lock();
        for inode in state.names.crash(0) {
            inode.lock().crash_losing_unsynced();
        }
        state.start_new_life();
    }

    /// Everything fails after so many more changes and syncs, until the crash that this is the first half of: with it a test
    /// stops its subject at each step in turn.
    pub fn halt_after(&self, operations: u64) {
        self.state.lock().faults.halt_after(operations);
    }

    /// How many changes and syncs were tried so far.
    pub fn operations(&self) -> u64 {
        self.state.lock().faults.operations()
    }

    pub fn inject(&self, fault: Fault) {
        self.state.lock().faults.inject(fault);
    }

    /// The `nth` next sync (1 is the very next) under the path fails with `EIO`, once.
    pub fn fail_nth_sync(&self, under: impl AsRef<Path>, nth: u64) {
        assert!(nth > 0, "the count starts at 1");
        self.inject(Fault { under: under.as_ref().into(), kind: FaultKind::Sync, skip: nth - 1, count: 1, errno: libc::EIO });
    }

    /// Every operation of the kind under the path fails with `EIO` from now on.
    pub fn fail_all(&self, under: impl AsRef<Path>, kind: FaultKind) {
        self.inject(Fault { under: under.as_ref().into(), kind, skip: 0, count: u64::MAX, errno: libc::EIO });
    }

    /// Everything under the path refuses changes with `EROFS`, as ext4 does after an error.
    pub fn set_read_only(&self, under: impl AsRef<Path>) {
        self.state.lock().faults.set_read_only(under.as_ref());
    }

    /// Takes back every fault that was asked for.
    pub fn clear_faults(&self) {
        self.state.lock().faults.clear();
    }

    /// Writes past this many bytes fail with `ENOSPC`.
    pub fn set_capacity(&self, bytes: u64) {
        self.state.lock().capacity_bytes = bytes;
    }

    /// The device that paths under `under` report: another one is another mount.
    pub fn set_device(&self, under: impl AsRef<Path>, device: u64) {
        self.state.lock().devices.insert(under.as_ref().into(), device);
    }

    /// The birthmark of one path: another one is a copy in its place.
    pub fn set_birthmark(&self, path: impl AsRef<Path>, birthmark: u64) {
        self.state.lock().birthmarks.insert(path.as_ref().into(), birthmark);
    }

    /// Rots one bit of a file, on disk and in the page cache.
    ///
    /// # Panics
    /// When there is no such byte: the test is about another file than it believes.
    pub fn flip_bit(&self, path: impl AsRef<Path>, offset: u64, bit: u8) {
        let state = self.state.lock();
        let inode = state.file(path.as_ref()).expect("the file to damage exists");
        let mut content = inode.lock();
        assert!(offset < content.len() && bit < 8, "the bit to flip exists");
        content.flip_bit(offset, bit);
    }
}

impl State {
    fn start_new_life(&mut self) {
        self.life += 1;
        self.locks.clear();
        self.faults.restart();
    }

    fn file(&self, path: &Path) -> io::Result<Inode> {
        match self.names.get(path) {
            Some(Node::File(inode)) => Ok(inode),
            Some(Node::Dir) => Err(io::ErrorKind::IsADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn require_parent(&self, path: &Path) -> io::Result<()> {
        if self.names.is_dir(names::parent(path)) { Ok(()) } else { Err(io::ErrorKind::NotFound.into()) }
    }

    fn used_bytes(&self) -> u64 {
        self.names.files().map(|inode| inode.lock().allocated_bytes()).sum()
    }
}

impl Fs for SimFs {
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let state = &mut *self.state.lock();
        let mut missing: Vec<&Path> = Vec::new();
        for ancestor in path.ancestors() {
            match state.names.get(ancestor) {
                Some(Node::Dir) => break,
                Some(Node::File(_)) => return Err(io::ErrorKind::NotADirectory.into()),
                None => missing.push(ancestor),
            }
        }
        for dir in missing.into_iter().rev() {
            state.faults.meet(FaultKind::Write, dir)?;
            state.names.insert(dir, Node::Dir);
        }
        Ok(())
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let state = &mut *self.state.lock();
        state.faults.meet(FaultKind::Read, path)?;
        match state.names.get(path) {
            Some(Node::Dir) => {}
            Some(Node::File(_)) => return Err(io::ErrorKind::NotADirectory.into()),
            None => return Err(io::ErrorKind::NotFound.into()),
        }
        let children = state.names.children(path).into_iter();
        Ok(children.map(|(path, node)| DirEntry { path, is_dir: matches!(node, Node::Dir) }).collect())
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let state = &mut *self.state.lock();
        let inode = match mode {
            OpenMode::Read | OpenMode::ReadWrite => {
                state.faults.meet(FaultKind::Read, path)?;
                state.file(path)?
            }
            OpenMode::CreateNew => {
                state.faults.meet(FaultKind::Write, path)?;
                state.require_parent(path)?;
                if state.names.get(path).is_some() {
                    return Err(io::ErrorKind::AlreadyExists.into());
                }
                let inode = Inode::default();
                state.names.insert(path, Node::File(inode.clone()));
                inode
            }
        };
        Ok(Arc::new(SimFile { fs: self.clone(), path: path.into(), inode, mode, life: state.life }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let state = &mut *self.state.lock();
        state.faults.meet(FaultKind::Write, to)?;
        state.require_parent(to)?;
        let node = state.names.get(from).ok_or(io::ErrorKind::NotFound)?;
        match (&node, state.names.get(to)) {
            (Node::Dir, _) => return Err(io::ErrorKind::Unsupported.into()),
            (Node::File(_), Some(Node::Dir)) => return Err(io::ErrorKind::IsADirectory.into()),
            (Node::File(_), _) => {}
        }
        if from != to {
            state.names.rename(from, to, node);
        }
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let state = &mut *self.state.lock();
        state.faults.meet(FaultKind::Write, path)?;
        state.file(path)?;
        state.names.remove(path);
        Ok(())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let state = &mut *self.state.lock();
        state.faults.meet(FaultKind::Sync, path)?;
        if !state.names.is_dir(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.names.sync(path);
        Ok(())
    }

    fn metadata(&self, path: &Path) -> io::Result<Option<FileMetadata>> {
        let state = &mut *self.state.lock();
        state.faults.meet(FaultKind::Read, path)?;
        let (bytes, is_dir) = match state.names.get(path) {
            Some(Node::File(inode)) => (inode.lock().len(), false),
            Some(Node::Dir) => (0, true),
            None => return Ok(None),
        };
        let device = path.ancestors().find_map(|ancestor| state.devices.get(ancestor)).copied().unwrap_or(DEVICE_DEFAULT);
        let birthmark = state.birthmarks.get(path).copied().unwrap_or(BIRTHMARK_DEFAULT);
        Ok(Some(FileMetadata { bytes, is_dir, device, birthmark }))
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        let state = &mut *self.state.lock();
        state.faults.meet(FaultKind::Read, path)?;
        if state.names.get(path).is_none() {
            return Err(io::ErrorKind::NotFound.into());
        }
        let available_bytes = state.capacity_bytes.saturating_sub(state.used_bytes());
        Ok(Space { total_bytes: state.capacity_bytes, available_bytes })
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        let state = &mut *self.state.lock();
        state.require_parent(path)?;
        match state.names.get(path) {
            Some(Node::File(_)) => state.faults.meet(FaultKind::Read, path)?,
            Some(Node::Dir) => return Err(io::ErrorKind::IsADirectory.into()),
            None => {
                state.faults.meet(FaultKind::Write, path)?;
                state.names.insert(path, Node::File(Inode::default()));
            }
        }
        if state.locks.contains_key(path) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let id = state.lock_id_next;
        state.lock_id_next += 1;
        state.locks.insert(path.into(), id);
        Ok(Box::new(LockGuard { fs: self.clone(), path: path.into(), id }))
    }
}

struct LockGuard {
    fs: SimFs,
    path: PathBuf,
    id: u64,
}

impl Drop for LockGuard {
    fn drop(&mut self) {
        let mut state = self.fs.state.lock();
        // After a crash the lock may be another's.
        if state.locks.get(&self.path) == Some(&self.id) {
            state.locks.remove(&self.path);
        }
    }
}

struct SimFile {
    fs: SimFs,
    /// The name it was opened by, which faults go by.
    path: PathBuf,
    inode: Inode,
    mode: OpenMode,
    life: u64,
}

impl SimFile {
    /// Decides one operation of this handle and runs it.
    fn run<T>(&self, kind: FaultKind, work: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
        let state = &mut *self.fs.state.lock();
        if state.life != self.life {
            return Err(io::Error::other("the simulated machine crashed since the file was opened"));
        }
        if kind == FaultKind::Write && self.mode == OpenMode::Read {
            return Err(io::Error::from_raw_os_error(libc::EBADF));
        }
        state.faults.meet(kind, &self.path).inspect_err(|_| {
            if kind == FaultKind::Sync {
                self.inode.lock().fail_sync(&state.random);
            }
        })?;
        work(state)
    }

    /// Refuses a change that takes more room than is left.
    fn require_space(&self, state: &State, offset: u64, bytes: u64) -> io::Result<()> {
        if offset.checked_add(bytes).is_none_or(|end| end > i64::MAX as u64) {
            return Err(io::Error::from_raw_os_error(libc::EFBIG));
        }
        let growth = self.inode.lock().growth(offset, bytes);
        if growth > 0 && state.used_bytes() + growth > state.capacity_bytes {
            return Err(io::Error::from_raw_os_error(libc::ENOSPC));
        }
        Ok(())
    }
}

impl File for SimFile {
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        self.run(FaultKind::Read, |_| Ok(self.inode.lock().read(bytes, offset)))
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.run(FaultKind::Write, |state| {
            self.require_space(state, offset, bytes.len() as u64)?;
            self.inode.lock().write(bytes, offset);
            Ok(())
        })
    }

    fn allocate(&self, offset: u64, bytes: u64) -> io::Result<()> {
        self.run(FaultKind::Write, |state| {
            self.require_space(state, offset, bytes)?;
            self.inode.lock().allocate(offset, bytes);
            Ok(())
        })
    }

    fn punch_hole(&self, offset: u64, bytes: u64) -> io::Result<()> {
        self.run(FaultKind::Write, |_| {
            self.inode.lock().punch_hole(offset, bytes);
            Ok(())
        })
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.run(FaultKind::Write, |_| {
            self.inode.lock().set_len(bytes);
            Ok(())
        })
    }

    fn len(&self) -> io::Result<u64> {
        self.run(FaultKind::Read, |_| Ok(self.inode.lock().len()))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.run(FaultKind::Sync, |_| {
            self.inode.lock().sync();
            Ok(())
        })
    }
}
