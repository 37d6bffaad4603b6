//! The operations on multipart uploads.

use http::StatusCode;
use placement_types::{BucketName, ObjectKey, UploadId};

use super::write::wanted_algorithm;
use crate::api::{
    AbortMultipartUpload, CompleteMultipartUpload, CompletedPart, CreateMultipartUpload, ListParts, Owner, PartNumber,
    UploadPart, UploadPartCopy,
};
use crate::call::{Answer, Call};
use crate::checksum::{Checksum, ChecksumAlgorithm, ChecksumType};
use crate::conditions::strip_etag_quotes;
use crate::copy_source::{copy_source, copy_source_range};
use crate::error::{S3Error, S3ErrorCode};
use crate::header_text;
use crate::integrity::{checksum_header, content_md5, verify_md5};
use crate::limits::LIST_KEYS_MAX;
use crate::reply::Reply;
use crate::request_conditions::write_condition;
use crate::write_headers::WriteHeaders;
use crate::xml_reader::{Element, malformed};
use crate::xml_writer::XmlWriter;

/// An id that is no id of ours belongs to no upload.
fn upload_id(call: &Call<'_>) -> Result<UploadId, S3Error> {
    let text = call.query.get("uploadId")?.unwrap_or("");
    text.parse().map_err(|_| S3ErrorCode::NoSuchUpload.into())
}

fn part_number(call: &Call<'_>) -> Result<PartNumber, S3Error> {
    let missing = || S3Error::with_message(S3ErrorCode::InvalidArgument, "partNumber is missing");
    let text = call.query.text("partNumber")?.ok_or_else(missing)?;
    PartNumber::new(text.parse().unwrap_or(-1))
}

fn checksum_type(call: &Call<'_>) -> Result<Option<ChecksumType>, S3Error> {
    let Some(name) = header_text::text(&call.headers, "x-amz-checksum-type")? else { return Ok(None) };
    let invalid = || S3Error::with_message(S3ErrorCode::InvalidRequest, "Value for x-amz-checksum-type header is invalid.");
    ChecksumType::from_name(name).map(Some).ok_or_else(invalid)
}

pub(super) async fn create_multipart_upload(call: Call<'_>, (bucket, key): (BucketName, ObjectKey)) -> Answer {
    let headers = WriteHeaders::parse(&call.headers)?;
    let checksum = upload_checksum(wanted_algorithm(&call)?, checksum_type(&call)?)?;
    let path = (bucket.clone(), key.clone());
    let upload = call.api.create_multipart_upload(&call.cx, CreateMultipartUpload { bucket, key, headers, checksum }).await?;
    let mut xml = XmlWriter::new("InitiateMultipartUploadResult");
    xml.element("Bucket", &path.0);
    xml.element("Key", &path.1);
    xml.element("UploadId", upload);
    let mut reply = Reply::xml(xml);
    if let Some((algorithm, checksum_type)) = checksum {
        reply.set("x-amz-checksum-algorithm", algorithm.name());
        reply.set("x-amz-checksum-type", checksum_type.name());
    }
    Ok(reply)
}

/// Algorithm and type of an upload. A type without an algorithm says nothing, and is refused.
fn upload_checksum(
    algorithm: Option<ChecksumAlgorithm>,
    checksum_type: Option<ChecksumType>,
) -> Result<Option<(ChecksumAlgorithm, ChecksumType)>, S3Error> {
    let invalid = |message: String| Err(S3Error::with_message(S3ErrorCode::InvalidRequest, message));
    match (algorithm, checksum_type) {
        (None, None) => Ok(None),
        (None, Some(_)) => {
            invalid("The x-amz-checksum-type header can only be used with the x-amz-checksum-algorithm header.".to_owned())
        }
        (Some(algorithm), None) => Ok(Some((algorithm, algorithm.default_type()))),
        (Some(algorithm), Some(wanted)) if algorithm.allows(wanted) => Ok(Some((algorithm, wanted))),
        (Some(algorithm), Some(wanted)) => {
            let (algorithm, wanted) = (algorithm.name().to_ascii_lowercase(), wanted.name());
            invalid(format!("The {wanted} checksum type cannot be used with the {algorithm} checksum algorithm."))
        }
    }
}

pub(super) async fn upload_part(mut call: Call<'_>, (bucket, key): (BucketName, ObjectKey)) -> Answer {
    let (number, upload) = (part_number(&call)?, upload_id(&call)?);
    let body = call.take_upload()?;
    let part = call.api.upload_part(&call.cx, UploadPart { bucket, key, upload, number, body }).await?;
    let mut reply = Reply::empty(StatusCode::OK);
    reply.set_etag(&part.etag);
    if let Some(checksum) = &part.checksum {
        reply.set(checksum.algorithm().header(), checksum.text());
    }
    Ok(reply)
}

