//! Causes the faults of a run at their simulated times, and counts those that really happened.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tests_faults::{Row, Tally};
use turmoil::Sim;

use crate::dice::Dice;
use crate::machine::{HALT_PATIENCE, Machine};
use crate::operator::Orders;
use crate::process::node_name;
use crate::schedule::{Fault, Schedule, Step, plan};

/// How long at a time everything waits for a disk to be used, so that its fault shows something, and how long in all.
const WAIT_STEP: Duration = Duration::from_millis(500);
const WAIT_MAX: Duration = Duration::from_secs(15);

struct Halting {
    node: usize,
    until_operations: u64,
    deadline: Duration,
}

/// What the director acts on.
pub struct Stage {
    /// The nodes that found the cluster.
    pub machines: Vec<Arc<Machine>>,
    /// The node that may join.
    pub newcomer: Arc<Machine>,
    pub gateways: Vec<String>,
    pub orders: Arc<Orders>,
    /// How long a message takes at most when nothing is wrong.
    pub latency_max: Duration,
}

pub struct Director {
    stage: Stage,
    dice: Dice,
    /// In reverse, the next one last.
    steps: Vec<(Duration, Step)>,
    faults: Vec<Fault>,
    halting: Vec<Halting>,
    /// Disks that fail, with how much had been asked of them when that began, and the rows it shows when more was.
    failing: BTreeMap<usize, (u64, &'static [Row])>,
    down: BTreeSet<usize>,
    quiet_at: Duration,
    /// How long everything has waited for disks to be used.
    waited: Duration,
    rows: Tally,
    batches_lost: u64,
}

impl Director {
    pub fn new(stage: Stage, seed: u64) -> Self {
        let dice = Dice::new(seed, 0xfa);
        let Schedule { mut steps, faults, quiet_at } = plan(&dice, stage.machines.len(), &stage.gateways);
        steps.reverse();
        Self {
            stage,
            dice,
            steps,
            faults,
            halting: Vec::new(),
            failing: BTreeMap::new(),
            down: BTreeSet::new(),
            quiet_at,
            waited: Duration::ZERO,
            rows: Tally::default(),
            batches_lost: 0,
        }
    }

    /// When, counted from the cluster's readiness, the last fault is over.
    pub fn quiet_at(&self) -> Duration {
        self.quiet_at
    }

    /// Whether the node that may join was to.
    pub fn grows(&self) -> bool {
        self.faults.contains(&Fault::Grow)
    }

    /// How often faults of each row happened so far.
    pub fn rows(&self) -> Tally {
        let mut rows = self.rows.clone();
        rows.add(Row::M10, self.stage.orders.done());
        rows
    }

    /// What a run was to show and did not: a fault that does not happen tests nothing.
    pub fn missing(&self) -> Vec<String> {
        let happened = self.rows();
        let absent = |fault: &&Fault| rows_of(**fault).iter().any(|row| !happened.has(*row));
        let mut missing: Vec<String> =
            self.faults.iter().filter(absent).map(|fault| format!("{fault:?} never happened")).collect();
        if self.batches_lost == 0 {
            missing.push("no crash lost anything".to_owned());
        }
        missing
    }

    /// Causes what is due. Returns what to note.
    pub fn advance(&mut self, sim: &mut Sim<'_>, since_ready: Duration) -> Vec<String> {
        let mut notes = Vec::new();
        let due = |halting: &Halting, machines: &[Arc<Machine>]| {
            machines[halting.node].disk_operations() > halting.until_operations || since_ready >= halting.deadline
        };
        let (ready, waiting) =
            std::mem::take(&mut self.halting).into_iter().partition(|halting| due(halting, &self.stage.machines));
        self.halting = waiting;
        for Halting { node, .. } in ready {
            self.rows.hit(Row::P6);
            self.crash(sim, node, &mut notes);
        }
        while let Some((_, step)) = self.steps.pop_if(|(at, _)| *at <= since_ready) {
            self.take(sim, step, since_ready, &mut notes);
        }
        notes
    }

