//! GetObject.

use gateway_s3::{GetObject, GetObjectReply, RequestContext};

use crate::authorize::{Action, Resource, authorize};
use crate::conditions;
use crate::error::Failure;
use crate::gateway::Gateway;
use crate::object_reader::Pieces;
use crate::ops::open_object;

/// Answers once the first bytes are here, so that an unreadable object is a 5xx.
pub async fn get_object(gw: &Gateway, cx: &RequestContext, request: GetObject) -> Result<GetObjectReply, Failure> {
    let version_id = request.version_id.as_deref();
    authorize(&cx.caller, read_action(version_id), Resource::Object(&request.bucket, &request.key))?; // 1 authorize
    let opened = open_object(gw, &request.bucket, &request.key, version_id, Pieces::Small, |object| {
        conditions::check_read(&object.head, &request.conditions)?; //                                   2 conditions
        object.select(request.selection) //                                                              3 select
    })
    .await?; //                                                                                          4 open
    crate::metrics::bytes_served(opened.range.len());
    Ok(GetObjectReply { head: opened.chosen, body: opened.body })
}

/// Reading a named version is a right of its own.
pub fn read_action(version_id: Option<&str>) -> Action {
    if version_id.is_some() { Action::GetObjectVersion } else { Action::GetObject }
}
