//! What PUT, CreateMultipartUpload and CopyObject say about the object they make, parsed once for all three.

use std::collections::BTreeMap;

use http::HeaderMap;

use crate::error::{S3Error, S3ErrorCode};
use crate::header_text;
use crate::limits::{METADATA_BYTES_MAX, OBJECT_TAGS_MAX, TAG_KEY_CHARS_MAX, TAG_VALUE_CHARS_MAX};
use crate::query::decode_form;

/// The content headers, stored with the object and sent back with it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ContentHeaders {
    /// `None` is served as `binary/octet-stream`.
    pub content_type: Option<String>,
    pub cache_control: Option<String>,
    pub content_disposition: Option<String>,
    /// Without `aws-chunked`, which is the transfer's, not the object's.
    pub content_encoding: Option<String>,
    pub content_language: Option<String>,
    /// As the client wrote it.
    pub expires: Option<String>,
    pub website_redirect_location: Option<String>,
}

/// User metadata: names in lower case without the `x-amz-meta-` in front.
pub type UserMetadata = BTreeMap<String, String>;

/// Object tags: at most 10, already checked for length and characters.
pub type Tags = BTreeMap<String, String>;

/// What a write says about its object besides the bytes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WriteHeaders {
    pub content: ContentHeaders,
    pub metadata: UserMetadata,
    pub tags: Tags,
    /// As sent; the implementor knows which classes exist and answers `InvalidStorageClass` to others.
    pub storage_class: Option<String>,
}

const METADATA_PREFIX: &str = "x-amz-meta-";

impl WriteHeaders {
    pub(crate) fn parse(headers: &HeaderMap) -> Result<Self, S3Error> {
        let text = |name| Ok::<_, S3Error>(header_text::text(headers, name)?.map(str::to_owned));
        let website_redirect_location = text("x-amz-website-redirect-location")?;
        if website_redirect_location.as_deref().is_some_and(|to| !["/", "http://", "https://"].iter().any(|p| to.starts_with(p)))
        {
            let message = "The website redirect location must start with '/', 'http://' or 'https://'";
            return Err(S3Error::with_message(S3ErrorCode::InvalidArgument, message));
        }
        Ok(Self {
            content: ContentHeaders {
                content_type: text("content-type")?,
                cache_control: text("cache-control")?,
                content_disposition: text("content-disposition")?,
                content_encoding: header_text::text(headers, "content-encoding")?.and_then(strip_aws_chunked),
                content_language: text("content-language")?,
                expires: text("expires")?,
                website_redirect_location,
            },
            metadata: parse_metadata(headers)?,
            tags: header_text::text(headers, "x-amz-tagging")?.map_or(Ok(Tags::new()), parse_tags)?,
            storage_class: text("x-amz-storage-class")?,
        })
    }
}

/// `Content-Encoding` without the `aws-chunked` of the transfer, otherwise as the client wrote it; `None` when nothing else was
/// in it.
fn strip_aws_chunked(value: &str) -> Option<String> {
    let codings: Vec<&str> = value.split(',').filter(|coding| !coding.trim().eq_ignore_ascii_case("aws-chunked")).collect();
    let kept = codings.join(",").trim().to_owned();
    (!kept.is_empty()).then_some(kept)
}

fn parse_metadata(headers: &HeaderMap) -> Result<UserMetadata, S3Error> {
    let mut metadata = UserMetadata::new();
    let mut bytes = 0;
    for (name, value) in headers {
        let Some(name) = name.as_str().strip_prefix(METADATA_PREFIX).filter(|name| !name.is_empty()) else { continue };
        let value = std::str::from_utf8(value.as_bytes()).map_err(|_| {
            S3Error::with_message(S3ErrorCode::InvalidArgument, format!("The header {METADATA_PREFIX}{name} is not UTF-8"))
        })?;
        bytes += name.len() + value.len();
        // A name given twice is one entry with both values, as RFC 9110 section 5.3 combines fields.
        metadata
            .entry(name.to_owned())
            .and_modify(|joined| {
                joined.push(',');
                joined.push_str(value.trim());
            })
            .or_insert_with(|| value.trim().to_owned());
    }
    if bytes > METADATA_BYTES_MAX {
        return Err(S3ErrorCode::MetadataTooLarge.into());
    }
    Ok(metadata)
}

