//! Metadata records to and from what the S3 surface speaks.

use bytes::Bytes;
use gateway_s3::{
    Checksum, ChecksumAlgorithm, ChecksumType, ContentHeaders, ObjectHead, S3ErrorCode, Tags, UserMetadata, WriteHeaders,
};
use placement_map::bucket::{Bucket, BucketVersioning};
use placement_types::ObjectKey;
use storage_node_proto::command::Shelf;
use storage_node_proto::key::index_shard;
use storage_node_proto::object as stored;

use crate::error::Failure;
use crate::version_id;

/// The storage class of an object that names none.
pub const STANDARD: &str = "STANDARD";

/// Classes taken as labels: every one of them is stored with the cluster's profile and read at once. Those that Amazon S3
/// would have to restore first are refused rather than promised.
const STORAGE_CLASSES: [&str; 6] =
    [STANDARD, "REDUCED_REDUNDANCY", "STANDARD_IA", "ONEZONE_IA", "INTELLIGENT_TIERING", "GLACIER_IR"];

pub fn storage_class(named: Option<&str>) -> Result<String, Failure> {
    let class = named.unwrap_or(STANDARD);
    if STORAGE_CLASSES.contains(&class) { Ok(class.to_owned()) } else { Err(S3ErrorCode::InvalidStorageClass.into()) }
}

/// The index shard that holds everything about `key`.
pub fn shelf_of(bucket: &Bucket, key: &ObjectKey) -> Shelf {
    Shelf { bucket: bucket.id, index_shard: index_shard(key, bucket.index_shards) }
}

/// Every index shard of a bucket.
pub fn shelves(bucket: &Bucket) -> impl Iterator<Item = Shelf> + use<> {
    let bucket_id = bucket.id;
    (0..bucket.index_shards).map(move |index_shard| Shelf { bucket: bucket_id, index_shard })
}

pub fn versioning(bucket: &Bucket) -> stored::Versioning {
    match bucket.versioning {
        BucketVersioning::Unversioned => stored::Versioning::Unversioned,
        BucketVersioning::Enabled => stored::Versioning::Enabled,
        BucketVersioning::Suspended => stored::Versioning::Suspended,
    }
}

pub fn attributes(headers: &WriteHeaders) -> Result<stored::ObjectAttributes, Failure> {
    Ok(stored::ObjectAttributes {
        headers: content_pairs(&headers.content),
        metadata: headers.metadata.iter().map(|(name, value)| (name.clone(), value.clone())).collect(),
        tags: headers.tags.iter().map(|(name, value)| (name.clone(), value.clone())).collect(),
        storage_class: storage_class(headers.storage_class.as_deref())?,
    })
}

fn content_pairs(content: &ContentHeaders) -> Vec<(String, String)> {
    // Every field is named, so that a new one cannot be forgotten.
    let ContentHeaders {
        content_type,
        cache_control,
        content_disposition,
        content_encoding,
        content_language,
        expires,
        website_redirect_location,
    } = content;
    let fields = [
        ("content-type", content_type),
        ("cache-control", cache_control),
        ("content-disposition", content_disposition),
        ("content-encoding", content_encoding),
        ("content-language", content_language),
        ("expires", expires),
        ("x-amz-website-redirect-location", website_redirect_location),
    ];
    fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value.clone()?))).collect()
}

pub fn content_headers(attributes: &stored::ObjectAttributes) -> ContentHeaders {
    let find = |wanted: &str| attributes.headers.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.clone());
    ContentHeaders {
        content_type: find("content-type"),
        cache_control: find("cache-control"),
        content_disposition: find("content-disposition"),
        content_encoding: find("content-encoding"),
        content_language: find("content-language"),
        expires: find("expires"),
        website_redirect_location: find("x-amz-website-redirect-location"),
    }
}

pub fn user_metadata(attributes: &stored::ObjectAttributes) -> UserMetadata {
    attributes.metadata.iter().cloned().collect()
}

pub fn tags(attributes: &stored::ObjectAttributes) -> Tags {
    attributes.tags.iter().cloned().collect()
}

