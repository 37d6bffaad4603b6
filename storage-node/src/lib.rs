//! Chunk coordinator, shard service, metadata service, garbage collection.
