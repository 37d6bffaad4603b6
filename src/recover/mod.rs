//! `dozo admin recover`: the offline way out of a majority that is lost for ever.
//!
//! Three steps, all on stopped nodes: each node that is left is inspected into a report ([`StoppedNode::report`]), one plan is
//! made of all reports (`placement_map::recovery`, a pure function), and the plan is applied to each of these nodes
//! ([`StoppedNode::apply`]). The plan is one file, so that every node ends in the same new incarnation of the cluster; nodes that
//! it declares gone are refused by all others from then on (`placement_rpc::Lineage`).
//!
//! `file.rs`: reports and plans as files; `stopped.rs`: a stopped node.

mod file;
mod stopped;

pub use file::{read_plan, read_report, write_plan, write_report};
pub use stopped::{Applied, StoppedNode};
