//! What a start does before the loop runs: lock, identity, log, and bringing log and state together.
//!
//! Per group there are two truths with two lifetimes: the log is durable to the last acknowledged entry, the state to some
//! applied point before it. They fit when the state's applied point lies within the log; then the entries after it are
//! applied again. Everything else is either explained by an interrupted creation or snapshot, and finished, or means that one
//! of the two was lost, and refused (D11, I12).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use placement_types::{Env, Fs, GroupId};
use storage_node_kv::{Durability, Kv, KvError, Prefixed, Step, WriteBatch};

use super::receive::incoming_path;
use crate::config::Config;
use crate::error::StartError;
use crate::format::{
    BLOCK_BYTES, GroupMeta, Identity, MetaState, Point, decode_fixed, fixed_key, group_of_meta_key, meta_key, meta_prefix,
};
use crate::log::{self, FIRST_POINT, Log, LogError, RecoveredGroup};
use crate::snapshot::{self, SnapshotError};
use crate::store::GroupStore;

/// Segments are addressed with 32 bits, and hold at least a few frames.
const SEGMENT_BYTES_MAX: u64 = 1 << 30;
const SEGMENT_BYTES_MIN: u64 = 64 * BLOCK_BYTES;

pub(crate) struct Recovered {
    pub log: Log,
    pub groups: Vec<(GroupId, GroupStore, Point)>,
    pub lock: Arc<dyn Send + Sync>,
}

pub(crate) fn snapshot_dir(log_dir: &Path) -> PathBuf {
    log_dir.join("snapshots")
}

/// Blocks.
pub(crate) fn recover(config: &Config, env: &Env, kv: &dyn Kv) -> Result<Recovered, StartError> {
    check(config)?;
    let (fs, dir) = (&env.fs, config.log_dir.as_path());
    let snapshots = snapshot_dir(dir);
    fs.create_dir_all(&snapshots).map_err(failed("make", &snapshots))?;
    for made in [Some(dir), dir.parent()].into_iter().flatten() {
        fs.sync_dir(made).map_err(failed("sync", made))?;
    }
    let lock_path = dir.join("LOCK");
    let lock = fs.lock(&lock_path).map_err(|source| match source.kind() {
        std::io::ErrorKind::WouldBlock => StartError::Locked { dir: dir.to_owned() },
        _ => StartError::Io { action: "lock", path: lock_path.clone(), source },
    })?;
    let metas = read_metas(kv)?;
    let identity = identify(config, env, &metas)?;
    let recovered = log::open(fs, dir, identity.salt, config.segment_bytes)?;
    if let Some(group) = metas.keys().find(|group| !recovered.groups.contains_key(group)) {
        return Err(StartError::LogMissing { dir: dir.to_owned(), group: *group });
    }
    let mut groups = Vec::new();
    for (id, group) in recovered.groups {
        let (store, applied) = unite(&**fs, &snapshots, kv, &recovered.log, id, group, metas.get(&id))?;
        groups.push((id, store, applied));
    }
    clean_snapshots(&**fs, &snapshots)?;
    tracing::info!(replica = %config.replica, groups = groups.len(), "consensus recovered");
    Ok(Recovered { log: recovered.log, groups, lock: Arc::from(lock) })
}

fn check(config: &Config) -> Result<(), StartError> {
    let wrong = |reason| Err(StartError::Config { reason });
    if config.replica.0 == 0 {
        return wrong("replica 0 does not exist");
    }
    if config.heartbeat_ticks == 0 || config.election_ticks <= config.heartbeat_ticks {
        return wrong("elections must take longer than heartbeats");
    }
    if config.tick.is_zero() {
        return wrong("a tick must last");
    }
    let sizes = SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX;
    if !sizes.contains(&config.segment_bytes) || !config.segment_bytes.is_multiple_of(BLOCK_BYTES) {
        return wrong("log segments are 256 KiB to 1 GiB long, in steps of 4 KiB");
    }
    if config.segments_kept == 0 {
        return wrong("the log keeps at least one segment");
    }
    Ok(())
}

fn failed<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(std::io::Error) -> StartError + 'a {
    move |source| StartError::Io { action, path: path.to_owned(), source }
}

/// The groups that the state store knows.
fn read_metas(kv: &dyn Kv) -> Result<BTreeMap<GroupId, GroupMeta>, StartError> {
    let (mut metas, mut broken) = (BTreeMap::new(), None);
    let prefix = meta_prefix();
    kv.as_read().scan(prefix, &Prefixed::end_of(prefix), &mut |key, value| {
        match (group_of_meta_key(key), GroupMeta::decode(value)) {
            (Some(group), Ok(meta)) => drop(metas.insert(group, meta)),
            (group, Err(error)) => broken = Some(format!("the state record of group {group:?}: {error}")),
            (None, Ok(_)) => broken = Some("a state record without a group".to_owned()),
        }
        Step::Next
    })?;
    match broken {
        Some(detail) => Err(KvError::Corrupt { detail }.into()),
        None => Ok(metas),
    }
}

