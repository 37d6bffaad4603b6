//! Signature version 4 in the `Authorization` header, for service `s3` and requests whose body is not signed.
//!
//! [`Signer`] is what our own clients sign with. The admin listener verifies by signing again what it received, from the same
//! pieces; who may sign, and when, is its own business (`gateway/src/admin/signature.rs`). The signatures of S3 requests are
//! verified by s3s ([`auth`](crate::auth)) and never come here.
//!
//! Source: <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html>

use std::fmt;

use hmac::{Hmac, Mac};
use http::{HeaderValue, Request};
use placement_types::Timestamp;
use sha2::{Digest, Sha256};
use time::format_description::FormatItem;
use time::macros::format_description;
use time::{OffsetDateTime, PrimitiveDateTime};

use crate::credentials::SecretKey;

/// What stands for the body's hash when the body is not signed.
pub const UNSIGNED_PAYLOAD: &str = "UNSIGNED-PAYLOAD";

const DATE: &[FormatItem<'_>] = format_description!("[year][month][day]T[hour][minute][second]Z");

/// Signs the requests of a client.
#[derive(Debug, Clone)]
pub struct Signer {
    pub access_key: String,
    pub secret: SecretKey,
    pub region: String,
}

impl Signer {
    /// Adds `x-amz-date`, `x-amz-content-sha256` and `authorization`. The URI names the host; its path must already be
    /// percent-encoded the way S3 wants it.
    pub fn sign<B>(&self, request: &mut Request<B>, now: Timestamp) {
        let date = format_date(now);
        let ascii = |text: &str| HeaderValue::from_str(text).expect("digits, letters and punctuation are a header value");
        request.headers_mut().insert("x-amz-date", ascii(&date));
        request.headers_mut().insert("x-amz-content-sha256", ascii(UNSIGNED_PAYLOAD));

        let host = request.uri().authority().map(|authority| authority.as_str().to_owned()).unwrap_or_default();
        let mut headers: Vec<(String, String)> = request
            .headers()
            .iter()
            .filter(|(name, _)| name.as_str().starts_with("x-amz-") || matches!(name.as_str(), "content-type" | "range"))
            .map(|(name, value)| (name.as_str().to_owned(), value.to_str().unwrap_or_default().trim().to_owned()))
            .collect();
        headers.push(("host".to_owned(), host));
        headers.sort();
        let signed = headers.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(";");

        let query = canonical_query(request.uri().query().unwrap_or_default());
        let mut canonical = format!("{}\n{}\n{query}\n", request.method(), request.uri().path());
        for (name, value) in &headers {
            canonical.push_str(&format!("{name}:{value}\n"));
        }
        canonical.push_str(&format!("\n{signed}\n{UNSIGNED_PAYLOAD}"));

        let scope = Scope { day: &date[..8], region: &self.region };
        let signature = signature(&self.secret, &scope, &date, &canonical);
        let credential = format!("{}/{scope}", self.access_key);
        let authorization = format!("AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders={signed}, Signature={signature}");
        request.headers_mut().insert("authorization", ascii(&authorization));
    }
}

/// Where and on which day a signature is good.
pub struct Scope<'a> {
    /// `20260131`.
    pub day: &'a str,
    pub region: &'a str,
}

impl fmt::Display for Scope<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/s3/aws4_request", self.day, self.region)
    }
}

/// The signature of a canonical request, in hexadecimal.
pub fn signature(secret: &SecretKey, scope: &Scope<'_>, date: &str, canonical: &str) -> String {
    let to_sign = format!("AWS4-HMAC-SHA256\n{date}\n{scope}\n{}", hex::encode(Sha256::digest(canonical)));
    let first = format!("AWS4{}", secret.expose()).into_bytes();
    let key = [scope.day, scope.region, "s3", "aws4_request"].iter().fold(first, |key, part| mac(&key, part));
    hex::encode(mac(&key, &to_sign))
}

/// Each name and value encoded once, sorted by name, then value; a bare name gets `=`.
pub fn canonical_query(query: &str) -> String {
    let mut pairs: Vec<(String, String)> = query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (recode(name), recode(value))
        })
        .collect();
    pairs.sort();
    pairs.into_iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&")
}

/// Percent-decodes, then encodes everything but unreserved characters.
fn recode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = String::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let escaped =
            (bytes[at] == b'%').then(|| text.get(at + 1..at + 3).and_then(|hex| u8::from_str_radix(hex, 16).ok())).flatten();
        let byte = escaped.unwrap_or(bytes[at]);
        at += if escaped.is_some() { 3 } else { 1 };
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// Reads `20260131T235959Z`.
pub fn parse_date(text: &str) -> Option<Timestamp> {
    let seconds = PrimitiveDateTime::parse(text, DATE).ok()?.assume_utc().unix_timestamp();
    Some(Timestamp::from_millis(u64::try_from(seconds).ok()?.checked_mul(1000)?))
}

fn format_date(at: Timestamp) -> String {
    let seconds = i64::try_from(at.as_seconds()).unwrap_or(i64::MAX);
    let date = OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    date.format(DATE).expect("the format has only parts that every date has")
}

fn mac(key: &[u8], message: &str) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any length");
    mac.update(message.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The key derivation example of the AWS documentation.
    #[test]
    fn the_signing_key_is_derived_as_documented() {
        let mut key = mac(b"AWS4wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "20150830");
        for part in ["us-east-1", "iam", "aws4_request"] {
            key = mac(&key, part);
        }
        assert_eq!(hex::encode(key), "c4afb1cc5771d871763a393e44b703571b55cc28424d1a5e86da6ed3c154a4b9");
    }

    #[test]
    fn a_query_is_encoded_once_and_sorted_and_every_name_has_an_equals_sign() {
        let check = |query, expected| assert_eq!(canonical_query(query), expected);
        check("uploads", "uploads=");
        check("prefix=a&list-type=2", "list-type=2&prefix=a");
        check("a-b=1&a=2&a=1", "a=1&a=2&a-b=1");
        check("prefix=a/b%2fc%20~&marker=%zz", "marker=%25zz&prefix=a%2Fb%2Fc%20~");
        check("", "");
    }

    #[test]
    fn a_date_is_read_as_it_is_written() {
        let at = Timestamp::from_millis(1_369_353_600_000);
        assert_eq!(format_date(at), "20130524T000000Z");
        assert_eq!(parse_date("20130524T000000Z"), Some(at));
        assert_eq!(parse_date("2013-05-24T00:00:00Z"), None);
        assert_eq!(parse_date("19690101T000000Z"), None);
    }

    #[test]
    fn what_says_what_the_request_is_gets_signed() {
        let signer = Signer { access_key: "key".into(), secret: SecretKey::new("secret"), region: "eu".into() };
        let mut request =
            Request::get("http://h:9000/b/k").header("range", "bytes=0-9").header("accept", "*/*").body(()).unwrap();
        signer.sign(&mut request, Timestamp::from_millis(1_369_353_600_000));
        let authorization = request.headers()["authorization"].to_str().unwrap();
        let expected = "AWS4-HMAC-SHA256 Credential=key/20130524/eu/s3/aws4_request, \
            SignedHeaders=host;range;x-amz-content-sha256;x-amz-date, Signature=";
        assert!(authorization.starts_with(expected), "{authorization}");
    }
}
