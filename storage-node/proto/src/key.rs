//! Where a key lives: key -> index shard of its bucket -> slot -> (by the cluster map) metadata group.
//!
//! Both hashes are part of the on-disk format: they never change.

use placement_types::{BucketId, ObjectKey, SLOTS, Slot};

/// How many index shards a bucket may have: merging more costs a listing more than it spreads (measured 1.28x at 8).
pub const INDEX_SHARDS_MAX: u16 = 32;
pub const INDEX_SHARDS_DEFAULT: u16 = 8;

/// The index shard that holds everything about `key` in a bucket of `shards` index shards.
///
/// # Panics
/// When `shards` is 0: a bucket is created with at least one.
pub fn index_shard(key: &ObjectKey, shards: u16) -> u16 {
    let hash = blake3::hash(key.as_bytes());
    let (head, _) = hash.as_bytes().split_first_chunk::<8>().expect("a hash has 32 bytes");
    u16::try_from(u64::from_be_bytes(*head) % u64::from(shards)).expect("a remainder of a u16 is a u16")
}

/// The slot of a bucket's index shard. Consecutive index shards land on unrelated slots.
pub fn slot(bucket: BucketId, index_shard: u16) -> Slot {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&bucket.to_bytes());
    hasher.update(&index_shard.to_be_bytes());
    let hash = hasher.finalize();
    let (head, _) = hash.as_bytes().split_first_chunk::<8>().expect("a hash has 32 bytes");
    Slot(u16::try_from(u64::from_be_bytes(*head) % u64::from(SLOTS)).expect("SLOTS fits a u16"))
}