pub(super) async fn upload_part_copy(call: Call<'_>, (bucket, key): (BucketName, ObjectKey)) -> Answer {
    let (number, upload) = (part_number(&call)?, upload_id(&call)?);
    let source = copy_source(&call.headers)?;
    let source_version = source.version_id.clone();
    let range = copy_source_range(&call.headers)?;
    let part = call.api.upload_part_copy(&call.cx, UploadPartCopy { bucket, key, upload, number, source, range }).await?;
    let mut xml = XmlWriter::new("CopyPartResult");
    xml.time("LastModified", part.last_modified);
    xml.etag(&part.etag);
    xml.checksum(part.checksum.as_ref());
    let mut reply = Reply::xml(xml);
    reply.set_optional("x-amz-copy-source-version-id", source_version);
    Ok(reply)
}

pub(super) async fn complete_multipart_upload(mut call: Call<'_>, (bucket, key): (BucketName, ObjectKey)) -> Answer {
    let upload = upload_id(&call)?;
    let condition = write_condition(&call.headers)?;
    // Here the checksum header is the object's, not this document's; Content-MD5 is still the document's.
    let checksum = checksum_header(&call.headers)?;
    let checksum_type = checksum_type(&call)?;
    let object_size = header_text::number(&call.headers, "x-amz-mp-object-size")?;
    let document = call.read_document().await?;
    verify_md5(content_md5(&call.headers)?, &document)?;
    let parts = read_parts(&Element::parse(&document, "CompleteMultipartUpload")?)?;
    let location = format!("{}/{bucket}/{}", call.origin, super::listing::url_encode(key.as_str()));
    let path = (bucket.clone(), key.clone());
    let request = CompleteMultipartUpload { bucket, key, upload, parts, checksum, checksum_type, object_size, condition };
    let completed = call.api.complete_multipart_upload(&call.cx, request).await?;
    let mut xml = XmlWriter::new("CompleteMultipartUploadResult");
    xml.element("Location", location);
    xml.element("Bucket", &path.0);
    xml.element("Key", &path.1);
    xml.etag(&completed.etag);
    xml.checksum(completed.checksum.as_ref());
    xml.optional("ChecksumType", completed.checksum.as_ref().map(|checksum| checksum.checksum_type().name()));
    let mut reply = Reply::xml(xml);
    reply.set_optional("x-amz-version-id", completed.version_id.as_deref());
    Ok(reply)
}

/// The parts of a completion: ascending, without duplicates, at least one.
fn read_parts(completion: &Element) -> Result<Vec<CompletedPart>, S3Error> {
    let parts: Vec<CompletedPart> = completion.all("Part").map(read_part).collect::<Result<_, _>>()?;
    if parts.is_empty() {
        return Err(malformed());
    }
    if parts.windows(2).any(|pair| pair[0].number >= pair[1].number) {
        let message = "The list of parts was not in ascending order. Parts must be ordered by part number.";
        return Err(S3Error::with_message(S3ErrorCode::InvalidPartOrder, message));
    }
    Ok(parts)
}

fn read_part(part: &Element) -> Result<CompletedPart, S3Error> {
    let number = part.required("PartNumber")?.trim().parse().map_err(|_| malformed())?;
    let etag = strip_etag_quotes(part.required("ETag")?).to_owned();
    let mut checksum = None;
    for algorithm in ChecksumAlgorithm::ALL {
        let Some(text) = part.optional(&format!("Checksum{}", algorithm.name()))?.map(str::trim) else { continue };
        let parsed = Checksum::parse(algorithm, text).map_err(|_| S3Error::new(S3ErrorCode::InvalidPart))?;
        if checksum.replace(parsed).is_some() {
            return Err(malformed());
        }
    }
    Ok(CompletedPart { number: PartNumber::new(number)?, etag, checksum })
}

pub(super) async fn abort_multipart_upload(call: Call<'_>, (bucket, key): (BucketName, ObjectKey)) -> Answer {
    let upload = upload_id(&call)?;
    call.api.abort_multipart_upload(&call.cx, AbortMultipartUpload { bucket, key, upload }).await?;
    Ok(Reply::empty(StatusCode::NO_CONTENT))
}

