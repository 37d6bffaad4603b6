//! What a process can be: each role composes the crates below and runs until it is told to stop.
//!
//! - `server.rs`: everything in one process. `node.rs`: a storage node. `gateway.rs`: a stateless gateway.
//! - `storage.rs`: the storage side that server and node share; `network.rs`: its internal port; `front.rs`: the S3 and admin listeners.
//! - `data_dirs.rs`: the data directories of a node; `ballast.rs`: how it starts on a full one.

mod ballast;
mod data_dirs;
mod front;
mod gateway;
mod network;
mod node;
mod server;
mod storage;

pub use gateway::GatewayRole;
pub use node::NodeRole;
pub use server::ServerRole;
pub use storage::rocks;
