//! The compose cluster of `deploy/`, brought up and removed by the commands that users type, and what may happen to its
//! containers.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tempfile::TempDir;

use crate::client::Client;
use crate::process::{binary, free_port};

/// How long all containers may take to become healthy, with a debug binary on a busy machine.
const HEALTHY_LIMIT: Duration = Duration::from_secs(120);

/// How long killed processes may take to be gone.
const KILLED_LIMIT: Duration = Duration::from_secs(60);

pub const NODES: [&str; 4] = ["node1", "node2", "node3", "node4"];
pub const GATEWAYS: [&str; 2] = ["gateway1", "gateway2"];

/// Four nodes and two gateways in containers of a project of their own, beside whatever else the engine runs.
pub struct ComposeCluster {
    pub dir: TempDir,
    project: String,
    variables: Vec<(&'static str, String)>,
    access_key: String,
    secret_key: String,
    endpoints: [String; 2],
}

impl ComposeCluster {
    /// `make cluster` with the binary beside this test, put on the image that the variable `BASE` names.
    ///
    /// # Errors
    /// When an image cannot be made or a container does not become healthy.
    pub fn start() -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        let project = format!("dozo-test-{}", std::process::id());
        let [s3_1, s3_2, admin_1, admin_2] = [(); 4].map(|()| free_port());
        let variables = vec![
            ("COMPOSE_PROJECT_NAME", project.clone()),
            ("CLUSTER_BINARY", binary().display().to_string()),
            ("CLUSTER_IMAGE", format!("{project}:local")),
            ("CLUSTER_SECRETS", dir.path().join("secrets").display().to_string()),
            ("CLUSTER_S3_PORT_1", s3_1.to_string()),
            ("CLUSTER_S3_PORT_2", s3_2.to_string()),
            ("CLUSTER_ADMIN_PORT_1", admin_1.to_string()),
            ("CLUSTER_ADMIN_PORT_2", admin_2.to_string()),
        ];
        let mut cluster = Self {
            dir,
            project,
            variables,
            access_key: String::new(),
            secret_key: String::new(),
            endpoints: [s3_1, s3_2].map(|port| format!("http://127.0.0.1:{port}")),
        };
        let told = cluster.make("cluster")?;
        let exported = |name: &str| {
            let line = told.lines().find_map(|line| line.strip_prefix(&format!("export {name}=")));
            line.map(str::to_owned).with_context(|| format!("`make cluster` does not tell {name}:\n{told}"))
        };
        cluster.access_key = exported("AWS_ACCESS_KEY_ID")?;
        cluster.secret_key = exported("AWS_SECRET_ACCESS_KEY")?;
        let first = &cluster.endpoints[0];
        if !exported("AWS_ENDPOINT_URL")?.starts_with(first) {
            bail!("`make cluster` does not tell the endpoint {first}:\n{told}");
        }
        Ok(cluster)
    }

    /// A client of a gateway, with the keys that `make cluster` told.
    pub fn client(&self, gateway: usize) -> Client {
        Client::with_keys(&self.endpoints[gateway], &self.access_key, &self.secret_key)
    }

    /// `dozo admin status`, as `make cluster-status` shows it.
    ///
    /// # Errors
    /// When it fails.
    pub fn status(&self) -> anyhow::Result<String> {
        self.make("cluster-status")
    }

    /// `docker kill`: SIGKILL to all of them, and no restart by the engine.
    ///
    /// # Errors
    /// When one does not end.
    pub fn kill(&self, services: &[&str]) -> anyhow::Result<()> {
        // On a busy disk the engine's patience of ten seconds can end before the last write of a killed process returns.
        let killed = self.on_containers("kill", services);
        let end = Instant::now() + KILLED_LIMIT;
        for service in services {
            let container = self.container(service)?;
            while docker(&["inspect", "--format", "{{.State.Status}}", &container])?.trim() != "exited" {
                if Instant::now() > end {
                    bail!("{service} is not dead after {KILLED_LIMIT:?}; docker kill: {killed:?}");
                }
                std::thread::sleep(Duration::from_millis(200));
            }
        }
        Ok(())
    }

    /// Starts killed containers again and waits until all are healthy.
    ///
    /// # Errors
    /// When one is not healthy in time.
    pub fn start_again(&self, services: &[&str]) -> anyhow::Result<()> {
        self.on_containers("start", services)?;
        self.wait_healthy()
    }

    /// Freezes a container: its connections stay open and nothing answers.
    ///
    /// # Errors
    /// When it does not run.
    pub fn pause(&self, service: &str) -> anyhow::Result<()> {
        self.on_containers("pause", &[service])
    }

    /// # Errors
    /// When it is not paused, or not healthy in time.
    pub fn unpause(&self, service: &str) -> anyhow::Result<()> {
        self.on_containers("unpause", &[service])?;
        self.wait_healthy()
    }

