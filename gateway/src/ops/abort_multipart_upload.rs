//! AbortMultipartUpload.

use std::sync::Arc;

use gateway_s3::{AbortMultipartUpload, RequestContext};
use placement_map::bucket::Bucket;
use placement_types::{TxnId, Waypoint};
use storage_node_proto::command::{Change, Command, Outcome};

use crate::authorize::{Action, Resource, authorize};
use crate::error::Failure;
use crate::gateway::Gateway;
use crate::records::shelf_of;

/// Ends an upload without an object; its parts become garbage in the same step.
pub async fn abort_multipart_upload(gw: &Gateway, cx: &RequestContext, request: AbortMultipartUpload) -> Result<(), Failure> {
    authorize(&cx.caller, Action::AbortMultipartUpload, Resource::Object(&request.bucket, &request.key))?;
    let request = &request;
    gw.buckets
        .with(&request.bucket, |bucket: Arc<Bucket>| async move {
            let shelf = shelf_of(&bucket, &request.key);
            let change = Change::AbortUpload { shelf, key: request.key.clone(), upload: request.upload };
            let command = Command { txn: TxnId::random(&gw.env), time: gw.env.now(), change };
            gw.env.pass(Waypoint::AbortBegun).await;
            let outcome = gw.commit(shelf, command, None).await?;
            gw.env.pass(Waypoint::AbortCommitted).await;
            match outcome {
                Outcome::UploadAborted => Ok(()),
                other => Err(Failure::of_outcome("abort an upload", other)),
            }
        })
        .await
}
