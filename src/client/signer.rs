//! Signature version 4 for requests whose body is not signed.
//!
//! Source: <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html>

use hmac::{Hmac, Mac};
use http::{HeaderValue, Request};
use placement_types::Timestamp;
use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use time::macros::format_description;

#[derive(Clone)]
pub struct Credentials {
    pub access_key: String,
    pub secret_key: String,
}

/// Adds `x-amz-date`, `x-amz-content-sha256` and `authorization`. Path and query must already be percent-encoded the way S3
/// wants them, the query sorted by name.
pub fn sign<B>(request: &mut Request<B>, credentials: &Credentials, region: &str, now: Timestamp) {
    let seconds = i64::try_from(now.as_seconds()).unwrap_or(i64::MAX);
    let instant = OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let stamp = instant
        .format(format_description!("[year][month][day]T[hour][minute][second]Z"))
        .expect("the format has only fields that every instant has");
    let scope = format!("{}/{region}/s3/aws4_request", &stamp[..8]);
    let payload = "UNSIGNED-PAYLOAD";
    let ascii = |text: &str| HeaderValue::from_str(text).expect("digits, letters and punctuation are a header value");
    request.headers_mut().insert("x-amz-date", ascii(&stamp));
    request.headers_mut().insert("x-amz-content-sha256", ascii(payload));

    let host = request.uri().authority().map(|authority| authority.as_str().to_owned()).unwrap_or_default();
    let mut headers: Vec<(String, String)> = request
        .headers()
        .iter()
        .filter(|(name, _)| name.as_str().starts_with("x-amz-") || name.as_str() == "content-type" || name.as_str() == "range")
        .map(|(name, value)| (name.as_str().to_owned(), value.to_str().unwrap_or_default().trim().to_owned()))
        .collect();
    headers.push(("host".to_owned(), host));
    headers.sort();
    let signed: Vec<&str> = headers.iter().map(|(name, _)| name.as_str()).collect();
    let signed = signed.join(";");

    let mut canonical = format!("{}\n{}\n{}\n", request.method(), request.uri().path(), canonical_query(request.uri().query()));
    for (name, value) in &headers {
        canonical.push_str(&format!("{name}:{value}\n"));
    }
    canonical.push_str(&format!("\n{signed}\n{payload}"));
    let to_sign = format!("AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{}", hex::encode(Sha256::digest(canonical.as_bytes())));

    let mut key = hmac(format!("AWS4{}", credentials.secret_key).as_bytes(), &stamp[..8]);
    for part in [region, "s3", "aws4_request"] {
        key = hmac(&key, part);
    }
    let signature = hex::encode(hmac(&key, &to_sign));
    let authorization =
        format!("AWS4-HMAC-SHA256 Credential={}/{scope}, SignedHeaders={signed}, Signature={signature}", credentials.access_key);
    request.headers_mut().insert("authorization", ascii(&authorization));
}

/// Sorted by name; a name without a value gets `=`.
fn canonical_query(query: Option<&str>) -> String {
    let mut pairs: Vec<String> = query
        .unwrap_or_default()
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| if pair.contains('=') { pair.to_owned() } else { format!("{pair}=") })
        .collect();
    pairs.sort();
    pairs.join("&")
}

fn hmac(key: &[u8], message: &str) -> Vec<u8> {
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
        let mut key = hmac(b"AWS4wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "20150830");
        for part in ["us-east-1", "iam", "aws4_request"] {
            key = hmac(&key, part);
        }
        assert_eq!(hex::encode(key), "c4afb1cc5771d871763a393e44b703571b55cc28424d1a5e86da6ed3c154a4b9");
    }

    #[test]
    fn a_query_is_sorted_and_every_name_has_an_equals_sign() {
        assert_eq!(canonical_query(Some("uploads")), "uploads=");
        assert_eq!(canonical_query(Some("prefix=a&list-type=2")), "list-type=2&prefix=a");
        assert_eq!(canonical_query(None), "");
    }
}
