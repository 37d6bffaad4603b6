//! How the processes of a cluster reach each other: clients by address, nodes by id, Raft messages by replica.

mod directory;
mod late_placement;
mod peers;
mod raft_transport;

pub use directory::Directory;
pub use late_placement::{LatePlacement, meeting_connect, placement_connect};
pub use peers::Peers;
pub use raft_transport::RaftTransport;
