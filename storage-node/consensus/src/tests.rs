//! The driver under a simulated network, disk and store: several nodes in one task set, on paused time, from a seed.

mod chaos;
mod cluster;
mod disk;
mod formats;
mod groups;
mod members;
mod offline;
mod quorum;
mod snapshots;
