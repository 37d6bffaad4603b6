//! The life of one real cluster: rounds of faults under load, each followed by reading everything back, until nothing is left to
//! repair and the whole history is judged.

mod identity;
mod membership;
mod time;

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::Context;
use tests_faults::{Operation, Row, Tally, check};
use tests_sim::Dice;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use crate::cause::{cause, cut_off};
use crate::clients::Clients;
use crate::command::run;
use crate::faults::Fault;
use crate::fleet::Fleet;
use crate::images::FileSystem;
use crate::s3::S3;

/// How long after a fault until every node and disk counts as sound: a disk that hung is not trusted for half a minute.
const HEALTHY_MAX: Duration = Duration::from_secs(90);

/// K14: this long after the last fault everything is served again.
const RECOVERY_MAX: Duration = Duration::from_secs(15);

/// How long clients go on after that before the last look.
const CALM: Duration = Duration::from_secs(4);

/// This long after a disk stopped answering it is known to be dead, and others lead what its node led.
const TAKEN_OVER_AFTER: Duration = Duration::from_secs(12);

/// How long nothing may be acknowledged before a fault begins.
const LOAD_MAX: Duration = Duration::from_secs(60);

/// How long repair and moves may take with a few hundred megabytes: a disk that did not take a shard during a fault is tried for it
/// again after a minute.
const SETTLE_MAX: Duration = Duration::from_secs(300);

/// After so long without a node its shards are rebuilt elsewhere: longer than most faults last.
const REBUILD_AFTER: &str = "30s";

/// What the machine offers.
#[derive(Debug, Clone, Copy)]
pub struct Means {
    pub network: bool,
    pub images: bool,
    pub clocks: bool,
}

#[derive(Debug, Default)]
pub struct Outcome {
    pub operations: u64,
    pub rows: Tally,
    pub violations: Vec<String>,
    pub unknown: Vec<String>,
    /// What happened, with times since the cluster was founded.
    pub trace: Vec<String>,
    pub rounds: u64,
}

struct Episode<'a> {
    means: Means,
    dice: Dice,
    runtime: &'a Runtime,
    fleet: Fleet,
    clients: Arc<Clients>,
    at_work: JoinSet<()>,
    outcome: Outcome,
    /// The node whose disk was damaged and not replaced since.
    victim: Option<usize>,
    calm: Vec<Range<Duration>>,
    /// Since when there is no fault.
    healed: Duration,
}

/// Runs one cluster through these faults. Its logs are kept below `keep` when anything is wrong.
pub fn run_cluster(faults: &[Fault], means: Means, seed: u64, runtime: &Runtime, keep: &Path) -> Outcome {
    match Episode::begin(means, seed, runtime) {
        Ok(mut episode) => {
            for fault in faults {
                let name = format!("{fault:?}");
                if let Err(error) = episode.round(*fault) {
                    episode.outcome.violations.push(format!("{name}: {error:#}"));
                    break;
                }
                episode.outcome.rounds += 1;
            }
            episode.finish(seed, keep)
        }
        Err(error) => Outcome { violations: vec![format!("no cluster: {error:#}")], ..Outcome::default() },
    }
}

impl<'a> Episode<'a> {
    fn begin(means: Means, seed: u64, runtime: &'a Runtime) -> anyhow::Result<Self> {
        let dice = Dice::new(seed, 1);
        let kinds: Vec<FileSystem> = (0..4).map(|_| some_kind(means, &dice)).collect();
        let fleet = Fleet::found(&kinds, 2, means.network)?;
        fleet.admin_until(&["set", "--rebuild-after", REBUILD_AFTER], Duration::from_secs(30))?;
        let env = placement_env::system();
        let gateways = (0..fleet.gateways()).map(|gateway| S3::new(env.clone(), &fleet.s3(gateway))).collect();
        let clients = Clients::new(gateways, seed);
        runtime.block_on(clients.make_bucket())?;
        let at_work = {
            let _inside = runtime.enter();
            clients.start()
        };
        let healed = clients.now();
        let outcome = Outcome::default();
        Ok(Self { means, dice, runtime, fleet, clients, at_work, outcome, victim: None, calm: Vec::new(), healed })
    }

