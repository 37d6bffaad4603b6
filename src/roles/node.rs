//! A storage node of a cluster.

use std::sync::Arc;

use anyhow::{Context, bail};
use gateway::admin::AdminServer;
use placement_proto::tenure::Loss;
use placement_rpc::{Admission, Channels, ClusterSecret, Identity, Security, Subject, serve};
use placement_types::{Env, NodeId, TaskHandle};
use tokio::sync::oneshot;
use tonic::service::Routes;

use super::front::{Backend, Front};
use super::server::{parse_profile, parse_zone};
use super::storage::{Candidate, Storage, StorageParts, rocks};
use crate::config::Settings;
use crate::credentials::RootCredentials;
use crate::net::Peers;

const SECRET_BYTES_MAX: u64 = 64 * 1024;

pub struct NodeRole {
    admin: AdminServer,
    storage: Storage,
    internal: InternalPort,
    admission: Admission,
    address: String,
}

/// The internal listener and what stops it.
struct InternalPort {
    stop: oneshot::Sender<()>,
    task: TaskHandle,
}

impl NodeRole {
    /// Opens the internal port, finds or founds the cluster, and returns once the node is part of it.
    ///
    /// # Errors
    /// What cannot be used, by name, and what to do about it.
    pub async fn start(env: Env, settings: &Settings) -> anyhow::Result<Self> {
        let root = RootCredentials::from_settings(&env, settings)?;
        let secret = read_secret(&env, settings)?;
        if settings.peers.is_empty() {
            bail!("name the storage nodes with --peers HOST:PORT,HOST:PORT,... (this node included)");
        }
        let address = advertised(settings)?;
        let joins = settings.join.unwrap_or(false);
        if !joins && !settings.peers.contains(&address) {
            bail!(
                "{address} is not among --peers ({}); set --advertise to the entry that is this node",
                settings.peers.join(", ")
            );
        }
        let expect = settings.expect.unwrap_or(u32::try_from(settings.peers.len()).unwrap_or(u32::MAX));
        let expect = (!joins).then_some(expect);
        let listener_address = settings.internal_address().to_owned();
        let listener =
            env.net.listen(&listener_address).await.with_context(|| format!("cannot listen on {listener_address} (--listen)"))?;
        let parts = StorageParts {
            env: env.clone(),
            data: settings.data.clone(),
            address: address.clone(),
            zone: parse_zone(settings)?,
            profile: parse_profile(settings)?,
            expect,
            peer_addresses: settings.peers.clone(),
            moved: settings.moved.unwrap_or(false),
            kv: rocks(),
        };
        let candidate = Candidate::open(parts).await?;
        // Channels need the node's certificate, the certificate its id, the id its directory: so the peers come last.
        let node = candidate.node();
        let identity = Identity::derive(&secret, Subject::Node(node))?;
        let admission = identity.admission().clone();
        let security = Security::Mutual(identity);
        let peers = Arc::new(Peers::new(env.clone(), Channels::new(env.clone(), security.clone())));
        let seeker = candidate.with_peers(Some(peers))?;

        let mut routes = Routes::builder();
        routes
            .add_service(placement_proto::serve::service(seeker.meeting.clone(), seeker.placement.clone()))
            .add_service(storage_node_proto::serve::service(env.clone(), seeker.served.clone()));
        let (stop, stopped) = oneshot::channel::<()>();
        let (serve_env, routes) = (env.clone(), routes.routes());
        let task = env.spawn("internal-port", async move {
            let shutdown = async {
                let _ = stopped.await;
            };
            if let Err(error) = serve(serve_env, listener, security, routes, shutdown).await {
                tracing::error!(%error, "the internal port closed");
            }
        });
        let internal = InternalPort { stop, task };

        // A removed node is refused at every door, so that nothing else would ever come of waiting at them.
        let storage = tokio::select! {
            started = seeker.start() => started?,
            reason = expelled(&admission, node) => bail!(reason),
        };
        let backend = Backend {
            placement: storage.client.clone(),
            maps: storage.maps.clone(),
            nodes: storage.nodes.clone(),
            local_node: Some(storage.id),
        };
        let front = Front::new(env, settings, root, backend)?;
        let admin = front.open_admin(settings).await?;
        Ok(Self { admin, storage, internal, admission, address })
    }

    /// `internal=... admin=...` for the ready line.
    pub fn addresses(&self) -> String {
        format!("internal={} admin=http://{}", self.address, self.admin.address())
    }

    /// Resolves when the process can do nothing better than end; see [`Storage::failed`].
    pub async fn failed(&self) -> String {
        tokio::select! {
            reason = self.storage.failed() => reason,
            reason = expelled(&self.admission, self.storage.id) => reason,
        }
    }

    /// Hands leaderships over and closes the storage side, then the port.
    pub async fn shutdown(self) {
        drop(self.admin);
        self.storage.shutdown().await;
        let _ = self.internal.stop.send(());
        self.internal.task.stop().await;
    }
}

/// Resolves when a member says that this node was removed.
async fn expelled(admission: &Admission, node: NodeId) -> String {
    admission.expelled().await;
    Loss::Removed { node }.to_string()
}

pub(super) fn read_secret(env: &Env, settings: &Settings) -> anyhow::Result<ClusterSecret> {
    let Some(file) = &settings.cluster_secret_file else {
        bail!("set --cluster-secret-file (or DOZO_CLUSTER_SECRET_FILE): every process of a cluster needs the same secret");
    };
    let bytes = env
        .fs
        .read_small(file, SECRET_BYTES_MAX)
        .with_context(|| format!("cannot read the cluster secret from {}", file.display()))?;
    let text = String::from_utf8(bytes).with_context(|| format!("{} is not text", file.display()))?;
    ClusterSecret::parse(&text).with_context(|| format!("the secret in {} cannot be used", file.display()))
}

/// The address peers use: what is configured, else the listen address when it names a host.
fn advertised(settings: &Settings) -> anyhow::Result<String> {
    if let Some(address) = &settings.advertise {
        return Ok(address.clone());
    }
    let listen = settings.internal_address();
    match listen.rsplit_once(':') {
        Some(("0.0.0.0" | "[::]" | "", _)) | None => {
            bail!("set --advertise HOST:PORT: {listen} is not an address that peers can connect to")
        }
        Some((_, "0")) => bail!("set a port in --listen: peers cannot find a random one"),
        Some(_) => Ok(listen.to_owned()),
    }
}
