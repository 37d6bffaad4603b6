//! ListObjects, ListObjectsV2 and ListMultipartUploads.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64_URL;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use placement_types::BucketName;

use super::multipart::write_owner;
use crate::api::{
    ListEntry, ListMultipartUploads, ListObjects, ListObjectsReply, ListedObject, Owner, UploadMarker, UploadsEntry,
};
use crate::call::{Answer, Call};
use crate::error::{S3Error, S3ErrorCode};
use crate::limits::LIST_KEYS_MAX;
use crate::query::Query;
use crate::reply::Reply;
use crate::xml_writer::XmlWriter;

/// What `encoding-type=url` leaves as it is: unreserved characters and the slash. Space becomes `%20`, plus `%2B`.
const URL_ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b'/');

pub(super) fn url_encode(text: &str) -> String {
    utf8_percent_encode(text, URL_ESCAPED).to_string()
}

/// `encoding-type`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Encoding {
    None,
    Url,
}

impl Encoding {
    fn parse(query: &Query) -> Result<Self, S3Error> {
        match query.get("encoding-type")? {
            None | Some("") => Ok(Self::None),
            Some(value) if value.eq_ignore_ascii_case("url") => Ok(Self::Url),
            Some(_) => {
                let message = "Invalid Encoding Method specified in Request";
                Err(S3Error::with_message(S3ErrorCode::InvalidArgument, message))
            }
        }
    }

    fn apply(self, text: &str) -> String {
        match self {
            Self::None => text.to_owned(),
            Self::Url => url_encode(text),
        }
    }

    fn write(self, xml: &mut XmlWriter) {
        if self == Self::Url {
            xml.element("EncodingType", "url");
        }
    }
}

/// A non-negative number of the query.
pub(super) fn non_negative(query: &Query, name: &str) -> Result<Option<u64>, S3Error> {
    let Some(text) = query.text(name)? else { return Ok(None) };
    let invalid = |message: String| S3Error::with_message(S3ErrorCode::InvalidArgument, message);
    let number: i64 = text.parse().map_err(|_| invalid(format!("Provided {name} not an integer or within integer range")))?;
    if number > i64::from(i32::MAX) {
        return Err(invalid(format!("Provided {name} not an integer or within integer range")));
    }
    u64::try_from(number).map(Some).map_err(|_| invalid(format!("Argument {name} must be an integer between 0 and {}", i32::MAX)))
}

/// `max-keys` and its like: 1000 when absent, and at most 1000.
pub(super) fn page_limit(query: &Query, name: &str) -> Result<u16, S3Error> {
    let wanted = non_negative(query, name)?.unwrap_or(u64::from(LIST_KEYS_MAX));
    Ok(u16::try_from(wanted).unwrap_or(LIST_KEYS_MAX).min(LIST_KEYS_MAX))
}

/// A continuation token: where the next page starts, behind a version byte, in base64 that no URL has to escape.
mod token {
    use super::*;

    const VERSION: u8 = 1;

    pub fn encode(after: &str) -> String {
        let mut bytes = vec![VERSION];
        bytes.extend_from_slice(after.as_bytes());
        BASE64_URL.encode(bytes)
    }

    pub fn decode(token: &str) -> Result<String, S3Error> {
        let invalid = || S3Error::with_message(S3ErrorCode::InvalidArgument, "The continuation token provided is incorrect");
        let bytes = BASE64_URL.decode(token).map_err(|_| invalid())?;
        match bytes.split_first() {
            Some((&VERSION, after)) => String::from_utf8(after.to_vec()).map_err(|_| invalid()),
            _ => Err(invalid()),
        }
    }
}

pub(super) async fn list_objects(call: Call<'_>, bucket: BucketName) -> Answer {
    let encoding = Encoding::parse(&call.query)?;
    let marker = call.query.get("marker")?.unwrap_or("").to_owned();
    let request = read_request(&call, bucket, Some(marker.clone()))?;
    let listed = call.api.list_objects(&call.cx, request.clone()).await?;
    // A page of no keys is never truncated, whatever follows it.
    let next = listed.next.as_deref().filter(|_| request.max_keys > 0);
    let mut xml = XmlWriter::new("ListBucketResult");
    write_head(&mut xml, &request, encoding);
    xml.element("Marker", encoding.apply(&marker));
    xml.optional("NextMarker", next.filter(|_| request.delimiter.is_some()).map(|next| encoding.apply(next)));
    xml.element("IsTruncated", next.is_some());
    write_entries(&mut xml, &listed, encoding, Some(&listed.owner));
    Ok(Reply::xml(xml))
}

