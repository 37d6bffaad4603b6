//! The internal port of a process with a storage side: how peers reach it, and it them.

use std::sync::Arc;

use anyhow::{Context, bail};
use placement_proto::tenure::Loss;
use placement_rpc::{Admission, Channels, ClusterSecret, Identity, Lineage, Security, Subject, serve};
use placement_types::{Env, Listener, NodeId, TaskHandle};
use tokio::sync::oneshot;
use tonic::service::Routes;

use super::storage::{Candidate, Seeker, superseded};
use crate::config::Settings;
use crate::net::Peers;

const SECRET_BYTES_MAX: u64 = 64 * 1024;

/// The port, listening, before anything is served on it.
pub struct Network {
    env: Env,
    address: String,
    secret: ClusterSecret,
    listener: Box<dyn Listener>,
}

/// The internal listener and what stops it.
pub struct InternalPort {
    address: String,
    node: NodeId,
    admission: Admission,
    lineage: Lineage,
    stop: oneshot::Sender<()>,
    task: TaskHandle,
}

impl Network {
    /// Reads the cluster secret and opens the port.
    ///
    /// # Errors
    /// What cannot be used, by name.
    pub async fn open(env: &Env, settings: &Settings) -> anyhow::Result<Self> {
        let secret = read_secret(env, settings)?;
        let address = advertised(settings)?;
        let listen = settings.internal_address();
        let listener = env.net.listen(listen).await.with_context(|| format!("cannot listen on {listen} (--listen)"))?;
        Ok(Self { env: env.clone(), address, secret, listener })
    }

    /// The address under which peers reach this process.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Gives a candidate its way to peers, and them theirs to it.
    ///
    /// # Errors
    /// When its identity cannot be derived, or so many nodes cannot found a cluster.
    pub fn connect(self, candidate: Candidate) -> anyhow::Result<(Seeker, InternalPort)> {
        let Self { env, address, secret, listener } = self;
        // Channels need the node's certificate, the certificate its id, the id its directory: so the peers come last.
        let node = candidate.node();
        let identity = Identity::derive(&secret, Subject::Node(node))?;
        let admission = identity.admission().clone();
        let security = Security::Mutual(identity);
        let lineage = candidate.lineage();
        let peers = Arc::new(Peers::new(env.clone(), Channels::new(env.clone(), security.clone(), lineage.clone())));
        let seeker = candidate.with_peers(Some(peers))?;

        let mut routes = Routes::builder();
        routes
            .add_service(placement_proto::serve::service(seeker.meeting.clone(), seeker.placement.clone()))
            .add_service(storage_node_proto::serve::service(env.clone(), seeker.served.clone()));
        let (stop, stopped) = oneshot::channel::<()>();
        let (serve_env, routes, served_as) = (env.clone(), routes.routes(), lineage.clone());
        let task = env.spawn("internal-port", async move {
            let shutdown = async {
                let _ = stopped.await;
            };
            if let Err(error) = serve(serve_env, listener, security, served_as, routes, shutdown).await {
                tracing::error!(%error, "the internal port closed");
            }
        });
        Ok((seeker, InternalPort { address, node, admission, lineage, stop, task }))
    }
}

impl InternalPort {
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Waits for what needs the peers. A removed node, or one of an earlier incarnation, is refused at every door, so that nothing
    /// would ever come of waiting at them.
    ///
    /// # Errors
    /// What the waiting ended with, or that the node has no place in the cluster.
    pub async fn admit<T>(&self, start: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
        tokio::select! {
            started = start => started,
            reason = self.expelled() => bail!(reason),
            by = self.lineage.superseded() => bail!(superseded(self.lineage.own(), by)),
        }
    }

    /// Resolves when a member says that this node was removed.
    pub async fn expelled(&self) -> String {
        self.admission.expelled().await;
        Loss::Removed { node: self.node }.to_string()
    }

    pub async fn close(self) {
        let _ = self.stop.send(());
        self.task.stop().await;
    }
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
