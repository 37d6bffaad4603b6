//! GetObject.

use gateway_s3::{GetObject, GetObjectReply, RequestContext};

use crate::authorize::{Action, Resource, authorize};
use crate::conditions;
use crate::error::Failure;
use crate::gateway::Gateway;
use crate::limits::OVERTAKEN_MAX;
use crate::object_reader::ReadObjectError;
use crate::ops::find_object;

/// Answers once the first bytes are here, so that an unreadable object is a 5xx. All of the reply is of one version (K3), also
/// when the key is overwritten or deleted meanwhile.
pub async fn get_object(gw: &Gateway, cx: &RequestContext, request: GetObject) -> Result<GetObjectReply, Failure> {
    let action = read_action(request.version_id.as_deref());
    authorize(&cx.caller, action, Resource::Object(&request.bucket, &request.key))?; //                      1 authorize
    let mut overtaken = 0;
    loop {
        let object = find_object(gw, &request.bucket, &request.key, request.version_id.as_deref()).await?; // 2 resolve
        conditions::check_read(&object.head, &request.conditions)?; //                                         3 conditions
        let (head, range) = object.select(request.selection)?; //                                              4 select
        match gw.reader.open(object.place, &object.record, object.inline, range).await {
            //                                                                                                 5 open
            Ok(body) => {
                crate::metrics::bytes_served(range.len());
                return Ok(GetObjectReply { head, body });
            }
            // Overwritten or deleted between 2 and 5. Nothing was sent yet, so the answer is what the key holds now.
            Err(ReadObjectError::Gone) if overtaken < OVERTAKEN_MAX => overtaken += 1,
            Err(error) => return Err(error.into()),
        }
    }
}

/// Reading a named version is a right of its own.
pub fn read_action(version_id: Option<&str>) -> Action {
    if version_id.is_some() { Action::GetObjectVersion } else { Action::GetObject }
}
