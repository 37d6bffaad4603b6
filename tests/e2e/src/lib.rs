//! Real processes under real clients: what starts, stops and feeds them.
//!
//! - `process.rs`: one `dozo` process, stopped by pid when dropped.
//! - `server.rs`: an embedded server on a directory of its own.
//! - `cluster.rs`: storage nodes and gateways on loopback, with a secret of their own.
//! - `compose.rs`: the compose cluster of `deploy/`, under a docker engine that `with-docker` finds or starts.
//! - `client.rs`: the aws cli, boto3 scripts, rclone, restic, s3cmd, raw HTTP.
//! - `acked.rs`: writers and racers, and what they were promised.
//! - `tree.rs`: directory trees to copy, and their comparison.
//!
//! Everything listens on loopback, on ports that the operating system chose.
#![allow(clippy::disallowed_methods)]

mod acked;
mod client;
mod cluster;
mod compose;
mod process;
mod server;
mod tree;

pub use acked::{Writer, Written, race_creators};
pub use client::{Client, RawReply, raw_http};
pub use cluster::Cluster;
pub use compose::{ComposeCluster, GATEWAYS, NODES};
pub use process::{Process, binary, free_port};
pub use server::Server;
pub use tree::{SyncedTree, TreeShape, digest_tree, make_tree};

pub const ACCESS_KEY: &str = "e2eoperator";
pub const SECRET_KEY: &str = "e2e-secret-key-0123456789";