    fn note(&mut self, text: &str) {
        let line = format!("{:8.2} {text}", self.clients.now().as_secs_f64());
        println!("  {line}");
        self.outcome.trace.push(line);
    }

    /// One fault under load, and everything read back after it.
    fn round(&mut self, fault: Fault) -> anyhow::Result<()> {
        self.clients.begin_round();
        // One fault after the other: a disk that hung is left alone for a while by those who count on it.
        self.fleet.wait_healthy(HEALTHY_MAX).context("K14")?;
        self.wait_acknowledged(12)?;
        let begins = self.clients.now();
        if begins > self.healed + RECOVERY_MAX {
            self.calm.push(self.healed + RECOVERY_MAX..begins);
        }
        let node = if fault == Fault::CutLeader { self.leader()? } else { self.pick(fault) };
        if fault.is_damage() {
            self.wait_written(node)?;
        }
        self.note(&format!("{fault:?} of node {node}"));
        let evidence = match fault {
            Fault::Turnover => self.turn_over(node)?,
            Fault::ReplaceNode => self.replace(node)?,
            Fault::OldDisk => self.bring_back_old(node)?,
            Fault::KillGateway => self.kill_gateways()?,
            Fault::SwapDisks => self.swap_disks(node)?,
            Fault::CloneNode => self.clone_node(node)?,
            Fault::WrongClock => self.live_at_other_times(node)?,
            _ => self.endure(fault, node)?,
        };
        let restarted = Instant::now();
        self.fleet.start_missing()?;
        self.healed = self.clients.now();
        self.note(&format!("over, {:.1} s to start, evidence {evidence}", restarted.elapsed().as_secs_f64()));
        for row in fault.rows() {
            if evidence > 0 {
                self.outcome.rows.hit(*row);
            } else {
                self.outcome.unknown.push(format!("{fault:?} was asked for and did not happen ({})", row.id()));
            }
        }
        self.wait_served()?;
        self.wait_acknowledged(12)?;
        self.read_back();
        Ok(())
    }

    /// Whom a fault is about: damage is about the same disk until that is replaced.
    fn pick(&mut self, fault: Fault) -> usize {
        let members = self.fleet.members();
        let chosen = members[self.dice.range(0, members.len() as u64) as usize];
        if fault.is_damage() {
            return *self.victim.get_or_insert(chosen);
        }
        // What is damaged is what is replaced: nothing else may go while it is there.
        if fault.needs_disk() { self.victim.unwrap_or(chosen) } else { chosen }
    }

    /// A gateway that dies between requests shows nothing: until one dies in the middle of a write. Returns how many such writes
    /// there were.
    fn kill_gateways(&mut self) -> anyhow::Result<u64> {
        for _ in 0..10 {
            let began = Instant::now();
            while !self.clients.is_writing_everywhere() && began.elapsed() < LOAD_MAX {
                sleep(Duration::from_micros(200));
            }
            let at = self.clients.now();
            let evidence = self.endure(Fault::KillGateway, 0)?;
            let is_cut_off = |operation: &Operation| {
                operation.body().is_some()
                    && matches!(operation.outcome, tests_faults::Outcome::Unknown(_))
                    && (operation.started..operation.ended).contains(&at)
            };
            let cut_off = self.clients.history().iter().filter(|operation| is_cut_off(operation)).count();
            if evidence > 0 && cut_off > 0 {
                return Ok(cut_off as u64);
            }
            self.fleet.start_missing()?;
            self.wait_acknowledged(6)?;
        }
        Ok(0)
    }