pub(super) async fn list_objects_v2(call: Call<'_>, bucket: BucketName) -> Answer {
    let encoding = Encoding::parse(&call.query)?;
    let token = call.query.get("continuation-token")?.map(str::to_owned);
    let start_after = call.query.text("start-after")?;
    let fetch_owner = call.query.get("fetch-owner")?.is_some_and(|value| value.eq_ignore_ascii_case("true"));
    let after = match token.as_deref().filter(|token| !token.is_empty()) {
        Some(token) => Some(token::decode(token)?),
        None => start_after.clone(),
    };
    let request = read_request(&call, bucket, after)?;
    let listed = call.api.list_objects(&call.cx, request.clone()).await?;
    let next = listed.next.as_deref().filter(|_| request.max_keys > 0);
    let mut xml = XmlWriter::new("ListBucketResult");
    write_head(&mut xml, &request, encoding);
    xml.element("KeyCount", listed.entries.len());
    xml.optional("StartAfter", start_after.map(|after| encoding.apply(&after)));
    xml.optional("ContinuationToken", token);
    xml.optional("NextContinuationToken", next.map(token::encode));
    xml.element("IsTruncated", next.is_some());
    write_entries(&mut xml, &listed, encoding, Some(&listed.owner).filter(|_| fetch_owner));
    Ok(Reply::xml(xml))
}

fn read_request(call: &Call<'_>, bucket: BucketName, after: Option<String>) -> Result<ListObjects, S3Error> {
    Ok(ListObjects {
        bucket,
        prefix: call.query.get("prefix")?.unwrap_or("").to_owned(),
        delimiter: call.query.text("delimiter")?,
        after: after.filter(|after| !after.is_empty()),
        max_keys: page_limit(&call.query, "max-keys")?,
    })
}

fn write_head(xml: &mut XmlWriter, request: &ListObjects, encoding: Encoding) {
    xml.element("Name", &request.bucket);
    xml.element("Prefix", encoding.apply(&request.prefix));
    xml.optional("Delimiter", request.delimiter.as_deref().map(|delimiter| encoding.apply(delimiter)));
    encoding.write(xml);
    xml.element("MaxKeys", request.max_keys);
}

fn write_entries(xml: &mut XmlWriter, listed: &ListObjectsReply, encoding: Encoding, owner: Option<&Owner>) {
    for entry in &listed.entries {
        match entry {
            ListEntry::Object(object) => write_object(xml, object, encoding, owner),
            ListEntry::Prefix(prefix) => {
                xml.group("CommonPrefixes", |xml| xml.element("Prefix", encoding.apply(prefix)));
            }
        }
    }
}

fn write_object(xml: &mut XmlWriter, object: &ListedObject, encoding: Encoding, owner: Option<&Owner>) {
    xml.group("Contents", |xml| {
        xml.element("Key", encoding.apply(object.key.as_str()));
        xml.time("LastModified", object.last_modified);
        xml.etag(&object.etag);
        if let Some((algorithm, checksum_type)) = object.checksum {
            xml.element("ChecksumAlgorithm", algorithm.name());
            xml.element("ChecksumType", checksum_type.name());
        }
        xml.element("Size", object.size);
        if let Some(owner) = owner {
            write_owner(xml, "Owner", owner);
        }
        xml.element("StorageClass", &object.storage_class);
    });
}

