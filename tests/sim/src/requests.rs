//! What clients ask of a gateway: the S3 requests of this harness, on the one bucket that it uses.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use gateway::Gateway;
use gateway_s3::{
    AbortMultipartUpload, Caller, CompleteMultipartUpload, CompletedPart, CreateBucket, CreateMultipartUpload, DeleteObject,
    GetObject, ObjectSelection, PartNumber, PutObject, ReadConditions, RequestContext, S3Api as _, S3Error, S3ErrorCode,
    UploadBody, UploadPart, WriteCondition, WriteHeaders,
};
use placement_types::{BucketName, Env, ObjectKey, RequestId, UploadId};
use tests_faults::Outcome;

/// Pieces a body comes in, as from a socket.
const PIECE_BYTES: usize = 100_000;

const BUCKET: &str = "simulated";

/// A client's way to a gateway in its own process.
#[derive(Clone)]
pub struct Requests {
    pub env: Env,
    pub gateway: Arc<Gateway>,
}

pub enum Read {
    Absent,
    Whole { bytes: Bytes, etag: String },
}

impl Requests {
    /// Returns once the bucket is there; `first` makes it.
    pub async fn make_bucket(&self, first: bool) {
        loop {
            let made = if first {
                self.gateway.create_bucket(&self.context(), CreateBucket { bucket: bucket(), location: None }).await
            } else {
                self.gateway.head_bucket(&self.context(), bucket()).await
            };
            match made {
                Ok(()) => return,
                Err(error) if error.code == S3ErrorCode::BucketAlreadyOwnedByYou => return,
                Err(_) => self.env.sleep(Duration::from_millis(100)).await,
            }
        }
    }

    /// Returns the etag.
    pub async fn put(&self, key: u32, content: Bytes) -> Result<String, S3Error> {
        let request = PutObject {
            bucket: bucket(),
            key: object_key(key),
            headers: WriteHeaders::default(),
            condition: WriteCondition::None,
            body: self.body(content),
        };
        Ok(self.gateway.put_object(&self.context(), request).await?.etag)
    }

    pub async fn delete(&self, key: u32) -> Result<(), S3Error> {
        let request = DeleteObject { bucket: bucket(), key: object_key(key), version_id: None, condition: WriteCondition::None };
        self.gateway.delete_object(&self.context(), request).await.map(|_| ())
    }

    pub async fn read(&self, key: u32) -> Result<Read, S3Error> {
        let request = GetObject {
            bucket: bucket(),
            key: object_key(key),
            version_id: None,
            conditions: ReadConditions::default(),
            selection: ObjectSelection::Whole,
        };
        let reply = match self.gateway.get_object(&self.context(), request).await {
            Ok(reply) => reply,
            Err(error) if error.code == S3ErrorCode::NoSuchKey => return Ok(Read::Absent),
            Err(error) => return Err(error),
        };
        let head = reply.head.object;
        let mut bytes = BytesMut::new();
        let mut pieces = reply.body.into_iter().next().unwrap_or_else(|| futures::stream::empty().boxed());
        while let Some(piece) = pieces.next().await {
            bytes.extend_from_slice(&piece?);
        }
        if (bytes.len() as u64) < head.size {
            // The client of a connection that breaks off knows that it has not everything.
            return Err(S3Error::with_message(S3ErrorCode::InternalError, "the body ended early"));
        }
        Ok(Read::Whole { bytes: bytes.freeze(), etag: head.etag })
    }

    pub async fn begin_upload(&self, key: u32) -> Result<UploadId, S3Error> {
        let request =
            CreateMultipartUpload { bucket: bucket(), key: object_key(key), headers: WriteHeaders::default(), checksum: None };
        self.gateway.create_multipart_upload(&self.context(), request).await
    }

    /// The one part of an upload here.
    pub async fn put_part(&self, key: u32, upload: UploadId, content: Bytes) -> Result<CompletedPart, S3Error> {
        let (number, body) = (PartNumber::new(1)?, self.body(content));
        let request = UploadPart { bucket: bucket(), key: object_key(key), upload, number, body };
        let reply = self.gateway.upload_part(&self.context(), request).await?;
        Ok(CompletedPart { number, etag: reply.etag, checksum: None })
    }

    /// Returns the etag.
    pub async fn complete_upload(&self, key: u32, upload: UploadId, part: CompletedPart) -> Result<String, S3Error> {
        let request = CompleteMultipartUpload {
            bucket: bucket(),
            key: object_key(key),
            upload,
            parts: vec![part],
            checksum: None,
            checksum_type: None,
            object_size: None,
            condition: WriteCondition::None,
        };
        Ok(self.gateway.complete_multipart_upload(&self.context(), request).await?.etag)
    }

    pub async fn abort_upload(&self, key: u32, upload: UploadId) -> Result<(), S3Error> {
        let request = AbortMultipartUpload { bucket: bucket(), key: object_key(key), upload };
        self.gateway.abort_multipart_upload(&self.context(), request).await
    }

    pub fn context(&self) -> RequestContext {
        RequestContext {
            caller: Caller::Root { access_key: "root".to_owned() },
            request_id: RequestId::random(&self.env),
            peer: "10.0.0.1:1".to_owned(),
            secure: false,
        }
    }

    fn body(&self, mut content: Bytes) -> UploadBody {
        let mut pieces = Vec::new();
        while !content.is_empty() {
            pieces.push(content.split_to(content.len().min(PIECE_BYTES)));
        }
        UploadBody::from_pieces(self.env.clone(), pieces)
    }
}

/// What a client makes of an answer.
pub fn outcome(verdict: Result<(), S3Error>) -> Outcome {
    match verdict {
        Ok(()) => Outcome::Ok,
        Err(error) if error.code.status().is_client_error() => Outcome::Refused(error.to_string()),
        Err(error) => Outcome::Unknown(error.to_string()),
    }
}

/// The simulation's own time, the same for all.
pub fn now() -> Duration {
    turmoil::sim_elapsed().expect("clients run inside the simulation")
}

pub fn bucket() -> BucketName {
    BucketName::parse(BUCKET).expect("a legal name")
}

fn object_key(key: u32) -> ObjectKey {
    ObjectKey::parse(&format!("key/{key}")).expect("a legal key")
}

/// A key that nobody wrote becomes a number that nobody wrote.
pub fn key_number(key: &ObjectKey) -> u32 {
    key.as_str().strip_prefix("key/").and_then(|number| number.parse().ok()).unwrap_or(u32::MAX)
}