    /// A fault that begins, lasts for some seconds, and ends.
    fn endure(&mut self, fault: Fault, node: usize) -> anyhow::Result<u64> {
        let under_way = cause(fault, node, &mut self.fleet, &self.dice)?;
        if fault == Fault::Flap {
            for _ in 0..self.dice.range(3, 6) {
                sleep(Duration::from_secs(1));
                let host = self.fleet.host(node).context("the node has a network")?;
                let dropped = host.dropped()?;
                self.outcome.rows.add(Row::N4, u64::from(dropped > 0));
                host.mend()?;
                sleep(Duration::from_secs(1));
                cut_off(fault, node, &self.fleet)?;
            }
        }
        sleep(self.dice.millis(1500, 9000));
        if fault.is_borne() {
            self.bear()?;
        }
        if fault == Fault::LieAboutSync {
            // Before the disk is told the truth.
            self.fleet.cut_power(&[node])?;
        }
        let (evidence, excused) = under_way.end(&mut self.fleet)?;
        self.look_after_processes(&excused)?;
        Ok(evidence)
    }

    /// K14 while a fault lasts: after a while in which others take over, everything is served.
    fn bear(&mut self) -> anyhow::Result<()> {
        sleep(TAKEN_OVER_AFTER);
        self.wait_served().context("while it lasts")?;
        self.wait_acknowledged(12).context("while it lasts")?;
        self.read_back();
        self.note("borne");
        Ok(())
    }

    /// A node that leads metadata groups, more of them than others do.
    fn leader(&self) -> anyhow::Result<usize> {
        let leaders = self.fleet.leaders()?;
        let leads = |node: &usize| leaders.iter().filter(|leader| *leader == node).count();
        self.fleet.members().into_iter().max_by_key(leads).filter(|node| leads(node) > 0).context("nobody leads anything")
    }

    /// Nobody may have ended by himself, except for those whose disk failed under them.
    fn look_after_processes(&mut self, excused: &[usize]) -> anyhow::Result<()> {
        for node in excused {
            self.fleet.kill_nodes(&[*node]);
        }
        for node in self.fleet.members() {
            if self.fleet.node(node).is_some_and(|process| !process.is_running()) {
                let log = self.fleet.node(node).map(|process| process.log_tail()).unwrap_or_default();
                self.outcome.violations.push(format!("K10 node {node} ended by itself; its log ends:\n{log}"));
                self.fleet.kill_nodes(&[node]);
            }
        }
        Ok(())
    }

    /// A disk as it was some seconds and some writes ago. The node's own state is as new as it was.
    fn bring_back_old(&mut self, node: usize) -> anyhow::Result<u64> {
        let disk = self.fleet.nodes[node].disk.data().join("disk").display().to_string();
        let copy = self.fleet.dir.path().join("old-disk").display().to_string();
        let _ = std::fs::remove_dir_all(&copy);
        self.fleet.kill_nodes(&[node]);
        run(&["cp", "--archive", "--sparse=always", &disk, &copy])?;
        self.fleet.start_missing()?;
        self.wait_served()?;
        self.wait_acknowledged(30)?;
        self.fleet.kill_nodes(&[node]);
        std::fs::remove_dir_all(&disk)?;
        run(&["cp", "--archive", "--sparse=always", &copy, &disk])?;
        // The old disk is old, and not half written.
        run(&["sync", "--file-system", &disk])?;
        std::fs::remove_dir_all(&copy)?;
        Ok(1)
    }

    fn settle(&mut self) -> anyhow::Result<()> {
        let began = Instant::now();
        // The disks are small, and this may take minutes.
        self.clients.set_rest(5);
        let settled = self.fleet.wait_settled(SETTLE_MAX);
        self.clients.set_rest(1);
        settled?;
        self.note(&format!("settled in {:.1} s", began.elapsed().as_secs_f64()));
        Ok(())
    }

