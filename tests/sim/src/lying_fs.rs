//! A file system that claims to have synced what it has not, for as long as it is told to.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use placement_env::sim::SimFs;
use placement_types::{DirEntry, File, FileMetadata, Fs, OpenMode, Space};

/// Lies about the files of one directory.
pub struct LyingFs {
    fs: SimFs,
    under: PathBuf,
    lying: Arc<AtomicBool>,
}

struct LyingFile {
    file: Arc<dyn File>,
    lying: Arc<AtomicBool>,
}

impl LyingFs {
    pub fn new(fs: SimFs, under: &str, lying: Arc<AtomicBool>) -> Self {
        Self { fs, under: under.into(), lying }
    }
}

impl Fs for LyingFs {
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.fs.create_dir_all(path)
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        self.fs.read_dir(path)
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let file = self.fs.open(path, mode)?;
        let is_segment = path.extension().is_some_and(|extension| extension == "log" || extension == "seg");
        Ok(if path.starts_with(&self.under) && is_segment {
            Arc::new(LyingFile { file, lying: self.lying.clone() })
        } else {
            file
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.fs.rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.fs.remove_file(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.fs.sync_dir(path)
    }

    fn metadata(&self, path: &Path) -> io::Result<Option<FileMetadata>> {
        self.fs.metadata(path)
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        self.fs.space(path)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        self.fs.lock(path)
    }
}

impl File for LyingFile {
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(bytes, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_at(bytes, offset)
    }

    fn allocate(&self, offset: u64, bytes: u64) -> io::Result<()> {
        self.file.allocate(offset, bytes)
    }

    fn punch_hole(&self, offset: u64, bytes: u64) -> io::Result<()> {
        self.file.punch_hole(offset, bytes)
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.file.set_len(bytes)
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn sync_data(&self) -> io::Result<()> {
        if self.lying.load(Ordering::Relaxed) { Ok(()) } else { self.file.sync_data() }
    }
}
