//! The matrix of crashes: a process dies at every point of every operation, and everything holds.
//!
//! Each [`Chapter`] is a cluster of four nodes that goes through cases one after the other. There are two gateways: one may die
//! like any node, and what is to die is asked of it; the other one belongs to the tester, who prepares a case, waits until
//! somebody died where the case says, until everybody is up again, and looks (`tester.rs`). A case of which a death does not
//! happen fails. At the end nothing is left to repair, and the disks hold exactly what the metadata names (`audit.rs`).
//!
//! What it needs time for is shortened: the graces of gc and of the orphan scrub are seconds here.

mod rows;
mod tester;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use parking_lot::Mutex;
use storage_node::Limits;
use tests_faults::{Tally, check};
use turmoil::Sim;

use self::rows::row_of;
use self::tester::Tester;
use crate::crash_points::CrashPoints;
use crate::dice::{Dice, derive};
use crate::machine::{Machine, Plant};
use crate::panics;
use crate::process::{ClusterPlan, Part, node_name, run_node, start_gateway};
use crate::requests::Requests;
use crate::scenario::Report;
use crate::workload::Run;

pub use self::rows::{CHAPTERS, Chapter};

const NODES: usize = 4;
const DOOMED: &str = "gateway1";

/// Simulated time for one chapter.
const CHAPTER_MAX: Duration = Duration::from_secs(1800);

/// What one gateway is asked to do: it runs there, and dies with it.
type Job = Box<dyn FnOnce(Requests) -> BoxFuture<'static, ()> + Send>;

/// What tester, processes and harness share.
struct Stage {
    run: Arc<Run>,
    points: Arc<CrashPoints>,
    nodes: Vec<Arc<Machine>>,
    doomed: Arc<Machine>,
    jobs: Mutex<VecDeque<Job>>,
    /// Nodes that are to come back.
    returning: Mutex<Vec<String>>,
    /// What was to happen and did not.
    missing: Mutex<Vec<String>>,
    /// What must not happen and did, beside what the history tells.
    failures: Mutex<Vec<String>>,
    rows: Mutex<Tally>,
}

/// The graces of production are minutes and hours.
fn limits() -> Limits {
    Limits {
        gc_grace: Duration::from_secs(4),
        gc_interval: Duration::from_secs(2),
        orphan_lease: Duration::from_secs(15),
        orphan_interval: Duration::from_secs(4),
        orphan_full_interval: Duration::from_secs(12),
        repair_interval: Duration::from_secs(2),
        survey_rest: Duration::from_secs(5),
        target_rest: Duration::from_secs(8),
        ..Limits::default()
    }
}

/// Goes through a chapter. Never panics for what the cluster does: see [`Report::assert_holds`].
pub fn simulate_chapter(chapter: &'static Chapter, seed: u64) -> Report {
    panics::watch();
    let plan = ClusterPlan::new(NODES, (chapter.profile)(), limits());
    let mut sim = turmoil::Builder::new()
        .rng_seed(derive(seed, 2))
        .simulation_duration(CHAPTER_MAX.saturating_mul(2))
        .tick_duration(Duration::from_millis(1))
        .min_message_latency(Duration::from_micros(200))
        .max_message_latency(Duration::from_millis(3))
        .tcp_capacity(1 << 14)
        .build();
    let machine = |name: String, purpose| Machine::new(name, derive(seed, purpose), Plant::Nothing);
    let stage = Arc::new(Stage {
        run: Run::new(seed),
        points: Arc::default(),
        nodes: (0..NODES).map(|node| machine(node_name(node), 100 + node as u64)).collect(),
        doomed: machine(DOOMED.to_owned(), 201),
        jobs: Mutex::default(),
        returning: Mutex::default(),
        missing: Mutex::default(),
        failures: Mutex::default(),
        rows: Mutex::default(),
    });
    stage.run.note(Duration::ZERO, &format!("chapter {}, profile {}", chapter.name, plan.profile));
    for node in &stage.nodes {
        stage.points.watch(node);
        let (machine, plan) = (node.clone(), plan.clone());
        sim.host(node.name.clone(), move || run_node(machine.clone(), plan.clone(), Part::Founds));
    }
    stage.points.watch(&stage.doomed);
    {
        let (stage, plan) = (stage.clone(), plan.clone());
        sim.host(DOOMED, move || serve_jobs(stage.clone(), plan.clone()));
    }
    {
        let (stage, own) = (stage.clone(), machine("gateway0".to_owned(), 200));
        sim.client("gateway0", async move {
            let running = start_gateway(&own, &plan).await;
            Tester::new(stage, running, seed).play(chapter).await;
            Ok(())
        });
    }
    let mut failures = Vec::new();
    if let Err(why) = drive(&mut sim, &stage, &Dice::new(seed, 0xfa)) {
        failures.push(why);
    }
    failures.append(&mut stage.failures.lock());
    failures.extend(panics::seen().into_iter().map(|panic| format!("K10 panic: {panic}")));
    let history = stage.run.history.lock().clone();
    let missing = stage.missing.lock().clone();
    let (trace, rows) = (stage.run.trace.lock().clone(), stage.rows.lock().clone());
    Report { seed, violations: check(&history, &[]), failures, missing, rows, trace, history }
}

/// The gateway that may die: does one job after the other.
async fn serve_jobs(stage: Arc<Stage>, plan: ClusterPlan) -> turmoil::Result {
    let running = start_gateway(&stage.doomed, &plan).await;
    stage.doomed.set_serving();
    let requests = Requests { env: running.env.clone(), gateway: running.gateway };
    loop {
        let job = stage.jobs.lock().pop_front();
        match job {
            Some(job) => job(requests.clone()).await,
            None => running.env.sleep(Duration::from_millis(5)).await,
        }
    }
}

/// Steps the simulation to its end: takes away whoever died, and brings them back.
fn drive(sim: &mut Sim<'_>, stage: &Stage, dice: &Dice) -> Result<(), String> {
    let mut returning: Vec<(Duration, String)> = Vec::new();
    loop {
        let finished = sim.step().map_err(|error| format!("a process ended: {error}"))?;
        let now = sim.elapsed();
        for (machine, at) in stage.points.take_dead() {
            sim.crash(machine.name.as_str());
            let lost = machine.lose_unsynced(dice);
            let place = at.map_or_else(String::new, |waypoint| format!(" at {waypoint}"));
            stage.run.note(now, &format!("{} died{place}, losing {lost} batches", machine.name));
            if machine.name == DOOMED {
                stage.jobs.lock().clear();
            }
            if let Some(waypoint) = at {
                row_of(waypoint).into_iter().for_each(|row| stage.rows.lock().hit(row));
                returning.push((now + dice.millis(200, 1500), machine.name.clone()));
            }
        }
        returning.extend(stage.returning.lock().drain(..).map(|name| (now, name)));
        let (due, later) = returning.into_iter().partition(|(at, _)| *at <= now);
        returning = later;
        for (_, name) in due {
            stage.run.note(now, &format!("{name} returns"));
            stage.nodes.iter().chain([&stage.doomed]).filter(|machine| machine.name == name).for_each(|m| m.mend_disk());
            sim.bounce(name.as_str());
        }
        if finished {
            return Ok(());
        }
        if now > CHAPTER_MAX {
            return Err("the chapter does not end".to_owned());
        }
    }
}
