//! Multi-group Raft driver: log, transport, snapshots.
