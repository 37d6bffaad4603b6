//! Ordered key-value store behind one trait: RocksDB, and a crash-aware in-memory double.
