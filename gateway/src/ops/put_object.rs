//! PutObject.

use std::sync::Arc;

use gateway_s3::{PutObject, PutObjectReply, RequestContext, VerifiedUpload, WriteCondition};
use placement_map::bucket::Bucket;
use placement_types::{ObjectKey, TxnId, Waypoint};
use storage_node_proto::api::Owner;
use storage_node_proto::command::{Change, Command, Outcome};
use storage_node_proto::object::{ObjectAttributes, ObjectRecord};

use crate::authorize::{Action, Resource, authorize};
use crate::conditions;
use crate::error::Failure;
use crate::gateway::Gateway;
use crate::limits::BUCKET_RETRIES_MAX;
use crate::records::{self, shelf_of, versioning};
use crate::staged_data::StagedData;
use crate::version_id;

/// Stores an object. Before step 4 nothing is visible, and a crash leaves only shards that the scrub drops; after it the
/// object is durable.
pub async fn put_object(gw: &Gateway, cx: &RequestContext, request: PutObject) -> Result<PutObjectReply, Failure> {
    authorize(&cx.caller, Action::PutObject, Resource::Object(&request.bucket, &request.key))?; // 1 authorize
    let attributes = records::attributes(&request.headers)?;
    let bucket = gw.buckets.get(&request.bucket).await?; //                                       2 resolve
    let owner = Owner { txn: TxnId::random(&gw.env), slot: shelf_of(&bucket, &request.key).slot() };
    gw.env.pass(Waypoint::PutBegun).await;
    let (staged, verified) = gw.writer.write(request.body, owner, gateway_s3::limits::PUT_BYTES_MAX).await?; // 3 store, verify
    gw.env.pass(Waypoint::PutStaged).await;
    let object = NewObject { key: request.key, condition: request.condition, attributes, verified };
    let reply = commit_object(gw, bucket, object, staged).await?; //                              4 commit
    gw.env.pass(Waypoint::PutCommitted).await;
    Ok(reply)
}

/// Everything about an object to be committed but its bytes.
pub struct NewObject {
    pub key: ObjectKey,
    pub condition: WriteCondition,
    pub attributes: ObjectAttributes,
    pub verified: VerifiedUpload,
}

/// Makes the staged bytes the key's current version: the one linearization point of PutObject and CopyObject.
///
/// When the bucket was deleted and created again meanwhile, inline bytes go to the new one under a new transaction. Chunks
/// cannot: their shards name the old one's slot as the place where a scrub asks for them. The client is told to try again.
pub async fn commit_object(
    gw: &Gateway,
    mut bucket: Arc<Bucket>,
    object: NewObject,
    mut staged: StagedData,
) -> Result<PutObjectReply, Failure> {
    for _ in 0..BUCKET_RETRIES_MAX {
        let spare = staged.spare(&gw.env);
        match try_commit(gw, &bucket, &object, staged).await {
            Err(Failure::BucketGone) => bucket = gw.buckets.after_gone(&bucket).await?,
            verdict => return verdict,
        }
        staged = spare.ok_or(Failure::BucketBusy)?;
    }
    try_commit(gw, &bucket, &object, staged).await
}

async fn try_commit(gw: &Gateway, bucket: &Bucket, object: &NewObject, staged: StagedData) -> Result<PutObjectReply, Failure> {
    let shelf = shelf_of(bucket, &object.key);
    let record = ObjectRecord {
        bytes: staged.bytes,
        etag: object.verified.etag(),
        attributes: object.attributes.clone(),
        checksum: Some(records::checksum_to(&object.verified.checksum)),
        data: staged.data_ref().into_iter().collect(),
        parts: Vec::new(),
    };
    let change = Change::Put {
        shelf,
        key: object.key.clone(),
        versioning: versioning(bucket),
        condition: conditions::of_write(&object.condition),
        record,
        data: staged.data(),
    };
    let bytes = staged.bytes;
    let command = Command { txn: staged.txn, time: gw.env.now(), change };
    match gw.commit(shelf, command, Some(staged)).await? {
        Outcome::Written { version, modified } => {
            crate::metrics::bytes_stored(bytes);
            Ok(PutObjectReply {
                etag: object.verified.etag(),
                last_modified: modified,
                size: bytes,
                checksum: Some(object.verified.checksum.clone()),
                version_id: version_id::of_write(version),
            })
        }
        other => Err(Failure::of_outcome("put", other)),
    }
}
