//! `make soak SECONDS=n`: faults for as long as is asked, against simulated and real clusters in turn.
//!
//! - `simulation.rs`: schedules of fresh seeds, each in a process of its own (`tests/sim`).
//! - `episode.rs`: the life of one cluster of real processes: rounds of faults (`faults.rs`, `cause.rs`) under load (`clients.rs`,
//!   `s3.rs`), each followed by reading everything back; then repair has to come to an end, and the history is judged (`tests/faults`).
//! - `fleet.rs`: the processes. Each has a disk that can lose its power (`images.rs`) and a network that can be cut
//!   (`network.rs`), when this process may make namespaces (`isolation.rs`); `tracer.rs` makes system calls fail, lie and hang,
//!   `clock.rs` lets a process live at another time.
//! - `report.rs`: what was shown, row by row of the catalogue, and the last line.
//!
//! Everything ends with this process, however that ends: the kernel takes namespaces, mounts and processes down with it.
#![allow(clippy::disallowed_methods)]

mod cause;
mod clients;
mod clock;
mod command;
mod config;
mod episode;
mod faults;
mod fleet;
mod images;
mod isolation;
mod network;
mod report;
mod s3;
mod simulation;
mod tracer;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Parser as _;
use tests_sim::{CHAPTERS, Chapter, Dice, simulate as simulate_schedule, simulate_chapter};

use crate::config::{Command, Config, Part};
use crate::episode::Means;
use crate::faults::Fault;
use crate::isolation::Surroundings;
use crate::report::{Finding, Report};
use crate::simulation::Simulator;

/// One in so many simulations is a chapter of the matrix of crashes, each chapter in its turn.
const CHAPTER_EVERY: u64 = 3;

