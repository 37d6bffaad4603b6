//! A stateless S3 gateway of a cluster.

use std::sync::Arc;

use anyhow::{Context, bail};
use gateway::admin::AdminServer;
use placement::PlacementClient;
use placement_proto::api::MapWatch;
use placement_rpc::{Channels, Identity, Lineage, Security, Subject};
use placement_types::{Env, TaskHandle};

use super::front::{Backend, Front, S3Listener};
use super::network::read_secret;
use crate::config::Settings;
use crate::credentials::RootCredentials;
use crate::net::{Directory, LatePlacement, Peers, placement_connect};

pub struct GatewayRole {
    s3: S3Listener,
    admin: AdminServer,
    follower: TaskHandle,
    learner: TaskHandle,
}

impl GatewayRole {
    /// Finds the cluster and returns once it serves. Until a cluster is found it waits, and says so in the log.
    ///
    /// # Errors
    /// What cannot be used, by name, and what to do about it.
    pub async fn start(env: Env, settings: &Settings) -> anyhow::Result<Self> {
        let root = RootCredentials::from_settings(&env, settings)?
            .context("set DOZO_ROOT_ACCESS_KEY and DOZO_ROOT_SECRET_KEY (or ..._FILE), the same for every process")?;
        let secret = read_secret(&env, settings)?;
        if settings.peers.is_empty() {
            bail!("name the storage nodes with --peers HOST:PORT,HOST:PORT,...");
        }
        let security = Security::Mutual(Identity::derive(&secret, Subject::Gateway)?);
        let peers = Arc::new(Peers::new(env.clone(), Channels::new(env.clone(), security, Lineage::default())));
        // A gateway holds no replica, so no address is its own.
        let connect = placement_connect(String::new(), LatePlacement::new(Arc::default()), Some(peers.clone()));
        let client = PlacementClient::new(env.clone(), connect, settings.peers.clone(), None);
        let (maps, follower) = (client.maps(), client.follow());
        let learner = env.spawn("map-learner", learn_maps(maps.clone(), peers.clone()));
        let nodes = Arc::new(Directory::new(maps.clone(), Some(peers)));
        let front = Front::new(
            env.clone(),
            settings,
            Some(root),
            Backend { placement: Arc::new(client), maps: maps.clone(), nodes, local_node: None },
        )?;
        // Health answers from the first moment on; S3 opens when there is a cluster to serve from.
        let admin = front.open_admin(settings).await?;
        tracing::info!(peers = settings.peers.len(), "looking for the cluster");
        let mut formed = maps;
        formed.wait_for(Option::is_some).await.context("the map follower ended")?;
        let s3 = front.open_s3(settings).await?;
        Ok(Self { s3, admin, follower, learner })
    }

    /// `s3=... admin=...` for the ready line.
    pub fn addresses(&self) -> String {
        format!("s3={} admin=http://{}", self.s3.url(), self.admin.address())
    }

    /// Lets requests under way end.
    pub async fn shutdown(self) {
        self.s3.drain().await;
        drop(self.admin);
        self.learner.stop().await;
        self.follower.stop().await;
    }
}

/// Refuses whoever the newest map says was removed.
async fn learn_maps(mut maps: MapWatch, peers: Arc<Peers>) {
    loop {
        let map = maps.borrow_and_update().clone();
        if let Some(map) = map {
            peers.learn_map(&map);
        }
        if maps.changed().await.is_err() {
            return;
        }
    }
}
