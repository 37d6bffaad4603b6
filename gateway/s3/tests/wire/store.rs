//! An [`S3Api`] in memory, enough of one to see what the surface asks for.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use futures::{StreamExt as _, stream};
use gateway_s3::*;
use placement_types::{BucketName, Timestamp, UploadId};

pub const MODIFIED: Timestamp = Timestamp::from_millis(784_111_777_000);

#[derive(Clone)]
pub struct Kept {
    pub bytes: Vec<u8>,
    pub etag: String,
    pub headers: WriteHeaders,
    pub checksum: Checksum,
}

#[derive(Default)]
pub struct Store {
    objects: Mutex<BTreeMap<(String, String), Kept>>,
    /// Makes GET promise one byte more than it sends.
    pub breaks_promises: AtomicBool,
}

impl Store {
    pub fn kept(&self, key: &str) -> Option<Kept> {
        self.objects.lock().unwrap().get(&("bucket".to_owned(), key.to_owned())).cloned()
    }

    pub fn count(&self) -> usize {
        self.objects.lock().unwrap().len()
    }

    fn keep(&self, bucket: &BucketName, key: &str, kept: Kept) {
        self.objects.lock().unwrap().insert((bucket.to_string(), key.to_owned()), kept);
    }
}

fn authorize(cx: &RequestContext) -> Result<(), S3Error> {
    if cx.caller == Caller::Anonymous { Err(S3ErrorCode::AccessDenied.into()) } else { Ok(()) }
}

fn not_here<T>() -> Result<T, S3Error> {
    Err(S3ErrorCode::NotImplemented.into())
}

async fn receive(mut body: UploadBody) -> Result<(Vec<u8>, VerifiedUpload), S3Error> {
    let mut bytes = Vec::new();
    while let Some(piece) = body.next().await {
        bytes.extend_from_slice(&piece?);
    }
    Ok((bytes, body.finish().await?))
}

#[async_trait::async_trait]
impl S3Api for Store {
    async fn list_buckets(&self, cx: &RequestContext, _: ListBuckets) -> Result<ListBucketsReply, S3Error> {
        authorize(cx)?;
        let bucket = ListedBucket { name: BucketName::parse("bucket").unwrap(), created: MODIFIED };
        Ok(ListBucketsReply { owner: Owner::default(), buckets: vec![bucket], truncated: false })
    }

    async fn create_bucket(&self, cx: &RequestContext, _: CreateBucket) -> Result<(), S3Error> {
        authorize(cx)
    }

    async fn head_bucket(&self, cx: &RequestContext, _: BucketName) -> Result<(), S3Error> {
        authorize(cx)
    }

    async fn delete_bucket(&self, cx: &RequestContext, _: BucketName) -> Result<(), S3Error> {
        authorize(cx)
    }

    async fn get_bucket_location(&self, cx: &RequestContext, _: BucketName) -> Result<BucketLocation, S3Error> {
        authorize(cx)?;
        Ok(BucketLocation { region: "us-east-1".to_owned() })
    }

    async fn list_objects(&self, cx: &RequestContext, request: ListObjects) -> Result<ListObjectsReply, S3Error> {
        authorize(cx)?;
        let mut entries: Vec<(String, ListEntry)> = Vec::new();
        for ((bucket, key), kept) in self.objects.lock().unwrap().iter() {
            if *bucket != request.bucket.to_string() || !key.starts_with(&request.prefix) {
                continue;
            }
            let rest = &key[request.prefix.len()..];
            let cut = request.delimiter.as_deref().and_then(|delimiter| rest.find(delimiter).map(|at| at + delimiter.len()));
            let (name, entry) = match cut {
                Some(cut) => {
                    let prefix = key[..request.prefix.len() + cut].to_owned();
                    (prefix.clone(), ListEntry::Prefix(prefix))
                }
                None => {
                    let object = ListedObject {
                        key: placement_types::ObjectKey::parse(key).unwrap(),
                        size: kept.bytes.len() as u64,
                        etag: kept.etag.clone(),
                        last_modified: MODIFIED,
                        storage_class: "STANDARD".to_owned(),
                        checksum: None,
                    };
                    (key.clone(), ListEntry::Object(object))
                }
            };
            if request.after.as_ref().is_none_or(|after| name > *after) && entries.last().is_none_or(|(last, _)| *last != name) {
                entries.push((name, entry));
            }
        }
        let more = entries.len() > usize::from(request.max_keys);
        entries.truncate(usize::from(request.max_keys));
        let next = entries.last().filter(|_| more).map(|(name, _)| name.clone());
        Ok(ListObjectsReply { entries: entries.into_iter().map(|(_, entry)| entry).collect(), next, owner: Owner::default() })
    }

    async fn put_object(&self, cx: &RequestContext, request: PutObject) -> Result<PutObjectReply, S3Error> {
        authorize(cx)?;
        let (bytes, verified) = receive(request.body).await?;
        let reply = PutObjectReply {
            etag: verified.etag(),
            last_modified: MODIFIED,
            size: verified.bytes,
            checksum: Some(verified.checksum.clone()),
            version_id: None,
        };
        let kept = Kept { bytes, etag: verified.etag(), headers: request.headers, checksum: verified.checksum };
        self.keep(&request.bucket, request.key.as_str(), kept);
        Ok(reply)
    }

