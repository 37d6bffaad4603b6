//! A file system that claims to have synced what it has not: a bug planted below the product, to see that a run finds it.

use std::io;
use std::path::Path;
use std::sync::Arc;

use placement_env::sim::SimFs;
use placement_types::{DirEntry, File, FileMetadata, Fs, OpenMode, Space};

/// Where the Raft log is, of which it never syncs a segment.
const UNDER: &str = "/data/node/log";

pub struct LyingFs(pub SimFs);

struct LyingFile(Arc<dyn File>);

impl Fs for LyingFs {
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.0.create_dir_all(path)
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        self.0.read_dir(path)
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let file = self.0.open(path, mode)?;
        let is_segment = path.starts_with(UNDER) && path.extension().is_some_and(|extension| extension == "log");
        Ok(if is_segment { Arc::new(LyingFile(file)) } else { file })
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.0.remove_file(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.0.sync_dir(path)
    }

    fn metadata(&self, path: &Path) -> io::Result<Option<FileMetadata>> {
        self.0.metadata(path)
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        self.0.space(path)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Send + Sync>> {
        self.0.lock(path)
    }
}

impl File for LyingFile {
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(bytes, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_at(bytes, offset)
    }

    fn allocate(&self, offset: u64, bytes: u64) -> io::Result<()> {
        self.0.allocate(offset, bytes)
    }

    fn punch_hole(&self, offset: u64, bytes: u64) -> io::Result<()> {
        self.0.punch_hole(offset, bytes)
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.0.set_len(bytes)
    }

    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }
}
