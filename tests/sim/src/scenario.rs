//! One seed from the founding of a cluster to the verdict.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use placement_types::Profile;
use storage_node::Limits;
use tests_faults::{Operation, Tally, Violation, check};

use crate::dice::{Dice, derive};
use crate::director::{self, Director};
use crate::machine::{Machine, Plant};
use crate::operator::UPKEEP_MAX;
use crate::panics;
use crate::process::{ClusterPlan, Part, node_name, run_node, start_gateway};
use crate::workload::{Run, Stage, run_clients};

const GATEWAYS: u32 = 2;

/// Simulated time in which a cluster must be founded, and in which the last operations must end.
const FOUNDING_MAX: Duration = Duration::from_secs(60);
const SETTLING_MAX: Duration = Duration::from_secs(120).saturating_add(UPKEEP_MAX).saturating_add(AUDIT_MAX);

/// K14: this long after the last fault everything is served again.
const RECOVERY_MAX: Duration = Duration::from_secs(15);

/// How long clients go on after that before the last look.
const CALM: Duration = Duration::from_secs(5);

/// How long after that until disks and metadata agree.
pub const AUDIT_MAX: Duration = Duration::from_secs(90);

/// The graces of production are minutes and hours; what they are for is over in seconds here.
fn limits() -> Limits {
    Limits {
        gc_grace: Duration::from_secs(5),
        gc_interval: Duration::from_secs(3),
        orphan_lease: Duration::from_secs(30),
        orphan_interval: Duration::from_secs(5),
        orphan_full_interval: Duration::from_secs(20),
        ..Limits::default()
    }
}

/// What became of a run.
pub struct Report {
    pub seed: u64,
    pub violations: Vec<Violation>,
    /// What went wrong besides: panics, nodes that did not start.
    pub failures: Vec<String>,
    /// What was to happen and did not: a run without its faults shows nothing.
    pub missing: Vec<String>,
    /// How often faults of each row of the catalogue happened.
    pub rows: Tally,
    /// Every fault, map epoch and operation with its simulated time.
    pub trace: Vec<String>,
    pub history: Vec<Operation>,
}

impl Report {
    /// # Panics
    /// When anything went wrong, with all that is needed to understand and repeat it.
    pub fn assert_holds(&self) {
        if self.violations.is_empty() && self.failures.is_empty() && self.missing.is_empty() {
            return;
        }
        let mut text = format!("seed {} fails; repeat it with SIM_SEED={0}\n", self.seed);
        for line in &self.trace {
            let _ = writeln!(text, "  {line}");
        }
        for failure in &self.failures {
            let _ = writeln!(text, "FAILED: {failure}");
        }
        for missing in &self.missing {
            let _ = writeln!(text, "MISSING: {missing}");
        }
        for violation in &self.violations {
            let _ = writeln!(text, "BROKEN: {violation}");
        }
        panic!("{text}");
    }
}

/// Runs one seed. Never panics for what the cluster does: see [`Report::assert_holds`].
pub fn simulate(seed: u64) -> Report {
    simulate_with(seed, Plant::Nothing)
}