    /// Takes a container off the network: its process runs on and its connections fall silent.
    ///
    /// # Errors
    /// When it is not on it.
    pub fn disconnect(&self, service: &str) -> anyhow::Result<()> {
        let network = format!("{}_default", self.project);
        docker(&["network", "disconnect", &network, &self.container(service)?]).map(drop)
    }

    /// Puts it back, under the name that its peers know.
    ///
    /// # Errors
    /// When it is on it, or not healthy in time.
    pub fn connect(&self, service: &str) -> anyhow::Result<()> {
        let network = format!("{}_default", self.project);
        docker(&["network", "connect", "--alias", service, &network, &self.container(service)?])?;
        self.wait_healthy()
    }

    /// Until every container is healthy by its own check.
    ///
    /// # Errors
    /// When one is not in time: the message has the states and the ends of the logs.
    pub fn wait_healthy(&self) -> anyhow::Result<()> {
        let end = Instant::now() + HEALTHY_LIMIT;
        loop {
            let unhealthy = self.unhealthy()?;
            if unhealthy.is_empty() {
                return Ok(());
            }
            if Instant::now() > end {
                bail!("not healthy after {HEALTHY_LIMIT:?}: {unhealthy:?}\n{}", self.logs());
            }
            std::thread::sleep(Duration::from_millis(500));
        }
    }

    /// `make cluster-down`, and the images of this test.
    ///
    /// # Errors
    /// When it fails or leaves a container, network, volume or secret behind.
    pub fn down(self) -> anyhow::Result<()> {
        self.make("cluster-down")?;
        let label = format!("label=com.docker.compose.project={}", self.project);
        for kind in [["ps", "--all", "--quiet"], ["volume", "ls", "--quiet"], ["network", "ls", "--quiet"]] {
            let left = docker(&[kind.as_slice(), &["--filter", &label]].concat())?;
            if !left.trim().is_empty() {
                bail!("`make cluster-down` left behind, of {}: {left}", kind[0]);
            }
        }
        if self.dir.path().join("secrets").exists() {
            bail!("`make cluster-down` left the secrets behind");
        }
        Ok(())
    }

    /// The ends of all containers' logs, for a failure message.
    pub fn logs(&self) -> String {
        let log = |service: &&str| {
            let container = self.container(service).unwrap_or_default();
            let output = Command::new("docker").args(["logs", "--tail", "15", &container]).output();
            let text = output.map(|output| String::from_utf8_lossy(&output.stderr).into_owned());
            format!("---- {service}\n{}", text.unwrap_or_else(|error| error.to_string()))
        };
        NODES.iter().chain(&GATEWAYS).map(log).collect()
    }

    fn unhealthy(&self) -> anyhow::Result<Vec<String>> {
        let mut found = Vec::new();
        for service in NODES.iter().chain(&GATEWAYS) {
            let state =
                docker(&["inspect", "--format", "{{.State.Status}} {{.State.Health.Status}}", &self.container(service)?])?;
            if state.trim() != "running healthy" {
                found.push(format!("{service}: {}", state.trim()));
            }
        }
        Ok(found)
    }

    /// By its labels, since the two versions of compose name containers differently.
    fn container(&self, service: &str) -> anyhow::Result<String> {
        let project = format!("label=com.docker.compose.project={}", self.project);
        let service_label = format!("label=com.docker.compose.service={service}");
        let found = docker(&["ps", "--all", "--quiet", "--filter", &project, "--filter", &service_label])?;
        let mut ids = found.lines();
        match (ids.next(), ids.next()) {
            (Some(id), None) => Ok(id.to_owned()),
            _ => bail!("not exactly one container of {service}: {found:?}"),
        }
    }

    fn on_containers(&self, action: &str, services: &[&str]) -> anyhow::Result<()> {
        let containers = services.iter().map(|service| self.container(service)).collect::<anyhow::Result<Vec<_>>>()?;
        let mut arguments = vec![action];
        arguments.extend(containers.iter().map(String::as_str));
        docker(&arguments).map(drop)
    }

    fn make(&self, target: &str) -> anyhow::Result<String> {
        let mut command = Command::new("make");
        command.arg("--no-print-directory").arg(target).current_dir(root());
        // Not the flags of a `make` that runs this test.
        command.env_remove("MAKEFLAGS").env_remove("MAKELEVEL");
        run(command.envs(self.variables.iter().map(|(name, value)| (name, value))))
    }
}

impl Drop for ComposeCluster {
    /// After a failure too, nothing stays behind. After [`ComposeCluster::down`] there is nothing to remove but the images.
    fn drop(&mut self) {
        let _ = self.make("cluster-down");
        let image = format!("{}:local", self.project);
        let runtime = format!("{}-runtime:local", self.project);
        let _ = docker(&["image", "rm", "--force", &image, &runtime]);
    }
}

fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).expect("this crate is two directories below the root").to_owned()
}

fn docker(arguments: &[&str]) -> anyhow::Result<String> {
    run(Command::new("docker").args(arguments))
}

fn run(command: &mut Command) -> anyhow::Result<String> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot run {command:?}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        bail!("{command:?} ended with {}:\n{text}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    Ok(text)
}
