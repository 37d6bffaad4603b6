//! Who a node is: one small file that is written before anything depends on it.
//!
//! Guarantees: a node keeps its id as long as the file exists; it belongs to one cluster at most, for ever; every change is
//! on disk, whole, before anybody is told (write a sibling, fsync, rename, fsync the directory). After a failed write nothing
//! is changed or promised any more: what the disk holds is unknown until the next start (I14). A file that is damaged or of a
//! newer release stops the node; it never gets a new id over it.
//!
//! | bytes | what |
//! |---|---|
//! | 8 | `DOZONODE` |
//! | u16 | version: 1 |
//! | 16 | node id |
//! | option | membership: cluster, replica, the system group's first members |
//! | option | founding record: cluster, nodes in replica order |
//! | list | the nodes that founded the cluster, as they presented themselves |
//! | bool | whether a consensus log was made |
//! | u32 | CRC-32C of all before |

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use placement_map::system::NewNode;
use placement_proto::meeting::Membership;
use placement_types::codec::{Decode, DecodeError, Decoder, Encode, Encoder};
use placement_types::{ClusterId, Env, NodeId};

use crate::limits::IDENTITY_BYTES_MAX;

const MAGIC: &[u8; 8] = b"DOZONODE";
const VERSION: u16 = 1;
const FILE: &str = "node.identity";
const LOCK: &str = "node.lock";

/// # Invariants
/// A membership after a founding record is of the cluster founded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeIdentity {
    pub node: NodeId,
    pub membership: Option<Membership>,
    /// The cluster that this node founds or founded. Kept: until there is a map, the founder has to make it.
    pub founding: Option<Founding>,
    /// The nodes that founded the cluster, in replica order: where to look for the system group before there is a map.
    pub founders: Vec<NewNode>,
    /// From then on a missing log means lost votes, not a first start (I12).
    pub log_made: bool,
}

/// What a founder has decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Founding {
    pub cluster: ClusterId,
    /// In replica order: the first is replica 1.
    pub nodes: Vec<NewNode>,
}

placement_types::codec_struct!(NodeIdentity { node, membership, founding, founders, log_made });
placement_types::codec_struct!(Founding { cluster, nodes });

#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("another process runs this node: {path} is locked")]
    Locked { path: PathBuf },
    #[error("{path} is damaged or was written by a newer release ({why}); restore it, or remove the node from the cluster")]
    Unreadable { path: PathBuf, why: DecodeError },
    #[error("access {path}")]
    Io { path: PathBuf, source: io::Error },
    #[error("an earlier write of {path} failed: its content is unknown until the next start")]
    Failed { path: PathBuf },
    #[error(
        "the consensus log in {log_dir} is gone, but node {node} has voted with it: it must not vote again. Remove this node \
         from the cluster and add it again with an empty data directory"
    )]
    LogLost { log_dir: PathBuf, node: NodeId },
}

/// The identity file of the node that this process is; locked against others. Clones share it.
#[derive(Clone)]
pub struct IdentityFile {
    env: Env,
    inner: Arc<Inner>,
}

struct Inner {
    path: PathBuf,
    state: Mutex<State>,
    _lock: Box<dyn Send + Sync>,
}

struct State {
    identity: NodeIdentity,
    failed: bool,
}

impl IdentityFile {
    /// Reads the file in `dir`, or draws a fresh id and writes it. `dir` is made when missing.
    pub async fn load_or_create(env: Env, dir: impl Into<PathBuf>) -> Result<Self, IdentityError> {
        let (env_inside, dir) = (env.clone(), dir.into());
        let inner = env.run_blocking(move || Inner::open(&env_inside, &dir)).await?;
        Ok(Self { env, inner: Arc::new(inner) })
    }

    pub fn current(&self) -> NodeIdentity {
        self.inner.state.lock().identity.clone()
    }

    pub fn node(&self) -> NodeId {
        self.inner.state.lock().identity.node
    }

