//! The conditions of a request, on the way to where they are decided: those of reads here, those of writes in the key's
//! metadata group, in the step that writes.

use gateway_s3::{ObjectHead, ReadConditions, S3Error, Verdict, copy_source_conditions_hold, evaluate_read_conditions};
use storage_node_proto::command::WriteCondition;

use crate::error::Failure;

/// Decides a GET or HEAD.
pub fn check_read(head: &ObjectHead, conditions: &ReadConditions) -> Result<(), Failure> {
    match evaluate_read_conditions(&head.etag, head.last_modified, conditions) {
        Verdict::Proceed => Ok(()),
        Verdict::NotModified => Err(Failure::Refused(S3Error::not_modified(head))),
        Verdict::PreconditionFailed => Err(Failure::PreconditionFailed),
    }
}

/// Decides the source of a copy: 412 in every failing case.
pub fn check_copy_source(head: &ObjectHead, conditions: &ReadConditions) -> Result<(), Failure> {
    if copy_source_conditions_hold(&head.etag, head.last_modified, conditions) {
        Ok(())
    } else {
        Err(Failure::PreconditionFailed)
    }
}

/// The condition as a metadata group takes it.
pub fn of_write(condition: &gateway_s3::WriteCondition) -> WriteCondition {
    match condition {
        gateway_s3::WriteCondition::None => WriteCondition::None,
        gateway_s3::WriteCondition::IfAbsent => WriteCondition::Absent,
        gateway_s3::WriteCondition::IfMatch(etag) => WriteCondition::ETag { etag: etag.clone() },
        gateway_s3::WriteCondition::IfExists => WriteCondition::Present,
    }
}
