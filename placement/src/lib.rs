//! The placement service: who belongs to the cluster, who is alive, and every change of the cluster map.
//!
//! Its state is the system group (Raft group 0), replicated on up to three nodes; the decisions are pure functions of
//! `placement-map`. A node comes up in this order:
//!
//! 1. [`identity`]: the node's id and, once it has one, its place in a cluster, in one durable file.
//! 2. [`meeting`]: nodes without a cluster find each other and found one, exactly once.
//! 3. [`machine`]: the system group's state machine on consensus; [`service`]: its face; [`steward`]: what its leader does
//!    unasked, deciding with [`detector`].
//! 4. [`bootstrap`]: the founder makes the map, every node registers; [`reporter`]: heartbeats from then on.
//! 5. [`backup`]: every node keeps copies of the group's state; [`life`]: which incarnation of the cluster it belongs to.
//! 6. [`client`]: the system group from anywhere, whoever leads it; it also keeps a process's map fresh.

pub mod backup;
pub mod bootstrap;
pub mod client;
pub mod detector;
pub mod identity;
pub mod life;
pub mod limits;
pub mod machine;
pub mod meeting;
pub mod reporter;
mod rows;
mod sealed;
pub mod service;
pub mod steward;

pub use client::PlacementClient;
pub use identity::IdentityFile;
pub use machine::SystemMachine;
pub use meeting::Meeting;
pub use service::PlacementService;
