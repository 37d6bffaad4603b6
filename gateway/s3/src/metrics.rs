//! The metrics of the S3 surface. Names live here and nowhere else.

use std::time::Duration;

use http::StatusCode;

/// One request was answered.
pub(crate) fn request(operation: &'static str, status: StatusCode, duration: Duration) {
    let class = match status.as_u16() / 100 {
        2 => "2xx",
        3 => "3xx",
        4 => "4xx",
        _ => "5xx",
    };
    metrics::counter!("dozo_s3_requests_total", "operation" => operation, "status" => class).increment(1);
    metrics::histogram!("dozo_s3_request_seconds", "operation" => operation).record(duration.as_secs_f64());
}

/// Requests being served now.
pub(crate) fn requests_in_flight(count: usize) {
    metrics::gauge!("dozo_s3_requests_in_flight").set(count as f64);
}

/// Connections open now.
pub(crate) fn connections(count: usize) {
    metrics::gauge!("dozo_s3_connections").set(count as f64);
}

/// A request was turned away because too many were being served.
pub(crate) fn overloaded() {
    metrics::counter!("dozo_s3_overloaded_total").increment(1);
}
