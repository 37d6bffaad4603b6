//! UploadPart.

use std::sync::Arc;

use gateway_s3::{ChecksumAlgorithm, RequestContext, UploadPart, UploadPartReply, VerifiedUpload};
use placement_map::bucket::Bucket;
use placement_types::{ObjectKey, Timestamp, TxnId, UploadId, Waypoint};
use storage_node_proto::api::Owner;
use storage_node_proto::command::{Change, Command, Outcome};
use storage_node_proto::object::Upload;

use crate::authorize::{Action, Resource, authorize};
use crate::error::Failure;
use crate::gateway::Gateway;
use crate::ops::list_parts::find_upload;
use crate::records::{self, algorithm_from, shelf_of};
use crate::staged_data::StagedData;

/// Stores a part; of two with one number the one that finishes last stays. Invisible until the upload is completed.
pub async fn upload_part(gw: &Gateway, cx: &RequestContext, request: UploadPart) -> Result<UploadPartReply, Failure> {
    authorize(&cx.caller, Action::PutObject, Resource::Object(&request.bucket, &request.key))?;
    let UploadPart { bucket, key, upload: id, number, mut body } = request;
    let (bucket, upload) = open_upload(gw, &bucket, &key, id).await?;
    body.require_checksum(part_algorithm(&upload))?;
    let owner = Owner { txn: TxnId::random(&gw.env), slot: shelf_of(&bucket, &key).slot() };
    gw.env.pass(Waypoint::PartBegun).await;
    let (staged, verified) = gw.writer.write(body, owner, gateway_s3::limits::PUT_BYTES_MAX).await?;
    gw.env.pass(Waypoint::PartStaged).await;
    let etag = verified.etag();
    let checksum = Some(verified.checksum.clone());
    commit_part(gw, &bucket, NewPart { key, upload: id, number: number.get(), verified }, staged).await?;
    gw.env.pass(Waypoint::PartCommitted).await;
    Ok(UploadPartReply { etag, checksum })
}

/// The bucket as it is, and the upload in it.
pub async fn open_upload(
    gw: &Gateway,
    bucket: &placement_types::BucketName,
    key: &ObjectKey,
    upload: UploadId,
) -> Result<(Arc<Bucket>, Upload), Failure> {
    gw.buckets
        .with(bucket, |bucket: Arc<Bucket>| async move {
            let found = find_upload(gw, &bucket, key, upload).await?;
            Ok((bucket, found))
        })
        .await
}

/// The algorithm every part of an upload carries: the one announced, else what full objects get.
pub fn part_algorithm(upload: &Upload) -> ChecksumAlgorithm {
    upload.checksum.map_or(ChecksumAlgorithm::Crc64Nvme, |(algorithm, _)| algorithm_from(algorithm))
}

/// A part to be committed.
pub struct NewPart {
    pub key: ObjectKey,
    pub upload: UploadId,
    pub number: u16,
    pub verified: VerifiedUpload,
}

/// Files the part; answers when it was modified. An upload belongs to one bucket, so there is no other to try.
pub async fn commit_part(gw: &Gateway, bucket: &Bucket, part: NewPart, staged: StagedData) -> Result<Timestamp, Failure> {
    let shelf = shelf_of(bucket, &part.key);
    let change = Change::PutPart {
        shelf,
        key: part.key,
        upload: part.upload,
        number: part.number,
        md5: part.verified.md5,
        checksum: Some(records::checksum_to(&part.verified.checksum)),
        data: staged.data(),
    };
    let bytes = staged.bytes;
    let command = Command { txn: staged.txn, time: gw.env.now(), change };
    let time = command.time;
    match gw.commit(shelf, command, Some(staged)).await? {
        Outcome::PartWritten => {
            crate::metrics::bytes_stored(bytes);
            Ok(time)
        }
        Outcome::BucketGone => {
            let fresh = gw.buckets.after_gone(bucket).await?;
            // With the old bucket its uploads went; but its deletion may only have been tried, and taken back.
            Err(if fresh.id == bucket.id { Failure::BucketBusy } else { Failure::NoSuchUpload })
        }
        other => Err(Failure::of_outcome("put a part", other)),
    }
}
