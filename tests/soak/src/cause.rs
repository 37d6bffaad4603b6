//! How a fault is caused, how it is ended, and what shows that it really happened.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::net::TcpStream;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use anyhow::Context;
use tests_sim::Dice;

use crate::command::run;
use crate::faults::Fault;
use crate::fleet::Fleet;
use crate::images::Frozen;
use crate::network::Direction;
use crate::tracer::{Injection, Tracer};

/// Longer than any fault lasts.
const FOREVER: Duration = Duration::from_secs(600);

/// Fewer than any process has open.
const DESCRIPTORS: &str = "8";

/// A fault under way, and how to end it.
pub struct UnderWay {
    paused: Vec<u32>,
    mended: Vec<usize>,
    mended_gateways: Vec<usize>,
    tracers: Vec<Tracer>,
    ballast: Option<PathBuf>,
    frozen: Option<Frozen>,
    /// A process with threads that wait for what never ends.
    waiting: Option<u32>,
    limited: Vec<Limited>,
    /// Nodes whose process may end by itself.
    pub excused: Vec<usize>,
    /// What shows that it happened: packets dropped, calls failed, bits flipped, processes killed.
    pub evidence: u64,
}

impl UnderWay {
    fn with_evidence(evidence: u64) -> Self {
        Self {
            paused: Vec::new(),
            mended: Vec::new(),
            mended_gateways: Vec::new(),
            tracers: Vec::new(),
            ballast: None,
            frozen: None,
            waiting: None,
            limited: Vec::new(),
            excused: Vec::new(),
            evidence,
        }
    }

    /// Ends what does not end by itself. Processes that died are started by the caller.
    ///
    /// # Errors
    /// When the fault cannot be taken back.
    pub fn end(mut self, fleet: &mut Fleet) -> anyhow::Result<(u64, Vec<usize>)> {
        for pid in &self.paused {
            run(&["kill", "-CONT", &pid.to_string()])?;
        }
        let hosts = self.mended.iter().map(|node| fleet.host(*node));
        let hosts = hosts.chain(self.mended_gateways.iter().map(|gateway| fleet.gateway_host(*gateway)));
        for host in hosts.flatten() {
            self.evidence += host.dropped()? + host.slowed().unwrap_or(0);
            host.mend()?;
        }
        if let Some(pid) = self.waiting {
            self.evidence += waiting_threads(pid)? as u64;
        }
        for tracer in std::mem::take(&mut self.tracers) {
            self.evidence += tracer.stop()?;
        }
        for limited in &self.limited {
            limited.lift()?;
        }
        drop(self.frozen.take());
        match &self.ballast {
            Some(ballast) if ballast.is_dir() => fs::remove_dir_all(ballast)?,
            Some(ballast) => fs::remove_file(ballast)?,
            None => {}
        }
        Ok((self.evidence, self.excused))
    }
}

