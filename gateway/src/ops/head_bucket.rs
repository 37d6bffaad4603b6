//! HeadBucket.

use gateway_s3::RequestContext;
use placement_types::BucketName;

use crate::authorize::{Action, Resource, authorize};
use crate::error::Failure;
use crate::gateway::Gateway;

/// No shelf is asked, so nothing remembered will do: the system group tells.
pub async fn head_bucket(gw: &Gateway, cx: &RequestContext, bucket: BucketName) -> Result<(), Failure> {
    authorize(&cx.caller, Action::ListBucket, Resource::Bucket(&bucket))?;
    gw.buckets.fresh(&bucket).await.map(drop)
}