    /// Lets `decide` look at the identity and say what it becomes; `None` leaves it. When this returns `Ok`, it is durable.
    /// Changes are made one at a time, each to its end, even when the caller goes away.
    pub async fn update<T: Send + 'static>(
        &self,
        decide: impl FnOnce(&NodeIdentity) -> (Option<NodeIdentity>, T) + Send + 'static,
    ) -> Result<T, IdentityError> {
        let (env, inner) = (self.env.clone(), self.inner.clone());
        self.env.run_blocking(move || inner.update(&env, decide)).await
    }

    /// Writes down the place in a cluster that a node got by joining. A place it has already is kept.
    pub async fn become_member(&self, membership: Membership) -> Result<Membership, IdentityError> {
        self.update(move |identity| match &identity.membership {
            Some(known) => (None, known.clone()),
            None => (Some(NodeIdentity { membership: Some(membership.clone()), ..identity.clone() }), membership),
        })
        .await
    }

    /// To be called before consensus opens its log in `log_dir`: refuses when there was a log and it is gone or empty. A node
    /// that started over with an empty log could vote twice in a term (I12).
    pub async fn guard_log(&self, log_dir: impl Into<PathBuf>) -> Result<(), IdentityError> {
        let (env, dir) = (self.env.clone(), log_dir.into());
        let looked = self.env.run_blocking({
            let dir = dir.clone();
            move || match env.fs.metadata(&dir) {
                Ok(None) => Ok(true),
                Ok(Some(_)) => env.fs.read_dir(&dir).map(|entries| entries.is_empty()),
                Err(error) => Err(error),
            }
        });
        let empty = looked.await.map_err(|source| IdentityError::Io { path: dir.clone(), source })?;
        let current = self.current();
        if current.log_made {
            return if empty { Err(IdentityError::LogLost { log_dir: dir, node: current.node }) } else { Ok(()) };
        }
        Ok(())
    }

    /// To be called once consensus has opened its log and before it takes part in any group.
    pub async fn record_log(&self) -> Result<(), IdentityError> {
        self.update(|identity| {
            let changed = (!identity.log_made).then(|| NodeIdentity { log_made: true, ..identity.clone() });
            (changed, ())
        })
        .await
    }
}

impl Inner {
    fn open(env: &Env, dir: &Path) -> Result<Self, IdentityError> {
        let at = |path: &Path| {
            let path = path.to_owned();
            move |source| IdentityError::Io { path, source }
        };
        env.fs.create_dir_all(dir).map_err(at(dir))?;
        let lock_path = dir.join(LOCK);
        let lock = env.fs.lock(&lock_path).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => IdentityError::Locked { path: lock_path.clone() },
            _ => IdentityError::Io { path: lock_path.clone(), source: error },
        })?;
        let path = dir.join(FILE);
        let identity = match env.fs.metadata(&path).map_err(at(&path))? {
            Some(_) => {
                let bytes = env.fs.read_small(&path, IDENTITY_BYTES_MAX).map_err(at(&path))?;
                decode(&bytes).map_err(|why| IdentityError::Unreadable { path: path.clone(), why })?
            }
            None => {
                let node = NodeId::random(env);
                let identity = NodeIdentity { node, membership: None, founding: None, founders: Vec::new(), log_made: false };
                env.fs.replace_durably(&path, &encode(&identity)).map_err(at(&path))?;
                // The directory itself may be new: its own name must survive, too.
                if let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
                    env.fs.sync_dir(parent).map_err(at(parent))?;
                }
                identity
            }
        };
        Ok(Self { path, state: Mutex::new(State { identity, failed: false }), _lock: lock })
    }

    fn update<T>(&self, env: &Env, decide: impl FnOnce(&NodeIdentity) -> (Option<NodeIdentity>, T)) -> Result<T, IdentityError> {
        let mut state = self.state.lock();
        if state.failed {
            return Err(IdentityError::Failed { path: self.path.clone() });
        }
        let (changed, answer) = decide(&state.identity);
        if let Some(changed) = changed {
            assert_eq!(changed.node, state.identity.node, "a node's id never changes");
            if let Err(source) = env.fs.replace_durably(&self.path, &encode(&changed)) {
                state.failed = true;
                return Err(IdentityError::Io { path: self.path.clone(), source });
            }
            state.identity = changed;
        }
        Ok(answer)
    }
}

