//! The table of S3 error codes, and the error every operation answers with.
//!
//! The table is the only place that pairs a code with its HTTP status and default text. Which code an internal failure
//! becomes is decided by the implementor of [`S3Api`](crate::S3Api), in one exhaustive match.
//! Source of codes and statuses: <https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html>.

use std::borrow::Cow;

use http::header::{HeaderName, HeaderValue};
use http::{HeaderMap, StatusCode};

macro_rules! error_codes {
    ($($code:ident $status:ident $message:literal;)*) => {
        /// An S3 error code; its name is the text of `<Code>`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum S3ErrorCode {
            $(#[doc = $message] $code,)*
        }

        impl S3ErrorCode {
            /// Every code of the table.
            pub const ALL: &'static [S3ErrorCode] = &[$(Self::$code,)*];

            /// The text of `<Code>`.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$code => stringify!($code),)* }
            }

            pub const fn status(self) -> StatusCode {
                match self { $(Self::$code => StatusCode::$status,)* }
            }

            /// The text of `<Message>` when the failure has nothing more precise to say.
            pub const fn message(self) -> &'static str {
                match self { $(Self::$code => $message,)* }
            }
        }
    };
}

error_codes! {
    AccessControlListNotSupported BAD_REQUEST "The bucket does not allow ACLs.";
    AccessDenied FORBIDDEN "Access Denied";
    AuthorizationHeaderMalformed BAD_REQUEST "The authorization header that you provided is not valid.";
    AuthorizationQueryParametersError BAD_REQUEST "The authorization query parameters that you provided are not valid.";
    BadDigest BAD_REQUEST "The Content-MD5 or checksum value that you specified did not match what the server received.";
    BadRequest BAD_REQUEST "Bad Request";
    BucketAlreadyExists CONFLICT "The requested bucket name is not available.";
    BucketAlreadyOwnedByYou CONFLICT "The bucket that you tried to create already exists, and you own it.";
    BucketNotEmpty CONFLICT "The bucket that you tried to delete is not empty.";
    ConditionalRequestConflict CONFLICT "A conflicting operation occurred during the execution of this conditional operation.";
    EntityTooLarge BAD_REQUEST "Your proposed upload exceeds the maximum allowed object size.";
    EntityTooSmall BAD_REQUEST "Your proposed upload is smaller than the minimum allowed size.";
    ExpiredToken BAD_REQUEST "The provided token has expired.";
    IllegalLocationConstraintException BAD_REQUEST "The specified location constraint is not valid for this endpoint.";
    IncompleteBody BAD_REQUEST "You did not provide the number of bytes specified by the Content-Length HTTP header.";
    InternalError INTERNAL_SERVER_ERROR "We encountered an internal error. Please try again.";
    InvalidAccessKeyId FORBIDDEN "The access key ID that you provided does not exist in our records.";
    InvalidArgument BAD_REQUEST "Invalid Argument";
    InvalidBucketName BAD_REQUEST "The specified bucket is not valid.";
    InvalidBucketState CONFLICT "The request is not valid for the current state of the bucket.";
    InvalidChunkSizeError BAD_REQUEST "Only the last chunk is allowed to have a size less than 8192 bytes.";
    InvalidDigest BAD_REQUEST "The Content-MD5 or checksum value that you specified is not valid.";
    InvalidLocationConstraint BAD_REQUEST "The specified location constraint is not valid.";
    InvalidObjectState FORBIDDEN "The operation is not valid for the object's storage class.";
    InvalidPart BAD_REQUEST "One or more of the specified parts could not be found.";
    InvalidPartNumber RANGE_NOT_SATISFIABLE "The requested partnumber is not satisfiable.";
    InvalidPartOrder BAD_REQUEST "The list of parts was not in ascending order.";
    InvalidRange RANGE_NOT_SATISFIABLE "The requested range is not satisfiable.";
    InvalidRequest BAD_REQUEST "Invalid Request";
    InvalidStorageClass BAD_REQUEST "The storage class that you specified is not valid.";
    InvalidTag BAD_REQUEST "The tag provided was not a valid tag.";
    InvalidToken BAD_REQUEST "The provided token is malformed or otherwise not valid.";
    InvalidURI BAD_REQUEST "The specified URI couldn't be parsed.";
    KeyTooLongError BAD_REQUEST "Your key is too long.";
    MalformedTrailerError BAD_REQUEST "The request contained trailing data that was not well-formed or did not conform to our published schema.";
    MalformedXML BAD_REQUEST "The XML that you provided was not well formed or did not validate against our published schema.";
    MetadataTooLarge BAD_REQUEST "Your metadata headers exceed the maximum allowed metadata size.";
    MethodNotAllowed METHOD_NOT_ALLOWED "The specified method is not allowed against this resource.";
    MissingContentLength LENGTH_REQUIRED "You must provide the Content-Length HTTP header.";
    MissingSecurityHeader BAD_REQUEST "Your request is missing a required header.";
    NoSuchBucket NOT_FOUND "The specified bucket does not exist.";
    NoSuchBucketPolicy NOT_FOUND "The bucket policy does not exist.";
    NoSuchCORSConfiguration NOT_FOUND "The CORS configuration does not exist.";
    NoSuchKey NOT_FOUND "The specified key does not exist.";
    NoSuchLifecycleConfiguration NOT_FOUND "The lifecycle configuration does not exist.";
    NoSuchTagSet NOT_FOUND "The TagSet does not exist.";
    NoSuchUpload NOT_FOUND "The specified multipart upload does not exist. The upload ID might be invalid, or the upload might have been aborted or completed.";
    NoSuchVersion NOT_FOUND "The version ID specified in the request does not match an existing version.";
    NotImplemented NOT_IMPLEMENTED "A header or query you provided implies functionality that is not implemented.";
    NotModified NOT_MODIFIED "Not Modified";
    OperationAborted CONFLICT "A conflicting conditional operation is currently in progress against this resource. Try again.";
    PreconditionFailed PRECONDITION_FAILED "At least one of the preconditions that you specified did not hold.";
    QuotaExceeded FORBIDDEN "The quota of the bucket or of the cluster is used up.";
    RequestHeaderSectionTooLarge BAD_REQUEST "Your request header section exceeds the maximum allowed size.";
    RequestTimeout BAD_REQUEST "Your socket connection to the server was not read from or written to within the timeout period.";
    RequestTimeTooSkewed FORBIDDEN "The difference between the request time and the server's time is too large.";
    ServiceUnavailable SERVICE_UNAVAILABLE "Service is unable to handle request.";
    SignatureDoesNotMatch FORBIDDEN "The request signature that the server calculated does not match the signature that you provided.";
    SlowDown SERVICE_UNAVAILABLE "Please reduce your request rate.";
    TooManyBuckets BAD_REQUEST "You have attempted to create more buckets than are allowed.";
    URITooLong URI_TOO_LONG "The specified URI is too long.";
    XAmzContentSHA256Mismatch BAD_REQUEST "The provided 'x-amz-content-sha256' header does not match what was computed.";
}

