//! DeleteObject.

use std::sync::Arc;

use gateway_s3::{DeleteObject, DeleteObjectReply, RequestContext};
use placement_map::bucket::Bucket;
use placement_types::{TxnId, Waypoint};
use storage_node_proto::command::{Change, Command, Outcome};
use storage_node_proto::object::VersionSelector;

use crate::authorize::{Action, Resource, authorize};
use crate::conditions;
use crate::error::Failure;
use crate::gateway::Gateway;
use crate::records::{shelf_of, versioning};
use crate::version_id;

/// Deletes a key or a version. After the reply it is never visible again (K4). What was not there is deleted as well, unless
/// a condition asked for it.
pub async fn delete_object(gw: &Gateway, cx: &RequestContext, request: DeleteObject) -> Result<DeleteObjectReply, Failure> {
    let action = if request.version_id.is_some() { Action::DeleteObjectVersion } else { Action::DeleteObject };
    authorize(&cx.caller, action, Resource::Object(&request.bucket, &request.key))?;
    let selector = version_id::selector(request.version_id.as_deref())?;
    let request = &request;
    gw.buckets.with(&request.bucket, |bucket: Arc<Bucket>| async move { try_delete(gw, &bucket, request, selector).await }).await
}

async fn try_delete(
    gw: &Gateway,
    bucket: &Bucket,
    request: &DeleteObject,
    selector: VersionSelector,
) -> Result<DeleteObjectReply, Failure> {
    let shelf = shelf_of(bucket, &request.key);
    let change = Change::Delete {
        shelf,
        key: request.key.clone(),
        versioning: versioning(bucket),
        condition: conditions::of_write(&request.condition),
        selector,
    };
    let command = Command { txn: TxnId::random(&gw.env), time: gw.env.now(), change };
    gw.env.pass(Waypoint::DeleteBegun).await;
    let outcome = gw.commit(shelf, command, None).await?;
    gw.env.pass(Waypoint::DeleteCommitted).await;
    match (outcome, selector) {
        (Outcome::Deleted { marker: Some(marker), .. }, _) => {
            Ok(DeleteObjectReply { version_id: Some(version_id::text(marker)), delete_marker: true })
        }
        (Outcome::Deleted { removed_marker, .. }, VersionSelector::Exact(version)) => {
            Ok(DeleteObjectReply { version_id: Some(version_id::text(version)), delete_marker: removed_marker })
        }
        (Outcome::Deleted { .. }, VersionSelector::Current) => Ok(DeleteObjectReply::default()),
        (Outcome::NoSuchVersion, VersionSelector::Exact(version)) => {
            Ok(DeleteObjectReply { version_id: Some(version_id::text(version)), delete_marker: false })
        }
        (other, _) => Err(Failure::of_outcome("delete", other)),
    }
}