/// What a reply says of a version, its bytes apart.
pub fn head(bucket: &Bucket, version: &stored::Version, record: &stored::ObjectRecord) -> Result<ObjectHead, Failure> {
    let part_count = u16::try_from(record.parts.len()).unwrap_or(u16::MAX);
    let checksum = record.checksum.as_ref().map(|checksum| checksum_from(checksum, part_count)).transpose()?;
    Ok(ObjectHead {
        size: record.bytes,
        etag: record.etag.clone(),
        last_modified: version.modified,
        content: content_headers(&record.attributes),
        metadata: user_metadata(&record.attributes),
        tag_count: u16::try_from(record.attributes.tags.len()).unwrap_or(u16::MAX),
        storage_class: record.attributes.storage_class.clone(),
        checksum,
        part_count: (part_count > 0).then_some(part_count),
        version_id: (bucket.versioning != BucketVersioning::Unversioned).then(|| version_id::text(version.id)),
    })
}

pub fn algorithm_to(algorithm: ChecksumAlgorithm) -> stored::ChecksumAlgorithm {
    match algorithm {
        ChecksumAlgorithm::Crc32 => stored::ChecksumAlgorithm::Crc32,
        ChecksumAlgorithm::Crc32c => stored::ChecksumAlgorithm::Crc32c,
        ChecksumAlgorithm::Crc64Nvme => stored::ChecksumAlgorithm::Crc64Nvme,
        ChecksumAlgorithm::Sha1 => stored::ChecksumAlgorithm::Sha1,
        ChecksumAlgorithm::Sha256 => stored::ChecksumAlgorithm::Sha256,
    }
}

pub fn algorithm_from(algorithm: stored::ChecksumAlgorithm) -> ChecksumAlgorithm {
    match algorithm {
        stored::ChecksumAlgorithm::Crc32 => ChecksumAlgorithm::Crc32,
        stored::ChecksumAlgorithm::Crc32c => ChecksumAlgorithm::Crc32c,
        stored::ChecksumAlgorithm::Crc64Nvme => ChecksumAlgorithm::Crc64Nvme,
        stored::ChecksumAlgorithm::Sha1 => ChecksumAlgorithm::Sha1,
        stored::ChecksumAlgorithm::Sha256 => ChecksumAlgorithm::Sha256,
    }
}

pub fn type_to(checksum_type: ChecksumType) -> stored::ChecksumKind {
    match checksum_type {
        ChecksumType::FullObject => stored::ChecksumKind::FullObject,
        ChecksumType::Composite => stored::ChecksumKind::Composite,
    }
}

pub fn type_from(kind: stored::ChecksumKind) -> ChecksumType {
    match kind {
        stored::ChecksumKind::FullObject => ChecksumType::FullObject,
        stored::ChecksumKind::Composite => ChecksumType::Composite,
    }
}

pub fn announced_from(announced: (stored::ChecksumAlgorithm, stored::ChecksumKind)) -> (ChecksumAlgorithm, ChecksumType) {
    (algorithm_from(announced.0), type_from(announced.1))
}

pub fn checksum_to(checksum: &Checksum) -> stored::Checksum {
    stored::Checksum {
        algorithm: algorithm_to(checksum.algorithm()),
        kind: type_to(checksum.checksum_type()),
        value: Bytes::copy_from_slice(checksum.value()),
    }
}

/// A stored checksum; `parts` is how many parts a composite one covers.
pub fn checksum_from(checksum: &stored::Checksum, parts: u16) -> Result<Checksum, Failure> {
    let algorithm = algorithm_from(checksum.algorithm);
    let made = match checksum.kind {
        stored::ChecksumKind::FullObject => Checksum::new(algorithm, &checksum.value),
        stored::ChecksumKind::Composite => Checksum::composite(algorithm, &checksum.value, parts),
    };
    made.map_err(|_| Failure::UnfitAnswer { to: "version", answer: "a stored checksum that is none".into() })
}

/// A part's checksum, which never covers parts itself.
pub fn part_checksum_from(checksum: Option<&stored::Checksum>) -> Result<Option<Checksum>, Failure> {
    checksum.map(|checksum| checksum_from(checksum, 0)).transpose()
}
