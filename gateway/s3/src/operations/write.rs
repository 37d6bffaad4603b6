//! PutObject, CopyObject, DeleteObject and DeleteObjects.

use http::StatusCode;
use placement_types::{BucketName, ObjectKey};

use crate::api::{CopyObject, DeleteObject, DeleteObjectReply, DeleteObjects, DirectiveHeaders, DirectiveTags, PutObject};
use crate::call::{Answer, Call};
use crate::checksum::ChecksumAlgorithm;
use crate::conditions::{WriteCondition, strip_etag_quotes};
use crate::copy_source::copy_source;
use crate::error::{S3Error, S3ErrorCode};
use crate::header_text;
use crate::integrity::DigestDemand;
use crate::limits::DELETE_KEYS_MAX;
use crate::reply::Reply;
use crate::request_conditions::write_condition;
use crate::route::parse_key;
use crate::write_headers::WriteHeaders;
use crate::xml_reader::{Element, malformed};
use crate::xml_writer::XmlWriter;

pub(super) async fn put_object(mut call: Call<'_>, (bucket, key): (BucketName, ObjectKey)) -> Answer {
    let headers = WriteHeaders::parse(&call.headers)?;
    let condition = write_condition(&call.headers)?;
    let body = call.take_upload()?;
    let put = call.api.put_object(&call.cx, PutObject { bucket, key, headers, condition, body }).await?;
    let mut reply = Reply::empty(StatusCode::OK);
    reply.set_etag(&put.etag);
    reply.set_checksum(put.checksum.as_ref());
    reply.set_optional("x-amz-version-id", put.version_id.as_deref());
    Ok(reply)
}

/// The algorithm a client asks to have computed: `x-amz-checksum-algorithm`.
pub(super) fn wanted_algorithm(call: &Call<'_>) -> Result<Option<ChecksumAlgorithm>, S3Error> {
    let Some(name) = header_text::text(&call.headers, "x-amz-checksum-algorithm")? else { return Ok(None) };
    let message = "Checksum algorithm provided is unsupported. Please try again with any of the valid types: [CRC32, CRC32C, CRC64NVME, SHA1, SHA256]";
    let algorithm = ChecksumAlgorithm::from_name(name);
    algorithm.map(Some).ok_or_else(|| S3Error::with_message(S3ErrorCode::InvalidRequest, message))
}

/// A directive header: whether to replace.
fn replaces(call: &Call<'_>, name: &str) -> Result<bool, S3Error> {
    match header_text::text(&call.headers, name)? {
        None | Some("COPY") => Ok(false),
        Some("REPLACE") => Ok(true),
        Some(_) => Err(S3Error::with_message(S3ErrorCode::InvalidArgument, format!("Unknown value of {name}."))),
    }
}

pub(super) async fn copy_object(call: Call<'_>, (bucket, key): (BucketName, ObjectKey)) -> Answer {
    let source = copy_source(&call.headers)?;
    let WriteHeaders { content, metadata, tags, storage_class } = WriteHeaders::parse(&call.headers)?;
    let source_version = source.version_id.clone();
    let headers = match replaces(&call, "x-amz-metadata-directive")? {
        true => DirectiveHeaders::Replace { content, metadata },
        false => DirectiveHeaders::Copy,
    };
    let tags = match replaces(&call, "x-amz-tagging-directive")? {
        true => DirectiveTags::Replace(tags),
        false => DirectiveTags::Copy,
    };
    let checksum_algorithm = wanted_algorithm(&call)?;
    let condition = write_condition(&call.headers)?;
    let request = CopyObject { bucket, key, source, headers, tags, storage_class, checksum_algorithm, condition };
    let copied = call.api.copy_object(&call.cx, request).await?;
    let mut xml = XmlWriter::new("CopyObjectResult");
    xml.etag(&copied.etag);
    xml.time("LastModified", copied.last_modified);
    xml.checksum(copied.checksum.as_ref());
    xml.optional("ChecksumType", copied.checksum.as_ref().map(|checksum| checksum.checksum_type().name()));
    let mut reply = Reply::xml(xml);
    reply.set_optional("x-amz-version-id", copied.version_id.as_deref());
    reply.set_optional("x-amz-copy-source-version-id", source_version);
    Ok(reply)
}

