//! The embedded default: node, disks and gateway in one process, with no TCP between them.

use std::path::Path;

use anyhow::Context;
use placement_types::{Env, ZoneName};

use super::front::{Backend, Front, S3Listener};
use super::storage::{Candidate, Storage, StorageParts, rocks};
use crate::config::Settings;
use crate::credentials::{Origin, RootCredentials};
use gateway::admin::AdminServer;

pub struct ServerRole {
    s3: S3Listener,
    admin: AdminServer,
    storage: Storage,
}

impl ServerRole {
    /// Opens everything and returns once it serves.
    ///
    /// # Errors
    /// What cannot be used, by name, and what to do about it.
    pub async fn start(env: Env, settings: &Settings) -> anyhow::Result<Self> {
        let first = settings.data.first().context("name at least one data directory: dozo server DIR...")?.clone();
        let candidate = Candidate::open(StorageParts {
            env: env.clone(),
            data: settings.data.clone(),
            address: "embedded:0".to_owned(),
            zone: parse_zone(settings)?,
            profile: parse_profile(settings)?,
            expect: Some(1),
            peer_addresses: Vec::new(),
            moved: settings.moved.unwrap_or(false),
            kv: rocks(),
        })
        .await?;
        let (keys_env, keys_settings) = (env.clone(), settings.clone());
        let (root, origin) =
            env.run_blocking(move || RootCredentials::load_or_generate(&keys_env, &keys_settings, Path::new(&first))).await?;
        let storage = candidate.with_peers(None)?.start().await?;
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
        Ok(Self { s3, admin, storage })
    }

    /// `s3=... admin=...` for the ready line.
    pub fn addresses(&self) -> String {
        format!("s3={} admin=http://{}", self.s3.url(), self.admin.address())
    }

    /// Resolves when the process can do nothing better than end; see [`Storage::failed`].
    pub async fn failed(&self) -> String {
        self.storage.failed().await
    }

    /// Lets requests under way end, then closes the storage side.
    pub async fn shutdown(self) {
        self.s3.drain().await;
        drop(self.admin);
        self.storage.shutdown().await;
    }
}

/// Tells a person how to use the server. Secrets are shown only in the first start's message, on standard error.
fn greet(settings: &Settings, root: &RootCredentials, origin: Origin, storage: &Storage, s3: &S3Listener) {
    if let Some(map) = storage.maps.borrow().as_ref()
        && map.profile.parity() == 0
    {
        eprintln!(
            "warning: one disk, no redundancy: if it is lost, everything on it is lost. More disks: dozo server DIR DIR DIR"
        );
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
