//! The embedded default: node, disks and gateway in one process, with no TCP between them.
//!
//! By itself it is a cluster of one node that nobody can reach. Given a cluster secret it opens the internal port too: then other
//! nodes can join it, whatever it was before, or it them.

use std::path::Path;

use anyhow::{Context, bail};
use futures::future::OptionFuture;
use placement_map::DiskRole;
use placement_types::{Env, ZoneName};
use storage_node::Limits;

use super::front::{Backend, Front, S3Listener};
use super::network::{InternalPort, Network};
use super::storage::{Candidate, Storage, StorageParts, rocks};
use crate::config::Settings;
use crate::credentials::{Origin, RootCredentials};
use gateway::admin::AdminServer;

/// The address of a node that has no internal port. A cluster map must name one.
const UNREACHABLE: &str = "embedded:0";

pub struct ServerRole {
    s3: S3Listener,
    admin: AdminServer,
    storage: Storage,
    internal: Option<InternalPort>,
}

impl ServerRole {
    /// Opens everything and returns once it serves.
    ///
    /// # Errors
    /// What cannot be used, by name, and what to do about it.
    pub async fn start(env: Env, settings: &Settings) -> anyhow::Result<Self> {
        let first = settings.data.first().context("name at least one data directory: dozo server DIR...")?.clone();
        let network = match &settings.cluster_secret_file {
            Some(_) => Some(Network::open(&env, settings).await?),
            None => None,
        };
        let joins = settings.join.unwrap_or(false);
        if joins && (network.is_none() || settings.peers.is_empty()) {
            bail!("to join a cluster, name members of it with --peers, and its secret with --cluster-secret-file");
        }
        let candidate = Candidate::open(StorageParts {
            env: env.clone(),
            data: settings.data.clone(),
            address: network.as_ref().map_or(UNREACHABLE, Network::address).to_owned(),
            zone: parse_zone(settings)?,
            profile: parse_profile(settings)?,
            expect: (!joins).then_some(1),
            peer_addresses: if network.is_some() { settings.peers.clone() } else { Vec::new() },
            moved: settings.moved.unwrap_or(false),
            kv: rocks(),
            limits: Limits::default(),
        })
        .await?;
        let (keys_env, keys_settings) = (env.clone(), settings.clone());
        let (root, origin) =
            env.run_blocking(move || RootCredentials::load_or_generate(&keys_env, &keys_settings, Path::new(&first))).await?;
        let (seeker, internal) = match network {
            Some(network) => {
                let (seeker, internal) = network.connect(candidate)?;
                (seeker, Some(internal))
            }
            None => (candidate.with_peers(None)?, None),
        };
        let storage = match &internal {
            Some(internal) => internal.admit(seeker.start()).await?,
            None => seeker.start().await?,
        };
        let backend = Backend {
            placement: storage.client.clone(),
            maps: storage.maps.clone(),
            nodes: storage.nodes.clone(),
            local_node: Some(storage.id),
        };
        let front = Front::new(env, settings, Some(root.clone()), backend)?;
        let admin = front.open_admin(settings).await?;
        let s3 = front.open_s3(settings).await?;
        greet(settings, &root, origin, &storage, &s3);
        Ok(Self { s3, admin, storage, internal })
    }

    /// `s3=... admin=...` for the ready line, and `internal=...` when others can reach it.
    pub fn addresses(&self) -> String {
        let internal = self.internal.as_ref().map_or(String::new(), |internal| format!(" internal={}", internal.address()));
        format!("s3={} admin=http://{}{internal}", self.s3.url(), self.admin.address())
    }

    /// Resolves when the process can do nothing better than end; see [`Storage::failed`].
    pub async fn failed(&self) -> String {
        let expelled = OptionFuture::from(self.internal.as_ref().map(InternalPort::expelled));
        tokio::select! {
            reason = self.storage.failed() => reason,
            Some(reason) = expelled => reason,
        }
    }

    /// Lets requests under way end, then closes the storage side.
    pub async fn shutdown(self) {
        self.s3.drain().await;
        drop(self.admin);
        self.storage.shutdown().await;
        if let Some(internal) = self.internal {
            internal.close().await;
        }
    }
}

/// Tells a person how to use the server. Secrets are shown only in the first start's message, on standard error.
fn greet(settings: &Settings, root: &RootCredentials, origin: Origin, storage: &Storage, s3: &S3Listener) {
    if let Some(map) = storage.maps.borrow().as_ref() {
        let waiting = map.disks.values().filter(|disk| disk.role == DiskRole::Joining).count();
        if waiting > 0 {
            eprintln!(
                "disks that wait to be used: {waiting}. To use them: dozo admin apply take-in; then, to code all objects as suits so \
                 many disks: dozo admin apply profile"
            );
        } else if map.profile.parity() == 0 {
            eprintln!(
                "warning: one disk, no redundancy: if it is lost, everything on it is lost. More disks: dozo server DIR DIR DIR"
            );
        }
    }
    match origin {
        Origin::Generated => {
            eprintln!("made the root keys and kept them in {}/root-credentials (mode 0600)", settings.data[0]);
            eprintln!("export AWS_ACCESS_KEY_ID={}", root.access_key);
            eprintln!("export AWS_SECRET_ACCESS_KEY={}", root.secret_key);
        }
        Origin::Kept => {
            eprintln!("the root keys are in {0}/root-credentials; to use them:", settings.data[0]);
            eprintln!("export AWS_ACCESS_KEY_ID=$(sed -n 1p {}/root-credentials)", settings.data[0]);
            eprintln!("export AWS_SECRET_ACCESS_KEY=$(sed -n 2p {}/root-credentials)", settings.data[0]);
        }
        Origin::Settings => {}
    }
    eprintln!("export AWS_ENDPOINT_URL={} AWS_REGION={}", s3.url(), settings.region());
}

pub(super) fn parse_zone(settings: &Settings) -> anyhow::Result<ZoneName> {
    Ok(settings.zone.as_deref().map(ZoneName::parse).transpose()?.unwrap_or_default())
}

pub(super) fn parse_profile(settings: &Settings) -> anyhow::Result<Option<placement_types::Profile>> {
    Ok(settings.profile.as_deref().map(str::parse).transpose()?)
}