pub(super) async fn delete_object(call: Call<'_>, (bucket, key): (BucketName, ObjectKey)) -> Answer {
    let condition = write_condition(&call.headers)?;
    if condition == WriteCondition::IfAbsent {
        let message = "If-None-Match does not go with a delete";
        return Err(S3Error::with_message(S3ErrorCode::NotImplemented, message));
    }
    let request = DeleteObject { bucket, key, version_id: call.version_id()?, condition };
    let deleted = call.api.delete_object(&call.cx, request).await?;
    let mut reply = Reply::empty(StatusCode::NO_CONTENT);
    reply.set_optional("x-amz-version-id", deleted.version_id.as_deref());
    if deleted.delete_marker {
        reply.set("x-amz-delete-marker", "true");
    }
    Ok(reply)
}

/// One `<Object>` of a `<Delete>`: what was asked, and either the entry to try or why it cannot be tried.
struct Asked {
    key: String,
    version_id: Option<String>,
    entry: Result<DeleteObject, S3Error>,
}

pub(super) async fn delete_objects(mut call: Call<'_>, bucket: BucketName) -> Answer {
    let document = call.take_document(DigestDemand::Required).await?;
    let delete = Element::parse(&document, "Delete")?;
    let quiet = delete.optional("Quiet")?.is_some_and(|text| text.trim().eq_ignore_ascii_case("true"));
    let asked: Vec<Asked> = delete.all("Object").map(|object| read_asked(&bucket, object)).collect::<Result<_, _>>()?;
    if asked.is_empty() || asked.len() > DELETE_KEYS_MAX {
        return Err(malformed());
    }
    // A key no object can have is that entry's failure, not the request's.
    let entries: Vec<DeleteObject> = asked.iter().filter_map(|asked| asked.entry.clone().ok()).collect();
    let tried = entries.len();
    let results = call.api.delete_objects(&call.cx, DeleteObjects { bucket, entries }).await?;
    if results.len() != tried {
        return Err(S3Error::with_message(S3ErrorCode::InternalError, "The deletion did not answer every key."));
    }
    let mut results = results.into_iter();
    let mut xml = XmlWriter::new("DeleteResult");
    for asked in &asked {
        let result = match &asked.entry {
            Ok(_) => results.next().expect("as many results as entries were counted above"),
            Err(error) => Err(error.clone()),
        };
        match result {
            Ok(deleted) if !quiet => write_deleted(&mut xml, asked, &deleted),
            Ok(_) => {}
            Err(error) => xml.group("Error", |xml| {
                xml.element("Key", &asked.key);
                xml.optional("VersionId", asked.version_id.as_ref());
                xml.element("Code", error.code.name());
                xml.element("Message", &error.message);
            }),
        }
    }
    Ok(Reply::xml(xml))
}

fn read_asked(bucket: &BucketName, object: &Element) -> Result<Asked, S3Error> {
    let key = object.required("Key")?.to_owned();
    let version_id = object.optional("VersionId")?.filter(|version| !version.is_empty()).map(str::to_owned);
    let condition = match object.optional("ETag")?.map(strip_etag_quotes) {
        None | Some("") => WriteCondition::None,
        Some("*") => WriteCondition::IfExists,
        Some(etag) => WriteCondition::IfMatch(etag.to_owned()),
    };
    let entry =
        parse_key(&key).map(|key| DeleteObject { bucket: bucket.clone(), key, version_id: version_id.clone(), condition });
    Ok(Asked { key, version_id, entry })
}

fn write_deleted(xml: &mut XmlWriter, asked: &Asked, deleted: &DeleteObjectReply) {
    xml.group("Deleted", |xml| {
        xml.element("Key", &asked.key);
        xml.optional("VersionId", asked.version_id.as_ref());
        if deleted.delete_marker {
            xml.element("DeleteMarker", true);
            xml.optional("DeleteMarkerVersionId", deleted.version_id.as_ref());
        }
    });
}