/// Reads `x-amz-tagging`: `key=value` pairs, form-encoded.
fn parse_tags(text: &str) -> Result<Tags, S3Error> {
    let mut tags = Tags::new();
    for pair in text.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let invalid = |message| S3Error::with_message(S3ErrorCode::InvalidTag, message);
        let decode = |text| decode_form(text).map_err(|_| invalid("The tag is not UTF-8"));
        let (key, value) = (decode(key)?, decode(value)?);
        if key.is_empty() || key.chars().count() > TAG_KEY_CHARS_MAX || !key.chars().all(is_tag_char) {
            return Err(invalid("The TagKey you have provided is invalid"));
        }
        if value.chars().count() > TAG_VALUE_CHARS_MAX || !value.chars().all(is_tag_char) {
            return Err(invalid("The TagValue you have provided is invalid"));
        }
        if key.to_ascii_lowercase().starts_with("aws:") {
            return Err(invalid("System tags cannot be added/updated by requester"));
        }
        if tags.insert(key, value).is_some() {
            return Err(invalid("Cannot provide multiple Tags with the same key"));
        }
    }
    if tags.len() > OBJECT_TAGS_MAX {
        return Err(S3Error::with_message(S3ErrorCode::BadRequest, "Object tags cannot be greater than 10"));
    }
    Ok(tags)
}

fn is_tag_char(c: char) -> bool {
    c.is_alphanumeric() || " +-=._:/@".contains(c)
}

#[cfg(test)]
mod tests {
    use http::header::{HeaderName, HeaderValue};

    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(HeaderName::from_static(name), HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        map
    }

    #[test]
    fn content_headers_and_metadata_are_kept_as_sent() {
        let parsed = WriteHeaders::parse(&headers(&[
            ("content-type", "text/plain"),
            ("content-encoding", "aws-chunked, gzip"),
            ("content-disposition", "attachment; filename=\"é\""),
            ("x-amz-meta-a", "1"),
            ("x-amz-meta-b", "2"),
            ("x-amz-meta-a", "3"),
            ("x-amz-storage-class", "STANDARD"),
        ]))
        .unwrap();
        assert_eq!(parsed.content.content_encoding.as_deref(), Some("gzip"));
        assert_eq!(parsed.content.content_disposition.as_deref(), Some("attachment; filename=\"é\""));
        assert_eq!(parsed.metadata, UserMetadata::from([("a".into(), "1,3".into()), ("b".into(), "2".into())]));
        assert_eq!(parsed.storage_class.as_deref(), Some("STANDARD"));
    }

    #[test]
    fn only_aws_chunked_is_taken_out_of_the_content_encoding() {
        let check = |sent: &str, kept: Option<&str>| {
            let parsed = WriteHeaders::parse(&headers(&[("content-encoding", sent)])).unwrap();
            assert_eq!(parsed.content.content_encoding.as_deref(), kept, "{sent}");
        };
        check("gzip", Some("gzip"));
        check("deflate, gzip", Some("deflate, gzip"));
        check("deflate,gzip", Some("deflate,gzip"));
        check("aws-chunked,deflate, gzip", Some("deflate, gzip"));
        check("gzip, AWS-Chunked", Some("gzip"));
        check("aws-chunked", None);
        check("aws-chunked, aws-chunked", None);
    }

    #[test]
    fn metadata_is_limited_to_2_kib() {
        let fits = "x".repeat(METADATA_BYTES_MAX - 1);
        assert!(WriteHeaders::parse(&headers(&[("x-amz-meta-a", &fits)])).is_ok());
        let over = "x".repeat(METADATA_BYTES_MAX);
        let error = WriteHeaders::parse(&headers(&[("x-amz-meta-a", &over)])).unwrap_err();
        assert_eq!(error.code, S3ErrorCode::MetadataTooLarge);
    }

    #[test]
    fn tags_are_form_encoded_and_limited() {
        let check = |text: &str, expected: Result<&[(&str, &str)], S3ErrorCode>| {
            let expected = expected.map(|tags| tags.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect::<Tags>());
            assert_eq!(parse_tags(text).map_err(|error| error.code), expected, "{text}");
        };
        check("a=1&b=", Ok(&[("a", "1"), ("b", "")]));
        check("a+b=c%3Dd=e", Ok(&[("a b", "c=d=e")]));
        check("", Ok(&[]));
        check("=1", Err(S3ErrorCode::InvalidTag));
        check("a=1&a=2", Err(S3ErrorCode::InvalidTag));
        check("aws:a=1", Err(S3ErrorCode::InvalidTag));
        check("a=%3C", Err(S3ErrorCode::InvalidTag));
        check(&format!("{}=1", "k".repeat(128)), Ok(&[(&"k".repeat(128), "1")]));
        check(&format!("{}=1", "k".repeat(129)), Err(S3ErrorCode::InvalidTag));
        check(&format!("k={}", "v".repeat(257)), Err(S3ErrorCode::InvalidTag));
        let eleven: Vec<String> = (0..11).map(|i| format!("k{i}=v")).collect();
        check(&eleven.join("&"), Err(S3ErrorCode::BadRequest));
    }
}
