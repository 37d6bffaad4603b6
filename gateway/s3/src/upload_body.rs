//! The body of PutObject and UploadPart, and the proof that it arrived as the client meant it.
//!
//! The wire layer below has removed chunk framing and verified chunk signatures. This one checks the rest: the declared
//! length, `Content-MD5`, `x-amz-checksum-*` as header or as trailer, and that an announced trailer really came. All of it
//! is decided in [`UploadBody::finish`], which is the only source of the MD5 and the checksum: who has no
//! [`VerifiedUpload`] cannot name an etag, so nothing unverified can be committed.
//!
//! Hashing runs beside the transfer: [`UploadBody::next`] hands a piece to its caller and to a blocking thread at once, and
//! waits only when hashing falls [`HASH_BACKLOG_BYTES_MAX`] behind. Pieces are gathered to [`PIECE_BYTES`], so that neither
//! the hand-over nor the caller's work is paid per network read.
//!
//! # Invariants
//! - After an error `next` yields nothing more, and `finish` repeats the error.
//! - `finish` is `Ok` only when the source ended properly and every expectation held.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future as _;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use futures::stream::{self, BoxStream};
use futures::{FutureExt as _, StreamExt as _};
use placement_types::{BoxFuture, Env};

use crate::checksum::{Checksum, ChecksumAlgorithm, ChecksumHasher};
use crate::error::{S3Error, S3ErrorCode};
use crate::etag_hasher::EtagHasher;
use crate::limits::{HASH_BACKLOG_BYTES_MAX, HASH_INLINE_BYTES_MAX, PIECE_BYTES};

/// The trailing headers after the body's end; `Err` when they were malformed. Called once, after the end.
pub(crate) type TrailerSource = Box<dyn FnOnce() -> Result<BTreeMap<String, String>, S3Error> + Send>;

/// Where the client's own checksum is.
pub(crate) enum DeclaredChecksum {
    Header(Checksum),
    /// Announced by `x-amz-trailer`.
    Trailer(ChecksumAlgorithm),
}

impl DeclaredChecksum {
    pub fn algorithm(&self) -> ChecksumAlgorithm {
        match self {
            Self::Header(checksum) => checksum.algorithm(),
            Self::Trailer(algorithm) => *algorithm,
        }
    }
}

/// What the client declared about the body.
#[derive(Default)]
pub(crate) struct UploadExpectation {
    /// Decoded length.
    pub bytes: Option<u64>,
    pub content_md5: Option<[u8; 16]>,
    pub checksum: Option<DeclaredChecksum>,
    pub trailers: Option<TrailerSource>,
}

/// What [`UploadBody::finish`] proves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedUpload {
    pub bytes: u64,
    pub md5: [u8; 16],
    /// Of the required algorithm when one was required, else of the client's, else CRC64NVME.
    pub checksum: Checksum,
}

impl VerifiedUpload {
    /// The etag of an object uploaded at once, without quotes.
    pub fn etag(&self) -> String {
        hex::encode(self.md5)
    }
}

/// A body to be read to its end, then finished.
pub struct UploadBody {
    source: BoxStream<'static, Result<Bytes, S3Error>>,
    expectation: UploadExpectation,
    hashing: Hashing,
    bytes: u64,
    state: State,
}

enum State {
    Reading,
    Ended,
    Failed(S3Error),
}

impl fmt::Debug for UploadBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UploadBody").field("bytes_read", &self.bytes).finish_non_exhaustive()
    }
}

impl UploadBody {
    pub(crate) fn new(env: Env, source: BoxStream<'static, Result<Bytes, S3Error>>, expectation: UploadExpectation) -> Self {
        let declared = expectation.checksum.as_ref().map(DeclaredChecksum::algorithm);
        let hashing = Hashing::new(env, declared);
        Self { source, expectation, hashing, bytes: 0, state: State::Reading }
    }

    /// A body from memory of which nothing is expected: for tests, and for writes the gateway makes itself.
    pub fn from_pieces(env: Env, pieces: Vec<Bytes>) -> Self {
        Self::new(env, stream::iter(pieces.into_iter().map(Ok)).boxed(), UploadExpectation::default())
    }

