//! ListBuckets.

use gateway_s3::{ListBuckets, ListBucketsReply, ListedBucket, RequestContext};

use crate::authorize::{Action, Resource, authorize};
use crate::error::Failure;
use crate::gateway::Gateway;
use crate::limits::META_DEADLINE;

/// A bucket in deletion is listed until it is gone.
pub async fn list_buckets(gw: &Gateway, cx: &RequestContext, request: ListBuckets) -> Result<ListBucketsReply, Failure> {
    authorize(&cx.caller, Action::ListAllMyBuckets, Resource::Account)?;
    let all = gw.system.buckets(META_DEADLINE).await?;
    let mut wanted = all.into_iter().filter(|bucket| {
        let name = bucket.name.as_str();
        name.starts_with(&request.prefix) && request.after.as_deref().is_none_or(|after| name > after)
    });
    let limit = usize::try_from(request.max_buckets).unwrap_or(usize::MAX);
    let buckets: Vec<ListedBucket> =
        wanted.by_ref().take(limit).map(|bucket| ListedBucket { name: bucket.name, created: bucket.created }).collect();
    Ok(ListBucketsReply { owner: gw.config.owner.clone(), buckets, truncated: wanted.next().is_some() })
}
