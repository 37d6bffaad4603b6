//! UploadPartCopy.

use gateway_s3::{RequestContext, S3Error, UploadPartCopy, UploadPartCopyReply};
use placement_types::{ByteRange, TxnId};
use storage_node_proto::api::Owner;

use crate::authorize::{Action, Resource, authorize};
use crate::error::Failure;
use crate::gateway::Gateway;
use crate::limits::COPY_BYTES_MAX;
use crate::ops::copy_source::{CopyBody, authorize_source, open_source};
use crate::ops::upload_part::{NewPart, commit_part, open_upload, part_algorithm};
use crate::records::shelf_of;

/// Stores a range of an object as a part.
pub async fn upload_part_copy(
    gw: &Gateway,
    cx: &RequestContext,
    request: UploadPartCopy,
) -> Result<UploadPartCopyReply, Failure> {
    authorize(&cx.caller, Action::PutObject, Resource::Object(&request.bucket, &request.key))?;
    authorize_source(&cx.caller, &request.source)?;
    let (bucket, upload) = open_upload(gw, &request.bucket, &request.key, request.upload).await?;
    let opened = open_source(gw, &request.source, |source| {
        let size = source.record.bytes;
        match request.range {
            None => Ok(((), ByteRange::new(0, size).expect("no size is negative"))),
            // Not clamped as a GET's would be: it must lie wholly in the source.
            Some((first, last)) if first <= last && last < size => {
                Ok(((), ByteRange::new(first, last + 1).expect("the last byte is not before the first")))
            }
            Some(_) => Err(S3Error::invalid_range(size).into()),
        }
    })
    .await?;
    let body = CopyBody::new(gw, opened, part_algorithm(&upload));
    let owner = Owner { txn: TxnId::random(&gw.env), slot: shelf_of(&bucket, &request.key).slot() };
    let (staged, verified) = gw.writer.write(body, owner, COPY_BYTES_MAX).await?;
    let (etag, checksum) = (verified.etag(), Some(verified.checksum.clone()));
    let part = NewPart { key: request.key, upload: request.upload, number: request.number.get(), verified };
    let last_modified = commit_part(gw, &bucket, part, staged).await?;
    Ok(UploadPartCopyReply { etag, last_modified, checksum })
}
