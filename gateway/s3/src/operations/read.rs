//! GetObject, HeadObject and GetObjectAttributes.

use http::{HeaderMap, StatusCode};
use placement_types::{BucketName, ObjectKey};

use crate::api::{Caller, GetObject, GetObjectAttributes, HeadObjectReply, ObjectAttributes, ObjectSelection, PartNumber};
use crate::call::{Answer, Call};
use crate::error::{S3Error, S3ErrorCode};
use crate::limits::LIST_KEYS_MAX;
use crate::range::RangeRequest;
use crate::reply::Reply;
use crate::request_conditions::read_conditions;
use crate::xml_writer::XmlWriter;
use crate::{header_text, http_date};

pub(super) async fn get_object(call: Call<'_>, object: (BucketName, ObjectKey)) -> Answer {
    let overrides = Overrides::parse(&call)?;
    let request = read_request(&call, object)?;
    let got = call.api.get_object(&call.cx, request).await?;
    let mut reply = head_reply(&got.head, &call.headers)?;
    overrides.apply(&mut reply);
    Ok(match got.body {
        Some(body) => reply.with_stream(body, served_bytes(&got.head)),
        None if served_bytes(&got.head) == 0 => reply,
        None => return Err(S3Error::with_message(S3ErrorCode::InternalError, "The object's bytes are missing.")),
    })
}

pub(super) async fn head_object(call: Call<'_>, object: (BucketName, ObjectKey)) -> Answer {
    let overrides = Overrides::parse(&call)?;
    let request = read_request(&call, object)?;
    let head = call.api.head_object(&call.cx, request).await?;
    let mut reply = head_reply(&head, &call.headers)?;
    overrides.apply(&mut reply);
    Ok(reply)
}

fn read_request(call: &Call<'_>, (bucket, key): (BucketName, ObjectKey)) -> Result<GetObject, S3Error> {
    let part = match call.query.text("partNumber")? {
        None => None,
        Some(text) => Some(PartNumber::new(text.parse().unwrap_or(-1))?),
    };
    // With If-Range the range counts only if the object is unchanged; to serve all of it is always right.
    let range = match header_text::text(&call.headers, "range")? {
        Some(value) if !call.headers.contains_key("if-range") => RangeRequest::parse(value),
        _ => None,
    };
    let selection = match (part, range) {
        (Some(_), Some(_)) => {
            let message = "Cannot specify both Range header and partNumber query parameter";
            return Err(S3Error::with_message(S3ErrorCode::InvalidRequest, message));
        }
        (Some(part), None) => ObjectSelection::Part(part),
        (None, Some(range)) => ObjectSelection::Range(range),
        (None, None) => ObjectSelection::Whole,
    };
    Ok(GetObject { bucket, key, version_id: call.version_id()?, conditions: read_conditions(&call.headers)?, selection })
}

fn served_bytes(head: &HeadObjectReply) -> u64 {
    head.range.map_or(head.object.size, |range| range.len())
}

fn head_reply(head: &HeadObjectReply, request: &HeaderMap) -> Result<Reply, S3Error> {
    let object = &head.object;
    let mut reply = Reply::empty(StatusCode::OK);
    reply.set("accept-ranges", "bytes");
    reply.set_etag(&object.etag);
    reply.set("last-modified", http_date::format(object.last_modified));
    reply.set("content-type", object.content.content_type.as_deref().unwrap_or("binary/octet-stream"));
    reply.set_optional("cache-control", object.content.cache_control.as_deref());
    reply.set_optional("content-disposition", object.content.content_disposition.as_deref());
    reply.set_optional("content-encoding", object.content.content_encoding.as_deref());
    reply.set_optional("content-language", object.content.content_language.as_deref());
    reply.set_optional("expires", object.content.expires.as_deref());
    reply.set_optional("x-amz-website-redirect-location", object.content.website_redirect_location.as_deref());
    reply.set_optional("x-amz-version-id", object.version_id.as_deref());
    if object.storage_class != "STANDARD" {
        reply.set("x-amz-storage-class", &object.storage_class);
    }
    if object.tag_count > 0 {
        reply.set("x-amz-tagging-count", object.tag_count.to_string());
    }
    for (name, value) in &object.metadata {
        set_metadata(&mut reply, name, value);
    }
    if let Some(range) = head.range {
        reply.status = StatusCode::PARTIAL_CONTENT;
        let last = range.end().checked_sub(1).filter(|last| *last >= range.start());
        let last = last.ok_or_else(|| S3Error::invalid_range(object.size))?;
        reply.set("content-range", format!("bytes {}-{last}/{}", range.start(), object.size));
    }
    let disclose = header_text::text(request, "x-amz-checksum-mode")?.is_some_and(|mode| mode.eq_ignore_ascii_case("enabled"));
    if let Some(part) = &head.part {
        reply.set("x-amz-mp-parts-count", part.count.to_string());
        if disclose {
            reply.set_checksum(part.checksum.as_ref());
            // The value is the part's, the type is still the object's: it says what the parts' values combine to.
            reply.set_optional("x-amz-checksum-type", object.checksum.as_ref().map(|whole| whole.checksum_type().name()));
        }
    } else if disclose && head.range.is_none() {
        reply.set_checksum(object.checksum.as_ref());
    }
    reply.set_length(served_bytes(head));
    Ok(reply)
}

