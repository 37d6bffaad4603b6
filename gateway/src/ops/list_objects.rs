//! ListObjects and ListObjectsV2.

use std::sync::Arc;

use bytes::Bytes;
use gateway_s3::{ListEntry, ListObjects, ListObjectsReply, ListedObject, RequestContext};
use placement_map::bucket::Bucket;
use storage_node_proto::object::{Version, VersionBody};
use storage_node_proto::query::ListItem;

use crate::authorize::{Action, Resource, authorize};
use crate::error::Failure;
use crate::gateway::Gateway;
use crate::listing::{self, Cursor, Objects};
use crate::records::{announced_from, shelves};

/// A page of a bucket, in byte order. It holds every key acknowledged before it was asked for and not deleted since (K5).
pub async fn list_objects(gw: &Gateway, cx: &RequestContext, request: ListObjects) -> Result<ListObjectsReply, Failure> {
    authorize(&cx.caller, Action::ListBucket, Resource::Bucket(&request.bucket))?;
    if request.max_keys == 0 {
        // No shelf is asked, so the bucket's existence must be known otherwise.
        let bucket = gw.buckets.fresh(&request.bucket).await?;
        return Ok(ListObjectsReply { entries: Vec::new(), next: None, owner: gw.owner_of(&bucket) });
    }
    let request = &request;
    gw.buckets.with(&request.bucket, |bucket: Arc<Bucket>| async move { list_page(gw, &bucket, request).await }).await
}

async fn list_page(gw: &Gateway, bucket: &Bucket, request: &ListObjects) -> Result<ListObjectsReply, Failure> {
    let listed = Objects { prefix: bytes(&request.prefix), delimiter: bytes(request.delimiter.as_deref().unwrap_or_default()) };
    let cursor = Cursor { after: bytes(request.after.as_deref().unwrap_or_default()), ..Cursor::default() };
    let sources = shelves(bucket).map(|shelf| (shelf, cursor.clone()));
    let page = listing::list(&gw.router, sources, &listed, usize::from(request.max_keys)).await?;
    let entries: Vec<ListEntry> = page.items.into_iter().map(entry).collect::<Result<_, Failure>>()?;
    let next = entries.last().filter(|_| page.more).map(|last| match last {
        ListEntry::Object(object) => object.key.as_str().to_owned(),
        ListEntry::Prefix(prefix) => prefix.clone(),
    });
    Ok(ListObjectsReply { entries, next, owner: gw.owner_of(bucket) })
}

fn entry(item: ListItem<Version>) -> Result<ListEntry, Failure> {
    let (key, version) = match item {
        ListItem::Prefix { prefix } => return prefix_text(&prefix).map(ListEntry::Prefix),
        ListItem::Entry { key, value } => (key, value),
    };
    let VersionBody::Object(record) = version.body else {
        return Err(Failure::UnfitAnswer { to: "list objects", answer: "a delete marker".into() });
    };
    Ok(ListEntry::Object(ListedObject {
        key,
        size: record.bytes,
        etag: record.etag,
        last_modified: version.modified,
        storage_class: record.attributes.storage_class,
        checksum: record.checksum.map(|checksum| announced_from((checksum.algorithm, checksum.kind))),
    }))
}

/// A common prefix as text: it ends with a delimiter that was text, so it is cut between characters.
pub fn prefix_text(prefix: &[u8]) -> Result<String, Failure> {
    String::from_utf8(prefix.to_vec())
        .map_err(|_| Failure::UnfitAnswer { to: "list", answer: "a common prefix that is not text".into() })
}

pub fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}
