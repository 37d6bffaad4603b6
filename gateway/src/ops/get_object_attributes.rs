//! GetObjectAttributes.

use gateway_s3::{AttributesPart, GetObjectAttributes, ObjectAttributes, PartNumber, RequestContext};

use crate::authorize::{Action, Resource, authorize};
use crate::error::Failure;
use crate::gateway::Gateway;
use crate::ops::find_object;
use crate::records;

pub async fn get_object_attributes(
    gw: &Gateway,
    cx: &RequestContext,
    request: GetObjectAttributes,
) -> Result<ObjectAttributes, Failure> {
    authorize(&cx.caller, Action::GetObjectAttributes, Resource::Object(&request.bucket, &request.key))?;
    let object = find_object(gw, &request.bucket, &request.key, request.version_id.as_deref()).await?;
    let mut following = object.record.parts.iter().filter(|part| part.number > request.part_number_marker);
    let mut parts = Vec::new();
    for part in following.by_ref().take(usize::from(request.max_parts)) {
        parts.push(AttributesPart {
            number: PartNumber::new(i64::from(part.number))?,
            size: part.bytes,
            checksum: records::part_checksum_from(part.checksum.as_ref())?,
        });
    }
    let parts_truncated = following.next().is_some();
    Ok(ObjectAttributes { object: object.head, parts, parts_truncated })
}
