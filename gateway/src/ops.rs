//! The S3 operations, one file each, and their dispatch.
//!
//! Every operation starts with `authorize`, before it touches anything (K13).

mod abort_multipart_upload;
mod complete_multipart_upload;
mod copy_object;
mod copy_source;
mod create_bucket;
mod create_multipart_upload;
mod delete_bucket;
mod delete_object;
mod delete_objects;
mod get_bucket_location;
mod get_object;
mod get_object_attributes;
mod head_bucket;
mod head_object;
mod list_buckets;
mod list_multipart_uploads;
mod list_objects;
mod list_parts;
mod put_object;
mod stored_object;
mod upload_part;
mod upload_part_copy;

#[cfg(test)]
mod tests;

use async_trait::async_trait;
use gateway_s3::{
    AbortMultipartUpload, BucketLocation, CompleteMultipartUpload, CopyObject, CreateBucket, CreateMultipartUpload, DeleteObject,
    DeleteObjectReply, DeleteObjects, GetObject, GetObjectAttributes, GetObjectReply, HeadObject, HeadObjectReply, ListBuckets,
    ListBucketsReply, ListMultipartUploads, ListMultipartUploadsReply, ListObjects, ListObjectsReply, ListParts, ListPartsReply,
    ObjectAttributes, PutObject, PutObjectReply, RequestContext, S3Api, S3Error, UploadPart, UploadPartCopy, UploadPartCopyReply,
    UploadPartReply,
};
use placement_types::{BucketName, UploadId};

use crate::gateway::Gateway;

pub use stored_object::{OpenedObject, StoredObject, find_object, open_object};

#[async_trait]
impl S3Api for Gateway {
    async fn list_buckets(&self, cx: &RequestContext, request: ListBuckets) -> Result<ListBucketsReply, S3Error> {
        self.measured("ListBuckets", list_buckets::list_buckets(self, cx, request)).await
    }

    async fn create_bucket(&self, cx: &RequestContext, request: CreateBucket) -> Result<(), S3Error> {
        self.measured("CreateBucket", create_bucket::create_bucket(self, cx, request)).await
    }

    async fn head_bucket(&self, cx: &RequestContext, bucket: BucketName) -> Result<(), S3Error> {
        self.measured("HeadBucket", head_bucket::head_bucket(self, cx, bucket)).await
    }

    async fn delete_bucket(&self, cx: &RequestContext, bucket: BucketName) -> Result<(), S3Error> {
        self.measured("DeleteBucket", delete_bucket::delete_bucket(self, cx, bucket)).await
    }

    async fn get_bucket_location(&self, cx: &RequestContext, bucket: BucketName) -> Result<BucketLocation, S3Error> {
        self.measured("GetBucketLocation", get_bucket_location::get_bucket_location(self, cx, bucket)).await
    }

    async fn list_objects(&self, cx: &RequestContext, request: ListObjects) -> Result<ListObjectsReply, S3Error> {
        self.measured("ListObjects", list_objects::list_objects(self, cx, request)).await
    }

    async fn put_object(&self, cx: &RequestContext, request: PutObject) -> Result<PutObjectReply, S3Error> {
        self.measured("PutObject", put_object::put_object(self, cx, request)).await
    }

    async fn get_object(&self, cx: &RequestContext, request: GetObject) -> Result<GetObjectReply, S3Error> {
        self.measured("GetObject", get_object::get_object(self, cx, request)).await
    }

    async fn head_object(&self, cx: &RequestContext, request: HeadObject) -> Result<HeadObjectReply, S3Error> {
        self.measured("HeadObject", head_object::head_object(self, cx, request)).await
    }

    async fn get_object_attributes(
        &self,
        cx: &RequestContext,
        request: GetObjectAttributes,
    ) -> Result<ObjectAttributes, S3Error> {
        self.measured("GetObjectAttributes", get_object_attributes::get_object_attributes(self, cx, request)).await
    }

    async fn delete_object(&self, cx: &RequestContext, request: DeleteObject) -> Result<DeleteObjectReply, S3Error> {
        self.measured("DeleteObject", delete_object::delete_object(self, cx, request)).await
    }

    async fn delete_objects(
        &self,
        cx: &RequestContext,
        request: DeleteObjects,
    ) -> Result<Vec<Result<DeleteObjectReply, S3Error>>, S3Error> {
        self.measured("DeleteObjects", delete_objects::delete_objects(self, cx, request)).await
    }

    async fn copy_object(&self, cx: &RequestContext, request: CopyObject) -> Result<PutObjectReply, S3Error> {
        self.measured("CopyObject", copy_object::copy_object(self, cx, request)).await
    }

    async fn create_multipart_upload(&self, cx: &RequestContext, request: CreateMultipartUpload) -> Result<UploadId, S3Error> {
        self.measured("CreateMultipartUpload", create_multipart_upload::create_multipart_upload(self, cx, request)).await
    }

    async fn upload_part(&self, cx: &RequestContext, request: UploadPart) -> Result<UploadPartReply, S3Error> {
        self.measured("UploadPart", upload_part::upload_part(self, cx, request)).await
    }

    async fn upload_part_copy(&self, cx: &RequestContext, request: UploadPartCopy) -> Result<UploadPartCopyReply, S3Error> {
        self.measured("UploadPartCopy", upload_part_copy::upload_part_copy(self, cx, request)).await
    }

    async fn complete_multipart_upload(
        &self,
        cx: &RequestContext,
        request: CompleteMultipartUpload,
    ) -> Result<PutObjectReply, S3Error> {
        self.measured("CompleteMultipartUpload", complete_multipart_upload::complete_multipart_upload(self, cx, request)).await
    }

    async fn abort_multipart_upload(&self, cx: &RequestContext, request: AbortMultipartUpload) -> Result<(), S3Error> {
        self.measured("AbortMultipartUpload", abort_multipart_upload::abort_multipart_upload(self, cx, request)).await
    }

    async fn list_parts(&self, cx: &RequestContext, request: ListParts) -> Result<ListPartsReply, S3Error> {
        self.measured("ListParts", list_parts::list_parts(self, cx, request)).await
    }

    async fn list_multipart_uploads(
        &self,
        cx: &RequestContext,
        request: ListMultipartUploads,
    ) -> Result<ListMultipartUploadsReply, S3Error> {
        self.measured("ListMultipartUploads", list_multipart_uploads::list_multipart_uploads(self, cx, request)).await
    }
}
