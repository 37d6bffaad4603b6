//! The one choke point of authorisation.
//!
//! Every operation calls [`authorize`] before it looks at a bucket, a key, a condition or its body, so that a denied request
//! has no side effect, touches no backend and learns nothing (K13, A13). Until there are users and policies the operator's
//! own key may do everything and nobody else anything.

use gateway_s3::Caller;
use placement_types::{BucketName, ObjectKey};

/// What a request wants to do; the names are those of S3 policies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    ListAllMyBuckets,
    CreateBucket,
    DeleteBucket,
    ListBucket,
    GetBucketLocation,
    ListBucketMultipartUploads,
    GetObject,
    GetObjectVersion,
    GetObjectAttributes,
    PutObject,
    DeleteObject,
    DeleteObjectVersion,
    AbortMultipartUpload,
    ListMultipartUploadParts,
    /// Status, explain and whatever else the operator's listener answers.
    Administrate,
}

/// What the action is done to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resource<'a> {
    Account,
    Bucket(&'a BucketName),
    Object(&'a BucketName, &'a ObjectKey),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the caller may not do this")]
pub struct Denied;

/// Whether `caller` may do `action` to `resource`.
pub fn authorize(caller: &Caller, action: Action, resource: Resource<'_>) -> Result<(), Denied> {
    match caller {
        Caller::Root { .. } => Ok(()),
        Caller::AccessKey { access_key } => {
            tracing::debug!(access_key, ?action, ?resource, "denied: the key is not the operator's");
            Err(Denied)
        }
        Caller::Anonymous => Err(Denied),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_root_may_do_anything() {
        let check = |caller: Caller, allowed| {
            assert_eq!(authorize(&caller, Action::GetObject, Resource::Account).is_ok(), allowed, "{caller:?}");
        };
        check(Caller::Root { access_key: "root".into() }, true);
        check(Caller::AccessKey { access_key: "other".into() }, false);
        check(Caller::Anonymous, false);
    }
}
