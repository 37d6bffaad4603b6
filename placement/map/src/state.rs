//! The whole of the system group's state in memory: for tests, simulations and tools. The service keeps the same in rows.

use std::collections::{BTreeMap, VecDeque};

use placement_types::{BucketName, TxnId};

use crate::apply::{BucketChange, Changes, SystemView, apply};
use crate::cluster_map::ClusterMap;
use crate::limits::TXNS_MAX;
use crate::system::{BucketRow, SystemCommand, SystemOutcome};

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SystemState {
    pub map: Option<ClusterMap>,
    pub buckets: BTreeMap<BucketName, BucketRow>,
    outcomes: BTreeMap<TxnId, SystemOutcome>,
    /// The transactions in `outcomes`, oldest first.
    order: VecDeque<TxnId>,
}

impl SystemState {
    /// A cluster that has done nothing yet.
    pub fn with_map(map: ClusterMap) -> Self {
        Self { map: Some(map), ..Self::default() }
    }

    /// Applies a command, or answers a repeated one with its first outcome.
    pub fn apply(&mut self, command: &SystemCommand) -> (SystemOutcome, Changes) {
        if let Some(outcome) = self.outcomes.get(&command.txn) {
            return (outcome.clone(), Changes::default());
        }
        let view = SystemView {
            map: self.map.as_ref(),
            bucket: command.change.bucket_name().and_then(|name| self.buckets.get(name)),
            buckets: self.buckets.len() as u64,
        };
        let (outcome, changes) = apply(view, command);
        if let Some(map) = &changes.map {
            self.map = Some(map.clone());
        }
        match &changes.bucket {
            Some(BucketChange::Put(row)) => drop(self.buckets.insert(row.bucket.name.clone(), row.clone())),
            Some(BucketChange::Remove(name)) => drop(self.buckets.remove(name)),
            None => {}
        }
        self.remember(command.txn, outcome.clone());
        (outcome, changes)
    }

    fn remember(&mut self, txn: TxnId, outcome: SystemOutcome) {
        self.outcomes.insert(txn, outcome);
        self.order.push_back(txn);
        if self.order.len() as u64 > TXNS_MAX {
            let oldest = self.order.pop_front().expect("more than none");
            self.outcomes.remove(&oldest);
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
