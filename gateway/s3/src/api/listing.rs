//! Requests and replies of the listings.
//!
//! One rule covers markers, start-after, continuation tokens and pages that end on a common prefix: keys and common prefixes
//! form **one** sequence in unsigned byte order, and a page holds those that sort strictly after `after`. So a page that
//! ended on `boo/` continues with what is greater than `boo/` *as an entry*, and nothing folded into `boo/` comes again.

use placement_types::{BucketName, ObjectKey, Timestamp, UploadId};

use super::Owner;
use crate::checksum::{ChecksumAlgorithm, ChecksumType};

/// ListObjects and ListObjectsV2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListObjects {
    pub bucket: BucketName,
    /// Any text, also one no key can have.
    pub prefix: String,
    /// Never empty.
    pub delimiter: Option<String>,
    /// Only entries that sort strictly after this text. Need not be an existing key, nor in `prefix`.
    pub after: Option<String>,
    /// 0 to 1000. For 0 only authorisation and the bucket's existence are to be checked.
    pub max_keys: u16,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedObject {
    pub key: ObjectKey,
    pub size: u64,
    /// Without quotes.
    pub etag: String,
    pub last_modified: Timestamp,
    pub storage_class: String,
    pub checksum: Option<(ChecksumAlgorithm, ChecksumType)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListEntry {
    Object(ListedObject),
    /// A common prefix, up to and including the delimiter.
    Prefix(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListObjectsReply {
    /// At most `max_keys`, in byte order of key or prefix.
    pub entries: Vec<ListEntry>,
    /// Set exactly when more entries follow: the key or prefix to pass as `after` for the next page. With entries in this
    /// page it is the last of them.
    pub next: Option<String>,
    /// Who owns the bucket's objects.
    pub owner: Owner,
}

/// Where a listing of uploads continues.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadMarker {
    pub key: String,
    /// `None`: strictly after the key. `Some`: after this upload of the key, then on.
    pub upload: Option<UploadId>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListMultipartUploads {
    pub bucket: BucketName,
    pub prefix: String,
    /// Never empty.
    pub delimiter: Option<String>,
    pub after: Option<UploadMarker>,
    /// 0 to 1000.
    pub max_uploads: u16,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedUpload {
    pub key: ObjectKey,
    pub upload: UploadId,
    pub initiated: Timestamp,
    pub storage_class: String,
    pub checksum: Option<(ChecksumAlgorithm, ChecksumType)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UploadsEntry {
    Upload(ListedUpload),
    Prefix(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListMultipartUploadsReply {
    /// At most `max_uploads`, by key or prefix, then by initiation time.
    pub entries: Vec<UploadsEntry>,
    /// Set exactly when more follow.
    pub next: Option<UploadMarker>,
    pub owner: Owner,
}