    /// The length the client declared. A body that turns out otherwise ends in `IncompleteBody`.
    pub fn declared_bytes(&self) -> Option<u64> {
        self.expectation.bytes
    }

    /// The algorithm of the checksum the client declared, if it did.
    pub fn declared_checksum(&self) -> Option<ChecksumAlgorithm> {
        self.hashing.declared
    }

    /// Demands that [`VerifiedUpload::checksum`] be of this algorithm, because the multipart upload is. To be called before
    /// the first [`UploadBody::next`]. A client that declared another one is refused with `InvalidRequest`, unless the upload's is
    /// only the default CRC64NVME; then both are computed and the client's is verified.
    pub fn require_checksum(&mut self, algorithm: ChecksumAlgorithm) -> Result<(), S3Error> {
        assert!(self.bytes == 0, "the checksum is required before the body is read");
        if let Some(declared) = self.hashing.declared
            && declared != algorithm
            && algorithm != ChecksumAlgorithm::Crc64Nvme
        {
            return Err(S3Error::with_message(
                S3ErrorCode::InvalidRequest,
                format!(
                    "Checksum Type mismatch occurred, expected checksum Type: {}, actual checksum Type: {}",
                    algorithm.name().to_ascii_lowercase(),
                    declared.name().to_ascii_lowercase()
                ),
            ));
        }
        self.hashing.require(algorithm);
        Ok(())
    }

    /// The next piece, about [`PIECE_BYTES`] long except the last; `None` at the end. The first call lets the client
    /// start sending (`100 Continue`).
    pub async fn next(&mut self) -> Option<Result<Bytes, S3Error>> {
        if !matches!(self.state, State::Reading) {
            return None;
        }
        match self.gather().await {
            Ok(piece) if piece.is_empty() => {
                self.state = State::Ended;
                None
            }
            Ok(piece) => {
                self.hashing.push(piece.clone()).await;
                Some(Ok(piece))
            }
            Err(error) => {
                self.state = State::Failed(error.clone());
                Some(Err(error))
            }
        }
    }

    /// Reads until a piece is full or the source ends; empty only at the end.
    async fn gather(&mut self) -> Result<Bytes, S3Error> {
        let mut gathered = BytesMut::new();
        while gathered.len() < PIECE_BYTES {
            let Some(read) = self.source.next().await.transpose()? else {
                return Ok(gathered.freeze());
            };
            self.bytes += read.len() as u64;
            if self.expectation.bytes.is_some_and(|declared| self.bytes > declared) {
                return Err(S3ErrorCode::IncompleteBody.into());
            }
            if gathered.is_empty() && read.len() >= PIECE_BYTES {
                return Ok(read);
            }
            if gathered.is_empty() {
                // A small declared body needs no full piece of memory.
                let expected =
                    self.expectation.bytes.map_or(PIECE_BYTES as u64, |declared| declared - self.bytes + read.len() as u64);
                gathered.reserve(usize::try_from(expected).unwrap_or(PIECE_BYTES).min(PIECE_BYTES + read.len()));
            }
            gathered.extend_from_slice(&read);
        }
        Ok(gathered.freeze())
    }

    /// Verifies everything the client declared. To be called after [`UploadBody::next`] returned `None`.
    pub async fn finish(self) -> Result<VerifiedUpload, S3Error> {
        match self.state {
            State::Ended => {}
            State::Failed(error) => return Err(error),
            State::Reading => {
                return Err(S3Error::with_message(S3ErrorCode::InternalError, "The request body was not read to its end."));
            }
        }
        if self.expectation.bytes.is_some_and(|declared| declared != self.bytes) {
            return Err(S3ErrorCode::IncompleteBody.into());
        }
        let trailers = self.expectation.trailers.map(|trailers| trailers()).transpose()?.unwrap_or_default();
        let digests = self.hashing.finish().await;
        if self.expectation.content_md5.is_some_and(|declared| declared != digests.md5) {
            return Err(S3Error::with_message(
                S3ErrorCode::BadDigest,
                "The Content-MD5 you specified did not match what we received.",
            ));
        }
        match self.expectation.checksum {
            None => {}
            Some(DeclaredChecksum::Header(declared)) => digests.verify(&declared)?,
            Some(DeclaredChecksum::Trailer(algorithm)) => {
                let value = trailers.get(algorithm.header()).ok_or(S3ErrorCode::MalformedTrailerError)?;
                let declared =
                    Checksum::parse(algorithm, value).ok().filter(|checksum| checksum.parts().is_none()).ok_or_else(|| {
                        S3Error::with_message(
                            S3ErrorCode::InvalidRequest,
                            format!("Value for {} trailing header is invalid.", algorithm.header()),
                        )
                    })?;
                digests.verify(&declared)?;
            }
        }
        Ok(VerifiedUpload { bytes: self.bytes, md5: digests.md5, checksum: digests.result })
    }
}