pub(super) async fn list_multipart_uploads(call: Call<'_>, bucket: BucketName) -> Answer {
    let encoding = Encoding::parse(&call.query)?;
    let key_marker = call.query.get("key-marker")?.unwrap_or("").to_owned();
    // Without a key the upload marker means nothing.
    let upload_marker = call.query.text("upload-id-marker")?.filter(|_| !key_marker.is_empty());
    let upload = match &upload_marker {
        None => None,
        Some(text) => {
            Some(text.parse().map_err(|_| S3Error::with_message(S3ErrorCode::InvalidArgument, "Invalid uploadId marker"))?)
        }
    };
    let request = ListMultipartUploads {
        bucket,
        prefix: call.query.get("prefix")?.unwrap_or("").to_owned(),
        delimiter: call.query.text("delimiter")?,
        after: (!key_marker.is_empty()).then(|| UploadMarker { key: key_marker.clone(), upload }),
        max_uploads: page_limit(&call.query, "max-uploads")?,
    };
    let listed = call.api.list_multipart_uploads(&call.cx, request.clone()).await?;
    let next = listed.next.as_ref().filter(|_| request.max_uploads > 0);
    let mut xml = XmlWriter::new("ListMultipartUploadsResult");
    xml.element("Bucket", &request.bucket);
    xml.element("KeyMarker", encoding.apply(&key_marker));
    xml.element("UploadIdMarker", upload_marker.unwrap_or_default());
    xml.optional("NextKeyMarker", next.map(|next| encoding.apply(&next.key)));
    xml.optional("NextUploadIdMarker", next.and_then(|next| next.upload));
    xml.element("Prefix", encoding.apply(&request.prefix));
    xml.optional("Delimiter", request.delimiter.as_deref().map(|delimiter| encoding.apply(delimiter)));
    encoding.write(&mut xml);
    xml.element("MaxUploads", request.max_uploads);
    xml.element("IsTruncated", next.is_some());
    for entry in &listed.entries {
        match entry {
            UploadsEntry::Upload(upload) => xml.group("Upload", |xml| {
                xml.element("Key", encoding.apply(upload.key.as_str()));
                xml.element("UploadId", upload.upload);
                write_owner(xml, "Initiator", &listed.owner);
                write_owner(xml, "Owner", &listed.owner);
                xml.element("StorageClass", &upload.storage_class);
                xml.time("Initiated", upload.initiated);
                if let Some((algorithm, checksum_type)) = upload.checksum {
                    xml.element("ChecksumAlgorithm", algorithm.name());
                    xml.element("ChecksumType", checksum_type.name());
                }
            }),
            UploadsEntry::Prefix(prefix) => {
                xml.group("CommonPrefixes", |xml| xml.element("Prefix", encoding.apply(prefix)));
            }
        }
    }
    Ok(Reply::xml(xml))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn url_encoding_leaves_slashes_and_encodes_plus_and_space() {
        let check = |text: &str, expected: &str| assert_eq!(url_encode(text), expected);
        check("a/b-c_d.e~f", "a/b-c_d.e~f");
        check("a b+c%d*é\u{1}\r", "a%20b%2Bc%25d%2A%C3%A9%01%0D");
    }

    #[test]
    fn a_page_limit_is_clamped_or_refused() {
        let check = |query: &str, expected: Result<u16, &str>| {
            let got = page_limit(&Query::parse(query).unwrap(), "max-keys");
            assert_eq!(got.map_err(|error| error.message.into_owned()), expected.map_err(str::to_owned), "{query}");
        };
        let no_integer = Err("Provided max-keys not an integer or within integer range");
        check("", Ok(1000));
        check("max-keys=", Ok(1000));
        check("max-keys=0", Ok(0));
        check("max-keys=5000", Ok(1000));
        check("max-keys=x", no_integer);
        check("max-keys=2147483648", no_integer);
        check("max-keys=99999999999999999999", no_integer);
        check("max-keys=-1", Err("Argument max-keys must be an integer between 0 and 2147483647"));
    }

    #[test]
    fn a_token_is_ours_or_refused() {
        for after in ["", "a", "boo/", "é\r\n\u{1}+"] {
            assert_eq!(token::decode(&token::encode(after)).unwrap(), after);
        }
        for bad in ["x", "!", "AP8", &BASE64_URL.encode([1, 0xff]), &BASE64_URL.encode([2, b'a'])] {
            assert_eq!(token::decode(bad).unwrap_err().code, S3ErrorCode::InvalidArgument, "{bad}");
        }
    }
}
