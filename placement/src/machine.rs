//! The system group's state machine on consensus: reads the rows that a command concerns, lets `placement_map` decide, writes
//! what changed.
//!
//! Every replica publishes the newest map it can read, as soon as it can read it: watchers never see an epoch that a crash
//! could take back.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use placement_map::ClusterMap;
use placement_map::apply::{BucketChange, SystemView, apply};
use placement_map::limits::TXNS_MAX;
use placement_map::system::{SystemCommand, SystemOutcome};
use placement_proto::api::MapWatch;
use placement_types::GroupId;
use storage_node_consensus::Machine;
use storage_node_kv::{Kv, KvError, Overlay, Prefixed};
use tokio::sync::watch;

use crate::rows::{self, MapEdition, RowError};

pub struct SystemMachine {
    kv: Arc<dyn Kv>,
    /// Where the group's rows are in the store.
    prefix: Vec<u8>,
    published: watch::Sender<Option<Arc<ClusterMap>>>,
    /// The map last read or written by applying; may be one that is not published yet.
    latest: Mutex<Option<Arc<ClusterMap>>>,
}

impl SystemMachine {
    /// `prefix` is the key prefix of group 0's rows in `kv`. Blocks: it reads the map of the last run.
    pub fn new(kv: Arc<dyn Kv>, prefix: impl Into<Vec<u8>>) -> Result<Arc<Self>, KvError> {
        let machine = Self { kv, prefix: prefix.into(), published: watch::Sender::new(None), latest: Mutex::new(None) };
        machine.publish().map_err(|error| match error {
            RowError::Kv(error) => error,
            RowError::Undecodable(error) => KvError::Corrupt { detail: format!("the cluster map's row: {error}") },
        })?;
        Ok(Arc::new(machine))
    }

    /// The newest map that this replica has applied.
    pub fn maps(&self) -> MapWatch {
        self.published.subscribe()
    }

    pub(crate) fn rows(&self) -> Prefixed<'_> {
        Prefixed::new(self.kv.as_read(), self.prefix.clone())
    }

    fn publish(&self) -> Result<(), RowError> {
        let rows = self.rows();
        let Some(edition) = rows::map_edition(&rows)? else { return Ok(()) };
        if self.published.borrow().as_deref().map(MapEdition::of) == Some(edition) {
            return Ok(());
        }
        // A snapshot may have replaced the rows between the two reads, and its map is just as well.
        let Some(map) = self.map_of(edition, &rows)? else { return Ok(()) };
        self.published.send_replace(Some(map));
        Ok(())
    }

    /// The map of that edition, from memory when it is the last one seen.
    fn map_of(&self, edition: MapEdition, rows: &dyn storage_node_kv::KvRead) -> Result<Option<Arc<ClusterMap>>, RowError> {
        let mut latest = self.latest.lock();
        if latest.as_deref().map(MapEdition::of) != Some(edition) {
            *latest = rows::map(rows)?.map(Arc::new);
        }
        Ok(latest.clone())
    }

    fn run(&self, state: &mut Overlay<'_>, command: &SystemCommand) -> Result<SystemOutcome, RowError> {
        if let Some(outcome) = rows::outcome(state, command.txn)? {
            return Ok(outcome);
        }
        let mut counters = rows::counters(state)?;
        let map = match rows::map_edition(state)? {
            Some(edition) => self.map_of(edition, state)?,
            None => None,
        };
        let bucket = match command.change.bucket_name() {
            Some(name) => rows::bucket(state, name)?,
            None => None,
        };
        let view = SystemView { map: map.as_deref(), bucket: bucket.as_ref(), buckets: counters.buckets };
        let (outcome, changes) = apply(view, command);
        // Everything that can fail comes before the first change: a failed command leaves nothing behind.
        if let Some(oldest) = counters.txns.checked_sub(TXNS_MAX) {
            rows::forget_outcome(state, oldest)?;
        }
        rows::put_outcome(state, counters.txns, command.txn, &outcome);
        counters.txns += 1;
        match &changes.bucket {
            Some(BucketChange::Put(row)) => {
                rows::put_bucket(state, row);
                counters.buckets += u64::from(bucket.is_none());
            }
            Some(BucketChange::Remove(name)) => {
                rows::remove_bucket(state, name);
                counters.buckets -= u64::from(bucket.is_some());
            }
            None => {}
        }
        rows::put_counters(state, counters);
        if let Some(map) = changes.map {
            rows::put_map(state, &map);
            *self.latest.lock() = Some(Arc::new(map));
        }
        Ok(outcome)
    }
}

impl Machine for SystemMachine {
    fn apply(&self, state: &mut Overlay<'_>, index: u64, entry: &[u8]) -> Result<Bytes, KvError> {
        let outcome = match SystemCommand::from_versioned(entry) {
            Ok(command) => self.run(state, &command),
            Err(error) => Ok(SystemOutcome::Malformed { why: error.to_string() }),
        };
        match outcome {
            Ok(outcome) => Ok(outcome.to_versioned()),
            Err(RowError::Kv(error)) => Err(error),
            // Rows are checksummed below us, so these bytes were written so, by every replica: all of them answer the same.
            Err(error @ RowError::Undecodable(_)) => {
                tracing::error!(index, %error, "the system group cannot apply a command");
                Ok(SystemOutcome::Malformed { why: error.to_string() }.to_versioned())
            }
        }
    }

    fn applied(&self, _group: GroupId, index: u64) {
        if let Err(error) = self.publish() {
            tracing::error!(index, %error, "the newest cluster map cannot be read");
        }
    }
}

#[cfg(test)]
mod tests;
