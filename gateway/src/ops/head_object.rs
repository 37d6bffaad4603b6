//! HeadObject.

use gateway_s3::{HeadObject, HeadObjectReply, RequestContext};

use crate::authorize::{Resource, authorize};
use crate::conditions;
use crate::error::Failure;
use crate::gateway::Gateway;
use crate::ops::find_object;
use crate::ops::get_object::read_action;

/// Decides exactly as GET does.
pub async fn head_object(gw: &Gateway, cx: &RequestContext, request: HeadObject) -> Result<HeadObjectReply, Failure> {
    let action = read_action(request.version_id.as_deref());
    authorize(&cx.caller, action, Resource::Object(&request.bucket, &request.key))?;
    let object = find_object(gw, &request.bucket, &request.key, request.version_id.as_deref()).await?;
    conditions::check_read(&object.head, &request.conditions)?;
    let (reply, _) = object.select(request.selection)?;
    Ok(reply)
}
