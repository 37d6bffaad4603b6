//! A simulation in a process of its own, in which `same_random.c` takes the place of the operating system's randomness: then the
//! seed decides even what tokio decides.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use tests_faults::{Row, Tally};

use crate::scenario::Report;

/// What a simulation in another process told.
#[derive(Debug, Default)]
pub struct Told {
    /// It ended by itself, after telling everything.
    pub is_complete: bool,
    pub operations: u64,
    pub rows: Tally,
    pub broken: Vec<String>,
    pub undecided: Vec<String>,
    pub trace: Vec<String>,
}

impl Told {
    pub fn holds(&self) -> bool {
        self.is_complete && self.broken.is_empty() && self.undecided.is_empty()
    }
}

/// Prints a report for [`run`] to read. For the process that [`run`] starts.
pub fn tell(report: Report) {
    let Report { violations, failures, missing, rows, trace, history, .. } = report;
    let tell = |word: &str, text: &str| text.lines().for_each(|line| println!("{word} {line}"));
    trace.iter().for_each(|line| tell("trace", line));
    rows.iter().for_each(|(row, times)| tell("row", &format!("{} {times}", row.id())));
    failures.iter().for_each(|failure| tell("broken", failure));
    for violation in violations {
        tell(if violation.is_undecided() { "undecided" } else { "broken" }, &violation.to_string());
    }
    missing.iter().for_each(|missing| tell("undecided", missing));
    println!("operations {}", history.len());
    println!("end");
}

/// Runs `program` with these arguments, which must come to [`tell`].
///
/// # Errors
/// When it cannot be started.
pub fn run(program: &mut Command, library: &Path) -> std::io::Result<Told> {
    let output = program.env("LD_PRELOAD", library).output()?;
    let mut told = Told::default();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            "trace" => told.trace.push(rest.to_owned()),
            "broken" => told.broken.push(rest.to_owned()),
            "undecided" => told.undecided.push(rest.to_owned()),
            "operations" => told.operations = rest.parse().unwrap_or(0),
            "row" => {
                let (id, times) = rest.split_once(' ').unwrap_or((rest, "0"));
                let row = Row::parse(id).unwrap_or_else(|| panic!("no row {id}"));
                told.rows.add(row, times.parse().unwrap_or(0));
            }
            "end" => told.is_complete = output.status.success(),
            _ => {}
        }
    }
    if !told.is_complete {
        let complaint = String::from_utf8_lossy(&output.stderr);
        told.broken.push(format!("the simulation ended with {}:\n{complaint}", output.status));
    }
    Ok(told)
}

/// Says to the test [`CHILD_TEST`] of a test program what to simulate.
pub const CHILD: &str = "SIM_CHILD";
const CHILD_TEST: &str = "the_simulation_itself";

/// Starts the test program that runs once more, for its test [`CHILD_TEST`] to simulate `what` by the rules of [`tell`], and
/// returns the trace. `dir` is for temporary files.
///
/// # Panics
/// When what was simulated does not hold.
pub fn run_test(what: &str, dir: &Path) -> Vec<String> {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    let library = LIBRARY.get_or_init(|| same_random(dir));
    println!("simulates {what}");
    let mut program = Command::new(env::current_exe().expect("a test is a program"));
    program.args(["--exact", CHILD_TEST, "--nocapture"]).env(CHILD, what);
    let told = run(&mut program, library).expect("a test can start itself");
    if !told.holds() {
        told.trace.iter().for_each(|line| println!("  {line}"));
        let problems = [told.broken.join("\n"), told.undecided.join("\n")];
        panic!("{what} fails; repeat it with SIM_SEED or SIM_CASE=\"{what}\"\n{}", problems.join("\n"));
    }
    told.trace
}

/// Compiles the library that makes every process's randomness the same.
///
/// # Panics
/// When there is no C compiler, without which RocksDB could not have been built either.
pub fn same_random(dir: &Path) -> PathBuf {
    let library = dir.join(format!("same_random-{}.so", std::process::id()));
    let source = dir.join(format!("same_random-{}.c", std::process::id()));
    std::fs::write(&source, include_str!("same_random.c")).expect("a directory for temporary files can be written to");
    let compiled = Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(&source).status();
    assert!(compiled.is_ok_and(|status| status.success()), "{} does not compile", source.display());
    library
}
