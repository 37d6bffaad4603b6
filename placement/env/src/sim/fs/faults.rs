//! The misfortunes a test asks for.

use std::io;
use std::path::{Path, PathBuf};

/// What an operation is to a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    /// Reading bytes.
    Read,
    /// Changing bytes, lengths or names.
    Write,
    /// Making bytes or names durable.
    Sync,
}

/// Operations of one kind under a path that fail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    pub under: PathBuf,
    pub kind: FaultKind,
    /// So many more go well first.
    pub skip: u64,
    /// So many fail then; `u64::MAX` is for ever.
    pub count: u64,
    /// An error number of the operating system, such as `EIO`.
    pub errno: i32,
}

#[derive(Default)]
pub(super) struct Faults {
    faults: Vec<Fault>,
    read_only: Vec<PathBuf>,
    /// How many changes and syncs were tried.
    operations: u64,
    /// Every operation fails once `operations` has passed this.
    halt_after: Option<u64>,
}

impl Faults {
    pub(super) fn inject(&mut self, fault: Fault) {
        self.faults.push(fault);
    }

    pub(super) fn set_read_only(&mut self, under: &Path) {
        self.read_only.push(under.to_owned());
    }

    pub(super) fn clear(&mut self) {
        self.faults.clear();
        self.read_only.clear();
        self.halt_after = None;
    }

    pub(super) fn halt_after(&mut self, operations: u64) {
        self.halt_after = Some(self.operations.saturating_add(operations));
    }

    pub(super) fn restart(&mut self) {
        self.halt_after = None;
    }

    pub(super) fn operations(&self) -> u64 {
        self.operations
    }

    /// Decides one operation.
    pub(super) fn meet(&mut self, kind: FaultKind, path: &Path) -> io::Result<()> {
        if kind != FaultKind::Read {
            self.operations += 1;
        }
        if self.halt_after.is_some_and(|last| self.operations > last) {
            return Err(io::Error::other("the simulated machine has halted"));
        }
        if kind != FaultKind::Read && self.read_only.iter().any(|under| path.starts_with(under)) {
            return Err(io::Error::from_raw_os_error(libc::EROFS));
        }
        let mut errno = None;
        for fault in self.faults.iter_mut().filter(|fault| fault.kind == kind && path.starts_with(&fault.under)) {
            if fault.skip > 0 {
                fault.skip -= 1;
            } else if fault.count > 0 && errno.is_none() {
                if fault.count != u64::MAX {
                    fault.count -= 1;
                }
                errno = Some(fault.errno);
            }
        }
        errno.map_or(Ok(()), |errno| Err(io::Error::from_raw_os_error(errno)))
    }
}
