//! Who a node is: one small file that is written before anything depends on it.
//!
//! Guarantees: a node keeps its id as long as the file exists; it belongs to one cluster at most, for ever; every change is
//! on disk, whole, before anybody is told (write a sibling, fsync, rename, fsync the directory). After a failed write nothing
//! is changed or promised any more: what the disk holds is unknown until the next start (I14). A file that is damaged or of a
//! newer release stops the node; it never gets a new id over it.
//!
//! A directory that was copied is not the node: its Raft log may lack votes and entries that the original has acknowledged
//! since (I12). The birthmark of the directory is written down, and a copy has another one. What copies a whole file system keeps
//! it; of such, the system group refuses the one that has not seen the last run ([`IdentityFile::begin_run`]), and either as
//! long as the other lives.
//!
//! | bytes | what |
//! |---|---|
//! | 8 | `DOZONODE` |
//! | u16 | version: 2 |
//! | 16 | node id |
//! | option | membership: cluster, replica, the system group's first members |
//! | option | founding record: cluster, nodes in replica order |
//! | list | the nodes that founded the cluster, as they presented themselves |
//! | bool | whether a consensus log was made |
//! | option | since version 2: the birthmark of the directory (u64) |
//! | list | since version 2: runs of the node's process, the last confirmed first |
//! | u32 | CRC-32C of all before |

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use placement_map::limits::BOOTS_MAX;
use placement_map::system::NewNode;
use placement_proto::meeting::Membership;
use placement_types::codec::{Decode, DecodeError};
use placement_types::{Boot, ClusterId, Env, NodeId};

use crate::limits::IDENTITY_BYTES_MAX;
use crate::sealed::Seal;

const SEAL: Seal = Seal { magic: b"DOZONODE", version: 2, what: "an identity file" };
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
    /// Of the directory; `None` until a release that looks at it has started here.
    pub birthmark: Option<u64>,
    /// Runs of the node's process that may be the one the system group has on record: the last one that is known to have been,
    /// and all since.
    pub boots: Vec<Boot>,
}

/// What a founder has decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Founding {
    pub cluster: ClusterId,
    /// In replica order: the first is replica 1.
    pub nodes: Vec<NewNode>,
}

placement_types::codec_struct!(NodeIdentity { node, membership, founding, founders, log_made, birthmark, boots });
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
    #[error(
        "{dir} is a copy of node {node}'s directory, or was restored from a backup: it may lack votes and entries that the node \
         has acknowledged since, so nothing may act as the node with it. Start the original. If that is lost, remove the node \
         from the cluster and add it again with an empty data directory. If {dir} was moved while the node was stopped and \
         nothing was started elsewhere since, start it once with --moved"
    )]
    Copied { dir: PathBuf, node: NodeId },
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

    /// Refuses a directory that is a copy of the one that the node was started with before. Before anything is done as the node.
    pub async fn guard_place(&self) -> Result<(), IdentityError> {
        let (found, current) = (self.birthmark().await?, self.current());
        match current.birthmark {
            Some(known) if known == found => Ok(()),
            // The kernel has learned to tell when files were made, and shows that now and not the number of the file.
            Some(known) if known >> 63 != found >> 63 => self.set_birthmark(found).await,
            Some(_) => Err(IdentityError::Copied { dir: self.dir(), node: current.node }),
            None => self.set_birthmark(found).await,
        }
    }

    /// What an operator may ask for instead, who knows that the directory was moved and not copied.
    pub async fn accept_place(&self) -> Result<(), IdentityError> {
        let found = self.birthmark().await?;
        self.set_birthmark(found).await
    }

    fn dir(&self) -> PathBuf {
        self.inner.path.parent().expect("the file is in a directory").to_owned()
    }

    async fn birthmark(&self) -> Result<u64, IdentityError> {
        let (env, dir) = (self.env.clone(), self.dir());
        let looked = self.env.run_blocking({
            let dir = dir.clone();
            move || env.fs.metadata(&dir)
        });
        let missing = || io::Error::from(io::ErrorKind::NotFound);
        let found = looked.await.and_then(|found| found.ok_or_else(missing));
        found.map(|found| found.birthmark).map_err(|source| IdentityError::Io { path: dir, source })
    }

    async fn set_birthmark(&self, found: u64) -> Result<(), IdentityError> {
        self.update(move |identity| {
            let changed = identity.birthmark != Some(found);
            (changed.then(|| NodeIdentity { birthmark: Some(found), ..identity.clone() }), ())
        })
        .await
    }

    /// Begins a run of the node's process, durably: no other run of this directory is called the same. What
    /// [`NodeIdentity::boots`] was before is what the system group may have on record.
    pub async fn begin_run(&self) -> Result<Boot, IdentityError> {
        let nonce = self.env.random_u64();
        self.update(move |identity| {
            let number = identity.boots.iter().map(|boot| boot.number).max().unwrap_or_default() + 1;
            let (boot, mut boots) = (Boot { number, nonce }, identity.boots.clone());
            // The first is the one that was confirmed. Of so many starts in a row that heard nothing from the system group,
            // any one is as unlikely as the other to have been registered unheard.
            if boots.len() >= BOOTS_MAX {
                boots.remove(1);
            }
            boots.push(boot);
            (Some(NodeIdentity { boots, ..identity.clone() }), boot)
        })
        .await
    }

    /// Writes down that the system group has this run on record, and so none before.
    pub async fn confirm_run(&self, boot: Boot) -> Result<(), IdentityError> {
        self.update(move |identity| {
            let changed = identity.boots != [boot];
            (changed.then(|| NodeIdentity { boots: vec![boot], ..identity.clone() }), ())
        })
        .await
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

impl NodeIdentity {
    /// Of a node that has no cluster yet.
    pub fn new(node: NodeId) -> Self {
        Self { node, membership: None, founding: None, founders: Vec::new(), log_made: false, birthmark: None, boots: Vec::new() }
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
                let identity = NodeIdentity::new(node);
                env.fs.replace_durably(&path, &SEAL.close(&identity)).map_err(at(&path))?;
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
            if let Err(source) = env.fs.replace_durably(&self.path, &SEAL.close(&changed)) {
                state.failed = true;
                return Err(IdentityError::Io { path: self.path.clone(), source });
            }
            state.identity = changed;
        }
        Ok(answer)
    }
}

