//! The real file system.
//!
//! Bytes move with pread and pwrite, so that one descriptor serves every reader at once. `sync_data` is fdatasync, which also
//! writes the length where it changed; names become durable by fsync of their directory. Whatever fails is reported as it
//! came: what to make of a failed fsync is decided above (I14).

use std::fs::{self, OpenOptions, TryLockError};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use placement_types::{DirEntry, File, FileMetadata, Fs, OpenMode, Space};

use super::sys;

pub(super) struct SystemFs;

impl Fs for SystemFs {
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        fs::create_dir_all(path)
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            entries.push(DirEntry { path: entry.path(), is_dir: entry.file_type()?.is_dir() });
        }
        entries.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(entries)
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let mut options = OpenOptions::new();
        options.read(true).write(mode != OpenMode::Read).create_new(mode == OpenMode::CreateNew).mode(0o600);
        Ok(Arc::new(SystemFile { file: options.open(path)? }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        fs::File::open(path)?.sync_all()
    }

    fn metadata(&self, path: &Path) -> io::Result<Option<FileMetadata>> {
        match fs::metadata(path) {
            Ok(found) => Ok(Some(FileMetadata {
                bytes: found.len(),
                is_dir: found.is_dir(),
                device: found.dev(),
                birthmark: birthmark(&found),
            })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        sys::space(path)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        // flock(2): the kernel lets go of it when the process dies, however it dies.
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Box::new(file)),
            Err(TryLockError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

struct SystemFile {
    file: fs::File,
}

impl File for SystemFile {
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        loop {
            match self.file.read_at(bytes, offset) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    fn allocate(&self, offset: u64, bytes: u64) -> io::Result<()> {
        if bytes == 0 {
            return Ok(());
        }
        match sys::fallocate(self.file.as_fd(), 0, offset, bytes) {
            // Without fallocate only the length is kept: writes may then meet a full disk, which they must handle anyway.
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {
                let end = offset.checked_add(bytes).ok_or(io::ErrorKind::InvalidInput)?;
                if self.len()? < end { self.set_len(end) } else { Ok(()) }
            }
            result => result,
        }
    }

    fn punch_hole(&self, offset: u64, bytes: u64) -> io::Result<()> {
        if bytes == 0 {
            return Ok(());
        }
        match sys::fallocate(self.file.as_fd(), libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE, offset, bytes) {
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(()),
            result => result,
        }
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.file.set_len(bytes)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

/// See [`FileMetadata::birthmark`]. Some file systems tell 0 of what was made before they learned to tell.
fn birthmark(found: &fs::Metadata) -> u64 {
    let made = found.created().ok().and_then(|made| made.duration_since(UNIX_EPOCH).ok());
    let nanos = made.and_then(|made| u64::try_from(made.as_nanos()).ok()).filter(|nanos| *nanos != 0 && nanos >> 63 == 0);
    nanos.unwrap_or(found.ino() | 1 << 63)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_and_names_do_what_the_seam_promises() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let fs = SystemFs;
        fs.create_dir_all(&path("b/c")).unwrap();
        let file = fs.open(&path("a"), OpenMode::CreateNew).unwrap();
        assert_eq!(fs.open(&path("a"), OpenMode::CreateNew).err().unwrap().kind(), io::ErrorKind::AlreadyExists);
        file.allocate(0, 0).unwrap();
        file.allocate(4096, 4096).unwrap();
        assert_eq!(file.len().unwrap(), 8192);
        file.write_at(&[7; 8192], 0).unwrap();
        file.punch_hole(0, 4096).unwrap();
        file.set_len(8000).unwrap();
        file.sync_data().unwrap();
        let mut bytes = [1; 10];
        assert_eq!(file.read_at(&mut bytes, 7995).unwrap(), 5);
        assert_eq!(bytes, [7, 7, 7, 7, 7, 1, 1, 1, 1, 1]);
        file.read_exact_at(&mut bytes, 4091).unwrap();
        assert_eq!(bytes[5..], [7; 5]);
        fs.rename(&path("a"), &path("z")).unwrap();
        fs.sync_dir(dir.path()).unwrap();
        let names = fs.read_dir(dir.path()).unwrap();
        assert_eq!(
            names,
            [DirEntry { path: path("b"), is_dir: true }, DirEntry { path: path("z"), is_dir: false }],
            "sorted by name"
        );
        assert_eq!(fs.metadata(&path("a")).unwrap(), None);
        let found = fs.metadata(&path("z")).unwrap().unwrap();
        assert_eq!((found.bytes, found.is_dir), (8000, false));
        assert_eq!(found.device, fs.metadata(dir.path()).unwrap().unwrap().device);
        fs.remove_file(&path("z")).unwrap();
        assert!(fs.open(&path("z"), OpenMode::Read).is_err());
        let space = fs.space(dir.path()).unwrap();
        assert!(space.available_bytes <= space.total_bytes && space.total_bytes > 0);
    }

    #[test]
    fn a_lock_has_one_holder() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let held = SystemFs.lock(&path).unwrap();
        assert_eq!(SystemFs.lock(&path).err().unwrap().kind(), io::ErrorKind::WouldBlock);
        drop(held);
        assert!(SystemFs.lock(&path).is_ok());
    }

    #[test]
    fn a_durable_replacement_replaces() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("small");
        let fs: &dyn Fs = &SystemFs;
        for content in [b"one".as_slice(), b"", b"three"] {
            fs.replace_durably(&path, content).unwrap();
            assert_eq!(fs.read_small(&path, 5).unwrap(), content);
        }
        assert_eq!(fs.read_small(&path, 4).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