/// How an operation fails, as the client is to see it.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{}: {message}", code.name())]
pub struct S3Error {
    pub code: S3ErrorCode,
    pub message: Cow<'static, str>,
    /// Sent with the answer, for example `Allow`, `Retry-After`, or what a 304 must carry.
    pub headers: Box<HeaderMap>,
    /// The region the client should have signed for, sent as `<Region>`: a client that gets it signs again by itself.
    pub region: Option<Box<str>>,
}

impl S3Error {
    /// The code with its default message.
    pub fn new(code: S3ErrorCode) -> Self {
        Self::with_message(code, code.message())
    }

    /// The code with a message for the person at the client. It must name nothing that the client may not know.
    pub fn with_message(code: S3ErrorCode, message: impl Into<Cow<'static, str>>) -> Self {
        Self { code, message: message.into(), headers: Box::default(), region: None }
    }

    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    /// 503 `SlowDown` with `Retry-After`: the server is alive, but has no room for this request now.
    pub fn slow_down() -> Self {
        Self::new(S3ErrorCode::SlowDown).header(http::header::RETRY_AFTER, HeaderValue::from_static("1"))
    }

    /// 503 `ServiceUnavailable` with `Retry-After`: too few parts of the cluster answer.
    pub fn unavailable() -> Self {
        Self::new(S3ErrorCode::ServiceUnavailable).header(http::header::RETRY_AFTER, HeaderValue::from_static("1"))
    }

    /// 416 `InvalidRange` for an object of `size` bytes, with the `Content-Range: bytes */size` that RFC 9110 asks for.
    pub fn invalid_range(size: u64) -> Self {
        let value = HeaderValue::try_from(format!("bytes */{size}")).expect("digits are legal in a header");
        Self::new(S3ErrorCode::InvalidRange).header(http::header::CONTENT_RANGE, value)
    }
}

impl From<S3ErrorCode> for S3Error {
    fn from(code: S3ErrorCode) -> Self {
        Self::new(code)
    }
}
