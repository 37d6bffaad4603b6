//! The faces of a process towards users: the S3 listener and the admin listener.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use async_trait::async_trait;
use gateway::admin::{AdminParts, AdminServer, router};
use gateway::{Gateway, GatewayConfig, GatewayParts};
use gateway_s3::{Caller, Credential, Credentials, S3Config, S3Error, S3Service, SecretKey, Tls, serve};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use placement_proto::api::{MapWatch, PlacementApi};
use placement_types::{Env, NodeId, TaskHandle};
use storage_node_proto::api::Nodes;
use tokio_util::sync::CancellationToken;

use crate::config::Settings;
use crate::credentials::RootCredentials;

/// The root user's key, and no other. A node without root keys answers nobody.
struct RootOnly(Option<RootCredentials>);

#[async_trait]
impl Credentials for RootOnly {
    async fn lookup(&self, access_key: &str) -> Result<Option<Credential>, S3Error> {
        Ok(self.0.as_ref().filter(|root| root.access_key == access_key).map(|root| Credential {
            secret: SecretKey::new(root.secret_key.clone()),
            caller: Caller::Root { access_key: root.access_key.clone() },
        }))
    }
}

/// What the listeners of a process share.
pub struct Front {
    env: Env,
    pub gateway: Arc<Gateway>,
    credentials: Arc<dyn Credentials>,
    metrics: PrometheusHandle,
}

/// The storage side as a gateway sees it.
pub struct Backend {
    pub placement: Arc<dyn PlacementApi>,
    pub maps: MapWatch,
    pub nodes: Arc<dyn Nodes>,
    pub local_node: Option<NodeId>,
}

impl Front {
    /// # Errors
    /// When metrics are set up already: a process has one front.
    pub fn new(env: Env, settings: &Settings, root: Option<RootCredentials>, backend: Backend) -> anyhow::Result<Self> {
        let recorder = PrometheusBuilder::new().install_recorder().context("cannot set up metrics")?;
        metrics::describe_gauge!("dozo_build_info", "always 1; the label is the running version");
        metrics::gauge!("dozo_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
        let Backend { placement, maps, nodes, local_node } = backend;
        let config = GatewayConfig::new(settings.region(), root.as_ref().map_or("", |root| &root.access_key), local_node);
        let gateway = Gateway::new(GatewayParts { env: env.clone(), placement, maps, nodes, config });
        Ok(Self { env, gateway, credentials: Arc::new(RootOnly(root)), metrics: recorder })
    }

    /// Opens the admin listener.
    ///
    /// # Errors
    /// When the address cannot be listened on.
    pub async fn open_admin(&self, settings: &Settings) -> anyhow::Result<AdminServer> {
        let address = settings.admin_address();
        let listener =
            self.env.net.listen(address).await.with_context(|| format!("cannot listen on {address} (--admin-addr)"))?;
        let parts =
            AdminParts { gateway: self.gateway.clone(), credentials: self.credentials.clone(), metrics: self.metrics.clone() };
        Ok(AdminServer::start(&self.env, listener, router(parts)))
    }

    /// Ends, about once a minute, what a crash left of bucket deletions. Any number of processes may do it.
    fn start_duties(&self) -> TaskHandle {
        let (env, gateway) = (self.env.clone(), self.gateway.clone());
        self.env.spawn("resume-deletes", async move {
            loop {
                env.sleep(RESUME_INTERVAL + Duration::from_millis(env.random_below(10_000))).await;
                gateway.resume_deletes().await;
            }
        })
    }

    /// Opens the S3 listener, with TLS when a certificate is configured.
    ///
    /// # Errors
    /// When the address cannot be listened on, or the certificate or key cannot be used.
    pub async fn open_s3(&self, settings: &Settings) -> anyhow::Result<S3Listener> {
        let tls = match (&settings.tls_cert, &settings.tls_key) {
            (Some(certificate), Some(key)) => Some(self.read_tls(certificate, key).await?),
            (None, None) => None,
            _ => bail!("set both --tls-cert and --tls-key, or neither"),
        };
        let config = S3Config {
            region: settings.region().to_owned(),
            domains: settings.domains.clone(),
            sig_v2_presigned: settings.sigv2_presigned.unwrap_or(true),
            ..S3Config::default()
        };
        let address = settings.s3_address();
        let listener = self.env.net.listen(address).await.with_context(|| format!("cannot listen on {address} (--s3-addr)"))?;
        let url = format!("{}://{}", if tls.is_some() { "https" } else { "http" }, listener.local_address());
        let service = S3Service::new(self.gateway.clone(), self.credentials.clone(), config, self.env.clone());
        let stop = CancellationToken::new();
        let task = self.env.spawn("s3-listener", serve(service, listener, tls, self.env.clone(), stop.clone(), DRAIN_MAX));
        Ok(S3Listener { url, stop, task, _duties: self.start_duties() })
    }

    async fn read_tls(&self, certificate: &Path, key: &Path) -> anyhow::Result<Tls> {
        let (fs, certificate, key) = (self.env.fs.clone(), certificate.to_owned(), key.to_owned());
        self.env
            .run_blocking(move || {
                let read =
                    |path: &Path| fs.read_small(path, PEM_BYTES_MAX).with_context(|| format!("cannot read {}", path.display()));
                let (chain, private) = (read(&certificate)?, read(&key)?);
                Tls::from_pem(&chain, &private)
                    .with_context(|| format!("{} and {} cannot be used for TLS", certificate.display(), key.display()))
            })
            .await
    }
}

/// How often interrupted bucket deletions are looked for.
const RESUME_INTERVAL: Duration = Duration::from_secs(55);

/// Requests under way at shutdown get this long.
const DRAIN_MAX: Duration = Duration::from_secs(25);

const PEM_BYTES_MAX: u64 = 1 << 20;

/// A running S3 listener.
pub struct S3Listener {
    url: String,
    stop: CancellationToken,
    task: TaskHandle,
    _duties: TaskHandle,
}

impl S3Listener {
    /// `http://ip:port`, with the port really bound.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Stops accepting, lets requests under way end, closes the rest at the deadline.
    pub async fn drain(self) {
        self.stop.cancel();
        self.task.join().await;
    }
}
