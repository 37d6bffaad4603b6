//! CopyObject.

use gateway_s3::{
    ChecksumAlgorithm, CopyObject, DirectiveHeaders, DirectiveTags, PutObjectReply, RequestContext, S3Error, S3ErrorCode,
    WriteHeaders,
};
use placement_map::bucket::{Bucket, BucketVersioning};
use placement_types::{ByteRange, TxnId};
use storage_node_proto::api::Owner;

use crate::authorize::{Action, Resource, authorize};
use crate::error::Failure;
use crate::gateway::Gateway;
use crate::limits::COPY_BYTES_MAX;
use crate::ops::StoredObject;
use crate::ops::copy_source::{CopyBody, authorize_source, open_source};
use crate::ops::put_object::{NewObject, commit_object};
use crate::records::{self, shelf_of};

/// Writes a source's bytes as a new object. All or nothing; the source is not changed (P17).
pub async fn copy_object(gw: &Gateway, cx: &RequestContext, request: CopyObject) -> Result<PutObjectReply, Failure> {
    authorize(&cx.caller, Action::PutObject, Resource::Object(&request.bucket, &request.key))?;
    authorize_source(&cx.caller, &request.source)?;
    let bucket = gw.buckets.get(&request.bucket).await?;
    let opened = open_source(gw, &request.source, |source| {
        if source.record.bytes > COPY_BYTES_MAX {
            let text = "The specified copy source is larger than the maximum allowable size for a copy source: 5368709120";
            return Err(S3Error::with_message(S3ErrorCode::InvalidRequest, text).into());
        }
        refuse_no_change(&bucket, &request, source)?;
        let attributes = records::attributes(&headers_of_copy(&request, source))?;
        let whole = ByteRange::new(0, source.record.bytes).expect("no size is negative");
        Ok((attributes, whole))
    })
    .await?;
    let of_source = opened.object.head.checksum.as_ref().map(|checksum| checksum.algorithm());
    let algorithm = request.checksum_algorithm.or(of_source).unwrap_or(ChecksumAlgorithm::Crc64Nvme);
    let attributes = opened.chosen.clone();
    let body = CopyBody::new(gw, opened, algorithm);
    let owner = Owner { txn: TxnId::random(&gw.env), slot: shelf_of(&bucket, &request.key).slot() };
    let (staged, verified) = gw.writer.write(body, owner, COPY_BYTES_MAX).await?;
    let object = NewObject { key: request.key, condition: request.condition, attributes, verified };
    commit_object(gw, bucket, object, staged).await
}

/// A copy onto itself must change something (s3.md 29).
fn refuse_no_change(bucket: &Bucket, request: &CopyObject, source: &StoredObject) -> Result<(), Failure> {
    let onto_itself = request.bucket == request.source.bucket && request.key == request.source.key;
    let replaces_headers = matches!(request.headers, DirectiveHeaders::Replace { .. });
    let changes_class = request.storage_class.as_ref().is_some_and(|class| *class != source.head.storage_class);
    let versioned = bucket.versioning != BucketVersioning::Unversioned;
    if onto_itself && !replaces_headers && !changes_class && request.source.version_id.is_none() && !versioned {
        let text = "This copy request is illegal because it is trying to copy an object to itself without changing the object's \
                    metadata, storage class, website redirect location or encryption attributes.";
        return Err(S3Error::with_message(S3ErrorCode::InvalidRequest, text).into());
    }
    Ok(())
}

/// What the copy says of itself: the source's or the request's, as the directives have it. The storage class never comes from
/// the source.
fn headers_of_copy(request: &CopyObject, source: &StoredObject) -> WriteHeaders {
    let attributes = &source.record.attributes;
    let (content, metadata) = match &request.headers {
        DirectiveHeaders::Copy => (records::content_headers(attributes), records::user_metadata(attributes)),
        DirectiveHeaders::Replace { content, metadata } => (content.clone(), metadata.clone()),
    };
    let tags = match &request.tags {
        DirectiveTags::Copy => records::tags(attributes),
        DirectiveTags::Replace(tags) => tags.clone(),
    };
    WriteHeaders { content, metadata, tags, storage_class: request.storage_class.clone() }
}
