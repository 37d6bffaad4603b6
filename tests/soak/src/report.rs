//! What a soak has shown so far, and the line that says whether it held.

use std::fmt;

use tests_faults::Tally;

#[derive(Debug, Default)]
pub struct Report {
    pub simulated: u64,
    pub clusters: u64,
    pub rounds: u64,
    pub operations: u64,
    pub rows: Tally,
    pub violations: Vec<Finding>,
    pub unknown: Vec<Finding>,
    /// What could not be tried on this machine.
    pub skipped: Vec<String>,
}

/// What went wrong, and how to see it again.
#[derive(Debug)]
pub struct Finding {
    pub what: String,
    pub reproduce: String,
}

impl Report {
    pub fn holds(&self) -> bool {
        self.violations.is_empty() && self.unknown.is_empty()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "simulated schedules {}, clusters of processes {} with {} rounds",
            self.simulated, self.clusters, self.rounds
        )?;
        writeln!(f, "faults by row of the catalogue:")?;
        for (row, times) in self.rows.iter() {
            writeln!(f, "  {:>4} {times:>7}  {}", row.id(), row.fault())?;
        }
        for skipped in &self.skipped {
            writeln!(f, "SKIPPED {skipped}")?;
        }
        for (word, findings) in [("VIOLATION", &self.violations), ("UNKNOWN", &self.unknown)] {
            for Finding { what, reproduce } in findings {
                writeln!(f, "{word} {what}\n  repeat: {reproduce}")?;
            }
        }
        write!(
            f,
            "soak: schedules={} operations={} rows={} violations={} unknown={}",
            self.simulated + self.rounds,
            self.operations,
            self.rows.rows(),
            self.violations.len(),
            self.unknown.len()
        )
    }
}
