//! ListMultipartUploads.

use std::sync::Arc;

use gateway_s3::{ListMultipartUploads, ListMultipartUploadsReply, ListedUpload, RequestContext, UploadMarker, UploadsEntry};
use placement_map::bucket::Bucket;
use placement_types::ObjectKey;
use storage_node_proto::object::Upload;
use storage_node_proto::query::ListItem;

use crate::authorize::{Action, Resource, authorize};
use crate::error::Failure;
use crate::gateway::Gateway;
use crate::listing::{self, Cursor, Uploads};
use crate::ops::list_objects::{bytes, prefix_text};
use crate::records::{announced_from, shelf_of, shelves};

/// A page of all uploads in progress in a bucket, by key, then by initiation.
pub async fn list_multipart_uploads(
    gw: &Gateway,
    cx: &RequestContext,
    request: ListMultipartUploads,
) -> Result<ListMultipartUploadsReply, Failure> {
    authorize(&cx.caller, Action::ListBucketMultipartUploads, Resource::Bucket(&request.bucket))?;
    if request.max_uploads == 0 {
        let bucket = gw.buckets.fresh(&request.bucket).await?;
        return Ok(ListMultipartUploadsReply { entries: Vec::new(), next: None, owner: gw.owner_of(&bucket) });
    }
    let request = &request;
    gw.buckets.with(&request.bucket, |bucket: Arc<Bucket>| async move { list_page(gw, &bucket, request).await }).await
}

async fn list_page(gw: &Gateway, bucket: &Bucket, request: &ListMultipartUploads) -> Result<ListMultipartUploadsReply, Failure> {
    let listed = Uploads { prefix: bytes(&request.prefix), delimiter: bytes(request.delimiter.as_deref().unwrap_or_default()) };
    let after = bytes(request.after.as_ref().map_or("", |marker| marker.key.as_str()));
    // Only the shelf of the marker's key knows the marker's upload; to all others the key alone is the marker.
    let upload = request.after.as_ref().and_then(|marker| {
        let key = ObjectKey::parse(&marker.key).ok()?;
        Some((shelf_of(bucket, &key), marker.upload?))
    });
    let sources = shelves(bucket).map(|shelf| {
        let upload = upload.filter(|(owner, _)| *owner == shelf).map(|(_, upload)| upload);
        (shelf, Cursor { after: after.clone(), upload, version: None })
    });
    let page = listing::list(&gw.router, sources, &listed, usize::from(request.max_uploads)).await?;
    let entries: Vec<UploadsEntry> = page.items.into_iter().map(entry).collect::<Result<_, Failure>>()?;
    let next = entries.last().filter(|_| page.more).map(|last| match last {
        UploadsEntry::Upload(listed) => UploadMarker { key: listed.key.as_str().to_owned(), upload: Some(listed.upload) },
        UploadsEntry::Prefix(prefix) => UploadMarker { key: prefix.clone(), upload: None },
    });
    Ok(ListMultipartUploadsReply { entries, next, owner: gw.owner_of(bucket) })
}

fn entry(item: ListItem<Upload>) -> Result<UploadsEntry, Failure> {
    match item {
        ListItem::Prefix { prefix } => prefix_text(&prefix).map(UploadsEntry::Prefix),
        ListItem::Entry { key, value } => Ok(UploadsEntry::Upload(ListedUpload {
            key,
            upload: value.id,
            initiated: value.initiated,
            storage_class: value.attributes.storage_class,
            checksum: value.checksum.map(announced_from),
        })),
    }
}