    /// However slow the machine is, writes are under way then.
    fn wait_acknowledged(&self, more: usize) -> anyhow::Result<()> {
        let (began, before) = (Instant::now(), self.clients.acknowledged());
        while self.clients.acknowledged() < before + more {
            anyhow::ensure!(began.elapsed() < LOAD_MAX, "K14: less than {more} writes were acknowledged in {LOAD_MAX:?}");
            sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// Small objects are in the metadata: a disk has nothing to damage until the first large one was written.
    fn wait_written(&self, node: usize) -> anyhow::Result<()> {
        let began = Instant::now();
        while self.fleet.written(node)?.is_empty() {
            anyhow::ensure!(began.elapsed() < LOAD_MAX, "K14: no shard was written to node {node} in {LOAD_MAX:?}");
            sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// Waits until every gateway serves writes and reads again. A dozen requests one after the other, which a slow disk makes
    /// slow, are no outage: what counts is when they began, and the slowest of them.
    fn wait_served(&mut self) -> anyhow::Result<()> {
        let began = Instant::now();
        let took = loop {
            let asked = began.elapsed();
            let verdict = self.runtime.block_on(self.clients.probe());
            match verdict {
                Ok(slowest) => break asked + slowest,
                Err(why) if began.elapsed() > Duration::from_secs(90) => anyhow::bail!("K14 nothing is served: {why}"),
                Err(_) => sleep(Duration::from_millis(100)),
            }
        };
        self.note(&format!("served after {:.1} s", took.as_secs_f64()));
        if took > RECOVERY_MAX {
            self.outcome.violations.push(format!("K14 served only {:.1} s after the last fault", took.as_secs_f64()));
        }
        Ok(())
    }

    fn read_back(&mut self) {
        let began = Instant::now();
        let deadline = self.clients.now() + RECOVERY_MAX;
        let failures = self.runtime.block_on(self.clients.read_back(deadline));
        self.note(&format!("read back in {:.1} s", began.elapsed().as_secs_f64()));
        self.outcome.violations.extend(failures);
    }

    /// K9, the end of the load, a last look, and the verdict.
    fn finish(mut self, seed: u64, keep: &Path) -> Outcome {
        let broke_off = !self.outcome.violations.is_empty();
        if !broke_off && let Err(error) = self.settle() {
            self.outcome.violations.push(format!("K9 {error:#}"));
        }
        if !broke_off {
            // Some seconds in which nothing has an excuse to fail.
            sleep((self.healed + RECOVERY_MAX + CALM).saturating_sub(self.clients.now()));
            self.read_back();
        }
        self.clients.stop();
        let now = self.clients.now();
        if now > self.healed + RECOVERY_MAX && !broke_off {
            self.calm.push(self.healed + RECOVERY_MAX..now);
        }
        for (log, line) in panics(self.fleet.dir.path()) {
            self.outcome.violations.push(format!("K10 panic in {log}: {line}"));
        }
        // What a listing saw may come from a write whose answer is still to come.
        self.runtime.block_on(std::mem::take(&mut self.at_work).join_all());
        let history = self.clients.history();
        self.outcome.operations = history.len() as u64;
        for violation in check(&history, &self.calm) {
            let list = if violation.is_undecided() { &mut self.outcome.unknown } else { &mut self.outcome.violations };
            list.push(violation.to_string());
        }
        if !self.outcome.violations.is_empty() || !self.outcome.unknown.is_empty() {
            let to = keep.join(format!("seed-{seed}"));
            let operations: Vec<String> = history.iter().map(ToString::to_string).collect();
            let kept = self.fleet.keep_logs(&to).and_then(|()| {
                std::fs::write(to.join("history"), operations.join("\n"))?;
                std::fs::write(to.join("trace"), self.outcome.trace.join("\n"))?;
                Ok(std::fs::write(to.join("violations"), self.outcome.violations.join("\n"))?)
            });
            match kept {
                Ok(()) => self.note(&format!("logs and history are kept in {}", to.display())),
                Err(error) => self.note(&format!("logs cannot be kept: {error:#}")),
            }
        }
        self.outcome
    }
}

fn some_kind(means: Means, dice: &Dice) -> FileSystem {
    match (means.images, dice.coin()) {
        (false, _) => FileSystem::Plain,
        (true, true) => FileSystem::Ext4,
        (true, false) => FileSystem::Xfs,
    }
}

/// Lines about panics in the logs of a directory.
fn panics(dir: &Path) -> Vec<(String, String)> {
    let logs = std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    let logs: Vec<PathBuf> = logs.filter(|path| path.extension().is_some_and(|extension| extension == "log")).collect();
    let mut found = Vec::new();
    for path in logs {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let lines = text.lines().filter(|line| line.contains("panicked at"));
        found.extend(lines.map(|line| (path.display().to_string(), line.to_owned())));
    }
    found
}
