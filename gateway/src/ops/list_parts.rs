//! ListParts, and the reading of an upload that UploadPart and CompleteMultipartUpload share.

use std::sync::Arc;

use gateway_s3::{ListParts, ListPartsReply, ListedPart, PartNumber, RequestContext};
use placement_map::bucket::Bucket;
use placement_types::{ObjectKey, UploadId};
use storage_node_proto::object::{Part, Upload};
use storage_node_proto::query::{Answer, Query};

use crate::authorize::{Action, Resource, authorize};
use crate::error::Failure;
use crate::gateway::Gateway;
use crate::limits::PARTS_PER_QUERY;
use crate::records::{announced_from, part_checksum_from, shelf_of};

pub async fn list_parts(gw: &Gateway, cx: &RequestContext, request: ListParts) -> Result<ListPartsReply, Failure> {
    authorize(&cx.caller, Action::ListMultipartUploadParts, Resource::Object(&request.bucket, &request.key))?;
    let request = &request;
    gw.buckets
        .with(&request.bucket, |bucket: Arc<Bucket>| async move {
            let upload = find_upload(gw, &bucket, &request.key, request.upload).await?;
            let limit = u32::from(request.max_parts);
            let (parts, truncated) = match limit {
                0 => (Vec::new(), false),
                _ => parts_after(gw, &bucket, &request.key, request.upload, request.part_number_marker, limit).await?,
            };
            Ok(ListPartsReply {
                parts: parts.into_iter().map(listed).collect::<Result<_, Failure>>()?,
                truncated,
                owner: gw.owner_of(&bucket),
                storage_class: upload.attributes.storage_class,
                checksum: upload.checksum.map(announced_from),
            })
        })
        .await
}

fn listed(part: Part) -> Result<ListedPart, Failure> {
    Ok(ListedPart {
        number: PartNumber::new(i64::from(part.number))?,
        size: part.data.bytes,
        etag: hex::encode(part.md5),
        last_modified: part.modified,
        checksum: part_checksum_from(part.checksum.as_ref())?,
    })
}

/// The upload, or `NoSuchUpload`.
pub async fn find_upload(gw: &Gateway, bucket: &Bucket, key: &ObjectKey, upload: UploadId) -> Result<Upload, Failure> {
    let shelf = shelf_of(bucket, key);
    match gw.router.query(shelf, Query::Upload { shelf, key: key.clone(), upload }).await? {
        Answer::Upload { upload } => Ok(upload),
        other => Err(Failure::of_answer("upload", other)),
    }
}

/// Up to `limit` parts with numbers above `after`, and whether there are more.
async fn parts_after(
    gw: &Gateway,
    bucket: &Bucket,
    key: &ObjectKey,
    upload: UploadId,
    after: u16,
    limit: u32,
) -> Result<(Vec<Part>, bool), Failure> {
    let shelf = shelf_of(bucket, key);
    let query = Query::ListParts { shelf, key: key.clone(), upload, after, limit };
    match gw.router.query(shelf, query).await? {
        Answer::Parts { parts, more } => Ok((parts, more)),
        other => Err(Failure::of_answer("list parts", other)),
    }
}

/// All parts of an upload, ascending. They may change between the pages: whoever commits them names each, and the group
/// refuses a list that is no longer true.
pub async fn all_parts(gw: &Gateway, bucket: &Bucket, key: &ObjectKey, upload: UploadId) -> Result<Vec<Part>, Failure> {
    let mut parts: Vec<Part> = Vec::new();
    loop {
        let after = parts.last().map_or(0, |part| part.number);
        let (page, more) = parts_after(gw, bucket, key, upload, after, PARTS_PER_QUERY).await?;
        if page.iter().any(|part| part.number <= after) || (more && page.is_empty()) {
            return Err(Failure::UnfitAnswer { to: "list parts", answer: "parts that do not ascend".into() });
        }
        parts.extend(page);
        if !more {
            return Ok(parts);
        }
    }
}
