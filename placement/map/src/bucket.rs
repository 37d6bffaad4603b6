//! Buckets, as the system group keeps them.

use placement_types::{BucketId, BucketName, Timestamp};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bucket {
    pub name: BucketName,
    pub id: BucketId,
    pub created: Timestamp,
    /// Fixed at creation.
    pub index_shards: u16,
    pub region: String,
    /// Canonical id of the account that created it.
    pub owner: String,
    pub versioning: BucketVersioning,
    pub state: BucketState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BucketVersioning {
    #[default]
    Unversioned,
    Enabled,
    Suspended,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BucketState {
    Active,
    /// DeleteBucket is fencing its shelves; it will end as gone or as Active again.
    Deleting,
}
