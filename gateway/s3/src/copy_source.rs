//! `x-amz-copy-source`: which object, and under which conditions, is copied.

use http::HeaderMap;
use percent_encoding::percent_decode;

use crate::api::CopySource;
use crate::error::{S3Error, S3ErrorCode};
use crate::header_text;
use crate::request_conditions::copy_conditions;
use crate::route::{parse_bucket, parse_key};

/// Reads the header: an optional `/`, bucket and key percent-encoded, `?versionId=` behind the **last** raw `?`, so that a
/// key may contain an encoded one. Decoded once; `+` is a plus.
pub(crate) fn copy_source(headers: &HeaderMap) -> Result<CopySource, S3Error> {
    let invalid = || {
        S3Error::with_message(
            S3ErrorCode::InvalidArgument,
            "Copy Source must mention the source bucket and key: sourcebucket/sourcekey",
        )
    };
    let text = header_text::text(headers, "x-amz-copy-source")?.ok_or_else(invalid)?;
    let (path, version_id) = match text.rsplit_once('?') {
        Some((path, query)) => match query.strip_prefix("versionId=") {
            Some(version) => (path, Some(decode(version)?)),
            None => (text, None),
        },
        None => (text, None),
    };
    let decoded = decode(path)?;
    let decoded = decoded.strip_prefix('/').unwrap_or(&decoded);
    let (bucket, key) = decoded.split_once('/').ok_or_else(invalid)?;
    if key.is_empty() {
        return Err(invalid());
    }
    Ok(CopySource {
        bucket: parse_bucket(bucket)?,
        key: parse_key(key)?,
        version_id: version_id.filter(|version| !version.is_empty()),
        conditions: copy_conditions(headers)?,
    })
}

fn decode(text: &str) -> Result<String, S3Error> {
    percent_decode(text.as_bytes())
        .decode_utf8()
        .map(|text| text.into_owned())
        .map_err(|_| S3Error::with_message(S3ErrorCode::InvalidArgument, "The copy source is not UTF-8"))
}

/// `x-amz-copy-source-range`: `bytes=first-last`, nothing else.
pub(crate) fn copy_source_range(headers: &HeaderMap) -> Result<Option<(u64, u64)>, S3Error> {
    let Some(text) = header_text::text(headers, "x-amz-copy-source-range")? else { return Ok(None) };
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        text.parse::<u64>().ok().filter(|_| digits)
    };
    let range = text.strip_prefix("bytes=").and_then(|range| range.split_once('-')).and_then(|(first, last)| {
        let (first, last) = (number(first)?, number(last)?);
        (first <= last).then_some((first, last))
    });
    range.map(Some).ok_or_else(|| {
        let message = "The x-amz-copy-source-range value must be of the form bytes=first-last where first and last are the zero-based offsets of the first and last bytes to copy";
        S3Error::with_message(S3ErrorCode::InvalidArgument, message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &'static str, value: &str) -> HeaderMap {
        let mut map = HeaderMap::new();
        map.insert(name, value.parse().unwrap());
        map
    }

    #[test]
    fn a_copy_source_is_decoded_once_and_split_after() {
        let check = |text: &str, expected: Result<(&str, &str, Option<&str>), S3ErrorCode>| {
            let got = copy_source(&headers("x-amz-copy-source", text)).map_err(|error| error.code);
            let got = got.map(|source| (source.bucket.to_string(), source.key.to_string(), source.version_id));
            let expected = expected.map(|(b, k, v)| (b.to_owned(), k.to_owned(), v.map(str::to_owned)));
            assert_eq!(got, expected, "{text}");
        };
        check("bucket/key", Ok(("bucket", "key", None)));
        check("/bucket/key", Ok(("bucket", "key", None)));
        check("bucket%2Fa%2Fb", Ok(("bucket", "a/b", None)));
        check("%2Fbucket%2Fa", Ok(("bucket", "a", None)));
        check("bucket//a", Ok(("bucket", "/a", None)));
        check("bucket/a+b%2Bc%20d", Ok(("bucket", "a+b+c d", None)));
        check("bucket/a%2520b", Ok(("bucket", "a%20b", None)));
        check("bucket/key?versionId=v1", Ok(("bucket", "key", Some("v1"))));
        check("bucket/a%3FversionId=x?versionId=v1", Ok(("bucket", "a?versionId=x", Some("v1"))));
        check("bucket/a%3FversionId=x", Ok(("bucket", "a?versionId=x", None)));
        check("bucket/a?b", Ok(("bucket", "a?b", None)));
        check("bucket/key?versionId=", Ok(("bucket", "key", None)));
        check("", Err(S3ErrorCode::InvalidArgument));
        check("/", Err(S3ErrorCode::InvalidArgument));
        check("bucket", Err(S3ErrorCode::InvalidArgument));
        check("bucket/", Err(S3ErrorCode::InvalidArgument));
        check("bucket/%ff", Err(S3ErrorCode::InvalidArgument));
        check("bucket/%00", Err(S3ErrorCode::InvalidArgument));
        check("B/key", Err(S3ErrorCode::InvalidBucketName));
        check("bucket/../../other/key", Err(S3ErrorCode::InvalidArgument));
    }

    #[test]
    fn a_copy_source_range_has_both_ends() {
        let check = |text: &str, expected: Option<(u64, u64)>| {
            assert_eq!(copy_source_range(&headers("x-amz-copy-source-range", text)).ok().flatten(), expected, "{text}");
        };
        check("bytes=0-9", Some((0, 9)));
        check("bytes=9-0", None);
        check("bytes=0-", None);
        check("bytes=-9", None);
        check("0-9", None);
        check("bytes=0-9,11-12", None);
        check("bytes=+0-9", None);
        assert!(copy_source_range(&HeaderMap::new()).unwrap().is_none());
    }
}