/// Causes a fault that lasts until it is ended. `node` is the one it is about; damage is about the victim of the episode.
///
/// # Errors
/// When it cannot be caused here.
pub fn cause(fault: Fault, node: usize, fleet: &mut Fleet, dice: &Dice) -> anyhow::Result<UnderWay> {
    let others: Vec<usize> = fleet.members().into_iter().filter(|other| *other != node).collect();
    let mut under_way = UnderWay::with_evidence(0);
    match fault {
        Fault::KillOne => {
            fleet.kill_nodes(&[node]);
            under_way.evidence = 1;
        }
        Fault::KillTwo => {
            fleet.kill_nodes(&[node, others[dice.range(0, others.len() as u64) as usize]]);
            under_way.evidence = 1;
        }
        Fault::KillAll => {
            fleet.kill_nodes(&fleet.members());
            (0..fleet.gateways()).for_each(|gateway| fleet.kill_gateway(gateway));
            under_way.evidence = 1;
        }
        Fault::KillGateway => {
            fleet.kill_gateway(dice.range(0, fleet.gateways() as u64) as usize);
            under_way.evidence = 1;
        }
        Fault::CutPowerOfOne => {
            fleet.cut_power(&[node])?;
            under_way.evidence = 1;
        }
        Fault::CutPowerOfAll => {
            fleet.cut_power(&fleet.members())?;
            under_way.evidence = 1;
        }
        Fault::PauseOne => {
            let process = fleet.node(node).context("the node runs")?;
            process.signal("STOP")?;
            under_way.paused.push(process.pid());
            under_way.evidence = 1;
        }
        Fault::PauseGateway => {
            let process = fleet.gateway(dice.range(0, fleet.gateways() as u64) as usize).context("the gateway runs")?;
            process.signal("STOP")?;
            under_way.paused.push(process.pid());
            under_way.evidence = 1;
        }
        Fault::RestartInTurn => {
            for node in fleet.members() {
                if let Some(process) = fleet.node(node) {
                    process.terminate(Duration::from_secs(60)).with_context(|| format!("node {node} on SIGTERM"))?;
                    under_way.evidence += 1;
                }
                fleet.kill_nodes(&[node]);
                fleet.start_missing()?;
            }
        }
        Fault::Isolate | Fault::CutOff | Fault::Flap => {
            cut_off(fault, node, fleet)?;
            under_way.mended.push(node);
        }
        Fault::OneWay => {
            let direction = if dice.coin() { Direction::In } else { Direction::Out };
            let host = fleet.host(node).context("the node has a network")?;
            for other in &others {
                host.cut(&fleet.host(*other).context("the node has a network")?.address, direction)?;
            }
            under_way.mended.push(node);
        }
        Fault::Bridge => {
            let other = others[dice.range(0, others.len() as u64) as usize];
            let address = &fleet.host(other).context("the node has a network")?.address;
            fleet.host(node).context("the node has a network")?.cut(address, Direction::Both)?;
            under_way.mended.push(node);
        }
        Fault::LosePackets => {
            let percent = dice.range(2, 30);
            for member in fleet.members() {
                fleet.host(member).context("the node has a network")?.lose(percent)?;
                under_way.mended.push(member);
            }
        }
        Fault::SlowLink => {
            fleet.host(node).context("the node has a network")?.slow("1mbit")?;
            under_way.mended.push(node);
        }
        Fault::CutAll => {
            for member in fleet.members() {
                cut_off(fault, member, fleet)?;
                under_way.mended.push(member);
            }
        }
        Fault::CutGateway => {
            let gateway = dice.range(0, fleet.gateways() as u64) as usize;
            let host = fleet.gateway_host(gateway).context("the gateway has a network")?;
            for other in &others {
                host.cut(&fleet.host(*other).context("the node has a network")?.address, Direction::Both)?;
            }
            under_way.mended_gateways.push(gateway);
        }
        Fault::FlipBits => under_way.evidence = flip_bits(fleet, node, dice)?,
        Fault::Truncate => {
            fleet.kill_nodes(&[node]);
            under_way.evidence = truncate(fleet, node, dice)?;
        }
        Fault::FailSync => {
            let pid = fleet.node(node).context("the node runs")?.pid();
            under_way.tracers.push(Tracer::attach(pid, Injection::FailSync, &[], fleet.dir.path())?);
            under_way.excused.push(node);
        }
        Fault::LieAboutSync => {
            let pid = fleet.node(node).context("the node runs")?.pid();
            let segments = fleet.segments(node)?;
            under_way.tracers.push(Tracer::attach(pid, Injection::LieAboutSync, &segments, fleet.dir.path())?);
        }
        Fault::FillDisk => {
            let mount = fleet.nodes[node].disk.mount.clone();
            let ballast = mount.join("ballast");
            let shown = run(&["df", "--output=avail", "--block-size=1", &mount.display().to_string()])?;
            let available: u64 = shown.lines().nth(1).and_then(|line| line.trim().parse().ok()).context("df shows bytes")?;
            // In pieces, since the file system needs some of it for itself.
            let mut bytes = available;
            while run(&["fallocate", "--length", &bytes.to_string(), &ballast.display().to_string()]).is_err() {
                bytes = bytes.saturating_sub(1 << 20).max(1 << 12);
            }
            under_way.ballast = Some(ballast);
            under_way.excused.push(node);
            under_way.evidence = u64::from(bytes > 0);
        }
        Fault::SlowDisk => {
            let pid = fleet.node(node).context("the node runs")?.pid();
            let delay = Injection::Delay(dice.millis(50, 400));
            under_way.tracers.push(Tracer::attach(pid, delay, &[], fleet.dir.path())?);
        }
        Fault::HungDisk => {
            let pid = fleet.node(node).context("the node runs")?.pid();
            let segments = fleet.segments(node)?;
            under_way.tracers.push(Tracer::attach(pid, Injection::Delay(FOREVER), &segments, fleet.dir.path())?);
            under_way.waiting = Some(pid);
        }
        Fault::FrozenDisk => {
            let pid = fleet.node(node).context("the node runs")?.pid();
            under_way.frozen = Some(fleet.nodes[node].disk.freeze()?);
            under_way.waiting = Some(pid);
        }
        Fault::FillInodes => {
            let ballast = fleet.nodes[node].disk.mount.join("ballast");
            fs::create_dir(&ballast)?;
            under_way.evidence = fill_inodes(&ballast)?;
            under_way.ballast = Some(ballast);
            under_way.excused.push(node);
        }
        Fault::ExhaustDescriptors => {
            let gateway = dice.range(0, fleet.gateways() as u64) as usize;
            let node_pid = fleet.node(node).context("the node runs")?.pid();
            let gateway_pid = fleet.gateway(gateway).context("the gateway runs")?.pid();
            for pid in [node_pid, gateway_pid] {
                under_way.tracers.push(Tracer::attach(pid, Injection::CountTooManyFiles, &[], fleet.dir.path())?);
                under_way.limited.push(Limited::limit(pid)?);
            }
            // Clients have their connections: here are some that cannot be taken.
            for address in [fleet.s3(gateway).trim_start_matches("http://"), fleet.address(node)] {
                drop(TcpStream::connect(address)?);
            }
            under_way.excused.push(node);
        }
        Fault::CutLeader => {
            let gateway = dice.range(0, fleet.gateways() as u64) as usize;
            let address = &fleet.host(node).context("the node has a network")?.address;
            fleet.gateway_host(gateway).context("the gateway has a network")?.cut(address, Direction::Both)?;
            under_way.mended_gateways.push(gateway);
        }
        Fault::Drip => {
            fleet.host(node).context("the node has a network")?.slow("4kbit")?;
            under_way.mended.push(node);
        }
        Fault::OldDisk | Fault::ReplaceNode | Fault::Turnover | Fault::SwapDisks | Fault::CloneNode | Fault::WrongClock => {
            unreachable!("these are sequences of the episode")
        }
    }
    Ok(under_way)
}

