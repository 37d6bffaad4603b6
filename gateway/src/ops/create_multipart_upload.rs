//! CreateMultipartUpload.

use std::sync::Arc;

use gateway_s3::{CreateMultipartUpload, RequestContext};
use placement_map::bucket::Bucket;
use placement_types::{TxnId, UploadId};
use storage_node_proto::command::{Change, Command, Outcome};
use storage_node_proto::object::Upload;

use crate::authorize::{Action, Resource, authorize};
use crate::error::Failure;
use crate::gateway::Gateway;
use crate::records::{self, algorithm_to, shelf_of, type_to};

/// Begins an upload. What is said of the object now is what it gets at completion.
pub async fn create_multipart_upload(
    gw: &Gateway,
    cx: &RequestContext,
    request: CreateMultipartUpload,
) -> Result<UploadId, Failure> {
    authorize(&cx.caller, Action::PutObject, Resource::Object(&request.bucket, &request.key))?;
    let upload = Upload {
        id: UploadId::random(&gw.env),
        initiated: gw.env.now(),
        attributes: records::attributes(&request.headers)?,
        checksum: request.checksum.map(|(algorithm, kind)| (algorithm_to(algorithm), type_to(kind))),
    };
    let (key, upload) = (&request.key, &upload);
    gw.buckets
        .with(&request.bucket, |bucket: Arc<Bucket>| async move {
            let shelf = shelf_of(&bucket, key);
            let change = Change::CreateUpload { shelf, key: key.clone(), upload: upload.clone() };
            let command = Command { txn: TxnId::random(&gw.env), time: gw.env.now(), change };
            match gw.commit(shelf, command, None).await? {
                Outcome::UploadCreated => Ok(upload.id),
                other => Err(Failure::of_outcome("create an upload", other)),
            }
        })
        .await
}
