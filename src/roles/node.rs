//! A storage node of a cluster.

use anyhow::bail;
use gateway::admin::AdminServer;
use placement_types::Env;
use storage_node::Limits;

use super::front::{Backend, Front};
use super::network::{InternalPort, Network};
use super::server::{parse_profile, parse_zone};
use super::storage::{Candidate, Storage, StorageParts, rocks};
use crate::config::Settings;
use crate::credentials::RootCredentials;

pub struct NodeRole {
    admin: AdminServer,
    storage: Storage,
    internal: InternalPort,
}

impl NodeRole {
    /// Opens the internal port, finds or founds the cluster, and returns once the node is part of it.
    ///
    /// # Errors
    /// What cannot be used, by name, and what to do about it.
    pub async fn start(env: Env, settings: &Settings) -> anyhow::Result<Self> {
        let root = RootCredentials::from_settings(&env, settings)?;
        if settings.peers.is_empty() {
            bail!("name the storage nodes with --peers HOST:PORT,HOST:PORT,... (this node included)");
        }
        let network = Network::open(&env, settings).await?;
        let address = network.address().to_owned();
        let joins = settings.join.unwrap_or(false);
        if !joins && !settings.peers.contains(&address) {
            bail!(
                "{address} is not among --peers ({}); set --advertise to the entry that is this node",
                settings.peers.join(", ")
            );
        }
        let expect = settings.expect.unwrap_or(u32::try_from(settings.peers.len()).unwrap_or(u32::MAX));
        let candidate = Candidate::open(StorageParts {
            env: env.clone(),
            data: settings.data.clone(),
            address,
            zone: parse_zone(settings)?,
            profile: parse_profile(settings)?,
            expect: (!joins).then_some(expect),
            peer_addresses: settings.peers.clone(),
            moved: settings.moved.unwrap_or(false),
            kv: rocks(),
            limits: Limits::default(),
        })
        .await?;
        let (seeker, internal) = network.connect(candidate)?;
        let storage = internal.admit(seeker.start()).await?;
        let backend = Backend {
            placement: storage.client.clone(),
            maps: storage.maps.clone(),
            nodes: storage.nodes.clone(),
            local_node: Some(storage.id),
        };
        let front = Front::new(env, settings, root, backend)?;
        let admin = front.open_admin(settings).await?;
        Ok(Self { admin, storage, internal })
    }

    /// `internal=... admin=...` for the ready line.
    pub fn addresses(&self) -> String {
        format!("internal={} admin=http://{}", self.internal.address(), self.admin.address())
    }

    /// Resolves when the process can do nothing better than end; see [`Storage::failed`].
    pub async fn failed(&self) -> String {
        tokio::select! {
            reason = self.storage.failed() => reason,
            reason = self.internal.expelled() => reason,
        }
    }

    /// Hands leaderships over and closes the storage side, then the port.
    pub async fn shutdown(self) {
        drop(self.admin);
        self.storage.shutdown().await;
        self.internal.close().await;
    }
}
