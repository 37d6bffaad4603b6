//! Requests and replies about single objects.

use std::fmt;

use bytes::Bytes;
use futures::stream::BoxStream;
use http::HeaderMap;
use http::header::HeaderValue;
use placement_types::{BucketName, ByteRange, ObjectKey, Timestamp};

use super::multipart::PartNumber;
use crate::checksum::{Checksum, ChecksumAlgorithm};
use crate::conditions::{ReadConditions, WriteCondition};
use crate::error::{S3Error, S3ErrorCode};
use crate::range::RangeRequest;
use crate::upload_body::UploadBody;
use crate::write_headers::{ContentHeaders, Tags, UserMetadata, WriteHeaders};

/// What is known of an object besides its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectHead {
    /// Of the whole object.
    pub size: u64,
    /// Without quotes.
    pub etag: String,
    pub last_modified: Timestamp,
    pub content: ContentHeaders,
    pub metadata: UserMetadata,
    pub tag_count: u16,
    /// Sent as `x-amz-storage-class` unless it is `STANDARD`.
    pub storage_class: String,
    /// Of the whole object.
    pub checksum: Option<Checksum>,
    /// Set for a multipart object.
    pub part_count: Option<u16>,
    /// Set when the bucket has, or had, versioning.
    pub version_id: Option<String>,
}

impl S3Error {
    /// 304 with the headers RFC 9110 section 15.4.5 asks for.
    pub fn not_modified(head: &ObjectHead) -> Self {
        use http::header::{CACHE_CONTROL, ETAG, EXPIRES, HeaderName, LAST_MODIFIED};
        let mut headers = HeaderMap::new();
        let mut put = |name: HeaderName, value: Option<&str>| {
            if let Some(value) = value.and_then(|value| HeaderValue::from_bytes(value.as_bytes()).ok()) {
                headers.insert(name, value);
            }
        };
        put(ETAG, Some(&format!("\"{}\"", head.etag)));
        put(LAST_MODIFIED, Some(&crate::http_date::format(head.last_modified)));
        put(CACHE_CONTROL, head.content.cache_control.as_deref());
        put(EXPIRES, head.content.expires.as_deref());
        put(HeaderName::from_static("x-amz-version-id"), head.version_id.as_deref());
        Self { headers: Box::new(headers), ..Self::new(S3ErrorCode::NotModified) }
    }
}

/// PutObject.
#[derive(Debug)]
pub struct PutObject {
    pub bucket: BucketName,
    pub key: ObjectKey,
    pub headers: WriteHeaders,
    pub condition: WriteCondition,
    pub body: UploadBody,
}

/// The reply of PutObject, CopyObject and CompleteMultipartUpload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PutObjectReply {
    /// Without quotes.
    pub etag: String,
    pub last_modified: Timestamp,
    pub size: u64,
    pub checksum: Option<Checksum>,
    pub version_id: Option<String>,
}

/// Which of the object's bytes a GET or HEAD is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ObjectSelection {
    #[default]
    Whole,
    Range(RangeRequest),
    /// `?partNumber=N`: of a multipart object its N-th part in order; part 1 of any other object is all of it. Past the
    /// last: `InvalidPartNumber`.
    Part(PartNumber),
}

/// GetObject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GetObject {
    pub bucket: BucketName,
    pub key: ObjectKey,
    pub version_id: Option<String>,
    pub conditions: ReadConditions,
    pub selection: ObjectSelection,
}

/// HeadObject asks what GetObject asks.
pub type HeadObject = GetObject;

/// The part a reply serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServedPart {
    /// The object's part count; 1 for an object that was not uploaded in parts.
    pub count: u16,
    /// Of the part alone.
    pub checksum: Option<Checksum>,
}

/// HeadObject's reply, and all of GetObject's but the bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeadObjectReply {
    pub object: ObjectHead,
    /// `Some` answers 206 with `Content-Range`; `None` answers 200 with the whole object.
    pub range: Option<ByteRange>,
    /// Set when a part was asked for.
    pub part: Option<ServedPart>,
}

/// The bytes of a reply. An error, or an end before the promised length, breaks the connection so that the client notices.
pub type ObjectBody = BoxStream<'static, Result<Bytes, S3Error>>;

/// GetObject's reply.
pub struct GetObjectReply {
    pub head: HeadObjectReply,
    /// `None` when there are no bytes to send.
    pub body: Option<ObjectBody>,
}

impl fmt::Debug for GetObjectReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GetObjectReply").field("head", &self.head).finish_non_exhaustive()
    }
}

/// GetObjectAttributes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GetObjectAttributes {
    pub bucket: BucketName,
    pub key: ObjectKey,
    pub version_id: Option<String>,
    /// Parts after this number only; 0 for all.
    pub part_number_marker: u16,
    /// 0 to 1000.
    pub max_parts: u16,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttributesPart {
    pub number: PartNumber,
    pub size: u64,
    pub checksum: Option<Checksum>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectAttributes {
    pub object: ObjectHead,
    /// The requested page of a multipart object's parts; empty for others.
    pub parts: Vec<AttributesPart>,
    /// Whether more parts follow the page.
    pub parts_truncated: bool,
}

/// DeleteObject, and one entry of DeleteObjects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeleteObject {
    pub bucket: BucketName,
    pub key: ObjectKey,
    pub version_id: Option<String>,
    pub condition: WriteCondition,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DeleteObjectReply {
    /// The version deleted, or the delete marker made, in a versioned bucket.
    pub version_id: Option<String>,
    /// Whether `version_id` names a delete marker.
    pub delete_marker: bool,
}

/// DeleteObjects: 1 to 1000 entries, all in `bucket`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeleteObjects {
    pub bucket: BucketName,
    pub entries: Vec<DeleteObject>,
}

/// `x-amz-copy-source`, and the conditions on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopySource {
    pub bucket: BucketName,
    pub key: ObjectKey,
    pub version_id: Option<String>,
    /// 412 wherever [`copy_source_conditions_hold`](crate::copy_source_conditions_hold) is false.
    pub conditions: ReadConditions,
}

/// `x-amz-metadata-directive`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DirectiveHeaders {
    /// Take content headers and user metadata from the source.
    Copy,
    /// Take these, and nothing from the source.
    Replace { content: ContentHeaders, metadata: UserMetadata },
}

/// `x-amz-tagging-directive`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DirectiveTags {
    Copy,
    Replace(Tags),
}

/// CopyObject. A copy onto itself that changes nothing has not been refused yet: the implementor answers `InvalidRequest`
/// unless headers are replaced, the storage class changes, a source version is named, or the bucket is versioned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyObject {
    pub bucket: BucketName,
    pub key: ObjectKey,
    pub source: CopySource,
    pub headers: DirectiveHeaders,
    pub tags: DirectiveTags,
    pub storage_class: Option<String>,
    /// `Some`: compute this algorithm over the copy. `None`: keep the source's.
    pub checksum_algorithm: Option<ChecksumAlgorithm>,
    pub condition: WriteCondition,
}
