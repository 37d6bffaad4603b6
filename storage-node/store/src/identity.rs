//! Which disk a directory is, and whether it still is.
//!
//! `disk.id` is written once and durably, before anything else. A directory without it is never given data: it may be a mount
//! point whose disk is missing (D23), or somebody's files. The file system's device number is pinned at open, so that a disk
//! that was unmounted or swapped under a running process is noticed (D24) before the next segment is created.

use std::io;
use std::path::Path;

use placement_types::{ClusterId, DiskId, Env, NodeId};

use crate::error::OpenError;
use crate::format;
use crate::limits::IDENTITY_BYTES_MAX;

pub(crate) const IDENTITY_FILE: &str = "disk.id";
pub(crate) const LOCK_FILE: &str = "lock";

/// What a fresh directory may hold besides: our lock, a `disk.id` that was half written, and what mkfs makes.
const HARMLESS: [&str; 3] = [LOCK_FILE, "disk.tmp", "lost+found"];

/// What `disk.id` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskIdentity {
    pub cluster: ClusterId,
    pub node: NodeId,
    pub disk: DiskId,
}

/// What the opener knows of the disk that should be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExpectedIdentity {
    pub cluster: ClusterId,
    pub node: Option<NodeId>,
    pub disk: Option<DiskId>,
}

impl ExpectedIdentity {
    pub fn exactly(identity: DiskIdentity) -> Self {
        Self { cluster: identity.cluster, node: Some(identity.node), disk: Some(identity.disk) }
    }

    fn check(&self, path: &Path, found: &DiskIdentity) -> Result<(), OpenError> {
        let path = || path.to_owned();
        if found.cluster != self.cluster {
            return Err(OpenError::OtherCluster { path: path(), found: found.cluster, expected: self.cluster });
        }
        if let Some(expected) = self.node.filter(|node| *node != found.node) {
            return Err(OpenError::OtherNode { path: path(), found: found.node, expected });
        }
        if let Some(expected) = self.disk.filter(|disk| *disk != found.disk) {
            return Err(OpenError::OtherDisk { path: path(), found: found.disk, expected });
        }
        Ok(())
    }
}

/// Makes an empty directory (created when missing) a disk.
pub(crate) fn format_disk(env: &Env, path: &Path, identity: DiskIdentity) -> Result<(), OpenError> {
    let io = |source| OpenError::Io { path: path.to_owned(), source };
    if let Some(found) = read_identity(env, path)? {
        return Err(OpenError::AlreadyFormatted { path: path.to_owned(), disk: found.disk });
    }
    env.fs.create_dir_all(path).map_err(|source| unwritable_or_io(path, source))?;
    let _lock = lock(env, path)?;
    for entry in env.fs.read_dir(path).map_err(io)? {
        let name = entry.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if !HARMLESS.contains(&name.as_str()) {
            return Err(OpenError::ForeignData { path: path.to_owned(), found: name });
        }
    }
    let file = path.join(IDENTITY_FILE);
    env.fs.replace_durably(&file, &format::encode_identity(&identity)).map_err(|source| unwritable_or_io(&file, source))?;
    // The directory's own name must survive too, or the first power cut takes the disk away.
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        env.fs.sync_dir(parent).map_err(io)?;
    }
    Ok(())
}

/// `Ok(None)` when there is no `disk.id`: nothing there, an empty directory, or foreign data.
pub(crate) fn read_identity(env: &Env, path: &Path) -> Result<Option<DiskIdentity>, OpenError> {
    let file = path.join(IDENTITY_FILE);
    match env.fs.metadata(path) {
        Ok(None) => return Ok(None),
        Ok(Some(metadata)) if !metadata.is_dir => return Err(OpenError::NotADirectory { path: path.to_owned() }),
        Ok(Some(_)) => {}
        Err(source) => return Err(OpenError::Io { path: path.to_owned(), source }),
    }
    if env.fs.metadata(&file).map_err(|source| OpenError::Io { path: file.clone(), source })?.is_none() {
        return Ok(None);
    }
    let bytes = match env.fs.read_small(&file, IDENTITY_BYTES_MAX) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            return Err(OpenError::CorruptIdentity { path: file, why: "it is too long".into() });
        }
        Err(source) => return Err(OpenError::Io { path: file, source }),
    };
    match format::decode_identity(&bytes) {
        Ok(identity) => Ok(Some(identity)),
        Err(error) => Err(OpenError::CorruptIdentity { path: file, why: error.to_string() }),
    }
}

/// Reads the identity and refuses a disk that is not the expected one, saying why.
pub(crate) fn read_expected(env: &Env, path: &Path, expected: &ExpectedIdentity) -> Result<DiskIdentity, OpenError> {
    let io = |source| OpenError::Io { path: path.to_owned(), source };
    if env.fs.metadata(path).map_err(io)?.is_none() {
        return Err(OpenError::Missing { path: path.to_owned() });
    }
    let Some(identity) = read_identity(env, path)? else {
        let foreign = env.fs.read_dir(path).map_err(io)?.into_iter().find_map(|entry| {
            let name = entry.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            (!HARMLESS.contains(&name.as_str())).then_some(name)
        });
        return Err(match foreign {
            Some(found) => OpenError::ForeignData { path: path.to_owned(), found },
            None => OpenError::Unformatted { path: path.to_owned() },
        });
    };
    expected.check(path, &identity)?;
    Ok(identity)
}

/// Takes the disk's lock; a second process gets `InUse`.
pub(crate) fn lock(env: &Env, path: &Path) -> Result<Box<dyn Send + Sync>, OpenError> {
    env.fs.lock(&path.join(LOCK_FILE)).map_err(|source| match source.kind() {
        io::ErrorKind::WouldBlock => OpenError::InUse { path: path.to_owned() },
        _ => unwritable_or_io(path, source),
    })
}

/// The number of the file system the disk is on.
pub(crate) fn device_of(env: &Env, path: &Path) -> Result<u64, OpenError> {
    match env.fs.metadata(path) {
        Ok(Some(metadata)) => Ok(metadata.device),
        Ok(None) => Err(OpenError::Missing { path: path.to_owned() }),
        Err(source) => Err(OpenError::Io { path: path.to_owned(), source }),
    }
}

/// Checks that the directory still is the disk that was opened; the text says what it became.
pub(crate) fn check_unchanged(env: &Env, path: &Path, identity: &DiskIdentity, device: u64) -> Result<(), String> {
    let found = device_of(env, path).map_err(|error| error.to_string())?;
    if found != device {
        return Err(format!("{} is on another file system than when it was opened: the disk was unmounted", path.display()));
    }
    match read_identity(env, path) {
        Ok(Some(found)) if found == *identity => Ok(()),
        Ok(Some(found)) => Err(format!("{} became disk {} of cluster {}", path.display(), found.disk, found.cluster)),
        Ok(None) => Err(format!("{} lost its disk.id", path.display())),
        Err(error) => Err(error.to_string()),
    }
}

pub(crate) fn unwritable_or_io(path: &Path, source: io::Error) -> OpenError {
    match source.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            OpenError::Unwritable { path: path.to_owned(), source }
        }
        _ => OpenError::Io { path: path.to_owned(), source },
    }
}
