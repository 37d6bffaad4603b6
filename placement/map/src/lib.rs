//! Cluster map, ring builder and plans of change, as pure functions.
