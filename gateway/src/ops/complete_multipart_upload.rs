//! CompleteMultipartUpload.

use std::collections::BTreeMap;
use std::sync::Arc;

use gateway_s3::{
    ChecksumAlgorithm, ChecksumType, CompleteMultipartUpload, CompletedPart, PutObjectReply, RequestContext, S3Error,
    S3ErrorCode, combine_part_checksums, multipart_etag,
};
use placement_map::bucket::Bucket;
use placement_types::{TxnId, Waypoint};
use storage_node_proto::command::{Change, Command, Outcome};
use storage_node_proto::object::{ObjectAttributes, ObjectRecord, Part, PartSummary, Upload, VersionBody, VersionSelector};
use storage_node_proto::query::{Answer, Query};

use crate::authorize::{Action, Resource, authorize};
use crate::conditions;
use crate::error::Failure;
use crate::gateway::Gateway;
use crate::limits::{COMPLETE_RETRIES_MAX, OBJECT_BYTES_MAX, PART_BYTES_MIN};
use crate::ops::list_parts::{all_parts, find_upload};
use crate::records::{self, announced_from, part_checksum_from, shelf_of, versioning};
use crate::version_id;

/// Makes an object of the listed parts, in one step of the key's group. Repeating it after success answers the same (s3.md 17).
pub async fn complete_multipart_upload(
    gw: &Gateway,
    cx: &RequestContext,
    request: CompleteMultipartUpload,
) -> Result<PutObjectReply, Failure> {
    authorize(&cx.caller, Action::PutObject, Resource::Object(&request.bucket, &request.key))?;
    let request = &request;
    gw.buckets
        .with(&request.bucket, |bucket: Arc<Bucket>| async move {
            for _ in 0..COMPLETE_RETRIES_MAX {
                // A part was replaced between reading and committing: the list may still be right about the new one.
                match try_complete(gw, &bucket, request).await? {
                    Some(reply) => return Ok(reply),
                    None => tracing::debug!("parts changed while an upload was being completed"),
                }
            }
            Err(Failure::of_outcome("complete an upload", Outcome::PartsChanged))
        })
        .await
}

/// `None` when the parts changed under it.
async fn try_complete(
    gw: &Gateway,
    bucket: &Bucket,
    request: &CompleteMultipartUpload,
) -> Result<Option<PutObjectReply>, Failure> {
    let read = async {
        let upload = find_upload(gw, bucket, &request.key, request.upload).await?;
        Ok((upload, all_parts(gw, bucket, &request.key, request.upload).await?))
    };
    let (upload, parts) = match read.await {
        Ok(found) => found,
        Err(Failure::NoSuchUpload) => return completed_before(gw, bucket, request).await.map(Some),
        Err(failure) => return Err(failure),
    };
    let record = assemble(request, &upload, parts)?;
    let (etag, size) = (record.etag.clone(), record.bytes);
    let part_count = u16::try_from(record.parts.len()).unwrap_or(u16::MAX);
    let checksum = record.checksum.as_ref().map(|checksum| records::checksum_from(checksum, part_count)).transpose()?;
    let shelf = shelf_of(bucket, &request.key);
    let change = Change::CompleteUpload {
        shelf,
        key: request.key.clone(),
        upload: request.upload,
        versioning: versioning(bucket),
        condition: conditions::of_write(&request.condition),
        record,
    };
    let command = Command { txn: TxnId::random(&gw.env), time: gw.env.now(), change };
    gw.env.pass(Waypoint::CompleteAssembled).await;
    let outcome = gw.commit(shelf, command, None).await?;
    gw.env.pass(Waypoint::CompleteCommitted).await;
    match outcome {
        Outcome::Written { version, modified } => {
            Ok(Some(PutObjectReply { etag, last_modified: modified, size, checksum, version_id: version_id::of_write(version) }))
        }
        Outcome::PartsChanged => Ok(None),
        other => Err(Failure::of_outcome("complete an upload", other)),
    }
}

/// The upload is gone: if the same list completed it, that is this request's answer too.
async fn completed_before(gw: &Gateway, bucket: &Bucket, request: &CompleteMultipartUpload) -> Result<PutObjectReply, Failure> {
    let shelf = shelf_of(bucket, &request.key);
    let query = Query::CompletedUpload { shelf, key: request.key.clone(), upload: request.upload };
    let (version, modified, etag, checksum) = match gw.router.query(shelf, query).await? {
        Answer::CompletedUpload { version, modified, etag, checksum } => (version, modified, etag, checksum),
        other => return Err(Failure::of_answer("completed upload", other)),
    };
    let listed: Option<Vec<[u8; 16]>> = request.parts.iter().map(listed_md5).collect();
    if listed.map(|md5s| multipart_etag(&md5s)).as_deref() != Some(etag.as_str()) {
        return Err(Failure::NoSuchUpload);
    }
    // The size is told when the version is still there to tell it.
    let query = Query::Version { shelf, key: request.key.clone(), selector: VersionSelector::Exact(version) };
    let size = match gw.router.query(shelf, query).await? {
        Answer::Version { version, .. } => match version.body {
            VersionBody::Object(record) if record.etag == etag => record.bytes,
            VersionBody::Object(_) | VersionBody::DeleteMarker => 0,
        },
        Answer::NoSuchVersion | Answer::NoSuchKey { .. } => 0,
        other => return Err(Failure::of_answer("version", other)),
    };
    let parts = u16::try_from(request.parts.len()).unwrap_or(u16::MAX);
    Ok(PutObjectReply {
        etag,
        last_modified: modified,
        size,
        checksum: checksum.map(|checksum| records::checksum_from(&checksum, parts)).transpose()?,
        version_id: version_id::of_write(version),
    })
}

