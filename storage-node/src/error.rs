//! Why a storage node does not start. Every message names the path or group to look at.

use std::path::PathBuf;

use storage_node_kv::KvError;
use storage_node_store::OpenError;

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("none of the disks can be opened")]
    NoDisk { source: OpenError },
    #[error("{first} and {second} are the same disk")]
    SameDisk { first: PathBuf, second: PathBuf },
    #[error("the metadata state in {path} cannot be opened")]
    State { path: PathBuf, source: KvError },
    #[error("consensus cannot start")]
    Consensus(#[from] storage_node_consensus::StartError),
}