/// Reads whose log this is, or writes it into an empty directory. An empty directory beside a state that has groups is a lost
/// log, not a first start.
fn identify(config: &Config, env: &Env, metas: &BTreeMap<GroupId, GroupMeta>) -> Result<Identity, StartError> {
    let (fs, dir) = (&env.fs, config.log_dir.as_path());
    let path = dir.join("identity");
    if fs.metadata(&path).map_err(failed("look at", &path))?.is_some() {
        let bytes = fs.read_small(&path, 4 * Identity::BYTES as u64).map_err(failed("read", &path))?;
        let identity = Identity::decode(&bytes).map_err(|_| LogError::NoIdentity { dir: dir.to_owned() })?;
        if identity.replica != config.replica {
            let (found, expected) = (identity.replica, config.replica);
            return Err(StartError::WrongReplica { dir: dir.to_owned(), found, expected });
        }
        return Ok(identity);
    }
    let entries = fs.read_dir(dir).map_err(failed("list", dir))?;
    if entries.iter().any(|entry| entry.path.extension().is_some_and(|extension| extension == "log")) {
        return Err(LogError::NoIdentity { dir: dir.to_owned() }.into());
    }
    if let Some(group) = metas.keys().next() {
        return Err(StartError::LogMissing { dir: dir.to_owned(), group: *group });
    }
    let identity = Identity { replica: config.replica, salt: env.random_u64() };
    fs.replace_durably(&path, &identity.encode()).map_err(failed("write", &path))?;
    Ok(identity)
}

/// Finds the point from which a group goes on, finishing an interrupted snapshot on the way.
fn unite(
    fs: &dyn Fs,
    snapshots: &Path,
    kv: &dyn Kv,
    log: &Log,
    id: GroupId,
    group: RecoveredGroup,
    meta: Option<&GroupMeta>,
) -> Result<(GroupStore, Point), StartError> {
    let (origin, base) = (&group.origin, group.outline.base());
    let whole = meta.filter(|meta| meta.state == MetaState::Whole);
    let has = whole.map(|meta| meta.applied.index);
    let first = base.index + 1;
    let missing = || StartError::StateMissing { group: id, applied: has.unwrap_or(0), first };
    let (applied, members) = match whole {
        Some(meta) if meta.applied.index >= base.index => (meta.applied, meta.members.clone()),
        _ if origin.point == base && origin.file != 0 => {
            let path = incoming_path(snapshots, origin.file);
            snapshot::install(fs, &path, kv, id, origin).map_err(|error| match error {
                SnapshotError::Kv(error) => StartError::Kv(error),
                SnapshotError::Io { action, path, source } if source.kind() != std::io::ErrorKind::NotFound => {
                    StartError::Io { action, path, source }
                }
                _ => missing(),
            })?;
            (origin.point, origin.members.clone())
        }
        // Created, and nothing of it had reached the state yet.
        None if meta.is_none() && base == FIRST_POINT && origin.point == FIRST_POINT => {
            let begun = GroupMeta { state: MetaState::Whole, applied: FIRST_POINT, members: origin.members.clone() };
            let mut batch = WriteBatch::new();
            batch.put(meta_key(id).to_vec(), begun.encode());
            kv.write(&batch, Durability::Buffered)?;
            (FIRST_POINT, origin.members.clone())
        }
        // Heard of only: it may have voted, and has no state.
        None if meta.is_none() && group.outline.last() == Point::default() => (Point::default(), Default::default()),
        _ => return Err(missing()),
    };
    if group.outline.term_of(applied.index) != Some(applied.term) {
        return Err(StartError::LogBehindState { group: id, applied: applied.index, last: group.outline.last().index });
    }
    let mut store = GroupStore::recover(id, group, members, applied.index, log.segments().clone())?;
    if let Some(bytes) = kv.get(&fixed_key(id))? {
        let corrupt = |error| KvError::Corrupt { detail: format!("the fixed members of group {id}: {error}") };
        store.members_fixed_to = decode_fixed(&bytes).map_err(corrupt)?;
    }
    Ok((store, applied))
}

/// Removes every snapshot file: those to be sent are made anew, those that were needed are installed by now.
fn clean_snapshots(fs: &dyn Fs, dir: &Path) -> Result<(), StartError> {
    for entry in fs.read_dir(dir).map_err(failed("list", dir))? {
        let ours = entry.path.extension().is_some_and(|extension| extension == "snap");
        if ours && !entry.is_dir {
            fs.remove_file(&entry.path).map_err(failed("remove", &entry.path))?;
        }
    }
    Ok(())
}