fn listed_md5(part: &CompletedPart) -> Option<[u8; 16]> {
    hex::decode(&part.etag).ok()?.try_into().ok()
}

/// Checks the client's list against the parts there are, and makes the object's record of it (s3.md 15, 16, 38). Everything
/// but the attributes, which are the upload's.
fn assemble(request: &CompleteMultipartUpload, upload: &Upload, parts: Vec<Part>) -> Result<ObjectRecord, Failure> {
    let mut stored: BTreeMap<u16, Part> = parts.into_iter().map(|part| (part.number, part)).collect();
    let mut chosen = Vec::with_capacity(request.parts.len());
    for listed in &request.parts {
        let part = stored.remove(&listed.number.get()).filter(|part| listed_md5(listed) == Some(part.md5));
        let part = part.ok_or(S3ErrorCode::InvalidPart)?;
        let checksum = part_checksum_from(part.checksum.as_ref())?;
        if listed.checksum.is_some() && listed.checksum != checksum {
            return Err(S3ErrorCode::InvalidPart.into());
        }
        chosen.push((part, checksum));
    }
    let Some((_, before_last)) = chosen.split_last() else { return Err(S3ErrorCode::MalformedXML.into()) };
    if before_last.iter().any(|(part, _)| part.data.bytes < PART_BYTES_MIN) {
        return Err(S3ErrorCode::EntityTooSmall.into());
    }
    let bytes: u64 = chosen.iter().map(|(part, _)| part.data.bytes).sum();
    if bytes > OBJECT_BYTES_MAX {
        return Err(S3ErrorCode::EntityTooLarge.into());
    }
    if request.object_size.is_some_and(|announced| announced != bytes) {
        let text = "The provided 'x-amz-mp-object-size' header does not match what was computed.";
        return Err(S3Error::with_message(S3ErrorCode::InvalidRequest, text).into());
    }
    let checksum = whole_checksum(request, upload, &chosen)?;
    Ok(ObjectRecord {
        bytes,
        etag: multipart_etag(chosen.iter().map(|(part, _)| &part.md5)),
        attributes: ObjectAttributes::default(),
        checksum: Some(checksum),
        data: chosen.iter().map(|(part, _)| part.data).collect(),
        parts: chosen
            .into_iter()
            .map(|(part, _)| PartSummary { number: part.number, bytes: part.data.bytes, checksum: part.checksum })
            .collect(),
    })
}

/// The object's checksum from its parts', checked against the client's.
fn whole_checksum(
    request: &CompleteMultipartUpload,
    upload: &Upload,
    chosen: &[(Part, Option<gateway_s3::Checksum>)],
) -> Result<storage_node_proto::object::Checksum, Failure> {
    let announced = upload.checksum.map(announced_from);
    let (algorithm, checksum_type) = announced.unwrap_or((ChecksumAlgorithm::Crc64Nvme, ChecksumType::FullObject));
    if request.checksum_type.is_some_and(|wanted| announced.is_some() && wanted != checksum_type) {
        let text = format!(
            "The upload was created using the {} checksum mode. The complete request must use the same checksum mode.",
            checksum_type.name()
        );
        return Err(S3Error::with_message(S3ErrorCode::InvalidRequest, text).into());
    }
    let parts: Option<Vec<_>> = chosen.iter().map(|(part, checksum)| Some((checksum.clone()?, part.data.bytes))).collect();
    let lost = || Failure::UnfitAnswer { to: "list parts", answer: "a part without the upload's checksum".into() };
    let computed = combine_part_checksums(algorithm, checksum_type, &parts.ok_or_else(lost)?).map_err(|_| lost())?;
    match &request.checksum {
        Some(claimed) if claimed.algorithm() != algorithm => {
            let text = format!(
                "Checksum Type mismatch occurred, expected checksum Type: {}, actual checksum Type: {}",
                algorithm.name().to_ascii_lowercase(),
                claimed.algorithm().name().to_ascii_lowercase()
            );
            Err(S3Error::with_message(S3ErrorCode::InvalidRequest, text).into())
        }
        // Some clients send a composite one without its count of parts: the digest decides.
        Some(claimed)
            if claimed.value() != computed.value() || claimed.parts().is_some_and(|parts| Some(parts) != computed.parts()) =>
        {
            let text = format!("The {} you specified did not match the calculated checksum.", algorithm.name());
            Err(S3Error::with_message(S3ErrorCode::BadDigest, text).into())
        }
        Some(_) | None => Ok(records::checksum_to(&computed)),
    }
}
