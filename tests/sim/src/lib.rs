//! The cluster in one process, with seeded faults.
