//! How placement clients and meetings reach each other's services, in this process or over the network.

use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use placement_map::ClusterMap;
use placement_map::bucket::Bucket;
use placement_map::system::{SystemCommand, SystemOutcome};
use placement_proto::api::{Heartbeat, PlacementApi, PlacementError, SystemCopy};
use placement_proto::meeting::{Hello, MeetingApi, MeetingError, Pledge, PledgeReply};
use placement_types::{BucketName, Epoch};

use super::peers::Peers;

/// The placement service of this process, before it has started too: then it has no cluster.
#[derive(Clone)]
pub struct LatePlacement(Arc<OnceLock<Arc<dyn PlacementApi>>>);

impl LatePlacement {
    pub fn new(service: Arc<OnceLock<Arc<dyn PlacementApi>>>) -> Self {
        Self(service)
    }

    fn service(&self) -> Result<&Arc<dyn PlacementApi>, PlacementError> {
        self.0.get().ok_or(PlacementError::NotFormed)
    }
}

#[async_trait]
impl PlacementApi for LatePlacement {
    async fn propose(&self, command: SystemCommand) -> Result<SystemOutcome, PlacementError> {
        self.service()?.propose(command).await
    }

    async fn bucket(&self, name: &BucketName) -> Result<Option<Bucket>, PlacementError> {
        self.service()?.bucket(name).await
    }

    async fn buckets(&self) -> Result<Vec<Bucket>, PlacementError> {
        self.service()?.buckets().await
    }

    async fn newer_map(&self, known: Epoch) -> Result<Arc<ClusterMap>, PlacementError> {
        self.service()?.newer_map(known).await
    }

    async fn system_copy(&self) -> Result<SystemCopy, PlacementError> {
        self.service()?.system_copy().await
    }

    async fn heartbeat(&self, beat: Heartbeat) -> Result<(), PlacementError> {
        self.service()?.heartbeat(beat).await
    }
}

/// The service at `own` is `local`, every other address is reached over the network.
pub fn placement_connect(own: String, local: LatePlacement, peers: Option<Arc<Peers>>) -> placement::client::Connect {
    let nobody = LatePlacement::new(Arc::default());
    Arc::new(move |address: &str| -> Arc<dyn PlacementApi> {
        if address == own {
            return Arc::new(local.clone());
        }
        match peers.as_ref().and_then(|peers| peers.at(address)) {
            Some(clients) => clients.placement.clone(),
            None => Arc::new(nobody.clone()),
        }
    })
}

/// Meetings are always over the network: a process does not meet itself.
pub fn meeting_connect(peers: Option<Arc<Peers>>) -> placement::meeting::Connect {
    Arc::new(move |address: &str| -> Arc<dyn MeetingApi> {
        match peers.as_ref().and_then(|peers| peers.at(address)) {
            Some(clients) => clients.placement.clone(),
            None => Arc::new(Nobody),
        }
    })
}

/// Stands behind a text that is not an address.
struct Nobody;

#[async_trait]
impl MeetingApi for Nobody {
    async fn hello(&self, _hello: Hello) -> Result<Hello, MeetingError> {
        Err(MeetingError::Unreachable { why: "not an address".to_owned() })
    }

    async fn pledge(&self, _pledge: Pledge) -> Result<PledgeReply, MeetingError> {
        Err(MeetingError::Unreachable { why: "not an address".to_owned() })
    }
}