/// A process that may open nothing more.
struct Limited {
    pid: u32,
    before: String,
}

impl Limited {
    fn limit(pid: u32) -> anyhow::Result<Self> {
        let pid_word = pid.to_string();
        let shown = run(&["prlimit", "--pid", &pid_word, "--nofile", "--output", "SOFT", "--noheadings", "--raw"])?;
        run(&["prlimit", "--pid", &pid_word, &format!("--nofile={DESCRIPTORS}:")])?;
        Ok(Self { pid, before: shown.trim().to_owned() })
    }

    /// It may be gone.
    fn lift(&self) -> anyhow::Result<()> {
        let pid = self.pid.to_string();
        if !PathBuf::from(format!("/proc/{pid}/fd")).exists() {
            return Ok(());
        }
        run(&["prlimit", "--pid", &pid, &format!("--nofile={}:", self.before)]).map(drop)
    }
}

/// How many threads of a process stand still in a call, because the kernel or the tracer holds them there.
fn waiting_threads(pid: u32) -> anyhow::Result<usize> {
    let look = || -> anyhow::Result<BTreeSet<PathBuf>> {
        let mut held = BTreeSet::new();
        for task in fs::read_dir(format!("/proc/{pid}/task"))? {
            let path = task?.path();
            let status = fs::read_to_string(path.join("status")).unwrap_or_default();
            if ["State:\tD", "State:\tt"].iter().any(|state| status.contains(state)) {
                held.insert(path);
            }
        }
        Ok(held)
    };
    // A tracer stops every thread for a moment now and then.
    let mut held = look()?;
    for _ in 0..5 {
        sleep(Duration::from_millis(100));
        held = &held & &look()?;
    }
    Ok(held.len())
}

/// Empty files until there can be no more; how many there are.
fn fill_inodes(dir: &Path) -> anyhow::Result<u64> {
    for number in 0.. {
        match fs::File::create(dir.join(number.to_string())) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::StorageFull => return Ok(number),
            Err(error) => return Err(error).context("no more inodes, but not for want of them"),
        }
    }
    unreachable!("no file system has so many")
}

/// Separates a node from the other nodes, and from the gateways unless it is only isolated.
pub fn cut_off(fault: Fault, node: usize, fleet: &Fleet) -> anyhow::Result<()> {
    let host = fleet.host(node).context("the node has a network")?;
    let others = fleet.members().into_iter().filter(|other| *other != node);
    let nodes = others.map(|other| fleet.host(other));
    let gateways = (0..fleet.gateways()).filter(|_| fault != Fault::Isolate).map(|gateway| fleet.gateway_host(gateway));
    for other in nodes.chain(gateways) {
        host.cut(&other.context("everybody has a network")?.address, Direction::Both)?;
    }
    Ok(())
}

/// Flips a few bits where something is written. The rest of a segment is reserved and zero: there a bit would hurt nobody.
fn flip_bits(fleet: &Fleet, node: usize, dice: &Dice) -> anyhow::Result<u64> {
    let written = fleet.written(node)?;
    let mut flipped = 0;
    while !written.is_empty() && flipped < 12 {
        let (path, end) = &written[dice.range(0, written.len() as u64) as usize];
        let file = fs::File::options().read(true).write(true).open(path)?;
        let (mut byte, at) = ([0], dice.range(0, *end));
        file.read_exact_at(&mut byte, at)?;
        byte[0] ^= 1 << dice.range(0, 8);
        file.write_all_at(&byte, at)?;
        flipped += 1;
    }
    Ok(flipped)
}

/// Cuts off the end of what is written in the newest segment of a node that does not run.
fn truncate(fleet: &Fleet, node: usize, dice: &Dice) -> anyhow::Result<u64> {
    let Some((path, end)) = fleet.written(node)?.pop() else { return Ok(0) };
    let cut = dice.range(1000, 40_000).min(end / 2);
    fs::File::options().write(true).open(path)?.set_len(end - cut)?;
    Ok(1)
}
