//! Real processes under real clients: what starts, stops and feeds them.
//!
//! - `process.rs`: one `dozo` process, stopped by pid when dropped.
//! - `server.rs`: an embedded server on a directory of its own.
//! - `cluster.rs`: storage nodes and gateways on loopback, with a secret of their own.
//! - `client.rs`: the aws cli, boto3 scripts, rclone, restic, s3cmd, raw HTTP.
//! - `tree.rs`: directory trees to copy, and their comparison.
//!
//! Everything listens on loopback, on ports that the operating system chose.
#![allow(clippy::disallowed_methods)]

mod client;
mod cluster;
mod process;
mod server;
mod tree;

pub use client::{Client, RawReply, raw_http};
pub use cluster::Cluster;
pub use process::{Process, binary, free_port};
pub use server::Server;
pub use tree::{TreeShape, digest_tree, make_tree};

pub const ACCESS_KEY: &str = "e2eoperator";
pub const SECRET_KEY: &str = "e2e-secret-key-0123456789";
