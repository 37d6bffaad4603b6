//! The source of CopyObject and UploadPartCopy: an object's bytes as a body to store.
//!
//! The same bytes are read, verified and written again as a new object of their own chunks (I3), so that no two objects ever
//! share a shard. MD5 and the checksum are computed anew on the way.

use bytes::Bytes;
use futures::StreamExt as _;
use gateway_s3::{Caller, ChecksumAlgorithm, ChecksumHasher, CopySource, EtagHasher, ObjectBody, S3Error, VerifiedUpload};
use placement_types::{ByteRange, Env};

use crate::authorize::{Denied, Resource, authorize};
use crate::conditions;
use crate::error::Failure;
use crate::gateway::Gateway;
use crate::object_reader::Pieces;
use crate::ops::get_object::read_action;
use crate::ops::{OpenedObject, StoredObject, open_object};
use crate::stripe_writer::BodySource;

/// Whether the caller may read the source; to be asked before anything else is done (A15).
pub fn authorize_source(caller: &Caller, source: &CopySource) -> Result<(), Denied> {
    authorize(caller, read_action(source.version_id.as_deref()), Resource::Object(&source.bucket, &source.key))
}

/// Finds the source, decides its conditions and opens the range that `choose` says, for it to be read as a body.
pub async fn open_source<T>(
    gw: &Gateway,
    source: &CopySource,
    choose: impl Fn(&StoredObject) -> Result<(T, ByteRange), Failure>,
) -> Result<OpenedObject<T>, Failure> {
    open_object(gw, &source.bucket, &source.key, source.version_id.as_deref(), Pieces::AsRead, |object| {
        conditions::check_copy_source(&object.head, &source.conditions)?;
        choose(object)
    })
    .await
}

/// Bytes read from one object, to be written to another.
pub struct CopyBody {
    env: Env,
    source: Option<ObjectBody>,
    bytes: u64,
    /// Taken while a piece is being hashed.
    hashers: Option<Hashers>,
    read: u64,
}

struct Hashers {
    md5: EtagHasher,
    checksum: ChecksumHasher,
}

impl CopyBody {
    /// The opened bytes, with a checksum of `algorithm` computed on the way.
    pub fn new<T>(gw: &Gateway, opened: OpenedObject<T>, algorithm: ChecksumAlgorithm) -> Self {
        let hashers = Some(Hashers { md5: EtagHasher::new(), checksum: ChecksumHasher::new(algorithm) });
        Self { env: gw.env.clone(), source: opened.body, bytes: opened.range.len(), hashers, read: 0 }
    }
}

impl BodySource for CopyBody {
    fn declared_bytes(&self) -> Option<u64> {
        Some(self.bytes)
    }

    async fn next(&mut self) -> Option<Result<Bytes, S3Error>> {
        let piece = match self.source.as_mut()?.next().await? {
            Ok(piece) => piece,
            Err(error) => return Some(Err(error)),
        };
        self.read += piece.len() as u64;
        // A megabyte of MD5 takes longer than the reactor should wait.
        let mut hashers = self.hashers.take().expect("hashed one piece at a time");
        let hashed = piece.clone();
        let work = move || {
            hashers.md5.update(&hashed);
            hashers.checksum.update(&hashed);
            hashers
        };
        let hashers =
            if piece.len() > gateway_s3::limits::HASH_INLINE_BYTES_MAX { self.env.run_blocking(work).await } else { work() };
        self.hashers = Some(hashers);
        Some(Ok(piece))
    }

    async fn finish(self) -> Result<VerifiedUpload, S3Error> {
        // The reader's stream never ends short without an error, so this holds by its promise.
        assert!(self.read == self.bytes, "the source gave all its bytes");
        let hashers = self.hashers.expect("no piece is being hashed");
        Ok(VerifiedUpload { bytes: self.read, md5: hashers.md5.finish(), checksum: hashers.checksum.finish() })
    }
}