/// How long to simulate before the next cluster of processes.
const SIMULATE_FOR: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    let config = Config::parse();
    if let Some(Command::Simulate { seed, chapter }) = &config.command {
        let chapter = chapter.as_ref().map(|name| Chapter::named(name).expect("a chapter of the matrix"));
        tests_sim::child::tell(chapter.map_or_else(|| simulate_schedule(*seed), |chapter| simulate_chapter(chapter, *seed)));
        return ExitCode::SUCCESS;
    }
    if config.only != Some(Part::Sim)
        && let Some(ended) = isolation::enter()
    {
        return ended;
    }
    match soak(&config) {
        Ok(report) => {
            println!("{report}");
            if report.holds() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("soak: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn soak(config: &Config) -> anyhow::Result<Report> {
    let began = Instant::now();
    let time = Duration::from_secs(config.seconds);
    let seed = config.seed.unwrap_or_else(|| placement_env::system().random_u64());
    println!("soak: seed {seed}, {} s", config.seconds);
    let dir = tempfile::tempdir()?;
    let simulator = Simulator::new(dir.path())?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let mut report = Report::default();
    let means = if config.only == Some(Part::Sim) { None } else { Some(means(dir.path(), &mut report)) };
    let chosen = parse_faults(&config.faults)?;
    let dice = Dice::new(seed, 0);
    let mut bag = Bag { faults: Vec::new() };
    for turn in 0.. {
        if turn > 0 && began.elapsed() >= time {
            break;
        }
        if config.only != Some(Part::Real) {
            simulate(&simulator, &dice, began + time, &mut report)?;
        }
        if turn > 0 && began.elapsed() >= time {
            break;
        }
        if let Some(means) = means {
            let seed = if turn == 0 && config.seed.is_some() { seed } else { dice.range(0, u64::MAX) };
            let faults =
                if chosen.is_empty() { bag.draw(config.rounds, means, &dice) } else { possible(&chosen, means, &mut report) };
            run_cluster(&faults, means, seed, &runtime, config, &mut report);
        }
    }
    Ok(report)
}

/// Schedules of fresh seeds, for a minute or until the end.
fn simulate(simulator: &Simulator, dice: &Dice, end: Instant, report: &mut Report) -> anyhow::Result<()> {
    let began = Instant::now();
    while began.elapsed() < SIMULATE_FOR && (Instant::now() < end || report.simulated == 0) {
        let seed = dice.range(0, u64::MAX);
        let turn = report.simulated / CHAPTER_EVERY;
        let chapter = (report.simulated % CHAPTER_EVERY == CHAPTER_EVERY - 1)
            .then(|| &CHAPTERS[usize::try_from(turn).unwrap_or(0) % CHAPTERS.len()]);
        let told = simulator.run(seed, chapter)?;
        report.simulated += 1;
        report.operations += told.operations;
        report.rows.merge(&told.rows);
        let (name, reproduce) = match chapter {
            None => {
                (format!("seed {seed}"), format!("SIM_SEED={seed} cargo test --workspace --test seeds chosen -- --nocapture"))
            }
            Some(Chapter { name, .. }) => (
                format!("{name} with seed {seed}"),
                format!("SIM_CASE=\"{name} {seed}\" cargo test --workspace --test matrix chosen -- --nocapture"),
            ),
        };
        let finding =
            |what: &Vec<String>| Finding { what: format!("{name}: {}", what.join("\n  ")), reproduce: reproduce.clone() };
        println!("simulated {name}: {} operations{}", told.operations, if told.holds() { "" } else { ", FAILED" });
        if !told.broken.is_empty() {
            report.violations.push(finding(&told.broken));
        }
        if !told.undecided.is_empty() {
            report.unknown.push(finding(&told.undecided));
        }
    }
    Ok(())
}

fn run_cluster(
    faults: &[Fault],
    means: Means,
    seed: u64,
    runtime: &tokio::runtime::Runtime,
    config: &Config,
    report: &mut Report,
) {
    let names: Vec<String> = faults.iter().map(|fault| format!("{fault:?}")).collect();
    println!("cluster with seed {seed}: {}", names.join(","));
    let outcome = episode::run_cluster(faults, means, seed, runtime, &config.keep);
    report.clusters += 1;
    report.rounds += outcome.rounds;
    report.operations += outcome.operations;
    report.rows.merge(&outcome.rows);
    let reproduce = format!("target/debug/soak --seconds 1 --only real --seed {seed} --faults {}", names.join(","));
    let finding = |what: String| Finding { what, reproduce: reproduce.clone() };
    for violation in &outcome.violations {
        println!("  VIOLATION {violation}");
    }
    report.violations.extend(outcome.violations.into_iter().map(finding));
    report.unknown.extend(outcome.unknown.into_iter().map(finding));
}

/// What this machine lets us do. What it does not is said aloud.
fn means(dir: &std::path::Path, report: &mut Report) -> Means {
    let mut skip = |what: &str, why: &anyhow::Error| {
        let skipped = format!("{what}: {why:#}");
        println!("soak: SKIPPED {skipped}");
        report.skipped.push(skipped);
    };
    let clocks = clock::library();
    if let Err(why) = &clocks {
        skip("wrong clocks", why);
    }
    if isolation::surroundings() == Surroundings::Shared {
        let why = anyhow::anyhow!("this process may not make namespaces");
        skip("partitions, packet loss, power cuts, full disks and lying disks", &why);
        return Means { network: false, images: false, clocks: clocks.is_ok() };
    }
    let network = network::make_bridge().context("no bridge");
    let images = images::probe(dir).context("no loop mounts");
    if let Err(why) = &network {
        skip("partitions and packet loss", why);
    }
    if let Err(why) = &images {
        skip("power cuts, full disks and lying disks", why);
    }
    Means { network: network.is_ok(), images: images.is_ok(), clocks: clocks.is_ok() }
}

fn parse_faults(names: &[String]) -> anyhow::Result<Vec<Fault>> {
    let parse = |name: &String| {
        let found = Fault::ALL.iter().find(|fault| format!("{fault:?}") == *name);
        found.copied().with_context(|| format!("there is no fault {name}; there are {:?}", Fault::ALL))
    };
    names.iter().map(parse).collect()
}

/// Those of the faults that were asked for that can be had here. The others are said aloud.
fn possible(chosen: &[Fault], means: Means, report: &mut Report) -> Vec<Fault> {
    let (possible, not): (Vec<Fault>, Vec<Fault>) = chosen.iter().partition(|fault| fault.is_possible(means));
    if !not.is_empty() {
        let skipped = format!("{not:?}: not possible here");
        println!("soak: SKIPPED {skipped}");
        report.skipped.push(skipped);
    }
    possible
}

/// All faults in some order, then all again: after a while each had its turn.
struct Bag {
    faults: Vec<Fault>,
}

impl Bag {
    /// The next ones that are possible here; of those that take a further disk only one of each.
    fn draw(&mut self, count: usize, means: Means, dice: &Dice) -> Vec<Fault> {
        let mut drawn: Vec<Fault> = Vec::new();
        let mut later = Vec::new();
        while drawn.len() < count {
            if self.faults.is_empty() {
                self.faults = Fault::ALL.iter().copied().filter(|fault| fault.is_possible(means)).collect();
                for last in (1..self.faults.len()).rev() {
                    self.faults.swap(last, dice.range(0, last as u64 + 1) as usize);
                }
            }
            let Some(fault) = self.faults.pop() else { break };
            if fault.needs_disk() && drawn.contains(&fault) { later.push(fault) } else { drawn.push(fault) }
        }
        self.faults.extend(later);
        drawn
    }
}
