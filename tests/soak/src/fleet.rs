//! Storage nodes and gateways as processes, each with a disk and a network of its own where that is possible.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde_json::Value;
use tempfile::TempDir;
use tests_e2e::{ACCESS_KEY, Client, Process, SECRET_KEY, free_port};

use crate::clock::Clock;
use crate::images::{DATA, Disk, FileSystem};
use crate::network::Host;

/// A process may take this long to get ready: it waits for the others, on a machine that others use as well.
const START_LIMIT: Duration = Duration::from_secs(90);

/// Where a process listens.
struct Place {
    host: Option<Host>,
    internal: String,
    admin: String,
    s3: String,
}

impl Place {
    /// On the bridge, or on loopback where there is none.
    fn create(number: u8, networked: bool) -> anyhow::Result<Self> {
        let host = if networked { Some(Host::create(number)?) } else { None };
        let at = |port: u16| match &host {
            Some(host) => format!("{}:{port}", host.address),
            None => format!("127.0.0.1:{}", free_port()),
        };
        let (internal, admin, s3) = (at(9100), at(9001), at(9000));
        Ok(Self { host, internal, admin, s3 })
    }
}

pub struct Node {
    place: Place,
    pub disk: Disk,
    process: Option<Process>,
    zone: String,
    /// It joined a cluster that was there.
    joined: bool,
    /// What it takes for the time; the truth when there is none.
    pub clock: Option<Clock>,
    /// It was removed, and is never started again.
    pub gone: bool,
}

struct Gateway {
    place: Place,
    process: Option<Process>,
    clock: Option<Clock>,
}

/// The whole cluster. Stopped, unmounted and removed when dropped.
pub struct Fleet {
    // In this order: processes end before their disks are unmounted.
    gateways: Vec<Gateway>,
    pub nodes: Vec<Node>,
    founders: usize,
    pub networked: bool,
    pub dir: TempDir,
}

