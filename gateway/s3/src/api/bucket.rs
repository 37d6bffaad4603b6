//! Requests and replies about buckets.

use placement_types::{BucketName, Timestamp};

use super::Owner;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListBuckets {
    pub prefix: String,
    /// Only buckets whose name sorts after this one.
    pub after: Option<String>,
    /// 1 to 10000.
    pub max_buckets: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedBucket {
    pub name: BucketName,
    pub created: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListBucketsReply {
    /// The caller, as an owner.
    pub owner: Owner,
    pub buckets: Vec<ListedBucket>,
    /// Whether there are more after the last one.
    pub truncated: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateBucket {
    pub bucket: BucketName,
    /// `LocationConstraint`, already checked against the configured region; `None` when the client named none.
    pub location: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BucketLocation {
    /// `us-east-1` is answered as an empty `LocationConstraint`.
    pub region: String,
}
