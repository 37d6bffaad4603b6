//! A small S3 client: what `dozo admin` and `dozo bench` send requests with.

mod http_client;

pub use http_client::{Endpoint, S3Client};