impl Fleet {
    /// Founds a cluster of so many nodes with 2+2 coding.
    ///
    /// # Errors
    /// When a disk, a network or a process cannot be made.
    pub fn found(kinds: &[FileSystem], gateways: usize, networked: bool) -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new().prefix("cluster-").tempdir()?;
        std::fs::write(dir.path().join("cluster-secret"), "0123456789abcdef0123456789abcdef")?;
        let founders = kinds.len();
        let mut fleet = Self { gateways: Vec::new(), nodes: Vec::new(), founders, networked, dir };
        for kind in kinds {
            fleet.add_node(*kind)?;
        }
        for number in 0..gateways {
            fleet.gateways.push(Gateway { place: Place::create(100 + number as u8, networked)?, process: None, clock: None });
        }
        fleet.start_missing()?;
        Ok(fleet)
    }

    fn add_node(&mut self, kind: FileSystem) -> anyhow::Result<usize> {
        let number = self.nodes.len();
        let disk = Disk::create(self.dir.path(), &format!("disk{number}"), kind)?;
        let place = Place::create(1 + number as u8, self.networked)?;
        let (zone, joined) = (format!("zone-{number}"), number >= self.founders);
        self.nodes.push(Node { place, disk, process: None, zone, joined, clock: None, gone: false });
        Ok(number)
    }

    /// A further node that is a copy of one that does not run, with another address. It is not started.
    ///
    /// # Errors
    /// When the disk cannot be copied.
    pub fn copy_node(&mut self, original: usize) -> anyhow::Result<usize> {
        let number = self.nodes.len();
        let disk = self.nodes[original].disk.copy(self.dir.path(), &format!("disk{number}"))?;
        let place = Place::create(1 + number as u8, self.networked)?;
        let zone = self.nodes[original].zone.clone();
        self.nodes.push(Node { place, disk, process: None, zone, joined: true, clock: None, gone: false });
        Ok(number)
    }

    /// Starts a node that does not run, whether it is part of the cluster or not.
    ///
    /// # Errors
    /// When it does not get ready: the message has the end of its log.
    pub fn start_node(&mut self, number: usize) -> anyhow::Result<()> {
        self.nodes[number].process = Some(self.launch_node(number)?);
        Ok(())
    }

    /// A further node joins, with nothing on its disk until that is taken in.
    ///
    /// # Errors
    /// When it does not get ready.
    pub fn join_node(&mut self, kind: FileSystem) -> anyhow::Result<usize> {
        let number = self.add_node(kind)?;
        self.start_missing()?;
        Ok(number)
    }

    /// Starts what does not run, all at once.
    ///
    /// # Errors
    /// When one does not get ready: the message has the end of its log. The others run.
    pub fn start_missing(&mut self) -> anyhow::Result<()> {
        let fleet = &*self;
        let (nodes, gateways) = std::thread::scope(|scope| {
            let nodes: Vec<_> = (0..fleet.nodes.len())
                .filter(|node| fleet.nodes[*node].process.is_none() && !fleet.nodes[*node].gone)
                .map(|node| (node, scope.spawn(move || fleet.launch_node(node))))
                .collect();
            let gateways: Vec<_> = (0..fleet.gateways.len())
                .filter(|gateway| fleet.gateways[*gateway].process.is_none())
                .map(|gateway| (gateway, scope.spawn(move || fleet.launch_gateway(gateway))))
                .collect();
            let join = |handles: Vec<(usize, std::thread::ScopedJoinHandle<'_, anyhow::Result<Process>>)>| {
                handles.into_iter().map(|(number, handle)| (number, handle.join().expect("no panic"))).collect::<Vec<_>>()
            };
            (join(nodes), join(gateways))
        });
        let mut failures = Vec::new();
        for (number, started) in nodes {
            match started {
                Ok(process) => self.nodes[number].process = Some(process),
                Err(error) => failures.push(format!("node {number}: {error:#}")),
            }
        }
        for (number, started) in gateways {
            match started {
                Ok(process) => self.gateways[number].process = Some(process),
                Err(error) => failures.push(format!("gateway {number}: {error:#}")),
            }
        }
        if failures.is_empty() { Ok(()) } else { bail!("{}", failures.join("\n")) }
    }

    /// `further` is what a command is to be preceded by that becomes the process in the end.
    fn launch(&self, place: &Place, further: Vec<String>, name: &str, arguments: &[&str]) -> anyhow::Result<Process> {
        let peers: Vec<&str> = self.nodes[..self.founders].iter().map(|node| node.place.internal.as_str()).collect();
        let (peers, secret) = (peers.join(","), self.dir.path().join("cluster-secret").display().to_string());
        let variables = [
            ("DOZO_PEERS", peers.as_str()),
            ("DOZO_CLUSTER_SECRET_FILE", &secret),
            ("DOZO_ROOT_ACCESS_KEY", ACCESS_KEY),
            ("DOZO_ROOT_SECRET_KEY", SECRET_KEY),
            ("DOZO_ADMIN_ADDR", &place.admin),
        ];
        let wrapper = [place.host.as_ref().map(Host::wrapper).unwrap_or_default(), further].concat();
        let log = self.dir.path().join(format!("{name}.log"));
        Ok(Process::start_under(&wrapper, arguments, &variables, &log, START_LIMIT)?.0)
    }

    fn launch_node(&self, number: usize) -> anyhow::Result<Process> {
        let node = &self.nodes[number];
        let address = &node.place.internal;
        // A relative name, so that a copy elsewhere has the same one.
        let mut further = vec!["env".to_owned(), "-C".to_owned(), node.disk.mount.display().to_string()];
        further.extend(node.clock.iter().flat_map(Clock::variables));
        let mut arguments =
            vec!["node", "--data", DATA, "--listen", address, "--advertise", address, "--zone", &node.zone, "--profile", "2+2"];
        if node.joined {
            arguments.push("--join");
        }
        self.launch(&node.place, further, &format!("node{number}"), &arguments)
    }

    fn launch_gateway(&self, number: usize) -> anyhow::Result<Process> {
        let Gateway { place, clock, .. } = &self.gateways[number];
        let further = clock.iter().flat_map(|clock| [vec!["env".to_owned()], clock.variables()].concat()).collect();
        self.launch(place, further, &format!("gateway{number}"), &["gateway", "--s3-addr", &place.s3])
    }

    /// `kill -9` of these nodes: signals first to all, so that none sees another's end.
    pub fn kill_nodes(&mut self, numbers: &[usize]) {
        for number in numbers {
            if let Some(process) = &mut self.nodes[*number].process
                && process.is_running()
            {
                let _ = process.signal("KILL");
            }
        }
        numbers.iter().for_each(|number| self.nodes[*number].process = None);
    }

    pub fn kill_gateway(&mut self, number: usize) {
        self.gateways[number].process = None;
    }

    /// `kill -9`, and what their disks had not made durable is gone.
    ///
    /// # Errors
    /// When a file system does not do as it is told.
    pub fn cut_power(&mut self, numbers: &[usize]) -> anyhow::Result<()> {
        self.kill_nodes(numbers);
        numbers.iter().try_for_each(|number| self.nodes[*number].disk.cut_power())
    }

    /// The process of a node that runs.
    pub fn node(&mut self, number: usize) -> Option<&mut Process> {
        self.nodes[number].process.as_mut()
    }

    pub fn gateway(&self, number: usize) -> Option<&Process> {
        self.gateways[number].process.as_ref()
    }

    /// From its next start on.
    pub fn set_gateway_clock(&mut self, number: usize, clock: Option<Clock>) {
        self.gateways[number].clock = clock;
    }

    pub fn gateways(&self) -> usize {
        self.gateways.len()
    }

    /// Nodes that are part of the cluster.
    pub fn members(&self) -> Vec<usize> {
        (0..self.nodes.len()).filter(|node| !self.nodes[*node].gone).collect()
    }

    /// A node's network.
    pub fn host(&self, number: usize) -> Option<&Host> {
        self.nodes[number].place.host.as_ref()
    }

    pub fn gateway_host(&self, number: usize) -> Option<&Host> {
        self.gateways[number].place.host.as_ref()
    }

    /// The name of a node in `dozo admin`.
    pub fn address(&self, number: usize) -> &str {
        &self.nodes[number].place.internal
    }

    pub fn s3(&self, gateway: usize) -> String {
        format!("http://{}", self.gateways[gateway].place.s3)
    }

    /// The log of a node's process, of all its runs.
    pub fn node_log(&self, number: usize) -> PathBuf {
        self.dir.path().join(format!("node{number}.log"))
    }

    /// The nodes that lead metadata groups now, one for each group.
    ///
    /// # Errors
    /// When nobody tells.
    pub fn leaders(&self) -> anyhow::Result<Vec<usize>> {
        let status = self.status()?;
        let list = |what: &str| status[what].as_array().cloned().with_context(|| format!("status lists {what}"));
        let nodes = list("nodes")?;
        let address = |id: &Value| nodes.iter().find(|node| node["id"] == *id).and_then(|node| node["address"].as_str());
        let number = |address: &str| self.members().into_iter().find(|number| self.address(*number) == address);
        Ok(list("groups")?.iter().filter_map(|group| number(address(&group["leader"])?)).collect())
    }

    /// What `dozo admin status` tells.
    fn status(&self) -> anyhow::Result<Value> {
        serde_json::from_str(&self.admin(&["--json", "status"])?).context("status is JSON")
    }

    /// Runs `dozo admin` through the first gateway that takes it.
    ///
    /// # Errors
    /// When none does.
    pub fn admin(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let endpoint = format!("http://{}", self.gateways[0].place.admin);
        let all = [["admin", "--admin-endpoint", &endpoint].as_slice(), arguments].concat();
        Client::new(&self.s3(0)).dozo(&all)
    }

    /// Asks again until it succeeds: replicas move one by one, elections take their time.
    ///
    /// # Errors
    /// When it does not within `limit`.
    pub fn admin_until(&self, arguments: &[&str], limit: Duration) -> anyhow::Result<String> {
        let began = Instant::now();
        loop {
            match self.admin(arguments) {
                Ok(said) => return Ok(said),
                Err(error) if began.elapsed() > limit => return Err(error.context(format!("for {limit:?}"))),
                Err(_) => std::thread::sleep(Duration::from_secs(1)),
            }
        }
    }

    /// Waits until every node counts as up, and every disk as good.
    ///
    /// # Errors
    /// When that takes longer than `limit`: the message has the last status.
    pub fn wait_healthy(&self, limit: Duration) -> anyhow::Result<()> {
        let began = Instant::now();
        let all = |list: &Value, holds: &dyn Fn(&Value) -> bool| list.as_array().is_some_and(|list| list.iter().all(holds));
        let is_sound = |node: &Value| node["state"] == "up" && all(&node["disks"], &|disk| disk["state"] == "good");
        loop {
            let status = self.status();
            if status.as_ref().is_ok_and(|status| all(&status["nodes"], &is_sound)) {
                return Ok(());
            }
            if began.elapsed() > limit {
                bail!(
                    "not everything is healthy after {limit:?}: {:#}",
                    status.map_or_else(|error| error.to_string().into(), |mut status| status["nodes"].take())
                );
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// Waits until every group was surveyed by the newest map and nothing is left to repair or to move (K9).
    ///
    /// # Errors
    /// When that takes longer than `limit`: the message has the last status.
    pub fn wait_settled(&self, limit: Duration) -> anyhow::Result<()> {
        let began = Instant::now();
        let mut quiet = 0;
        loop {
            let (settled, last) = match self.status() {
                Ok(status) => {
                    let upkeep = &status["upkeep"];
                    let idle = ["lost", "leaving", "misplaced"].iter().all(|work| upkeep[work]["shards"] == 0);
                    let surveyed = upkeep["groups_not_surveyed"].as_array().is_some_and(Vec::is_empty);
                    (idle && surveyed, format!("{upkeep:#}"))
                }
                Err(error) => (false, format!("{error:#}")),
            };
            // The ring settles in steps; a step makes a new epoch, and so a survey that is not there yet.
            quiet = if settled { quiet + 1 } else { 0 };
            if quiet >= 3 {
                return Ok(());
            }
            if began.elapsed() > limit {
                bail!("not settled after {limit:?}: {last}");
            }
            std::thread::sleep(Duration::from_millis(500));
        }
    }

    /// Copies the logs of all processes.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn keep_logs(&self, to: &Path) -> anyhow::Result<()> {
        std::fs::create_dir_all(to)?;
        for entry in std::fs::read_dir(self.dir.path())? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "log") {
                std::fs::copy(&path, to.join(path.file_name().context("a log has a name")?))?;
            }
        }
        Ok(())
    }

    /// The segment files of a node's disk.
    ///
    /// # Errors
    /// When they cannot be listed.
    pub fn segments(&self, number: usize) -> anyhow::Result<Vec<PathBuf>> {
        let dir = self.nodes[number].disk.data().join("disk/segments");
        let mut found: Vec<PathBuf> = std::fs::read_dir(&dir)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?;
        found.sort();
        Ok(found)
    }

    /// Those of the segment files that hold something, oldest first, and where that ends.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn written(&self, number: usize) -> anyhow::Result<Vec<(PathBuf, u64)>> {
        let mut found = Vec::new();
        for path in self.segments(number)? {
            let content = std::fs::read(&path)?;
            if let Some(last) = content.iter().rposition(|byte| *byte != 0) {
                found.push((path, last as u64 + 1));
            }
        }
        Ok(found)
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        let all: Vec<usize> = (0..self.nodes.len()).collect();
        self.kill_nodes(&all);
        self.gateways.clear();
    }
}