fn encode(identity: &NodeIdentity) -> Vec<u8> {
    let mut out = Encoder::new();
    out.raw(MAGIC);
    out.u16(VERSION);
    identity.encode(&mut out);
    let mut bytes = out.finish().to_vec();
    bytes.extend_from_slice(&crc_fast::crc32_iscsi(&bytes).to_be_bytes());
    bytes
}

pub(crate) fn decode(bytes: &[u8]) -> Result<NodeIdentity, DecodeError> {
    let (content, crc) = bytes.split_last_chunk::<4>().ok_or(DecodeError::Truncated)?;
    if crc_fast::crc32_iscsi(content) != u32::from_be_bytes(*crc) {
        return Err(DecodeError::Invalid { what: "identity file: its checksum differs" });
    }
    let mut input = Decoder::new(content);
    if input.raw(MAGIC.len())? != MAGIC {
        return Err(DecodeError::Invalid { what: "identity file" });
    }
    input.version("an identity file", VERSION)?;
    let identity = NodeIdentity::decode(&mut input)?;
    input.finish()?;
    Ok(identity)
}

#[cfg(test)]
mod tests {
    use placement_env::sim;

    use super::*;

    #[tokio::test]
    async fn a_node_keeps_its_id_over_restarts_and_crashes() {
        let (env, controls) = sim::env(1);
        let node = IdentityFile::load_or_create(env, "/data").await.unwrap().node();
        controls.fs.crash_losing_unsynced();
        let (env, _) = sim::env_on(&controls.fs, 2);
        assert_eq!(IdentityFile::load_or_create(env, "/data").await.unwrap().node(), node);
    }

    #[tokio::test]
    async fn a_damaged_file_is_never_replaced() {
        let (env, _) = sim::env(1);
        let path = Path::new("/data/node.identity");
        drop(IdentityFile::load_or_create(env.clone(), "/data").await.unwrap());
        let bytes = env.fs.read_small(path, 1000).unwrap();
        for bit in [0, 9 * 8, 20 * 8, (bytes.len() - 1) * 8] {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1;
            env.fs.replace_durably(path, &damaged).unwrap();
            let loaded = IdentityFile::load_or_create(env.clone(), "/data").await;
            assert!(matches!(loaded, Err(IdentityError::Unreadable { .. })), "byte {}", bit / 8);
            assert_eq!(env.fs.read_small(path, 1000).unwrap(), damaged);
        }
    }

    #[tokio::test]
    async fn two_processes_cannot_be_one_node() {
        let (env, _) = sim::env(1);
        let first = IdentityFile::load_or_create(env.clone(), "/data").await.unwrap();
        assert!(matches!(IdentityFile::load_or_create(env.clone(), "/data").await, Err(IdentityError::Locked { .. })));
        drop(first);
        assert!(IdentityFile::load_or_create(env, "/data").await.is_ok());
    }

    #[tokio::test]
    async fn a_lost_log_is_noticed() {
        let (env, _) = sim::env(1);
        let identity = IdentityFile::load_or_create(env.clone(), "/data").await.unwrap();
        identity.guard_log("/data/log").await.unwrap();
        env.fs.create_dir_all(Path::new("/data/log")).unwrap();
        identity.guard_log("/data/log").await.unwrap();
        identity.record_log().await.unwrap();
        assert!(matches!(identity.guard_log("/data/log").await, Err(IdentityError::LogLost { .. })));
        env.fs.replace_durably(Path::new("/data/log/segment"), b"frames").unwrap();
        identity.guard_log("/data/log").await.unwrap();
    }
}
