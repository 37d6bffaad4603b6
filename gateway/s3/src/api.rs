//! The contract between HTTP and the object store: one method per S3 operation, typed requests and replies.
//!
//! What this crate has done before a method is called: the request is authenticated (the [`Caller`] is proven, or is
//! [`Caller::Anonymous`]), well-formed, within every limit that needs no cluster state, and unambiguous about its operation.
//! What it leaves to the implementor: **authorisation**, which must come before anything else and before the body is first
//! polled (polling sends `100 Continue`), the existence of buckets and keys, conditions, and everything durable.
//!
//! What it does with the reply: headers, XML, `encoding-type`, `fetch-owner`, `Quiet`, `response-*` overrides,
//! `x-amz-checksum-mode`, the selected attributes of GetObjectAttributes, request ids. The implementor always returns
//! everything it knows.

mod bucket;
mod listing;
mod multipart;
mod object;

use async_trait::async_trait;
use placement_types::RequestId;

pub use bucket::{BucketLocation, CreateBucket, ListBuckets, ListBucketsReply, ListedBucket};
pub use listing::{
    ListEntry, ListMultipartUploads, ListMultipartUploadsReply, ListObjects, ListObjectsReply, ListedObject, ListedUpload,
    UploadMarker, UploadsEntry,
};
pub use multipart::{
    AbortMultipartUpload, CompleteMultipartUpload, CompletedPart, CreateMultipartUpload, ListParts, ListPartsReply, ListedPart,
    PartNumber, UploadPart, UploadPartCopy, UploadPartCopyReply, UploadPartReply, multipart_etag,
};
pub use object::{
    AttributesPart, CopyObject, CopySource, DeleteObject, DeleteObjectReply, DeleteObjects, DirectiveHeaders, DirectiveTags,
    GetObject, GetObjectAttributes, GetObjectReply, HeadObject, HeadObjectReply, ObjectAttributes, ObjectBody, ObjectHead,
    ObjectSelection, PutObject, PutObjectReply, ServedPart,
};

use crate::error::S3Error;
use placement_types::BucketName;

/// Who sends a request, as its signature proves it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Caller {
    /// The operator's own key: everything is allowed.
    Root { access_key: String },
    /// A user's key.
    AccessKey { access_key: String },
    /// No credentials at all.
    Anonymous,
}

/// What is known about every request.
#[derive(Debug, Clone)]
pub struct RequestContext {
    pub caller: Caller,
    pub request_id: RequestId,
    /// The peer's address, `ip:port`.
    pub peer: String,
    /// Whether the connection is encrypted.
    pub secure: bool,
}

/// Who owns a bucket and all in it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Owner {
    pub id: String,
    pub display_name: String,
}

/// The object store, as S3 sees it.
///
/// A method may be dropped at any await when the client goes away: work past a commit point must be in a task of its own.
#[async_trait]
pub trait S3Api: Send + Sync + 'static {
    /// The buckets the caller owns, in name order.
    async fn list_buckets(&self, cx: &RequestContext, request: ListBuckets) -> Result<ListBucketsReply, S3Error>;

    /// `BucketAlreadyOwnedByYou` or `BucketAlreadyExists` when the name is taken; but the caller's own, in us-east-1 then and
    /// now, is made again without effect.
    async fn create_bucket(&self, cx: &RequestContext, request: CreateBucket) -> Result<(), S3Error>;

    async fn head_bucket(&self, cx: &RequestContext, bucket: BucketName) -> Result<(), S3Error>;

    /// `BucketNotEmpty` while it holds an object.
    async fn delete_bucket(&self, cx: &RequestContext, bucket: BucketName) -> Result<(), S3Error>;

    async fn get_bucket_location(&self, cx: &RequestContext, bucket: BucketName) -> Result<BucketLocation, S3Error>;

    /// ListObjects (v1) and ListObjectsV2.
    async fn list_objects(&self, cx: &RequestContext, request: ListObjects) -> Result<ListObjectsReply, S3Error>;

    /// Nothing may be visible before `body.finish()` returned `Ok`; 2xx only when durable.
    async fn put_object(&self, cx: &RequestContext, request: PutObject) -> Result<PutObjectReply, S3Error>;

    /// The reply's body must have exactly the bytes the reply promises, or end in an error.
    async fn get_object(&self, cx: &RequestContext, request: GetObject) -> Result<GetObjectReply, S3Error>;

    /// Decides exactly as [`S3Api::get_object`] does, without a body.
    async fn head_object(&self, cx: &RequestContext, request: HeadObject) -> Result<HeadObjectReply, S3Error>;

    async fn get_object_attributes(&self, cx: &RequestContext, request: GetObjectAttributes)
    -> Result<ObjectAttributes, S3Error>;

    /// Success also when the key does not exist and the request is unconditional.
    async fn delete_object(&self, cx: &RequestContext, request: DeleteObject) -> Result<DeleteObjectReply, S3Error>;

    /// One result per entry, in the order of the request; authorised one by one. `Err` only when nothing was tried.
    async fn delete_objects(
        &self,
        cx: &RequestContext,
        request: DeleteObjects,
    ) -> Result<Vec<Result<DeleteObjectReply, S3Error>>, S3Error>;

    /// Both the source's read and the destination's write are to be authorised, before anything is read.
    async fn copy_object(&self, cx: &RequestContext, request: CopyObject) -> Result<PutObjectReply, S3Error>;

    async fn create_multipart_upload(
        &self,
        cx: &RequestContext,
        request: CreateMultipartUpload,
    ) -> Result<placement_types::UploadId, S3Error>;

    async fn upload_part(&self, cx: &RequestContext, request: UploadPart) -> Result<UploadPartReply, S3Error>;

    async fn upload_part_copy(&self, cx: &RequestContext, request: UploadPartCopy) -> Result<UploadPartCopyReply, S3Error>;

    /// The parts are in ascending order without duplicates.
    async fn complete_multipart_upload(
        &self,
        cx: &RequestContext,
        request: CompleteMultipartUpload,
    ) -> Result<PutObjectReply, S3Error>;

    async fn abort_multipart_upload(&self, cx: &RequestContext, request: AbortMultipartUpload) -> Result<(), S3Error>;

    async fn list_parts(&self, cx: &RequestContext, request: ListParts) -> Result<ListPartsReply, S3Error>;

    async fn list_multipart_uploads(
        &self,
        cx: &RequestContext,
        request: ListMultipartUploads,
    ) -> Result<ListMultipartUploadsReply, S3Error>;
}
