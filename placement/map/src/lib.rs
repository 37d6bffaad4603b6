//! The cluster map and everything that is decided from it, as pure functions.
//!
//! - [`ClusterMap`]: nodes, disks, ring, metadata groups, slots; numbered by an epoch.
//! - [`bucket`]: the bucket records that the system group keeps beside the map.
//! - [`system`]: what the system group can be asked; [`apply`]: its state machine, command in, changes out; `founding`: the
//!   first map; [`state`]: all of it in memory.
//! - [`layout`]: what operators change, as a function from map to map.
//! - [`recovery`]: who goes on when majorities are gone for ever.
//! - [`voters`]: which nodes should hold the replicas of the metadata groups.
//! - [`assign`]: the sticky minimum-movement ring builder; [`topology`]: caps and fair shares; [`write_plan`]: where a new
//!   chunk goes; [`plan`]: what a change would move; [`profile`]: which k+m a topology can bear.

pub mod apply;
pub mod assign;
pub mod bucket;
mod cluster_map;
mod format;
mod founding;
pub mod layout;
pub mod limits;
mod mix;
pub mod plan;
pub mod profile;
pub mod recovery;
pub mod state;
pub mod system;
pub mod topology;
pub mod voters;
pub mod write_plan;

pub use cluster_map::{ClusterMap, ClusterSettings, Disk, DiskRole, DiskState, InvalidMap, Node, NodeState, Ring};
pub use founding::{spread_over_zones, system_voters};
