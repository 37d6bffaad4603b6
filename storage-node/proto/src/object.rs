//! What metadata groups store about objects. Every type has one byte form (`format.rs`), in log entries, in the state and on
//! the wire alike.
//!
//! A version's record is small and holds no data, so that listings stay fast: the bytes of an inline object, and the chunk
//! lists of a large one, are *data records* filed under the transaction that wrote them. A plain PUT has one, a multipart
//! object one per part; completing an upload only names them.

use bytes::Bytes;
use placement_types::{ByteRange, ChunkId, DiskId, Profile, STRIPE_BYTES, Timestamp, TxnId, UploadId};

/// A version as its owner names it.
///
/// The text form on the S3 side is `null`, or the 32 hexadecimal digits of `sequence` and `salt`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum VersionId {
    Null,
    /// `sequence` orders the versions of a key (greater is newer, strictly increasing within a metadata group); `salt` (the
    /// upper half of the transaction id) makes the id unguessable.
    Id {
        sequence: u64,
        salt: u64,
    },
}

/// Which version of a key is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VersionSelector {
    Current,
    Exact(VersionId),
}

/// A bucket's versioning setting, as it was when the request was admitted; it travels with every write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Versioning {
    #[default]
    Unversioned,
    Enabled,
    Suspended,
}

/// One version of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    pub id: VersionId,
    /// The transaction that wrote it.
    pub txn: TxnId,
    pub modified: Timestamp,
    pub body: VersionBody,
}

// Nearly every version is an object: a box would cost an allocation each to save room in the few delete markers.
#[allow(clippy::large_enum_variant)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VersionBody {
    DeleteMarker,
    Object(ObjectRecord),
}

/// Everything about an object but its bytes.
///
/// # Invariants
/// The sizes of `data` add up to `bytes`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectRecord {
    pub bytes: u64,
    /// Without quotes: 32 hexadecimal digits, or those and `-N` for N parts.
    pub etag: String,
    pub attributes: ObjectAttributes,
    pub checksum: Option<Checksum>,
    /// In order; empty for an object of zero bytes.
    pub data: Vec<DataRef>,
    /// Empty unless it was a multipart upload; then one per entry of `data`.
    pub parts: Vec<PartSummary>,
}

/// What the client says about an object at PUT or CreateMultipartUpload, and gets back at GET.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ObjectAttributes {
    /// System headers as sent (`content-type`, `cache-control`, `content-disposition`, `content-encoding`,
    /// `content-language`, `expires`, `x-amz-website-redirect-location`), names lower-case.
    pub headers: Vec<(String, String)>,
    /// User metadata, names lower-case and without `x-amz-meta-`.
    pub metadata: Vec<(String, String)>,
    pub tags: Vec<(String, String)>,
    pub storage_class: String,
}

/// Names one data record and what of the object it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DataRef {
    /// The transaction that wrote the data.
    pub txn: TxnId,
    pub bytes: u64,
}

/// A part of a completed multipart upload, for `?partNumber` and GetObjectAttributes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartSummary {
    pub number: u16,
    pub bytes: u64,
    pub checksum: Option<Checksum>,
}

/// The bytes of one PUT body or part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Data {
    /// At most [`placement_types::INLINE_BYTES_MAX`] bytes.
    Inline(Bytes),
    Chunks(Vec<ChunkEntry>),
}

impl Data {
    pub fn bytes(&self) -> u64 {
        match self {
            Data::Inline(bytes) => bytes.len() as u64,
            Data::Chunks(chunks) => chunks.iter().map(|chunk| u64::from(chunk.bytes)).sum(),
        }
    }
}

/// A manifest entry: which disks really hold the shards of a chunk. It, not the ring, is the truth.
///
/// # Invariants
/// `shards.len() == profile.width()`, no disk twice, at least `profile.write_quorum()` present when it is committed (I2);
/// `0 < bytes <= CHUNK_BYTES_MAX`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChunkEntry {
    pub chunk: ChunkId,
    pub bytes: u32,
    pub profile: Profile,
    /// BLAKE3 of the chunk's bytes.
    pub hash: [u8; 32],
    /// By slot; `None` where no disk acknowledged the shard and repair still owes it.
    pub shards: Vec<Option<DiskId>>,
}

impl ChunkEntry {
    /// All its bytes.
    pub fn whole(&self) -> ByteRange {
        ByteRange::new(0, u64::from(self.bytes)).expect("zero is the smallest start")
    }

    /// The bytes of one shard's units.
    pub fn shard_bytes(&self) -> u64 {
        self.shard_bytes_in(self.profile)
    }

    /// What one shard would have if the chunk were coded like this.
    pub fn shard_bytes_in(&self, profile: Profile) -> u64 {
        let bytes = u64::from(self.bytes);
        bytes / STRIPE_BYTES * profile.unit_bytes(STRIPE_BYTES) + profile.unit_bytes(bytes % STRIPE_BYTES)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ChecksumAlgorithm {
    Crc32,
    Crc32c,
    Crc64Nvme,
    Sha1,
    Sha256,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChecksumKind {
    FullObject,
    /// Checksum of the parts' checksums.
    Composite,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checksum {
    pub algorithm: ChecksumAlgorithm,
    pub kind: ChecksumKind,
    /// The digest's bytes, big-endian.
    pub value: Bytes,
}

/// A multipart upload in progress.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upload {
    pub id: UploadId,
    pub initiated: Timestamp,
    pub attributes: ObjectAttributes,
    /// The checksum the client announced at Create, if any.
    pub checksum: Option<(ChecksumAlgorithm, ChecksumKind)>,
}

/// An uploaded part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    pub number: u16,
    pub data: DataRef,
    pub modified: Timestamp,
    /// MD5 of the part's bytes.
    pub md5: [u8; 16],
    pub checksum: Option<Checksum>,
}
