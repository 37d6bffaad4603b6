//! Header values as text.

use http::HeaderMap;

use crate::error::{S3Error, S3ErrorCode};

/// The value of a header that may come once at most; `None` when absent or empty. UTF-8 is accepted beyond ASCII, because
/// file names in `Content-Disposition` come so.
pub(crate) fn text<'h>(headers: &'h HeaderMap, name: &str) -> Result<Option<&'h str>, S3Error> {
    Ok(present(headers, name)?.filter(|value| !value.is_empty()))
}

/// As [`text`], but an empty value is `Some("")`.
pub(crate) fn present<'h>(headers: &'h HeaderMap, name: &str) -> Result<Option<&'h str>, S3Error> {
    let invalid = |what| S3Error::with_message(S3ErrorCode::InvalidArgument, format!("The header {name} {what}"));
    let mut values = headers.get_all(name).iter();
    let Some(first) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(invalid("was given more than once"));
    }
    let value = std::str::from_utf8(first.as_bytes()).map_err(|_| invalid("is not UTF-8"))?;
    Ok(Some(value.trim()))
}

/// A header that is a non-negative number.
pub(crate) fn number(headers: &HeaderMap, name: &str) -> Result<Option<u64>, S3Error> {
    let Some(value) = text(headers, name)? else { return Ok(None) };
    let digits = value.bytes().all(|b| b.is_ascii_digit());
    match value.parse() {
        Ok(number) if digits => Ok(Some(number)),
        _ => Err(S3Error::with_message(S3ErrorCode::InvalidArgument, format!("The header {name} is not a number"))),
    }
}