pub(super) async fn list_parts(call: Call<'_>, (bucket, key): (BucketName, ObjectKey)) -> Answer {
    let upload = upload_id(&call)?;
    let max_parts = super::listing::page_limit(&call.query, "max-parts")?;
    let marker = super::listing::non_negative(&call.query, "part-number-marker")?.unwrap_or(0);
    let part_number_marker = u16::try_from(marker).unwrap_or(u16::MAX);
    let path = (bucket.clone(), key.clone());
    let listed = call.api.list_parts(&call.cx, ListParts { bucket, key, upload, part_number_marker, max_parts }).await?;
    debug_assert!(listed.parts.len() <= usize::from(LIST_KEYS_MAX));
    let mut xml = XmlWriter::new("ListPartsResult");
    xml.element("Bucket", &path.0);
    xml.element("Key", &path.1);
    xml.element("UploadId", upload);
    write_owner(&mut xml, "Initiator", &listed.owner);
    write_owner(&mut xml, "Owner", &listed.owner);
    xml.element("StorageClass", &listed.storage_class);
    xml.element("PartNumberMarker", part_number_marker);
    xml.element("NextPartNumberMarker", listed.parts.last().map_or(part_number_marker, |part| part.number.get()));
    xml.element("MaxParts", max_parts);
    xml.element("IsTruncated", listed.truncated);
    if let Some((algorithm, checksum_type)) = listed.checksum {
        xml.element("ChecksumAlgorithm", algorithm.name());
        xml.element("ChecksumType", checksum_type.name());
    }
    for part in &listed.parts {
        xml.group("Part", |xml| {
            xml.element("PartNumber", part.number);
            xml.time("LastModified", part.last_modified);
            xml.etag(&part.etag);
            xml.element("Size", part.size);
            xml.checksum(part.checksum.as_ref());
        });
    }
    Ok(Reply::xml(xml))
}

/// `<Owner>` and `<Initiator>`.
pub(super) fn write_owner(xml: &mut XmlWriter, name: &str, owner: &Owner) {
    xml.group(name, |xml| {
        xml.element("ID", &owner.id);
        xml.element("DisplayName", &owner.display_name);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_completion_lists_parts_in_ascending_order() {
        let check = |parts: &str, expected: Result<&[(u16, &str)], S3ErrorCode>| {
            let text = format!("<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>");
            let got = Element::parse(text.as_bytes(), "CompleteMultipartUpload").and_then(|element| read_parts(&element));
            let got = got.map_err(|error| error.code);
            let got = got.map(|parts| parts.into_iter().map(|part| (part.number.get(), part.etag)).collect::<Vec<_>>());
            let expected = expected.map(|parts| parts.iter().map(|(n, e)| (*n, (*e).to_owned())).collect::<Vec<_>>());
            assert_eq!(got, expected, "{parts}");
        };
        let part = |number: &str, etag: &str| format!("<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>");
        check(&(part("1", "\"a\"") + &part("3", "&quot;b&quot;") + &part("9", "c")), Ok(&[(1, "a"), (3, "b"), (9, "c")]));
        check("", Err(S3ErrorCode::MalformedXML));
        check(&(part("2", "a") + &part("1", "b")), Err(S3ErrorCode::InvalidPartOrder));
        check(&(part("2", "a") + &part("2", "b")), Err(S3ErrorCode::InvalidPartOrder));
        check(&part("0", "a"), Err(S3ErrorCode::InvalidArgument));
        check(&part("10001", "a"), Err(S3ErrorCode::InvalidArgument));
        check(&part("x", "a"), Err(S3ErrorCode::MalformedXML));
        check("<Part><PartNumber>1</PartNumber></Part>", Err(S3ErrorCode::MalformedXML));
        let bad = "<Part><PartNumber>1</PartNumber><ETag>a</ETag><ChecksumCRC32>zz</ChecksumCRC32></Part>";
        check(bad, Err(S3ErrorCode::InvalidPart));
    }

    #[test]
    fn an_upload_has_a_checksum_that_its_algorithm_allows() {
        use ChecksumAlgorithm::{Crc32, Crc64Nvme, Sha256};
        use ChecksumType::{Composite, FullObject};
        let check = |algorithm, wanted, expected: Result<_, S3ErrorCode>| {
            assert_eq!(upload_checksum(algorithm, wanted).map_err(|error| error.code), expected);
        };
        check(None, None, Ok(None));
        check(Some(Crc32), None, Ok(Some((Crc32, Composite))));
        check(Some(Crc32), Some(FullObject), Ok(Some((Crc32, FullObject))));
        check(Some(Crc64Nvme), None, Ok(Some((Crc64Nvme, FullObject))));
        check(Some(Crc64Nvme), Some(Composite), Err(S3ErrorCode::InvalidRequest));
        check(Some(Sha256), Some(FullObject), Err(S3ErrorCode::InvalidRequest));
        check(None, Some(FullObject), Err(S3ErrorCode::InvalidRequest));
    }
}
