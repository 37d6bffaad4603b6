//! The faults of a run: planned from the seed, caused at their simulated times.
//!
//! One node at a time is down, which every profile here bears, except when all lose their power at once. Partitions may
//! overlap with either: they cost availability, never data.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use turmoil::Sim;

use crate::dice::Dice;
use crate::machine::{HALT_PATIENCE, Machine};
use crate::process::node_name;

/// How many of the next disk operations may still succeed before a halting machine stops.
const HALT_OPERATIONS_MAX: u64 = 24;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    Crash,
    CrashAll,
    /// One node from every other node; gateways still reach it.
    Isolate,
    /// One node from everybody.
    CutOff,
    /// One direction between two nodes.
    OneWay,
}

const ROUNDS: [Fault; 7] =
    [Fault::Crash, Fault::Crash, Fault::Crash, Fault::CrashAll, Fault::Isolate, Fault::CutOff, Fault::OneWay];

#[derive(Debug, Clone)]
enum Step {
    /// Halts the disk after so many operations; the crash follows.
    Halt {
        node: usize,
        operations: u64,
    },
    CrashAll,
    Restart {
        node: usize,
    },
    Cut {
        fault: Fault,
        from: String,
        to: String,
    },
    Mend {
        from: String,
        to: String,
    },
}

struct Halting {
    node: usize,
    until_operations: u64,
    deadline: Duration,
}

pub struct Director {
    machines: Vec<Arc<Machine>>,
    dice: Dice,
    /// By time since the cluster was ready; in reverse, the next one last.
    steps: Vec<(Duration, Step)>,
    halting: Vec<Halting>,
    down: BTreeSet<usize>,
    quiet_at: Duration,
    fired: BTreeSet<Fault>,
    batches_lost: u64,
}

impl Director {
    pub fn new(machines: Vec<Arc<Machine>>, gateways: &[String], seed: u64) -> Self {
        let dice = Dice::new(seed, 0xfa);
        let (mut steps, quiet_at) = plan(&dice, machines.len(), gateways);
        steps.sort_by_key(|(at, _)| *at);
        steps.reverse();
        Self {
            machines,
            dice,
            steps,
            halting: Vec::new(),
            down: BTreeSet::new(),
            quiet_at,
            fired: BTreeSet::new(),
            batches_lost: 0,
        }
    }

    /// When, counted from the cluster's readiness, the last fault is over.
    pub fn quiet_at(&self) -> Duration {
        self.quiet_at
    }

    /// What a run was to show and did not: a fault that does not happen tests nothing.
    pub fn missing(&self) -> Vec<String> {
        let fault = |fault: &Fault| (!self.fired.contains(fault)).then(|| format!("{fault:?} never happened"));
        let mut missing: Vec<String> = ROUNDS.iter().filter_map(fault).collect();
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
        let (ready, waiting) = std::mem::take(&mut self.halting).into_iter().partition(|halting| due(halting, &self.machines));
        self.halting = waiting;
        for Halting { node, .. } in ready {
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
                self.fired.insert(Fault::Crash);
                let machine = &self.machines[node];
                machine.halt_after(operations);
                let until_operations = machine.disk_operations() + operations;
                self.halting.push(Halting { node, until_operations, deadline: now + HALT_PATIENCE });
            }
            Step::CrashAll => {
                self.fired.insert(Fault::CrashAll);
                for node in 0..self.machines.len() {
                    self.crash(sim, node, notes);
                }
            }
            Step::Restart { node } => {
                if self.down.remove(&node) {
                    notes.push(format!("restart {}", node_name(node)));
                    sim.bounce(node_name(node));
                }
            }
            Step::Cut { fault, from, to } => {
                self.fired.insert(fault);
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
        }
    }

    fn crash(&mut self, sim: &mut Sim<'_>, node: usize, notes: &mut Vec<String>) {
        if !self.down.insert(node) {
            return;
        }
        self.halting.retain(|halting| halting.node != node);
        let machine = &self.machines[node];
        machine.cut_power();
        sim.crash(node_name(node));
        let lost = machine.lose_unsynced(&self.dice);
        self.batches_lost += lost;
        notes.push(format!("crash {} losing {lost} batches", machine.name));
    }
}

fn plan(dice: &Dice, nodes: usize, gateways: &[String]) -> (Vec<(Duration, Step)>, Duration) {
    let mut rounds = ROUNDS.to_vec();
    for last in (1..rounds.len()).rev() {
        rounds.swap(last, dice.range(0, last as u64 + 1) as usize);
    }
    let mut steps = Vec::new();
    let mut at = dice.millis(1000, 4000);
    let mut quiet_at = at;
    // When everybody is up again.
    let mut whole_at = Duration::ZERO;
    for fault in rounds {
        let end = at + dice.millis(1500, 9000);
        let node = dice.range(0, nodes as u64) as usize;
        let others = || (0..nodes).filter(move |other| *other != node);
        match fault {
            Fault::Crash => {
                at = at.max(whole_at);
                let end = end.max(at + Duration::from_secs(1));
                steps.push((at, Step::Halt { node, operations: dice.range(0, HALT_OPERATIONS_MAX) }));
                steps.push((end, Step::Restart { node }));
                // Up, and past its catching up: only then may the next one fall.
                whole_at = end + Duration::from_secs(3);
                at = end + dice.millis(500, 6000);
                quiet_at = quiet_at.max(end);
                continue;
            }
            Fault::CrashAll => {
                at = at.max(whole_at);
                steps.push((at, Step::CrashAll));
                let mut last = at;
                for node in 0..nodes {
                    let up = at + dice.millis(300, 4000);
                    steps.push((up, Step::Restart { node }));
                    last = last.max(up);
                }
                whole_at = last + Duration::from_secs(3);
                quiet_at = quiet_at.max(last);
                at = last + dice.millis(500, 6000);
                continue;
            }
            Fault::Isolate => {
                for other in others() {
                    cut(&mut steps, fault, at, end, &node_name(node), &node_name(other));
                }
            }
            Fault::CutOff => {
                let names = others().map(node_name).chain(gateways.iter().cloned());
                for other in names {
                    cut(&mut steps, fault, at, end, &node_name(node), &other);
                }
            }
            Fault::OneWay => {
                let other = (node + 1 + dice.range(0, nodes as u64 - 1) as usize) % nodes;
                cut(&mut steps, fault, at, end, &node_name(node), &node_name(other));
            }
        }
        quiet_at = quiet_at.max(end);
        // The next fault may begin before this one ends.
        at += (end - at).mul_f64(dice.range(5, 16) as f64 / 10.0);
    }
    (steps, quiet_at + HALT_PATIENCE)
}

fn cut(steps: &mut Vec<(Duration, Step)>, fault: Fault, at: Duration, end: Duration, from: &str, to: &str) {
    steps.push((at, Step::Cut { fault, from: from.to_owned(), to: to.to_owned() }));
    steps.push((end, Step::Mend { from: from.to_owned(), to: to.to_owned() }));
}