pub(crate) fn decode(bytes: &[u8]) -> Result<NodeIdentity, DecodeError> {
    let (version, mut input) = SEAL.open(bytes)?;
    let identity = match version {
        1 => NodeIdentity {
            node: Decode::decode(&mut input)?,
            membership: Decode::decode(&mut input)?,
            founding: Decode::decode(&mut input)?,
            founders: Decode::decode(&mut input)?,
            log_made: Decode::decode(&mut input)?,
            birthmark: None,
            boots: Vec::new(),
        },
        _ => NodeIdentity::decode(&mut input)?,
    };
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
    async fn a_copied_directory_is_not_the_node_unless_an_operator_says_that_it_was_moved() {
        let (env, controls) = sim::env(1);
        let start = async || IdentityFile::load_or_create(env.clone(), "/data").await.unwrap();
        start().await.guard_place().await.unwrap();
        start().await.guard_place().await.unwrap();
        controls.fs.set_birthmark("/data", 77);
        assert!(matches!(start().await.guard_place().await, Err(IdentityError::Copied { .. })));
        assert!(matches!(start().await.guard_place().await, Err(IdentityError::Copied { .. })), "asking twice does not help");
        start().await.accept_place().await.unwrap();
        start().await.guard_place().await.unwrap();
    }

    #[tokio::test]
    async fn every_run_has_a_number_of_its_own_and_the_runs_since_the_last_confirmed_one_are_known() {
        let (env, controls) = sim::env(1);
        let mut runs = Vec::new();
        for _ in 0..3 {
            let identity = IdentityFile::load_or_create(env.clone(), "/data").await.unwrap();
            runs.push(identity.begin_run().await.unwrap());
            assert_eq!(identity.current().boots, runs);
        }
        assert!(runs.is_sorted_by(|one, next| one.number < next.number));
        controls.fs.crash_losing_unsynced();
        let (env, _) = sim::env_on(&controls.fs, 2);
        let identity = IdentityFile::load_or_create(env.clone(), "/data").await.unwrap();
        identity.confirm_run(runs[2]).await.unwrap();
        assert_eq!(identity.current().boots, [runs[2]]);
        for _ in 0..BOOTS_MAX + 9 {
            identity.begin_run().await.unwrap();
        }
        let known = identity.current().boots;
        assert_eq!((known.len(), known[0]), (BOOTS_MAX, runs[2]), "the confirmed one is never dropped");
    }

    #[test]
    fn the_first_releases_file_is_read() {
        let identity = NodeIdentity { log_made: true, ..NodeIdentity::new(NodeId::from_u128(7)) };
        let newest = SEAL.close(&identity);
        // Without the option and the list, both empty, and with its own checksum.
        let mut first = newest[..newest.len() - 4 - 5].to_vec();
        first[9] = 1;
        first.extend_from_slice(&crc_fast::crc32_iscsi(&first).to_be_bytes());
        assert_eq!(decode(&first), Ok(identity));
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
