//! GetBucketLocation.

use gateway_s3::{BucketLocation, RequestContext};
use placement_types::BucketName;

use crate::authorize::{Action, Resource, authorize};
use crate::error::Failure;
use crate::gateway::Gateway;

pub async fn get_bucket_location(gw: &Gateway, cx: &RequestContext, bucket: BucketName) -> Result<BucketLocation, Failure> {
    authorize(&cx.caller, Action::GetBucketLocation, Resource::Bucket(&bucket))?;
    let bucket = gw.buckets.fresh(&bucket).await?;
    Ok(BucketLocation { region: bucket.region.clone() })
}
