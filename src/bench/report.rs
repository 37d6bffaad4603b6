//! What a run measured.

use std::fmt;

use hdrhistogram::Histogram;
use serde::Serialize;

/// Figures of one run. Latencies are those of answered operations, in milliseconds.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    pub workload: String,
    pub endpoint: String,
    pub object_bytes: u64,
    pub concurrency: usize,
    pub seconds: f64,
    pub operations: u64,
    pub errors: u64,
    pub operations_per_second: f64,
    pub megabytes_per_second: f64,
    pub p50_ms: f64,
    pub p90_ms: f64,
    pub p99_ms: f64,
    pub max_ms: f64,
    /// The first error's text, if there was any.
    pub first_error: Option<String>,
}

/// What one worker, or all of them together, counted.
pub(super) struct Tally {
    /// Microseconds, three significant digits.
    pub latencies: Histogram<u64>,
    pub bytes: u64,
    pub errors: u64,
    pub first_error: Option<String>,
}

impl Tally {
    pub(super) fn new() -> Self {
        let latencies = Histogram::new(3).expect("three significant digits are legal");
        Self { latencies, bytes: 0, errors: 0, first_error: None }
    }

    pub(super) fn add(&mut self, other: Tally) {
        self.latencies.add(other.latencies).expect("both histograms grow by themselves");
        self.bytes += other.bytes;
        self.errors += other.errors;
        if self.first_error.is_none() {
            self.first_error = other.first_error;
        }
    }

    pub(super) fn into_report(
        self,
        workload: String,
        endpoint: String,
        object_bytes: u64,
        concurrency: usize,
        seconds: f64,
    ) -> Report {
        let operations = self.latencies.len();
        let at = |quantile: f64| self.latencies.value_at_quantile(quantile) as f64 / 1000.0;
        Report {
            workload,
            endpoint,
            object_bytes,
            concurrency,
            seconds,
            operations,
            errors: self.errors,
            operations_per_second: operations as f64 / seconds,
            megabytes_per_second: self.bytes as f64 / 1e6 / seconds,
            p50_ms: at(0.5),
            p90_ms: at(0.9),
            p99_ms: at(0.99),
            max_ms: self.latencies.max() as f64 / 1000.0,
            first_error: self.first_error,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} against {}, {} bytes, concurrency {}",
            self.workload, self.endpoint, self.object_bytes, self.concurrency
        )?;
        writeln!(
            f,
            "  {:>12.1} operations/s   {:>10.1} MB/s   over {:.1} s",
            self.operations_per_second, self.megabytes_per_second, self.seconds
        )?;
        writeln!(
            f,
            "  latency ms   p50 {:.2}   p90 {:.2}   p99 {:.2}   max {:.2}",
            self.p50_ms, self.p90_ms, self.p99_ms, self.max_ms
        )?;
        write!(f, "  {} operations, {} errors", self.operations, self.errors)?;
        if let Some(error) = &self.first_error {
            write!(f, "\n  first error: {error}")?;
        }
        Ok(())
    }
}
