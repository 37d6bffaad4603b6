//! Conditions of a request, from its headers.

use http::HeaderMap;
use placement_types::Timestamp;

use crate::conditions::{EtagList, ReadConditions, WriteCondition};
use crate::error::{S3Error, S3ErrorCode};
use crate::{header_text, http_date};

/// `If-Match` and its like, of GET and HEAD.
pub(crate) fn read_conditions(headers: &HeaderMap) -> Result<ReadConditions, S3Error> {
    Ok(ReadConditions {
        if_match: etags(headers, "if-match"),
        if_none_match: etags(headers, "if-none-match"),
        if_modified_since: date(headers, "if-modified-since")?,
        if_unmodified_since: date(headers, "if-unmodified-since")?,
    })
}

/// `x-amz-copy-source-if-match` and its like.
pub(crate) fn copy_conditions(headers: &HeaderMap) -> Result<ReadConditions, S3Error> {
    Ok(ReadConditions {
        if_match: etags(headers, "x-amz-copy-source-if-match"),
        if_none_match: etags(headers, "x-amz-copy-source-if-none-match"),
        if_modified_since: date(headers, "x-amz-copy-source-if-modified-since")?,
        if_unmodified_since: date(headers, "x-amz-copy-source-if-unmodified-since")?,
    })
}

/// A list may be spread over several lines of the same header.
fn etags(headers: &HeaderMap, name: &str) -> Option<EtagList> {
    let lines: Vec<String> = headers.get_all(name).iter().map(|v| String::from_utf8_lossy(v.as_bytes()).into_owned()).collect();
    (!lines.is_empty()).then(|| EtagList::parse(&lines.join(",")))
}

fn date(headers: &HeaderMap, name: &str) -> Result<Option<Timestamp>, S3Error> {
    let Some(text) = header_text::text(headers, name)? else { return Ok(None) };
    http_date::parse(text)
        .map(Some)
        .ok_or_else(|| S3Error::with_message(S3ErrorCode::InvalidArgument, format!("The header {name} is not a date")))
}

/// `If-Match` and `If-None-Match` of a write. Of `If-None-Match` only `*` exists, and both together do not.
pub(crate) fn write_condition(headers: &HeaderMap) -> Result<WriteCondition, S3Error> {
    let not_implemented = || {
        let message = "A header you provided implies functionality that is not implemented";
        S3Error::with_message(S3ErrorCode::NotImplemented, message)
    };
    match (etags(headers, "if-match"), etags(headers, "if-none-match")) {
        (None, None) => Ok(WriteCondition::None),
        (None, Some(EtagList::Any)) => Ok(WriteCondition::IfAbsent),
        (Some(EtagList::Any), None) => Ok(WriteCondition::IfExists),
        (Some(EtagList::These(mut etags)), None) => match (etags.pop(), etags.is_empty()) {
            (Some(etag), true) => Ok(WriteCondition::IfMatch(etag)),
            (None, _) => Err(S3Error::with_message(S3ErrorCode::InvalidArgument, "The header if-match is empty")),
            (Some(_), false) => Err(not_implemented()),
        },
        (None, Some(EtagList::These(_))) | (Some(_), Some(_)) => Err(not_implemented()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_has_one_condition_or_none() {
        let check = |pairs: &[(&'static str, &str)], expected: Result<WriteCondition, S3ErrorCode>| {
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                headers.append(*name, value.parse().unwrap());
            }
            assert_eq!(write_condition(&headers).map_err(|error| error.code), expected, "{pairs:?}");
        };
        let matching = |etag: &str| Ok(WriteCondition::IfMatch(etag.to_owned()));
        check(&[], Ok(WriteCondition::None));
        check(&[("if-none-match", "*")], Ok(WriteCondition::IfAbsent));
        check(&[("if-none-match", "\"*\"")], Ok(WriteCondition::IfAbsent));
        check(&[("if-none-match", "\"abc\"")], Err(S3ErrorCode::NotImplemented));
        check(&[("if-match", "*")], Ok(WriteCondition::IfExists));
        check(&[("if-match", "\"abc\"")], matching("abc"));
        check(&[("if-match", "abc")], matching("abc"));
        check(&[("if-match", "&quot;abc&quot;")], matching("abc"));
        check(&[("if-match", "")], Err(S3ErrorCode::InvalidArgument));
        check(&[("if-match", "a, b")], Err(S3ErrorCode::NotImplemented));
        check(&[("if-match", "a"), ("if-none-match", "*")], Err(S3ErrorCode::NotImplemented));
    }

    #[test]
    fn a_malformed_date_is_refused() {
        let mut headers = HeaderMap::new();
        headers.insert("if-modified-since", "yesterday".parse().unwrap());
        assert_eq!(read_conditions(&headers).unwrap_err().code, S3ErrorCode::InvalidArgument);
    }
}
