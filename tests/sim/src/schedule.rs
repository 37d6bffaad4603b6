//! What a seed has in store: which faults, when, and about whom.
//!
//! One node at a time is down, which every profile here bears, except when all lose their power at once. Partitions and slow links
//! may overlap with either: they cost availability, never data. What is durable is damaged on one node only, the victim.
//! No disk fails under writes on the node that is drained: nobody writes there, and the fault would show nothing.

use std::time::Duration;

use crate::dice::Dice;
use crate::machine::HALT_PATIENCE;
use crate::operator::Order;
use crate::process::node_name;

/// How many of the next disk operations may still succeed before a halting machine stops.
const HALT_OPERATIONS_MAX: u64 = 24;

/// How long a node that came up needs to catch up: only then may the next one fall.
const CATCH_UP: Duration = Duration::from_secs(3);

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
    /// One node from everybody, and back, once a second.
    Flap,
    /// Everything to and from one node takes up to half a second.
    Delay,
    /// Nothing between two nodes arrives for a while, then all of it.
    Hold,
    /// A gateway from all nodes but one.
    Sever,
    /// Bits flip in the segments of the victim.
    Rot,
    /// No fsync of shards succeeds on one node until it is restarted.
    FailSync,
    /// A disk is full for a while.
    Fill,
    /// The victim's disk says that shards are durable when they are not; then its power goes.
    Lie,
    /// The wall clock of one node is an hour off.
    Skew,
    /// The wall clock of one node is a year ahead.
    Leap,
    /// A node joins and is taken in, then another is drained.
    Grow,
}

/// Every seed has these.
pub const ALWAYS: [Fault; 7] =
    [Fault::Crash, Fault::Crash, Fault::Crash, Fault::CrashAll, Fault::Isolate, Fault::CutOff, Fault::OneWay];

/// And some of these.
pub const SOMETIMES: [Fault; 11] = [
    Fault::Flap,
    Fault::Delay,
    Fault::Hold,
    Fault::Sever,
    Fault::Rot,
    Fault::FailSync,
    Fault::Fill,
    Fault::Lie,
    Fault::Skew,
    Fault::Leap,
    Fault::Grow,
];
const SOMETIMES_EACH: usize = 4;

#[derive(Debug, Clone)]
pub enum Step {
    /// Halts the disk after so many operations; the crash follows.
    Halt {
        node: usize,
        operations: u64,
    },
    CrashAll,
    CutPower {
        node: usize,
    },
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
    Hold {
        from: String,
        to: String,
    },
    Release {
        from: String,
        to: String,
    },
    /// Between one node and all others.
    SetLatency {
        node: usize,
        max: Option<Duration>,
    },
    Rot {
        node: usize,
    },
    FailSync {
        node: usize,
    },
    Fill {
        node: usize,
    },
    Lie {
        node: usize,
    },
    SetClock {
        node: usize,
        wrong_by_ms: i64,
    },
    /// The machine of the node that joins is switched on.
    PowerOn,
    Tell {
        order: Order,
    },
}

pub struct Schedule {
    /// By time since the cluster was ready.
    pub steps: Vec<(Duration, Step)>,
    pub faults: Vec<Fault>,
    /// When the last fault is over.
    pub quiet_at: Duration,
}

struct Planner<'a> {
    dice: &'a Dice,
    nodes: usize,
    gateways: &'a [String],
    victim: usize,
    /// The node that leaves, when one does.
    leaver: usize,
    steps: Vec<(Duration, Step)>,
    quiet_at: Duration,
    /// When everybody is up again.
    whole_at: Duration,
}

pub fn plan(dice: &Dice, nodes: usize, gateways: &[String]) -> Schedule {
    let mut faults = ALWAYS.to_vec();
    let mut sometimes = SOMETIMES.to_vec();
    shuffle(dice, &mut sometimes);
    faults.extend(&sometimes[..SOMETIMES_EACH]);
    shuffle(dice, &mut faults);
    let victim = dice.range(0, nodes as u64) as usize;
    let leaver = if faults.contains(&Fault::Lie) { another(dice, nodes, victim) } else { dice.range(0, nodes as u64) as usize };
    let (quiet_at, whole_at) = (Duration::ZERO, Duration::ZERO);
    let mut planner = Planner { dice, nodes, gateways, victim, leaver, steps: Vec::new(), quiet_at, whole_at };
    let mut at = dice.millis(1000, 4000);
    for fault in &faults {
        at = planner.add(*fault, at);
    }
    planner.steps.sort_by_key(|(at, _)| *at);
    Schedule { steps: planner.steps, faults, quiet_at: planner.quiet_at + HALT_PATIENCE }
}

/// Any node but this one.
fn another(dice: &Dice, nodes: usize, node: usize) -> usize {
    (node + 1 + dice.range(0, nodes as u64 - 1) as usize) % nodes
}

fn shuffle(dice: &Dice, faults: &mut [Fault]) {
    for last in (1..faults.len()).rev() {
        faults.swap(last, dice.range(0, last as u64 + 1) as usize);
    }
}

