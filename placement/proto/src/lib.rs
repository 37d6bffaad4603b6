//! Messages, error codes and client of the placement service: the face of the system group.
//!
//! - [`api`]: the trait, implemented by every storage node that holds a replica of the system group, and by the client that
//!   finds its leader.
//! - [`remote`] and [`serve`]: the gRPC client and server.
//! - [`tenure`]: whether this process still is its node.
//! - [`meeting`]: how the first nodes find each other and found the cluster, once.

pub mod api;
mod format;
pub mod limits;
pub mod meeting;
pub mod remote;
pub mod serve;
pub mod tenure;
mod wire;