/// Sends metadata as Amazon S3 does: as it is when it is ASCII, else as an RFC 2047 encoded word.
fn set_metadata(reply: &mut Reply, name: &str, value: &str) {
    use base64::Engine as _;
    let Ok(name) = http::HeaderName::try_from(format!("x-amz-meta-{name}")) else {
        tracing::warn!(header = name, "a stored metadata name is not legal in a header");
        return;
    };
    let encoded = if value.bytes().all(|b| (0x20..0x7f).contains(&b) || b == b'\t') {
        value.to_owned()
    } else {
        format!("=?UTF-8?B?{}?=", base64::engine::general_purpose::STANDARD.encode(value))
    };
    reply.headers.insert(name, encoded.parse().expect("printable ASCII is legal in a header"));
}

/// The `response-*` parameters.
struct Overrides(Vec<(&'static str, String)>);

impl Overrides {
    const NAMES: [(&'static str, &'static str); 6] = [
        ("response-cache-control", "cache-control"),
        ("response-content-disposition", "content-disposition"),
        ("response-content-encoding", "content-encoding"),
        ("response-content-language", "content-language"),
        ("response-content-type", "content-type"),
        ("response-expires", "expires"),
    ];

    /// Only a signed request may override headers, or anyone could make a public object a web page of theirs.
    fn parse(call: &Call<'_>) -> Result<Self, S3Error> {
        let mut overrides = Vec::new();
        for (parameter, header) in Self::NAMES {
            let Some(value) = call.query.text(parameter)? else { continue };
            if call.cx.caller == Caller::Anonymous {
                let message = "Request specific response headers cannot be used for anonymous GET requests.";
                return Err(S3Error::with_message(S3ErrorCode::InvalidRequest, message));
            }
            if http::HeaderValue::from_bytes(value.as_bytes()).is_err() {
                let message = format!("The parameter {parameter} is not legal in a header");
                return Err(S3Error::with_message(S3ErrorCode::InvalidArgument, message));
            }
            overrides.push((header, value));
        }
        Ok(Self(overrides))
    }

    fn apply(&self, reply: &mut Reply) {
        for (header, value) in &self.0 {
            reply.set(header, value);
        }
    }
}

pub(super) async fn get_object_attributes(call: Call<'_>, (bucket, key): (BucketName, ObjectKey)) -> Answer {
    let wanted = Attributes::parse(&call.headers)?;
    let max_parts = header_text::number(&call.headers, "x-amz-max-parts")?;
    let max_parts = max_parts.map_or(LIST_KEYS_MAX, |max| u16::try_from(max).unwrap_or(LIST_KEYS_MAX).min(LIST_KEYS_MAX));
    let marker = header_text::number(&call.headers, "x-amz-part-number-marker")?.unwrap_or(0);
    let part_number_marker = u16::try_from(marker).unwrap_or(PartNumber::MAX);
    let version_id = call.version_id()?;
    let request = GetObjectAttributes { bucket, key, version_id, part_number_marker, max_parts };
    let attributes = call.api.get_object_attributes(&call.cx, request).await?;
    let mut reply = Reply::xml(attributes_document(&attributes, wanted, part_number_marker, max_parts));
    reply.set("last-modified", http_date::format(attributes.object.last_modified));
    reply.set_optional("x-amz-version-id", attributes.object.version_id.as_deref());
    Ok(reply)
}

/// `x-amz-object-attributes`.
#[derive(Default, Clone, Copy)]
struct Attributes {
    etag: bool,
    checksum: bool,
    parts: bool,
    storage_class: bool,
    size: bool,
}

impl Attributes {
    fn parse(headers: &HeaderMap) -> Result<Self, S3Error> {
        let invalid = || S3Error::with_message(S3ErrorCode::InvalidArgument, "Invalid attribute name specified.");
        let mut wanted = Self::default();
        let mut any = false;
        for line in headers.get_all("x-amz-object-attributes") {
            let line = line.to_str().map_err(|_| invalid())?;
            for name in line.split(',').map(str::trim).filter(|name| !name.is_empty()) {
                any = true;
                *match name {
                    "ETag" => &mut wanted.etag,
                    "Checksum" => &mut wanted.checksum,
                    "ObjectParts" => &mut wanted.parts,
                    "StorageClass" => &mut wanted.storage_class,
                    "ObjectSize" => &mut wanted.size,
                    _ => return Err(invalid()),
                } = true;
            }
        }
        if any { Ok(wanted) } else { Err(invalid()) }
    }
}

fn attributes_document(attributes: &ObjectAttributes, wanted: Attributes, marker: u16, max_parts: u16) -> XmlWriter {
    let object = &attributes.object;
    let mut xml = XmlWriter::new("GetObjectAttributesResponse");
    if wanted.etag {
        xml.element("ETag", &object.etag);
    }
    if let Some(checksum) = object.checksum.as_ref().filter(|_| wanted.checksum) {
        xml.group("Checksum", |xml| {
            xml.checksum(Some(checksum));
            xml.element("ChecksumType", checksum.checksum_type().name());
        });
    }
    if let Some(count) = object.part_count.filter(|_| wanted.parts) {
        xml.group("ObjectParts", |xml| {
            xml.element("PartsCount", count);
            xml.element("PartNumberMarker", marker);
            xml.optional("NextPartNumberMarker", attributes.parts.last().map(|part| part.number));
            xml.element("MaxParts", max_parts);
            xml.element("IsTruncated", attributes.parts_truncated);
            for part in &attributes.parts {
                xml.group("Part", |xml| {
                    xml.element("PartNumber", part.number);
                    xml.element("Size", part.size);
                    xml.checksum(part.checksum.as_ref());
                });
            }
        });
    }
    if wanted.storage_class {
        xml.element("StorageClass", &object.storage_class);
    }
    if wanted.size {
        xml.element("ObjectSize", object.size);
    }
    xml
}

#[cfg(test)]
mod tests {
    use placement_types::{ByteRange, Timestamp};

    use super::*;
    use crate::api::{ObjectHead, ServedPart};
    use crate::checksum::{Checksum, ChecksumAlgorithm, ChecksumType, combine_part_checksums};
    use crate::write_headers::{ContentHeaders, UserMetadata};

    #[test]
    fn a_part_is_served_with_its_own_checksum_and_the_objects_type() {
        let parts = [&b"one"[..], &b"two!"[..]].map(|bytes| (Checksum::of(ChecksumAlgorithm::Sha256, bytes), bytes.len() as u64));
        let whole = combine_part_checksums(ChecksumAlgorithm::Sha256, ChecksumType::Composite, &parts).unwrap();
        let object = ObjectHead {
            size: 7,
            etag: "abc-2".to_owned(),
            last_modified: Timestamp::from_millis(0),
            content: ContentHeaders::default(),
            metadata: UserMetadata::new(),
            tag_count: 0,
            storage_class: "STANDARD".to_owned(),
            checksum: Some(whole),
            part_count: Some(2),
            version_id: None,
        };
        let part = ServedPart { count: 2, checksum: Some(parts[1].0.clone()) };
        let head = HeadObjectReply { object, range: ByteRange::new(3, 7), part: Some(part) };
        let mut request = HeaderMap::new();
        request.insert("x-amz-checksum-mode", "ENABLED".parse().unwrap());
        let reply = head_reply(&head, &request).unwrap();
        assert_eq!(reply.status, StatusCode::PARTIAL_CONTENT);
        assert_eq!(reply.headers["x-amz-checksum-sha256"], parts[1].0.text().as_str());
        assert_eq!(reply.headers["x-amz-checksum-type"], "COMPOSITE");
        assert_eq!(reply.headers["x-amz-mp-parts-count"], "2");
    }
}
