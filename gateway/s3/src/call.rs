//! One authenticated request on its way to an operation.

use futures::StreamExt as _;
use http::HeaderMap;
use http_body::Body as _;
use placement_types::{BucketName, Env, ObjectKey};

use crate::api::{RequestContext, S3Api};
use crate::chunk_framing::is_streaming;
use crate::config::S3Config;
use crate::error::{S3Error, S3ErrorCode};
use crate::header_text;
use crate::integrity::{self, DigestDemand};
use crate::limits::XML_BYTES_MAX;
use crate::query::Query;
use crate::reply::Reply;
use crate::route::{Operation, Target};
use crate::upload_body::UploadBody;
use crate::wire_body::upload_error;

/// What every operation may look at. Its existence proves that the signature, if there was one, is right: only the service
/// behind s3s' verification makes one.
pub(crate) struct Call<'c> {
    pub api: &'c dyn S3Api,
    pub config: &'c S3Config,
    pub env: &'c Env,
    pub cx: RequestContext,
    pub query: Query,
    pub headers: HeaderMap,
    /// `http` or `https`, and the host as the client wrote it.
    pub origin: String,
    pub body: s3s::Body,
    /// Set for an aws-chunked body.
    pub trailers: Option<s3s::TrailingHeaders>,
}

pub(crate) type Answer = Result<Reply, S3Error>;

impl Call<'_> {
    pub fn bucket_of(target: &Target) -> Result<&BucketName, S3Error> {
        match target {
            Target::Bucket(bucket) | Target::Object(bucket, _) => Ok(bucket),
            Target::Service => Err(S3ErrorCode::MethodNotAllowed.into()),
        }
    }

    /// Takes the body of PutObject or UploadPart, with all the client declared about it.
    pub fn take_upload(&mut self) -> Result<UploadBody, S3Error> {
        let streaming = is_streaming(&self.headers)?;
        if streaming != self.trailers.is_some() {
            // Framing that nobody removed must never be stored as the object's bytes.
            return Err(S3Error::with_message(S3ErrorCode::InvalidRequest, "The aws-chunked body was not signed as such."));
        }
        let size_hint = self.body.size_hint().exact();
        let mut expectation = integrity::upload_expectation(&self.headers, streaming, size_hint)?;
        if let Some(trailers) = self.trailers.take() {
            expectation.trailers = Some(Box::new(move || {
                let Some(map) = trailers.take() else { return Ok(Default::default()) };
                map.iter()
                    .map(|(name, value)| {
                        let value = value.to_str().map_err(|_| S3Error::new(S3ErrorCode::MalformedTrailerError))?;
                        Ok((name.as_str().to_owned(), value.to_owned()))
                    })
                    .collect()
            }));
        }
        let body = std::mem::take(&mut self.body);
        let source = body.map(|read| read.map_err(|error| upload_error(error.as_ref()))).boxed();
        Ok(UploadBody::new(self.env.clone(), source, expectation))
    }

    /// Reads a document to its end and verifies its digests.
    pub async fn take_document(&mut self, demand: DigestDemand) -> Result<Vec<u8>, S3Error> {
        let document = self.read_document().await?;
        integrity::verify_document(&self.headers, &document, demand)?;
        Ok(document)
    }

    /// Reads a document to its end, unverified. Too large is `MalformedXML`: no legal document is.
    pub async fn read_document(&mut self) -> Result<Vec<u8>, S3Error> {
        let mut document = Vec::new();
        while let Some(read) = self.body.next().await {
            let read = read.map_err(|error| upload_error(error.as_ref()))?;
            if document.len() + read.len() > XML_BYTES_MAX {
                return Err(S3Error::with_message(S3ErrorCode::MalformedXML, "The XML document is too large."));
            }
            document.extend_from_slice(&read);
        }
        Ok(document)
    }

    /// `versionId`; empty is none.
    pub fn version_id(&self) -> Result<Option<String>, S3Error> {
        self.query.text("versionId")
    }
}

/// Headers that change what a write means and that are not served. To ignore one would be to claim an encryption, a lock or
/// an ACL that is not there.
const NOT_SERVED: [&str; 16] = [
    "x-amz-bucket-namespace",
    "x-amz-expected-bucket-owner",
    "x-amz-mfa",
    "x-amz-object-annotation",
    "x-amz-rename-source",
    "x-amz-server-side-encryption",
    "x-amz-server-side-encryption-aws-kms-key-id",
    "x-amz-server-side-encryption-bucket-key-enabled",
    "x-amz-server-side-encryption-context",
    "x-amz-server-side-encryption-customer-algorithm",
    "x-amz-server-side-encryption-customer-key",
    "x-amz-server-side-encryption-customer-key-md5",
    "x-amz-copy-source-server-side-encryption-customer-algorithm",
    "x-amz-copy-source-server-side-encryption-customer-key",
    "x-amz-source-expected-bucket-owner",
    "x-amz-write-offset-bytes",
];

const OBJECT_LOCK: [&str; 3] = ["x-amz-object-lock-legal-hold", "x-amz-object-lock-mode", "x-amz-object-lock-retain-until-date"];

/// Refuses headers whose meaning is not served.
pub(crate) fn refuse_unserved_headers(operation: Operation, headers: &HeaderMap) -> Result<(), S3Error> {
    if let Some(name) = NOT_SERVED.into_iter().find(|name| headers.contains_key(*name)) {
        return Err(S3Error::with_message(S3ErrorCode::NotImplemented, format!("The header {name} is not implemented.")));
    }
    if let Some(name) = headers.keys().find(|name| name.as_str().starts_with("x-dozo-")) {
        return Err(S3Error::with_message(S3ErrorCode::InvalidArgument, format!("The header {name} is reserved.")));
    }
    if OBJECT_LOCK.into_iter().any(|name| headers.contains_key(name)) {
        let message = "Bucket is missing Object Lock Configuration";
        return Err(S3Error::with_message(S3ErrorCode::InvalidRequest, message));
    }
    if header_text::text(headers, "x-amz-bucket-object-lock-enabled")?.is_some_and(|v| v.eq_ignore_ascii_case("true")) {
        return Err(S3Error::with_message(S3ErrorCode::NotImplemented, "Object lock is not implemented."));
    }
    if header_text::text(headers, "x-amz-object-ownership")?.is_some_and(|v| v != "BucketOwnerEnforced") {
        return Err(S3Error::with_message(S3ErrorCode::NotImplemented, "Only BucketOwnerEnforced ownership is implemented."));
    }
    // Every bucket is BucketOwnerEnforced: the ACLs that say what is so anyway are harmless, all others are refused.
    let harmless: &[&str] =
        if operation == Operation::CreateBucket { &["private"] } else { &["private", "bucket-owner-full-control"] };
    let acl = header_text::text(headers, "x-amz-acl")?;
    let grants = headers.keys().any(|name| name.as_str().starts_with("x-amz-grant-"));
    if grants || acl.is_some_and(|acl| !harmless.contains(&acl)) {
        return Err(S3ErrorCode::AccessControlListNotSupported.into());
    }
    Ok(())
}

/// Splits a target known to name an object.
pub(crate) fn object_of(target: Target) -> Result<(BucketName, ObjectKey), S3Error> {
    match target {
        Target::Object(bucket, key) => Ok((bucket, key)),
        Target::Service | Target::Bucket(_) => Err(S3ErrorCode::MethodNotAllowed.into()),
    }
}
