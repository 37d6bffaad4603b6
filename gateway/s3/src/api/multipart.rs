//! Requests and replies about multipart uploads.

use std::fmt;

use md5::Digest as _;
use placement_types::{BucketName, ObjectKey, Timestamp, UploadId};

use super::Owner;
use super::object::CopySource;
use crate::checksum::{Checksum, ChecksumAlgorithm, ChecksumType};
use crate::conditions::WriteCondition;
use crate::error::{S3Error, S3ErrorCode};
use crate::upload_body::UploadBody;
use crate::write_headers::WriteHeaders;

/// A part's number, 1 to 10000.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartNumber(u16);

impl PartNumber {
    pub const MAX: u16 = 10_000;

    /// `InvalidArgument` outside 1 to 10000.
    pub fn new(number: i64) -> Result<Self, S3Error> {
        match u16::try_from(number) {
            Ok(number) if (1..=Self::MAX).contains(&number) => Ok(Self(number)),
            _ => Err(S3Error::with_message(
                S3ErrorCode::InvalidArgument,
                "Part number must be an integer between 1 and 10000, inclusive",
            )),
        }
    }

    pub fn get(self) -> u16 {
        self.0
    }
}

impl fmt::Display for PartNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// CreateMultipartUpload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateMultipartUpload {
    pub bucket: BucketName,
    pub key: ObjectKey,
    /// Taken now, applied at completion.
    pub headers: WriteHeaders,
    /// `None`: the client chose nothing, so parts carry and the object gets a full-object CRC64NVME.
    pub checksum: Option<(ChecksumAlgorithm, ChecksumType)>,
}

/// UploadPart. Before the body is read, pass the upload's algorithm to
/// [`UploadBody::require_checksum`](crate::UploadBody::require_checksum).
#[derive(Debug)]
pub struct UploadPart {
    pub bucket: BucketName,
    pub key: ObjectKey,
    pub upload: UploadId,
    pub number: PartNumber,
    pub body: UploadBody,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadPartReply {
    /// Without quotes.
    pub etag: String,
    pub checksum: Option<Checksum>,
}

/// UploadPartCopy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadPartCopy {
    pub bucket: BucketName,
    pub key: ObjectKey,
    pub upload: UploadId,
    pub number: PartNumber,
    pub source: CopySource,
    /// `bytes=first-last`, both inclusive; `InvalidRange` unless it lies wholly in the source.
    pub range: Option<(u64, u64)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadPartCopyReply {
    /// Without quotes.
    pub etag: String,
    pub last_modified: Timestamp,
    pub checksum: Option<Checksum>,
}

/// One part as CompleteMultipartUpload lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompletedPart {
    pub number: PartNumber,
    /// Without quotes. Unknown or different: `InvalidPart`.
    pub etag: String,
    /// Different from the stored one: `InvalidPart`.
    pub checksum: Option<Checksum>,
}

/// CompleteMultipartUpload: parts ascending, without duplicates, at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompleteMultipartUpload {
    pub bucket: BucketName,
    pub key: ObjectKey,
    pub upload: UploadId,
    pub parts: Vec<CompletedPart>,
    /// Of the whole object, full or composite; different from the computed one: `BadDigest`.
    pub checksum: Option<Checksum>,
    /// Different from the upload's: `InvalidRequest`.
    pub checksum_type: Option<ChecksumType>,
    /// `x-amz-mp-object-size`; different from the sum: `InvalidRequest`.
    pub object_size: Option<u64>,
    pub condition: WriteCondition,
}

/// AbortMultipartUpload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AbortMultipartUpload {
    pub bucket: BucketName,
    pub key: ObjectKey,
    pub upload: UploadId,
}

/// ListParts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListParts {
    pub bucket: BucketName,
    pub key: ObjectKey,
    pub upload: UploadId,
    /// Parts after this number only; 0 for all.
    pub part_number_marker: u16,
    /// 0 to 1000.
    pub max_parts: u16,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedPart {
    pub number: PartNumber,
    pub size: u64,
    /// Without quotes.
    pub etag: String,
    pub last_modified: Timestamp,
    pub checksum: Option<Checksum>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListPartsReply {
    /// At most `max_parts`, ascending.
    pub parts: Vec<ListedPart>,
    /// Whether more follow the last one.
    pub truncated: bool,
    pub owner: Owner,
    pub storage_class: String,
    pub checksum: Option<(ChecksumAlgorithm, ChecksumType)>,
}

/// The etag of a multipart object: MD5 over its parts' binary MD5s, and the number of parts.
pub fn multipart_etag<'a>(parts: impl IntoIterator<Item = &'a [u8; 16]>) -> String {
    let mut hasher = md5::Md5::new();
    let mut count = 0usize;
    for part in parts {
        hasher.update(part);
        count += 1;
    }
    format!("{}-{count}", hex::encode(hasher.finalize()))
}