    async fn get_object(&self, cx: &RequestContext, request: GetObject) -> Result<GetObjectReply, S3Error> {
        let (bucket, key) = (request.bucket.to_string(), request.key.to_string());
        let head = self.head_object(cx, request).await?;
        let kept = self.objects.lock().unwrap().get(&(bucket, key)).cloned().ok_or(S3ErrorCode::NoSuchKey)?;
        let mut bytes = match head.range {
            Some(range) => kept.bytes[range.start() as usize..range.end() as usize].to_vec(),
            None => kept.bytes,
        };
        if self.breaks_promises.load(Ordering::Relaxed) {
            bytes.pop();
        }
        Ok(GetObjectReply { head, body: Some(stream::iter([Ok(Bytes::from(bytes))]).boxed()) })
    }

    async fn head_object(&self, cx: &RequestContext, request: HeadObject) -> Result<HeadObjectReply, S3Error> {
        authorize(cx)?;
        let key = (request.bucket.to_string(), request.key.to_string());
        let kept = self.objects.lock().unwrap().get(&key).cloned().ok_or(S3ErrorCode::NoSuchKey)?;
        let object = ObjectHead {
            size: kept.bytes.len() as u64,
            etag: kept.etag,
            last_modified: MODIFIED,
            content: kept.headers.content,
            metadata: kept.headers.metadata,
            tag_count: kept.headers.tags.len() as u16,
            storage_class: "STANDARD".to_owned(),
            checksum: Some(kept.checksum),
            part_count: None,
            version_id: None,
        };
        match evaluate_read_conditions(&object.etag, object.last_modified, &request.conditions) {
            Verdict::Proceed => {}
            Verdict::NotModified => return Err(S3Error::not_modified(&object)),
            Verdict::PreconditionFailed => return Err(S3ErrorCode::PreconditionFailed.into()),
        }
        let range = match request.selection {
            ObjectSelection::Range(range) => Some(range.resolve(object.size)?),
            ObjectSelection::Whole | ObjectSelection::Part(_) => None,
        };
        Ok(HeadObjectReply { object, range, part: None })
    }

    async fn get_object_attributes(&self, _: &RequestContext, _: GetObjectAttributes) -> Result<ObjectAttributes, S3Error> {
        not_here()
    }

    async fn delete_object(&self, cx: &RequestContext, request: DeleteObject) -> Result<DeleteObjectReply, S3Error> {
        authorize(cx)?;
        self.objects.lock().unwrap().remove(&(request.bucket.to_string(), request.key.to_string()));
        Ok(DeleteObjectReply::default())
    }

    async fn delete_objects(
        &self,
        cx: &RequestContext,
        request: DeleteObjects,
    ) -> Result<Vec<Result<DeleteObjectReply, S3Error>>, S3Error> {
        let mut results = Vec::new();
        for entry in request.entries {
            results.push(self.delete_object(cx, entry).await);
        }
        Ok(results)
    }

    async fn copy_object(&self, cx: &RequestContext, request: CopyObject) -> Result<PutObjectReply, S3Error> {
        authorize(cx)?;
        let from = (request.source.bucket.to_string(), request.source.key.to_string());
        let kept = self.objects.lock().unwrap().get(&from).cloned().ok_or(S3ErrorCode::NoSuchKey)?;
        let reply = PutObjectReply {
            etag: kept.etag.clone(),
            last_modified: MODIFIED,
            size: kept.bytes.len() as u64,
            checksum: None,
            version_id: None,
        };
        self.keep(&request.bucket, request.key.as_str(), kept);
        Ok(reply)
    }

    async fn create_multipart_upload(&self, cx: &RequestContext, _: CreateMultipartUpload) -> Result<UploadId, S3Error> {
        authorize(cx)?;
        Ok(UploadId::from_u128(7))
    }

    async fn upload_part(&self, cx: &RequestContext, mut request: UploadPart) -> Result<UploadPartReply, S3Error> {
        authorize(cx)?;
        request.body.require_checksum(ChecksumAlgorithm::Crc64Nvme)?;
        let (bytes, verified) = receive(request.body).await?;
        let (etag, checksum) = (verified.etag(), verified.checksum);
        let kept = Kept { bytes, etag: etag.clone(), headers: WriteHeaders::default(), checksum: checksum.clone() };
        self.keep(&request.bucket, &format!("{}.{}", request.key, request.number), kept);
        Ok(UploadPartReply { etag, checksum: Some(checksum) })
    }

    async fn upload_part_copy(&self, _: &RequestContext, _: UploadPartCopy) -> Result<UploadPartCopyReply, S3Error> {
        not_here()
    }

    async fn complete_multipart_upload(
        &self,
        cx: &RequestContext,
        request: CompleteMultipartUpload,
    ) -> Result<PutObjectReply, S3Error> {
        authorize(cx)?;
        let etag = format!("{}-{}", request.parts[0].etag, request.parts.len());
        Ok(PutObjectReply { etag, last_modified: MODIFIED, size: 0, checksum: None, version_id: None })
    }

    async fn abort_multipart_upload(&self, cx: &RequestContext, _: AbortMultipartUpload) -> Result<(), S3Error> {
        authorize(cx)
    }

    async fn list_parts(&self, _: &RequestContext, _: ListParts) -> Result<ListPartsReply, S3Error> {
        not_here()
    }

    async fn list_multipart_uploads(
        &self,
        _: &RequestContext,
        _: ListMultipartUploads,
    ) -> Result<ListMultipartUploadsReply, S3Error> {
        not_here()
    }
}
