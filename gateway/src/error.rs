//! How operations fail inside, and the one place that decides what the client is told.

use gateway_s3::{S3Error, S3ErrorCode};
use http::header::{ALLOW, HeaderName, HeaderValue};
use placement_map::system::SystemOutcome;
use storage_node_proto::api::ChunkError;
use storage_node_proto::command::Outcome;
use storage_node_proto::object::VersionId;
use storage_node_proto::query::Answer;

use crate::authorize::Denied;
use crate::meta_router::RouteError;
use crate::object_reader::ReadObjectError;
use crate::stripe_writer::StoreError;
use crate::system_group::SystemError;
use crate::version_id;

/// Why an operation fails.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error(transparent)]
    Denied(#[from] Denied),
    #[error("no such bucket")]
    NoSuchBucket,
    /// A shelf's fence answered: the bucket the operation worked with is no more. Start over with a fresh one.
    #[error("the bucket is being, or was, deleted")]
    BucketGone,
    /// The bucket is being deleted, or was made anew while the request ran and its data belongs to the old one.
    #[error("the bucket is changing")]
    BucketBusy,
    /// No such key; `marker` when that is because its current version is this delete marker.
    #[error("no such key")]
    NoSuchKey { marker: Option<VersionId> },
    #[error("no such version")]
    NoSuchVersion,
    #[error("no such upload")]
    NoSuchUpload,
    /// The version named is a delete marker.
    #[error("version is a delete marker")]
    IsDeleteMarker { version: Option<VersionId> },
    #[error("a precondition does not hold")]
    PreconditionFailed,
    /// What the S3 surface decides by itself.
    #[error(transparent)]
    Refused(#[from] S3Error),
    #[error(transparent)]
    Route(#[from] RouteError),
    #[error(transparent)]
    System(#[from] SystemError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Read(#[from] ReadObjectError),
    /// A group answered something that is no answer to what it was asked.
    #[error("{to} was answered with {answer}")]
    UnfitAnswer { to: &'static str, answer: String },
}

impl From<S3ErrorCode> for Failure {
    fn from(code: S3ErrorCode) -> Self {
        Self::Refused(code.into())
    }
}

impl Failure {
    /// A group's refusal of a command. `to` names the command, for outcomes that do not fit it.
    pub fn of_outcome(to: &'static str, outcome: Outcome) -> Self {
        match outcome {
            Outcome::PreconditionFailed => Self::PreconditionFailed,
            Outcome::NoSuchKey => Self::NoSuchKey { marker: None },
            Outcome::NoSuchVersion => Self::NoSuchVersion,
            Outcome::NoSuchUpload => Self::NoSuchUpload,
            Outcome::IsDeleteMarker => Self::IsDeleteMarker { version: None },
            Outcome::BucketGone => Self::BucketGone,
            Outcome::PartsChanged => Self::Refused(S3Error::with_message(
                S3ErrorCode::OperationAborted,
                "The parts of the upload are being replaced. Try again.",
            )),
            // Somebody fenced the transaction as an orphan's: it ran longer than the scrub's grace. A new try is a new one.
            Outcome::TxnAborted => Self::Refused(S3Error::slow_down()),
            answer @ (Outcome::Written { .. }
            | Outcome::Deleted { .. }
            | Outcome::UploadCreated
            | Outcome::PartWritten
            | Outcome::UploadAborted
            | Outcome::Done
            | Outcome::NotEmpty
            | Outcome::Moved
            | Outcome::Malformed { .. }) => Self::UnfitAnswer { to, answer: format!("{answer:?}") },
        }
    }

    /// An outcome of the system group that its caller has no other use for.
    pub fn of_system(to: &'static str, outcome: &SystemOutcome) -> Self {
        match outcome {
            SystemOutcome::NoSuchBucket => Self::NoSuchBucket,
            SystemOutcome::BucketBusy => Self::BucketBusy,
            SystemOutcome::Done
            | SystemOutcome::AlreadyFormed { .. }
            | SystemOutcome::NotFormed
            | SystemOutcome::UnknownNode
            | SystemOutcome::DiskTaken { .. }
            | SystemOutcome::BucketExists { .. }
            | SystemOutcome::TooManyBuckets
            | SystemOutcome::Removed
            | SystemOutcome::StalePlan { .. }
            | SystemOutcome::Refused { .. }
            | SystemOutcome::Superseded { .. }
            | SystemOutcome::InUse { .. }
            | SystemOutcome::Malformed { .. } => Self::UnfitAnswer { to, answer: format!("{outcome:?}") },
        }
    }

    /// A group's refusal of a query.
    pub fn of_answer(to: &'static str, answer: Answer) -> Self {
        let unfit = |answer: &str| Self::UnfitAnswer { to, answer: answer.to_owned() };
        match answer {
            Answer::NoSuchKey { marker } => Self::NoSuchKey { marker },
            Answer::NoSuchVersion => Self::NoSuchVersion,
            Answer::NoSuchUpload => Self::NoSuchUpload,
            Answer::BucketGone => Self::BucketGone,
            Answer::Malformed { why } => Self::UnfitAnswer { to, answer: format!("malformed: {why}") },
            Answer::Version { .. } => unfit("a version"),
            Answer::Data { .. } => unfit("data"),
            Answer::Objects { .. } => unfit("objects"),
            Answer::Versions { .. } => unfit("versions"),
            Answer::Uploads { .. } => unfit("uploads"),
            Answer::Upload { .. } => unfit("an upload"),
            Answer::CompletedUpload { .. } => unfit("a completed upload"),
            Answer::Parts { .. } => unfit("parts"),
            Answer::Garbage { .. } => unfit("garbage"),
            Answer::Degraded { .. } => unfit("degraded chunks"),
            Answer::Referenced { .. } => unfit("references"),
            Answer::Members { .. } => unfit("members"),
            Answer::Survey { .. } => unfit("a survey"),
            Answer::Holdings { .. } => unfit("holdings"),
        }
    }
}

const DELETE_MARKER: HeaderName = HeaderName::from_static("x-amz-delete-marker");
const VERSION_ID: HeaderName = HeaderName::from_static("x-amz-version-id");

impl From<Failure> for S3Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Denied(_) => S3ErrorCode::AccessDenied.into(),
            Failure::NoSuchBucket => S3ErrorCode::NoSuchBucket.into(),
            // 503 and not 409, because clients repeat it by themselves: in a moment the bucket is gone or active again.
            Failure::BucketGone | Failure::BucketBusy => unavailable("the bucket is being deleted, or was made anew"),
            Failure::NoSuchKey { marker: None } => S3ErrorCode::NoSuchKey.into(),
            Failure::NoSuchKey { marker: Some(marker) } => marked(S3ErrorCode::NoSuchKey.into(), Some(marker)),
            Failure::NoSuchVersion => S3ErrorCode::NoSuchVersion.into(),
            Failure::NoSuchUpload => S3ErrorCode::NoSuchUpload.into(),
            Failure::IsDeleteMarker { version } => {
                let error: S3Error = S3ErrorCode::MethodNotAllowed.into();
                marked(error.header(ALLOW, HeaderValue::from_static("DELETE")), version)
            }
            Failure::PreconditionFailed => S3ErrorCode::PreconditionFailed.into(),
            Failure::Refused(error) => error,
            Failure::Route(error) => route_error(&error),
            Failure::System(error) => system_error(&error),
            Failure::Store(error) => store_error(error),
            Failure::Read(error) => read_error(&error),
            Failure::UnfitAnswer { to, answer } => internal(&format!("{to} was answered with {answer}")),
        }
    }
}

/// What a reader that already sends bytes ends with.
pub fn read_error(error: &ReadObjectError) -> S3Error {
    match error {
        ReadObjectError::Route(error) => route_error(error),
        ReadObjectError::Chunk(error) => chunk_error(error),
        ReadObjectError::WrongHash { .. } | ReadObjectError::UnfitAnswer { .. } => internal(&error.to_string()),
        // 503, so that clients repeat it: the shards may be on nodes that return, and what was overwritten has a successor.
        ReadObjectError::Gone | ReadObjectError::NoMap | ReadObjectError::NoNode { .. } => unavailable(&error.to_string()),
    }
}

fn route_error(error: &RouteError) -> S3Error {
    match error {
        RouteError::Unavailable { why } => unavailable(why),
        // Not `ServiceUnavailable`: the client must not take it for "nothing happened".
        RouteError::Unknown { why } => internal(why),
        RouteError::BadMessage { why, .. } => internal(why),
    }
}

fn system_error(error: &SystemError) -> S3Error {
    match error {
        SystemError::Unavailable { why } => unavailable(why),
        SystemError::Unknown { why } | SystemError::BadMessage { why } => internal(why),
    }
}

fn store_error(error: StoreError) -> S3Error {
    match error {
        StoreError::Body(error) => error,
        StoreError::TooLarge => S3ErrorCode::EntityTooLarge.into(),
        StoreError::NoMap => unavailable("no cluster map is known"),
        StoreError::Chunk(error) => chunk_error(&error),
        StoreError::Stalled { .. } => unavailable(&error.to_string()),
        StoreError::WrongEntry { .. } => internal(&error.to_string()),
    }
}

fn chunk_error(error: &ChunkError) -> S3Error {
    match error {
        ChunkError::Full => {
            tracing::warn!("no disk has room");
            S3Error::slow_down()
        }
        ChunkError::NoQuorum { .. } | ChunkError::Unreadable { .. } | ChunkError::Unreachable { .. } => {
            unavailable(&error.to_string())
        }
        ChunkError::WrongLength { .. } | ChunkError::BodyFailed { .. } | ChunkError::BadMessage { .. } => {
            internal(&error.to_string())
        }
    }
}

/// 503. The reason names nodes and groups, so it goes to the log only.
fn unavailable(why: &str) -> S3Error {
    tracing::warn!(why, "request refused: too little of the cluster answers");
    S3Error::unavailable()
}

/// 500, likewise.
fn internal(why: &str) -> S3Error {
    tracing::error!(why, "request failed");
    S3ErrorCode::InternalError.into()
}

fn marked(error: S3Error, marker: Option<VersionId>) -> S3Error {
    let error = error.header(DELETE_MARKER, HeaderValue::from_static("true"));
    match marker {
        None => error,
        Some(version) => {
            let value = HeaderValue::try_from(version_id::text(version)).expect("a version id is letters and digits");
            error.header(VERSION_ID, value)
        }
    }
}
