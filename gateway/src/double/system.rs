//! The system group: its real state machine, without a group.

use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use placement_map::ClusterMap;
use placement_map::bucket::Bucket;
use placement_map::state::SystemState;
use placement_map::system::{SystemCommand, SystemOutcome};
use placement_proto::api::{Heartbeat, PlacementApi, PlacementError, SystemCopy};
use placement_types::{BucketName, Epoch};

pub struct System {
    state: Mutex<SystemState>,
}

impl System {
    pub fn new(map: ClusterMap) -> Self {
        let system = Self { state: Mutex::default() };
        system.state.lock().map = Some(map);
        system
    }
}

#[async_trait]
impl PlacementApi for System {
    async fn propose(&self, command: SystemCommand) -> Result<SystemOutcome, PlacementError> {
        tokio::task::yield_now().await;
        Ok(self.state.lock().apply(&command).0)
    }

    async fn bucket(&self, name: &BucketName) -> Result<Option<Bucket>, PlacementError> {
        tokio::task::yield_now().await;
        Ok(self.state.lock().buckets.get(name).map(|row| row.bucket.clone()))
    }

    async fn buckets(&self) -> Result<Vec<Bucket>, PlacementError> {
        Ok(self.state.lock().buckets.values().map(|row| row.bucket.clone()).collect())
    }

    async fn newer_map(&self, _: Epoch) -> Result<Arc<ClusterMap>, PlacementError> {
        unreachable!("the gateway is given a watch")
    }

    async fn system_copy(&self) -> Result<SystemCopy, PlacementError> {
        unreachable!("a gateway keeps no copy")
    }

    async fn heartbeat(&self, _: Heartbeat) -> Result<(), PlacementError> {
        unreachable!("a gateway has no heart")
    }
}