impl Planner<'_> {
    /// Returns when the next fault may begin.
    fn add(&mut self, fault: Fault, at: Duration) -> Duration {
        let end = at + self.dice.millis(1500, 9000);
        let node = self.dice.range(0, self.nodes as u64) as usize;
        match fault {
            Fault::Crash => {
                let operations = self.dice.range(0, HALT_OPERATIONS_MAX);
                return self.down(at, end, node, Step::Halt { node, operations });
            }
            Fault::CrashAll => return self.crash_all(at),
            Fault::Rot => {
                self.steps.push((at, Step::Rot { node: self.victim }));
                return at + self.dice.millis(500, 3000);
            }
            Fault::FailSync => {
                let node = self.another(self.leaver);
                return self.down(at, end, node, Step::FailSync { node });
            }
            Fault::Fill => {
                let node = self.another(self.leaver);
                return self.down(at, end, node, Step::Fill { node });
            }
            Fault::Lie => {
                let victim = self.victim;
                return self.down(at, end, victim, Step::Lie { node: victim });
            }
            Fault::Grow => {
                self.steps.push((at, Step::PowerOn));
                self.steps.push((at, Step::Tell { order: Order::TakeIn(node_name(self.nodes)) }));
                self.steps.push((end, Step::Tell { order: Order::Drain(node_name(self.leaver)) }));
            }
            Fault::Isolate => {
                for other in self.others(node) {
                    self.cut(fault, at, end, &node_name(node), &node_name(other));
                }
            }
            Fault::CutOff => {
                for other in self.everybody_but(node) {
                    self.cut(fault, at, end, &node_name(node), &other);
                }
            }
            Fault::Flap => {
                for second in 0..self.dice.range(2, 6) {
                    let from = at + Duration::from_secs(2 * second);
                    for other in self.everybody_but(node) {
                        self.cut(fault, from, from + Duration::from_secs(1), &node_name(node), &other);
                    }
                }
                return at + Duration::from_secs(12);
            }
            Fault::OneWay => {
                let other = self.another(node);
                self.cut(fault, at, end, &node_name(node), &node_name(other));
            }
            Fault::Sever => {
                let gateway = self.gateways[self.dice.range(0, self.gateways.len() as u64) as usize].clone();
                for other in self.others(node) {
                    self.cut(fault, at, end, &gateway, &node_name(other));
                }
            }
            Fault::Delay => {
                let max = Some(self.dice.millis(50, 500));
                self.steps.push((at, Step::SetLatency { node, max }));
                self.steps.push((end, Step::SetLatency { node, max: None }));
            }
            Fault::Hold => {
                let (from, to) = (node_name(node), node_name(self.another(node)));
                self.steps.push((at, Step::Hold { from: from.clone(), to: to.clone() }));
                self.steps.push((end, Step::Release { from, to }));
            }
            Fault::Skew | Fault::Leap => {
                let hour = 3_600_000;
                let wrong_by_ms = if fault == Fault::Leap {
                    365 * 24 * hour
                } else if self.dice.coin() {
                    hour
                } else {
                    -hour
                };
                self.steps.push((at, Step::SetClock { node, wrong_by_ms }));
                self.steps.push((end, Step::SetClock { node, wrong_by_ms: 0 }));
            }
        }
        self.quiet_at = self.quiet_at.max(end);
        // The next fault may begin before this one ends.
        at + (end - at).mul_f64(self.dice.range(5, 16) as f64 / 10.0)
    }

    /// Something that ends with a crash and a restart of its node, while nobody else is down.
    fn down(&mut self, at: Duration, end: Duration, node: usize, step: Step) -> Duration {
        let at = at.max(self.whole_at);
        let end = end.max(at + Duration::from_secs(1));
        if matches!(step, Step::FailSync { .. } | Step::Fill { .. } | Step::Lie { .. }) {
            self.steps.push((end - self.dice.millis(100, 800), Step::CutPower { node }));
        }
        self.steps.push((at, step));
        self.steps.push((end, Step::Restart { node }));
        self.whole_at = end + CATCH_UP;
        self.quiet_at = self.quiet_at.max(end);
        end + self.dice.millis(500, 6000)
    }

    fn crash_all(&mut self, at: Duration) -> Duration {
        let at = at.max(self.whole_at);
        self.steps.push((at, Step::CrashAll));
        let mut last = at;
        for node in 0..self.nodes {
            let up = at + self.dice.millis(300, 4000);
            self.steps.push((up, Step::Restart { node }));
            last = last.max(up);
        }
        self.whole_at = last + CATCH_UP;
        self.quiet_at = self.quiet_at.max(last);
        last + self.dice.millis(500, 6000)
    }

    fn others(&self, node: usize) -> Vec<usize> {
        (0..self.nodes).filter(|other| *other != node).collect()
    }

    fn everybody_but(&self, node: usize) -> Vec<String> {
        self.others(node).into_iter().map(node_name).chain(self.gateways.iter().cloned()).collect()
    }

    fn another(&self, node: usize) -> usize {
        another(self.dice, self.nodes, node)
    }

    fn cut(&mut self, fault: Fault, at: Duration, end: Duration, from: &str, to: &str) {
        self.steps.push((at, Step::Cut { fault, from: from.to_owned(), to: to.to_owned() }));
        self.steps.push((end, Step::Mend { from: from.to_owned(), to: to.to_owned() }));
        self.quiet_at = self.quiet_at.max(end);
    }
}
