//! From an authenticated request to the right operation, and back to a reply.

mod bucket;
mod listing;
mod multipart;
mod read;
mod write;

use crate::call::{Answer, Call, object_of, refuse_unserved_headers};
use crate::route::{Operation, Target};

/// Runs one operation. The route table has matched operation and target already.
pub(crate) async fn run(operation: Operation, target: Target, call: Call<'_>) -> Answer {
    refuse_unserved_headers(operation, &call.headers)?;
    let bucket = |target: &Target| Call::bucket_of(target).cloned();
    match operation {
        Operation::ListBuckets => bucket::list_buckets(call).await,
        Operation::CreateBucket => bucket::create_bucket(call, bucket(&target)?).await,
        Operation::HeadBucket => bucket::head_bucket(call, bucket(&target)?).await,
        Operation::DeleteBucket => bucket::delete_bucket(call, bucket(&target)?).await,
        Operation::GetBucketLocation => bucket::get_bucket_location(call, bucket(&target)?).await,
        Operation::ListObjects => listing::list_objects(call, bucket(&target)?).await,
        Operation::ListObjectsV2 => listing::list_objects_v2(call, bucket(&target)?).await,
        Operation::ListMultipartUploads => listing::list_multipart_uploads(call, bucket(&target)?).await,
        Operation::DeleteObjects => write::delete_objects(call, bucket(&target)?).await,
        Operation::PutObject => write::put_object(call, object_of(target)?).await,
        Operation::CopyObject => write::copy_object(call, object_of(target)?).await,
        Operation::DeleteObject => write::delete_object(call, object_of(target)?).await,
        Operation::GetObject => read::get_object(call, object_of(target)?).await,
        Operation::HeadObject => read::head_object(call, object_of(target)?).await,
        Operation::GetObjectAttributes => read::get_object_attributes(call, object_of(target)?).await,
        Operation::CreateMultipartUpload => multipart::create_multipart_upload(call, object_of(target)?).await,
        Operation::UploadPart => multipart::upload_part(call, object_of(target)?).await,
        Operation::UploadPartCopy => multipart::upload_part_copy(call, object_of(target)?).await,
        Operation::CompleteMultipartUpload => multipart::complete_multipart_upload(call, object_of(target)?).await,
        Operation::AbortMultipartUpload => multipart::abort_multipart_upload(call, object_of(target)?).await,
        Operation::ListParts => multipart::list_parts(call, object_of(target)?).await,
    }
}
