//! DeleteObjects.

use futures::{StreamExt as _, stream};
use gateway_s3::{DeleteObjectReply, DeleteObjects, RequestContext, S3Error};

use crate::authorize::{Action, Resource, authorize};
use crate::error::Failure;
use crate::gateway::Gateway;
use crate::limits::DELETES_AT_ONCE;
use crate::ops::delete_object::delete_object;

/// Deletes each entry by itself: every one is authorised, and decided by its key's group. The same key may come twice.
pub async fn delete_objects(
    gw: &Gateway,
    cx: &RequestContext,
    request: DeleteObjects,
) -> Result<Vec<Result<DeleteObjectReply, S3Error>>, Failure> {
    // Whoever may delete nothing here learns not even whether the bucket exists.
    let resources = request.entries.iter().map(|entry| Resource::Object(&request.bucket, &entry.key));
    let denied = resources.filter(|resource| authorize(&cx.caller, Action::DeleteObject, *resource).is_err()).count();
    if denied < request.entries.len() {
        gw.buckets.get(&request.bucket).await?;
    }
    let deletes = request.entries.into_iter().map(|entry| async { delete_object(gw, cx, entry).await.map_err(S3Error::from) });
    Ok(stream::iter(deletes.collect::<Vec<_>>()).buffered(DELETES_AT_ONCE).collect().await)
}