/// The hashers, on a blocking thread or waiting for work.
struct Hashing {
    env: Env,
    declared: Option<ChecksumAlgorithm>,
    hashers: Slot,
    backlog: Vec<Bytes>,
    backlog_bytes: usize,
}

enum Slot {
    Idle(Box<Hashers>),
    Busy(BoxFuture<'static, Box<Hashers>>),
    /// Only while a state change is under way.
    Moving,
}

struct Hashers {
    md5: EtagHasher,
    /// The result's algorithm first; the client's declared one behind it when it differs.
    checksums: Vec<ChecksumHasher>,
}

impl Hashers {
    fn update(&mut self, pieces: &[Bytes]) {
        for piece in pieces {
            self.md5.update(piece);
            self.checksums.iter_mut().for_each(|hasher| hasher.update(piece));
        }
    }
}

struct Digests {
    md5: [u8; 16],
    result: Checksum,
    others: Vec<Checksum>,
}

impl Digests {
    fn verify(&self, declared: &Checksum) -> Result<(), S3Error> {
        if self.others.iter().chain([&self.result]).any(|computed| computed == declared) {
            return Ok(());
        }
        let message = format!("The {} you specified did not match the calculated checksum.", declared.algorithm().name());
        Err(S3Error::with_message(S3ErrorCode::BadDigest, message))
    }
}

impl Hashing {
    fn new(env: Env, declared: Option<ChecksumAlgorithm>) -> Self {
        let result = declared.unwrap_or(ChecksumAlgorithm::Crc64Nvme);
        let hashers = Hashers { md5: EtagHasher::new(), checksums: vec![ChecksumHasher::new(result)] };
        Self { env, declared, hashers: Slot::Idle(Box::new(hashers)), backlog: Vec::new(), backlog_bytes: 0 }
    }

    fn require(&mut self, algorithm: ChecksumAlgorithm) {
        let mut checksums = vec![ChecksumHasher::new(algorithm)];
        if let Some(declared) = self.declared.filter(|declared| *declared != algorithm) {
            checksums.push(ChecksumHasher::new(declared));
        }
        self.hashers = Slot::Idle(Box::new(Hashers { md5: EtagHasher::new(), checksums }));
    }

    /// Queues a piece; waits only when too much is queued.
    async fn push(&mut self, piece: Bytes) {
        self.backlog_bytes += piece.len();
        self.backlog.push(piece);
        if let Slot::Busy(task) = &mut self.hashers {
            if self.backlog_bytes < HASH_BACKLOG_BYTES_MAX {
                // Only look whether it is done; the task runs on without being polled.
                match task.now_or_never() {
                    None => return,
                    Some(hashers) => self.hashers = Slot::Idle(hashers),
                }
            } else {
                let hashers = task.await;
                self.hashers = Slot::Idle(hashers);
            }
        }
        if self.backlog_bytes > HASH_INLINE_BYTES_MAX {
            self.start();
        }
    }

