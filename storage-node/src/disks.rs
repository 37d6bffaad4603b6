//! The disks of this node.
//!
//! A disk that cannot be opened does not stop the node: it is left out, said loudly, reported dead and repaired elsewhere. A
//! node none of whose disks opens does not start: then it is the configuration that is wrong.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use futures::future::join_all;
use placement_types::{ClusterId, DiskId, Env, NodeId};
use storage_node_proto::api::DiskReport;
use storage_node_store::{Disk, DiskIdentity, ExpectedIdentity, IndexOpener, OpenError, Options};

use crate::error::StartError;
use crate::limits::{CLOSE_DEADLINE, PROBE_DEADLINE};
use crate::local_disk::LocalDisk;

/// A directory that is, or is to become, a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskDir {
    pub path: PathBuf,
    /// The directory is new: make it the disk of this id. A directory that already is that disk is fine, so a start that was
    /// cut short can be repeated. `None`: it must be a disk already; an empty directory may be a missing mount (D23).
    pub fresh: Option<DiskId>,
}

/// # Invariants
/// Keyed by the id in each disk's own identity file.
#[derive(Debug)]
pub(crate) struct Disks {
    disks: BTreeMap<DiskId, Arc<LocalDisk>>,
}

impl Disks {
    pub async fn open(
        env: &Env,
        cluster: ClusterId,
        node: NodeId,
        dirs: &[DiskDir],
        index: &IndexOpener,
    ) -> Result<Self, StartError> {
        let mut disks: BTreeMap<DiskId, Arc<LocalDisk>> = BTreeMap::new();
        let mut first_error = None;
        for dir in dirs {
            match open_disk(env, cluster, node, dir, index.clone()).await {
                Ok(disk) => {
                    let disk = Arc::new(LocalDisk::new(env.clone(), disk));
                    if let Some(other) = disks.insert(disk.id, disk) {
                        return Err(StartError::SameDisk { first: other.store().path(), second: dir.path.clone() });
                    }
                }
                Err(source) => {
                    let error = &source as &dyn std::error::Error;
                    tracing::error!(path = %dir.path.display(), error, "a disk cannot be opened and is left out");
                    first_error.get_or_insert(source);
                }
            }
        }
        match first_error {
            Some(source) if disks.is_empty() => Err(StartError::NoDisk { source }),
            _ => Ok(Self { disks }),
        }
    }

    pub fn get(&self, disk: DiskId) -> Option<&Arc<LocalDisk>> {
        self.disks.get(&disk)
    }

    pub fn all(&self) -> impl Iterator<Item = &Arc<LocalDisk>> {
        self.disks.values()
    }

    /// Every open disk as it is now, asked all at once.
    pub async fn reports(&self) -> Vec<DiskReport> {
        join_all(self.all().map(|disk| disk.report(PROBE_DEADLINE))).await
    }

    /// Finishes what is queued, checkpoints and gives the locks back, all at once and for at most so long. Later calls on
    /// these disks fail as closed.
    pub async fn close(&self, env: &Env) {
        join_all(self.all().map(|disk| async move {
            match env.timeout(CLOSE_DEADLINE, disk.store().clone().close()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(disk = %disk.id, %error, "a disk was closed without a checkpoint"),
                Err(_) => tracing::warn!(disk = %disk.id, "a disk does not answer and is left as it is"),
            }
        }))
        .await;
    }
}

async fn open_disk(env: &Env, cluster: ClusterId, node: NodeId, dir: &DiskDir, index: IndexOpener) -> Result<Disk, OpenError> {
    if let Some(disk) = dir.fresh {
        match Disk::format(env, &dir.path, DiskIdentity { cluster, node, disk }).await {
            Ok(()) => tracing::info!(%disk, path = %dir.path.display(), "a disk was formatted"),
            Err(OpenError::AlreadyFormatted { disk: found, .. }) if found == disk => {}
            Err(error) => return Err(error),
        }
    }
    let (fs, path) = (env.fs.clone(), dir.path.clone());
    // A directory whose size cannot be told is refused by the open itself, with a better message.
    let space = env.run_blocking(move || fs.space(&path)).await;
    let options = space.map_or_else(|_| Options::default(), |space| Options::for_disk(space.total_bytes));
    let expected = ExpectedIdentity { cluster, node: Some(node), disk: dir.fresh };
    Disk::open(env, &dir.path, expected, index, options).await
}
