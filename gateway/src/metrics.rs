//! The metrics of the gateway; their names are here and nowhere else.

use std::time::Duration;

use metrics::{counter, histogram};

/// An S3 operation ended; `status` is the HTTP status its outcome maps to.
pub fn operation_ended(operation: &'static str, status: u16, took: Duration) {
    counter!("dozo_s3_operations_total", "operation" => operation, "status" => status.to_string()).increment(1);
    histogram!("dozo_s3_operation_seconds", "operation" => operation).record(took.as_secs_f64());
}

/// Body bytes taken from clients and stored, or read for copies and stored again.
pub fn bytes_stored(bytes: u64) {
    counter!("dozo_s3_stored_bytes_total").increment(bytes);
}

/// Body bytes opened for clients.
pub fn bytes_served(bytes: u64) {
    counter!("dozo_s3_served_bytes_total").increment(bytes);
}
