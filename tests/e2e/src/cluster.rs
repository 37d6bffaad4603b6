//! Storage nodes and gateways on loopback.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde_json::Value;
use tempfile::TempDir;

use crate::client::Client;
use crate::process::{Process, free_port};
use crate::{ACCESS_KEY, SECRET_KEY};

/// Storage nodes in different zones, one disk each, and gateways.
pub struct Cluster {
    pub dir: TempDir,
    internal_ports: Vec<u16>,
    nodes: Vec<Option<Process>>,
    gateways: Vec<Option<Gateway>>,
    /// How many nodes founded the cluster; those after them joined.
    founders: usize,
    /// Nodes that are not to be started again.
    forgotten: Vec<usize>,
}

struct Gateway {
    process: Process,
    s3: String,
    admin: String,
}

impl Cluster {
    /// Starts all processes at once, as compose does, and waits until every one is ready.
    ///
    /// # Errors
    /// When one does not get ready; the message has the end of its log.
    pub fn start(nodes: usize, gateways: usize) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        std::fs::write(dir.path().join("cluster-secret"), "0123456789abcdef0123456789abcdef")?;
        let mut cluster = Self {
            dir,
            internal_ports: (0..nodes).map(|_| free_port()).collect(),
            nodes: (0..nodes).map(|_| None).collect(),
            gateways: (0..gateways).map(|_| None).collect(),
            founders: nodes,
            forgotten: Vec::new(),
        };
        for node in 0..nodes {
            std::fs::create_dir_all(cluster.node_dir(node))?;
        }
        cluster.start_all()?;
        Ok(cluster)
    }

    pub fn node_dir(&self, node: usize) -> PathBuf {
        self.dir.path().join(format!("node{node}"))
    }

    /// Starts every process that does not run, all at the same time.
    ///
    /// # Errors
    /// When one does not get ready.
    pub fn start_all(&mut self) -> anyhow::Result<()> {
        let cluster = &*self;
        std::thread::scope(|scope| {
            let nodes: Vec<_> = (0..cluster.nodes.len())
                .filter(|node| cluster.nodes[*node].is_none() && !cluster.forgotten.contains(node))
                .map(|node| (node, scope.spawn(move || cluster.launch_node(node))))
                .collect();
            let gateways: Vec<_> = (0..cluster.gateways.len())
                .filter(|&gateway| cluster.gateways[gateway].is_none())
                .map(|gateway| (gateway, scope.spawn(move || cluster.launch_gateway(gateway))))
                .collect();
            let mut started = Vec::new();
            for (node, handle) in nodes {
                let process = handle.join().expect("no panic").with_context(|| format!("node {node}"))?;
                started.push((node, process));
            }
            let mut opened = Vec::new();
            for (gateway, handle) in gateways {
                opened.push((gateway, handle.join().expect("no panic").with_context(|| format!("gateway {gateway}"))?));
            }
            anyhow::Ok((started, opened))
        })
        .map(|(started, opened)| {
            for (node, process) in started {
                self.nodes[node] = Some(process);
            }
            for (gateway, process) in opened {
                self.gateways[gateway] = Some(process);
            }
        })
    }

    fn variables(&self) -> Vec<(&'static str, String)> {
        let peers: Vec<String> = (0..self.founders).map(|node| self.address(node)).collect();
        vec![
            ("DOZO_PEERS", peers.join(",")),
            ("DOZO_CLUSTER_SECRET_FILE", self.dir.path().join("cluster-secret").display().to_string()),
            ("DOZO_ROOT_ACCESS_KEY", ACCESS_KEY.to_owned()),
            ("DOZO_ROOT_SECRET_KEY", SECRET_KEY.to_owned()),
            ("DOZO_ADMIN_ADDR", "127.0.0.1:0".to_owned()),
        ]
    }

    fn launch(&self, name: &str, arguments: &[&str]) -> anyhow::Result<(Process, String)> {
        self.launch_in(self.dir.path(), name, arguments)
    }

    fn launch_in(&self, dir: &Path, name: &str, arguments: &[&str]) -> anyhow::Result<(Process, String)> {
        let variables = self.variables();
        let variables: Vec<(&str, &str)> = variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let log = self.dir.path().join(format!("{name}.log"));
        // Relative names are meant from there.
        let from = ["env".to_owned(), "-C".to_owned(), dir.display().to_string()];
        Process::start_under(&from, arguments, &variables, &log, Duration::from_secs(90))
    }

    fn launch_node(&self, node: usize) -> anyhow::Result<Process> {
        // A relative name, so that a copy elsewhere can be started with the same one.
        let dir = format!("node{node}");
        let address = self.address(node);
        let zone = format!("zone-{node}");
        let mut arguments = vec!["node", "--data", &dir, "--listen", &address, "--advertise", &address, "--zone", &zone];
        if node >= self.founders {
            arguments.push("--join");
        }
        self.launch(&format!("node{node}"), &arguments).map(|(process, _)| process)
    }

    /// Copies a node's directory, as `cp -a` does, into `parent`.
    ///
    /// # Errors
    /// When that fails.
    pub fn copy_node_dir(&self, node: usize, parent: &Path) -> anyhow::Result<()> {
        std::fs::create_dir_all(parent)?;
        let copied = std::process::Command::new("cp").arg("-a").arg(self.node_dir(node)).arg(parent).status()?;
        anyhow::ensure!(copied.success(), "cp -a failed");
        Ok(())
    }

    /// Starts a node's directory that was copied into `parent`, on a port of its own.
    ///
    /// # Errors
    /// When it does not get ready: the message has the end of its log.
    pub fn start_copy(&self, node: usize, parent: &Path, further: &[&str]) -> anyhow::Result<Process> {
        let (dir, address, zone) = (format!("node{node}"), format!("127.0.0.1:{}", free_port()), format!("zone-{node}"));
        let mut arguments =
            vec!["node", "--data", &dir, "--listen", &address, "--advertise", &address, "--zone", &zone, "--join"];
        arguments.extend(further);
        let name = parent.file_name().unwrap_or_default().to_string_lossy().into_owned();
        self.launch_in(parent, &name, &arguments).map(|(process, _)| process)
    }

    /// Starts a node that does not run.
    ///
    /// # Errors
    /// When it does not get ready: the message has the end of its log.
    pub fn start_node(&mut self, node: usize) -> anyhow::Result<()> {
        self.nodes[node] = Some(self.launch_node(node)?);
        Ok(())
    }

    /// The internal address of a node, which is also a name for it in `dozo admin`.
    pub fn address(&self, node: usize) -> String {
        format!("127.0.0.1:{}", self.internal_ports[node])
    }

    /// Starts a further node, which joins the cluster, and returns its number.
    ///
    /// # Errors
    /// When it does not get ready.
    pub fn join_node(&mut self) -> anyhow::Result<usize> {
        let node = self.nodes.len();
        self.internal_ports.push(free_port());
        std::fs::create_dir_all(self.node_dir(node))?;
        let process = self.launch_node(node).with_context(|| format!("node {node}"))?;
        self.nodes.push(Some(process));
        Ok(node)
    }

    /// Never starts a node again that was removed from the cluster.
    pub fn forget_node(&mut self, node: usize) {
        self.nodes[node] = None;
        self.forgotten.push(node);
    }

    /// Runs `dozo admin` through a gateway.
    ///
    /// # Errors
    /// When it fails: the message has what it said.
    pub fn admin_command(&self, arguments: &[&str]) -> anyhow::Result<String> {
        self.client(0).admin(self.admin(0), arguments)
    }

    /// Runs `dozo` for itself, with no process to ask.
    ///
    /// # Errors
    /// When it fails: the message has what it said.
    pub fn offline(&self, arguments: &[&str]) -> anyhow::Result<String> {
        Client::new("http://127.0.0.1:1").dozo(arguments)
    }

    /// Waits until every metadata group has a leader and so many voters.
    ///
    /// # Errors
    /// When that takes longer than `limit`: the message has the last status.
    pub fn wait_voters(&self, voters: usize, limit: Duration) -> anyhow::Result<()> {
        let began = Instant::now();
        loop {
            let status: Value = serde_json::from_str(&self.admin_command(&["--json", "status"])?)?;
            let groups = status["groups"].as_array().context("status lists groups")?;
            let whole =
                |group: &Value| group["voters"].as_array().is_some_and(|list| list.len() == voters) && !group["leader"].is_null();
            if groups.iter().all(whole) {
                return Ok(());
            }
            if began.elapsed() > limit {
                bail!("not all groups have {voters} voters after {limit:?}: {groups:#?}\n{}", self.logs());
            }
            std::thread::sleep(Duration::from_millis(300));
        }
    }

    /// Waits until every group was surveyed by the newest map and nothing is left to repair, to code anew or to move.
    ///
    /// # Errors
    /// When that takes longer than `limit`: the message has the last status.
    pub fn wait_settled(&self, limit: Duration) -> anyhow::Result<()> {
        self.client(0).wait_settled(self.admin(0), limit).with_context(|| self.logs())
    }

    fn launch_gateway(&self, gateway: usize) -> anyhow::Result<Gateway> {
        let (process, ready) = self.launch(&format!("gateway{gateway}"), &["gateway", "--s3-addr", "127.0.0.1:0"])?;
        let field = |name: &str| {
            let found = ready.split_whitespace().find_map(|word| word.strip_prefix(name));
            found.unwrap_or_else(|| panic!("no {name} in {ready:?}")).to_owned()
        };
        Ok(Gateway { process, s3: field("s3="), admin: field("admin=") })
    }

    pub fn node(&mut self, node: usize) -> &mut Process {
        self.nodes[node].as_mut().expect("the node runs")
    }

    /// `kill -9` of one storage node.
    pub fn kill_node(&mut self, node: usize) {
        self.nodes[node] = None;
    }

    /// `kill -9` of everything: signals first to all, so that no process sees another's end.
    pub fn kill_all(&mut self) {
        for process in self.nodes.iter().flatten() {
            let _ = process.signal("KILL");
        }
        for gateway in self.gateways.iter().flatten() {
            let _ = gateway.process.signal("KILL");
        }
        self.nodes.iter_mut().for_each(|node| *node = None);
        self.gateways.iter_mut().for_each(|gateway| *gateway = None);
    }

    /// The S3 endpoint of a gateway.
    pub fn s3(&self, gateway: usize) -> &str {
        &self.gateways[gateway].as_ref().expect("the gateway runs").s3
    }

    pub fn admin(&self, gateway: usize) -> &str {
        &self.gateways[gateway].as_ref().expect("the gateway runs").admin
    }

    pub fn client(&self, gateway: usize) -> Client {
        Client::new(self.s3(gateway))
    }

    /// The end of a process's log, for a failure message.
    pub fn logs(&self) -> String {
        let running = self.nodes.iter().flatten().chain(self.gateways.iter().flatten().map(|gateway| &gateway.process));
        running.map(Process::log_tail).collect::<Vec<_>>().join("\n----\n")
    }
}