    fn take(&mut self, sim: &mut Sim<'_>, step: Step, now: Duration, notes: &mut Vec<String>) {
        match step {
            Step::Halt { node, operations } => {
                let machine = &self.stage.machines[node];
                machine.halt_after(operations);
                let until_operations = machine.disk_operations() + operations;
                self.halting.push(Halting { node, until_operations, deadline: now + HALT_PATIENCE });
            }
            Step::CrashAll => {
                self.rows.hit(Row::D2);
                self.rows.hit(Row::M4);
                for node in 0..self.stage.machines.len() {
                    self.crash(sim, node, notes);
                }
            }
            // Clients may all be waiting for an election. A disk that fails while nobody uses it shows nothing.
            Step::CutPower { node } if self.is_unused(node) && self.waited < WAIT_MAX => self.wait(step, now),
            Step::CutPower { node } => self.crash(sim, node, notes),
            Step::Restart { node } => {
                if self.down.remove(&node) {
                    notes.push(format!("restart {}", node_name(node)));
                    self.stage.machines[node].mend_disk();
                    sim.bounce(node_name(node));
                }
            }
            Step::Cut { fault, from, to } => {
                rows_of(fault).iter().for_each(|row| self.rows.hit(*row));
                if fault == Fault::OneWay {
                    notes.push(format!("cut {from} to {to}"));
                    sim.partition_oneway(from.as_str(), to.as_str());
                } else {
                    notes.push(format!("cut {from} and {to}"));
                    sim.partition(from.as_str(), to.as_str());
                }
            }
            Step::Mend { from, to } => {
                notes.push(format!("mend {from} {to}"));
                sim.repair(from.as_str(), to.as_str());
            }
            Step::Hold { from, to } => {
                self.rows.hit(Row::N12);
                notes.push(format!("hold what is between {from} and {to}"));
                sim.hold(from.as_str(), to.as_str());
            }
            Step::Release { from, to } => {
                notes.push(format!("release {from} {to}"));
                sim.release(from.as_str(), to.as_str());
            }
            Step::SetLatency { node, max } => {
                self.rows.add(Row::N6, u64::from(max.is_some()));
                let max = max.unwrap_or(self.stage.latency_max);
                notes.push(format!("messages of {} take up to {max:?}", node_name(node)));
                let others = (0..self.stage.machines.len()).filter(|other| *other != node).map(node_name);
                for other in others.chain(self.stage.gateways.iter().cloned()) {
                    sim.set_link_max_message_latency(node_name(node), other.as_str(), max);
                }
            }
            Step::Rot { node } if self.stage.machines[node].written().is_empty() && self.waited < WAIT_MAX => {
                self.wait(step, now);
            }
            Step::Rot { node } => {
                let flipped = self.stage.machines[node].rot(&self.dice);
                self.rows.add(Row::D5, flipped);
                notes.push(format!("{flipped} bits flip on {}", node_name(node)));
            }
            Step::FailSync { node } => {
                self.begin_failing(Fault::FailSync, node);
                notes.push(format!("no fsync succeeds on {}", node_name(node)));
                self.stage.machines[node].fail_syncs();
            }
            Step::Fill { node } => {
                self.begin_failing(Fault::Fill, node);
                notes.push(format!("{} is full", node_name(node)));
                self.stage.machines[node].fill();
            }
            Step::Lie { node } => {
                self.begin_failing(Fault::Lie, node);
                notes.push(format!("the disk of {} lies", node_name(node)));
                self.stage.machines[node].lie();
            }
            Step::SetClock { node, wrong_by_ms } => {
                match wrong_by_ms.unsigned_abs() {
                    0 => {}
                    wrong if wrong > 30 * 24 * 3_600_000 => self.rows.hit(Row::C7),
                    _ => self.rows.hit(Row::C1),
                }
                notes.push(format!("the clock of {} is wrong by {wrong_by_ms} ms", node_name(node)));
                self.stage.machines[node].set_clock_wrong(wrong_by_ms);
            }
            Step::PowerOn => {
                notes.push(format!("{} is switched on", self.stage.newcomer.name));
                self.stage.newcomer.power_on();
            }
            Step::Tell { order } => self.stage.orders.give(order),
        }
    }

    /// Whether nothing was asked of a disk since it began to fail.
    fn is_unused(&self, node: usize) -> bool {
        self.failing.get(&node).is_some_and(|(before, _)| self.stage.machines[node].disk_operations() == *before)
    }

    /// Puts a step off, and with it all others but those that let messages through again.
    fn wait(&mut self, step: Step, now: Duration) {
        for (at, other) in &mut self.steps {
            if !matches!(other, Step::Mend { .. } | Step::Release { .. }) {
                *at += WAIT_STEP;
            }
        }
        self.steps.push((now + WAIT_STEP, step));
        self.steps.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
        self.quiet_at += WAIT_STEP;
        self.waited += WAIT_STEP;
    }

    fn begin_failing(&mut self, fault: Fault, node: usize) {
        self.failing.insert(node, (self.stage.machines[node].disk_operations(), rows_of(fault)));
    }

    fn crash(&mut self, sim: &mut Sim<'_>, node: usize, notes: &mut Vec<String>) {
        if !self.down.insert(node) {
            return;
        }
        self.halting.retain(|halting| halting.node != node);
        let machine = &self.stage.machines[node];
        if let Some((_, rows)) = self.failing.remove(&node).filter(|(before, _)| machine.disk_operations() > *before) {
            rows.iter().for_each(|row| self.rows.hit(*row));
        }
        machine.cut_power();
        sim.crash(node_name(node));
        let lost = machine.lose_unsynced(&self.dice);
        self.batches_lost += lost;
        self.rows.hit(Row::D1);
        self.rows.add(Row::P7, u64::from(lost > 0));
        notes.push(format!("crash {} losing {lost} batches", machine.name));
    }
}

/// The rows of the catalogue that a fault is to show.
fn rows_of(fault: Fault) -> &'static [Row] {
    match fault {
        Fault::Crash => &[Row::P6, Row::D1],
        Fault::CrashAll => &[Row::D2, Row::M4],
        Fault::Isolate | Fault::CutOff => &[Row::N1],
        Fault::OneWay => &[Row::N2],
        Fault::Flap => &[Row::N4],
        Fault::Delay => &[Row::N6],
        Fault::Hold => &[Row::N12],
        Fault::Sever => &[Row::N14],
        Fault::Rot => &[Row::D5],
        Fault::FailSync => &[Row::D19],
        Fault::Fill => &[Row::D14, Row::D15],
        Fault::Lie => &[Row::D3],
        Fault::Skew => &[Row::C1],
        Fault::Leap => &[Row::C7],
        Fault::Grow => &[Row::M10],
    }
}