    /// Sends the backlog to a blocking thread. The hashers are idle.
    fn start(&mut self) {
        let Slot::Idle(mut hashers) = mem::replace(&mut self.hashers, Slot::Moving) else {
            unreachable!("hashing is started only when idle");
        };
        let pieces = mem::take(&mut self.backlog);
        self.backlog_bytes = 0;
        let env = self.env.clone();
        let mut task: BoxFuture<'static, Box<Hashers>> = Box::pin(async move {
            env.run_blocking(move || {
                hashers.update(&pieces);
                hashers
            })
            .await
        });
        // The first poll starts the blocking thread; its waker is the next poll's business.
        let mut nobody = Context::from_waker(std::task::Waker::noop());
        self.hashers = match Pin::new(&mut task).poll(&mut nobody) {
            Poll::Ready(hashers) => Slot::Idle(hashers),
            Poll::Pending => Slot::Busy(task),
        };
    }

    async fn finish(mut self) -> Digests {
        if let Slot::Busy(task) = self.hashers {
            self.hashers = Slot::Idle(task.await);
        }
        if self.backlog_bytes > HASH_INLINE_BYTES_MAX {
            self.start();
            if let Slot::Busy(task) = self.hashers {
                self.hashers = Slot::Idle(task.await);
            }
        }
        let Slot::Idle(mut hashers) = self.hashers else {
            unreachable!("the hashers are idle once their task was awaited");
        };
        hashers.update(&self.backlog);
        let mut checksums = hashers.checksums.into_iter().map(ChecksumHasher::finish);
        let result = checksums.next().expect("there is always the result's hasher");
        Digests { md5: hashers.md5.finish(), result, others: checksums.collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upload(pieces: &[&[u8]], expectation: UploadExpectation) -> UploadBody {
        let pieces: Vec<_> = pieces.iter().map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
        UploadBody::new(placement_env::system(), stream::iter(pieces).boxed(), expectation)
    }

    async fn drain(mut body: UploadBody) -> Result<VerifiedUpload, S3ErrorCode> {
        let mut bytes = 0;
        while let Some(piece) = body.next().await {
            match piece {
                Ok(piece) => bytes += piece.len() as u64,
                Err(error) => {
                    assert!(body.next().await.is_none(), "nothing comes after an error");
                    assert_eq!(body.finish().await.map_err(|again| again.code), Err(error.code), "finish repeats the error");
                    return Err(error.code);
                }
            }
        }
        let verified = body.finish().await.map_err(|error| error.code)?;
        assert_eq!(verified.bytes, bytes);
        Ok(verified)
    }

    fn md5_of(bytes: &[u8]) -> [u8; 16] {
        let mut hasher = EtagHasher::new();
        hasher.update(bytes);
        hasher.finish()
    }

    fn trailing(name: &'static str, value: &'static str) -> Option<TrailerSource> {
        Some(Box::new(move || Ok(BTreeMap::from([(name.to_owned(), value.to_owned())]))))
    }

    #[tokio::test]
    async fn a_body_is_verified_before_anyone_learns_its_md5() {
        use S3ErrorCode::{BadDigest, IncompleteBody, InvalidRequest, MalformedTrailerError};
        let crc = |bytes: &[u8]| Some(DeclaredChecksum::Header(Checksum::of(ChecksumAlgorithm::Crc32, bytes)));
        let crc_trailer = || Some(DeclaredChecksum::Trailer(ChecksumAlgorithm::Crc32));
        let none = UploadExpectation::default;
        let name = "x-amz-checksum-crc32";
        let right = Box::leak(Checksum::of(ChecksumAlgorithm::Crc32, b"abcdef").text().into_boxed_str());
        let cases: Vec<(UploadExpectation, Result<(), S3ErrorCode>)> = vec![
            (none(), Ok(())),
            (UploadExpectation { bytes: Some(6), ..none() }, Ok(())),
            (UploadExpectation { bytes: Some(5), ..none() }, Err(IncompleteBody)),
            (UploadExpectation { bytes: Some(7), ..none() }, Err(IncompleteBody)),
            (UploadExpectation { content_md5: Some(md5_of(b"abcdef")), ..none() }, Ok(())),
            (UploadExpectation { content_md5: Some(md5_of(b"abcdeg")), ..none() }, Err(BadDigest)),
            (UploadExpectation { checksum: crc(b"abcdef"), ..none() }, Ok(())),
            (UploadExpectation { checksum: crc(b"abcdeg"), ..none() }, Err(BadDigest)),
            (UploadExpectation { checksum: crc_trailer(), trailers: trailing(name, right), ..none() }, Ok(())),
            (UploadExpectation { checksum: crc_trailer(), trailers: trailing(name, "AAAAAA=="), ..none() }, Err(BadDigest)),
            (UploadExpectation { checksum: crc_trailer(), trailers: trailing(name, "AAAA"), ..none() }, Err(InvalidRequest)),
            (
                UploadExpectation { checksum: crc_trailer(), trailers: trailing("x-other", right), ..none() },
                Err(MalformedTrailerError),
            ),
            (UploadExpectation { checksum: crc_trailer(), ..none() }, Err(MalformedTrailerError)),
        ];
        for (number, (expectation, expected)) in cases.into_iter().enumerate() {
            let got = drain(upload(&[b"abc", b"", b"def"], expectation)).await;
            assert_eq!(got.map(|verified| assert_eq!(verified.md5, md5_of(b"abcdef"))), expected, "case {number}");
        }
    }

    #[tokio::test]
    async fn a_large_body_is_hashed_beside_the_transfer() {
        let whole: Vec<u8> = (0..9_000_011u32).map(|i| ((i * 31) >> 7) as u8).collect();
        for piece_bytes in [1_000, 65_536, 3_000_000] {
            let pieces: Vec<&[u8]> = whole.chunks(piece_bytes).collect();
            let verified = drain(upload(&pieces, UploadExpectation::default())).await.unwrap();
            assert_eq!(verified.md5, md5_of(&whole));
            assert_eq!(verified.checksum, Checksum::of(ChecksumAlgorithm::Crc64Nvme, &whole));
        }
    }

    #[tokio::test]
    async fn pieces_are_gathered() {
        let whole = vec![7; PIECE_BYTES * 2 + 5000];
        let pieces: Vec<&[u8]> = whole.chunks(1000).collect();
        let mut body = upload(&pieces, UploadExpectation { bytes: Some(whole.len() as u64), ..UploadExpectation::default() });
        let mut sizes = Vec::new();
        while let Some(piece) = body.next().await {
            sizes.push(piece.unwrap().len());
        }
        assert!(sizes[..2].iter().all(|size| (PIECE_BYTES..PIECE_BYTES + 1000).contains(size)), "{sizes:?}");
        assert_eq!(sizes.iter().sum::<usize>(), whole.len());
    }

    #[tokio::test]
    async fn an_unread_body_is_not_verified() {
        let body = upload(&[b"abc"], UploadExpectation::default());
        assert_eq!(body.finish().await.unwrap_err().code, S3ErrorCode::InternalError);
    }

    #[tokio::test]
    async fn a_required_checksum_is_computed_and_the_declared_one_still_verified() {
        use ChecksumAlgorithm::{Crc32, Crc64Nvme, Sha256};
        let declared = |bytes: &[u8]| UploadExpectation {
            checksum: Some(DeclaredChecksum::Header(Checksum::of(Crc32, bytes))),
            ..UploadExpectation::default()
        };
        let mut body = upload(&[b"abc"], declared(b"abc"));
        body.require_checksum(Crc64Nvme).unwrap();
        assert_eq!(drain(body).await.unwrap().checksum, Checksum::of(Crc64Nvme, b"abc"));
        let mut body = upload(&[b"abc"], declared(b"abd"));
        body.require_checksum(Crc64Nvme).unwrap();
        assert_eq!(drain(body).await, Err(S3ErrorCode::BadDigest));
        let mut body = upload(&[b"abc"], declared(b"abc"));
        assert_eq!(body.require_checksum(Sha256).unwrap_err().code, S3ErrorCode::InvalidRequest);
        let mut body = upload(&[b"abc"], UploadExpectation::default());
        body.require_checksum(Sha256).unwrap();
        assert_eq!(drain(body).await.unwrap().checksum, Checksum::of(Sha256, b"abc"));
    }

    #[tokio::test]
    async fn a_source_that_fails_fails_the_upload() {
        let pieces = vec![Ok(Bytes::from_static(b"abc")), Err(S3Error::new(S3ErrorCode::RequestTimeout))];
        let body = UploadBody::new(placement_env::system(), stream::iter(pieces).boxed(), UploadExpectation::default());
        assert_eq!(drain(body).await, Err(S3ErrorCode::RequestTimeout));
    }
}