/// Runs one seed on machines with a bug.
pub fn simulate_with(seed: u64, plant: Plant) -> Report {
    panics::watch();
    let dice = Dice::new(seed, 1);
    // Each bears one node less: a write needs k+1 disks, a group two of its three replicas.
    let (nodes, profile) = match dice.range(0, 3) {
        0 => (3, Profile::new(1, 2)),
        1 => (4, Profile::new(2, 1)),
        _ => (4, Profile::new(2, 2)),
    };
    let plan = ClusterPlan::new(nodes, profile.expect("a legal profile"), limits());
    let run = Run::new(seed);
    run.note(Duration::ZERO, &format!("{nodes} nodes, profile {}", plan.profile));

    let latency_max = Duration::from_millis(dice.range(2, 30));
    let mut sim = turmoil::Builder::new()
        .rng_seed(derive(seed, 2))
        .simulation_duration(Duration::from_secs(3600))
        .tick_duration(Duration::from_millis(1))
        .min_message_latency(Duration::from_micros(200))
        .max_message_latency(latency_max)
        .tcp_capacity(1 << 14)
        .build();
    let machines: Vec<Arc<Machine>> =
        (0..nodes).map(|node| Machine::new(node_name(node), derive(seed, 100 + node as u64), plant)).collect();
    for machine in &machines {
        let (machine, plan) = (machine.clone(), plan.clone());
        sim.host(machine.name.clone(), move || run_node(machine.clone(), plan.clone(), Part::Founds));
    }
    let newcomer = Machine::new(node_name(nodes), derive(seed, 100 + nodes as u64), plant);
    newcomer.power_off();
    {
        let (machine, plan) = (newcomer.clone(), plan.clone());
        sim.host(newcomer.name.clone(), move || run_node(machine.clone(), plan.clone(), Part::Joins));
    }
    let gateways: Vec<String> = (0..GATEWAYS).map(|number| format!("gateway{number}")).collect();
    for (number, name) in (0..GATEWAYS).zip(&gateways) {
        let machine = Machine::new(name.clone(), derive(seed, 200 + u64::from(number)), plant);
        let (run, plan) = (run.clone(), plan.clone());
        sim.client(name.as_str(), async move {
            let running = start_gateway(&machine, &plan).await;
            run_clients(run, running, number).await
        });
    }
    let stage = director::Stage {
        machines: machines.clone(),
        newcomer: newcomer.clone(),
        gateways,
        orders: run.orders.clone(),
        latency_max,
    };
    let mut director = Director::new(stage, seed);
    let mut failures = Vec::new();
    let calm = match drive(&mut sim, &run, &mut director) {
        Ok(calm) => calm,
        Err(why) => {
            failures.push(why);
            Duration::MAX
        }
    };
    failures.extend(run.unsettled.lock().iter().map(|left| format!("K9 not done in time: {left}")));
    failures.extend(panics::seen().into_iter().map(|panic| format!("K10 panic: {panic}")));
    if failures.is_empty() {
        let expected = machines.iter().chain(director.grows().then_some(&newcomer));
        failures.extend(expected.filter(|machine| !machine.is_serving()).map(|machine| format!("{} is not up", machine.name)));
    }
    let missing = if failures.is_empty() { director.missing() } else { Vec::new() };
    let history = run.history.lock().clone();
    let violations = check(&history, &[calm..Duration::MAX]);
    let trace = run.trace.lock().clone();
    Report { seed, violations, failures, missing, rows: director.rows(), trace, history }
}

/// Steps the simulation to its end. Returns the time from which on nothing has an excuse to fail.
fn drive(sim: &mut turmoil::Sim<'_>, run: &Run, director: &mut Director) -> Result<Duration, String> {
    let mut ready = None;
    let mut settling = None;
    loop {
        let finished = sim.step().map_err(|error| format!("a process ended: {error}"))?;
        let now = sim.elapsed();
        let Some(ready) = ready else {
            if u32::from(run.ready_gateways()) == GATEWAYS {
                run.note(now, "ready");
                run.set_stage(Stage::Working);
                ready = Some(now);
            } else if now > FOUNDING_MAX {
                return Err("no cluster was founded in time".to_owned());
            }
            continue;
        };
        for note in director.advance(sim, now - ready) {
            run.note(now, &note);
        }
        let calm = ready + director.quiet_at() + RECOVERY_MAX;
        if settling.is_none() && now > calm + CALM {
            run.note(now, "settling");
            run.set_stage(Stage::Settling);
            settling = Some(now);
        }
        if finished {
            return Ok(calm);
        }
        if settling.is_some_and(|settling| now > settling + SETTLING_MAX) {
            return Err("operations hang although all faults are over".to_owned());
        }
    }
}
