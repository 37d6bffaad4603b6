//! The operations end to end: through the gateway to real metadata state machines and chunks in memory.

mod buckets;
mod listing;
mod multipart;
mod objects;
mod slow_clients;
mod versions;

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::TryStreamExt as _;
use gateway_s3::{
    CreateBucket, DeleteObject, DeleteObjectReply, GetObject, GetObjectReply, ObjectSelection, PutObject, PutObjectReply,
    ReadConditions, S3Api as _, S3Error, S3ErrorCode, UploadBody, WriteCondition, WriteHeaders,
};
use placement_types::{BucketName, ObjectKey};

use crate::Gateway;
use crate::double::{Cluster, root};

/// A gateway with one bucket, and what is behind it.
struct Bench {
    cluster: Cluster,
    gw: Arc<Gateway>,
}

impl Bench {
    async fn new(seed: u64) -> Self {
        let cluster = Cluster::new(seed);
        let gw = cluster.gateway();
        gw.create_bucket(&root(), CreateBucket { bucket: bucket(), location: None }).await.unwrap();
        Self { cluster, gw }
    }

    fn body(&self, content: &Bytes) -> UploadBody {
        let mut rest = content.clone();
        let mut pieces = Vec::new();
        while !rest.is_empty() {
            pieces.push(rest.split_to(rest.len().min(300_000)));
        }
        UploadBody::from_pieces(self.cluster.env.clone(), pieces)
    }

    async fn put_if(&self, name: &str, content: &Bytes, condition: WriteCondition) -> Result<PutObjectReply, S3Error> {
        let request =
            PutObject { bucket: bucket(), key: key(name), headers: WriteHeaders::default(), condition, body: self.body(content) };
        self.gw.put_object(&root(), request).await
    }

    async fn put(&self, name: &str, content: &Bytes) -> Result<PutObjectReply, S3Error> {
        self.put_if(name, content, WriteCondition::None).await
    }

    async fn open(&self, name: &str, selection: ObjectSelection) -> Result<GetObjectReply, S3Error> {
        self.gw.get_object(&root(), get_request(name, selection)).await
    }

    async fn get(&self, name: &str) -> Result<Bytes, S3Error> {
        content(self.open(name, ObjectSelection::Whole).await?).await
    }

    async fn delete(&self, name: &str) -> Result<DeleteObjectReply, S3Error> {
        let request = DeleteObject { bucket: bucket(), key: key(name), version_id: None, condition: WriteCondition::None };
        self.gw.delete_object(&root(), request).await
    }

    /// Lets every task that is under way come to its end.
    async fn settle(&self) {
        self.cluster.env.sleep(Duration::from_secs(120)).await;
    }
}

fn bucket() -> BucketName {
    BucketName::parse("bench").unwrap()
}

fn key(name: &str) -> ObjectKey {
    ObjectKey::parse(name).unwrap()
}

fn get_request(name: &str, selection: ObjectSelection) -> GetObject {
    GetObject { bucket: bucket(), key: key(name), version_id: None, conditions: ReadConditions::default(), selection }
}

async fn content(reply: GetObjectReply) -> Result<Bytes, S3Error> {
    match reply.body {
        None => Ok(Bytes::new()),
        Some(body) => Ok(body
            .try_fold(BytesMut::new(), async |mut all, piece| {
                all.extend_from_slice(&piece);
                Ok(all)
            })
            .await?
            .freeze()),
    }
}

/// Bytes that differ from place to place and from seed to seed.
fn bytes(length: usize, seed: u64) -> Bytes {
    let mut content = vec![0; length];
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_be_bytes());
    hasher.finalize_xof().fill(&mut content);
    content.into()
}

fn refused<T: std::fmt::Debug>(verdict: Result<T, S3Error>, code: S3ErrorCode) -> S3Error {
    let error = verdict.expect_err("it must be refused");
    assert_eq!(error.code, code, "{error}");
    error
}
