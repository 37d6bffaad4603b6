//! CreateBucket.

use gateway_s3::{CreateBucket, RequestContext, S3ErrorCode};
use placement_map::bucket::{Bucket, BucketState, BucketVersioning};
use placement_map::system::{SystemChange, SystemOutcome};
use placement_types::BucketId;
use storage_node_proto::key::INDEX_SHARDS_DEFAULT;

use crate::authorize::{Action, Resource, authorize};
use crate::error::Failure;
use crate::gateway::Gateway;

/// Where making one's own bucket again succeeds, as it always did on Amazon S3; everywhere else it is refused.
const FORGIVING_REGION: &str = "us-east-1";

/// Creates a bucket in one step of the system group; its shelves come into being with their first key.
pub async fn create_bucket(gw: &Gateway, cx: &RequestContext, request: CreateBucket) -> Result<(), Failure> {
    authorize(&cx.caller, Action::CreateBucket, Resource::Bucket(&request.bucket))?;
    let bucket = Bucket {
        name: request.bucket.clone(),
        // A new id each time: whatever is left of an older bucket of this name can never be taken for this one's.
        id: BucketId::random(&gw.env),
        created: gw.env.now(),
        index_shards: INDEX_SHARDS_DEFAULT,
        region: request.location.unwrap_or_else(|| gw.config.region.clone()),
        owner: gw.config.owner.id.clone(),
        versioning: BucketVersioning::Unversioned,
        state: BucketState::Active,
    };
    let forgiving = bucket.region == FORGIVING_REGION;
    gw.buckets.forget(&request.bucket);
    match gw.system.propose(SystemChange::CreateBucket { bucket }).await? {
        SystemOutcome::Done => Ok(()),
        SystemOutcome::BucketExists { bucket } if bucket.owner == gw.config.owner.id => {
            if forgiving && bucket.region == FORGIVING_REGION {
                return Ok(());
            }
            Err(S3ErrorCode::BucketAlreadyOwnedByYou.into())
        }
        SystemOutcome::BucketExists { .. } => Err(S3ErrorCode::BucketAlreadyExists.into()),
        SystemOutcome::BucketBusy => Err(S3ErrorCode::OperationAborted.into()),
        SystemOutcome::TooManyBuckets => Err(S3ErrorCode::TooManyBuckets.into()),
        other => Err(Failure::of_system("create a bucket", &other)),
    }
}
