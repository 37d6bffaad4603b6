//! The load generator: closed-loop workers against one S3 endpoint.
//!
//! - `workload.rs`: what one operation of each workload sends.
//! - `runner.rs`: workers, progress, the end.
//! - `report.rs`: what was measured, as a table or JSON.
//!
//! Each worker sends its next request when the last one was answered, so latencies hide no queue of its own making, and
//! the throughput is what `concurrency` clients get. Bodies are random bytes, different for every object.

mod report;
mod runner;
mod workload;

pub use runner::{Keep, Plan, run};
pub use workload::Workload;
