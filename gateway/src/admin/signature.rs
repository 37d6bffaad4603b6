//! Who signed an admin request, as `aws --endpoint-url`-like tools and our own CLI sign them: in the `Authorization` header, for
//! service `s3`, any region. Requests have no body, so there is none to sign.
//!
//! How a signature is made is in [`gateway_s3::signature`]; this decides which ones count.

use gateway_s3::signature::{Scope, UNSIGNED_PAYLOAD, canonical_query, parse_date, signature};
use gateway_s3::{Caller, Credentials, SecretKey};
use http::request::Parts;
use placement_types::Timestamp;
use subtle::ConstantTimeEq as _;

use crate::limits::ADMIN_SKEW_MAX;

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    #[error("there is no usable Authorization header")]
    Malformed,
    #[error("host or date is not signed")]
    NotSigned,
    #[error("the date is too far from now")]
    Skewed,
    #[error("the key is unknown or the signature wrong")]
    Wrong,
    #[error("credentials cannot be looked up now")]
    Unavailable,
}

const EMPTY_SHA256: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// Who signed the request.
pub async fn verify(head: &Parts, now: Timestamp, credentials: &dyn Credentials) -> Result<Caller, SignatureError> {
    let header = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok());
    let signed = Authorization::parse(header("authorization").ok_or(SignatureError::Malformed)?)?;
    let date = header("x-amz-date").ok_or(SignatureError::Malformed)?;
    let names: Vec<&str> = signed.headers.split(';').collect();
    if !names.contains(&"host") || !names.contains(&"x-amz-date") {
        return Err(SignatureError::NotSigned);
    }
    let at = parse_date(date).ok_or(SignatureError::Malformed)?;
    if now.since(at).max(at.since(now)) > ADMIN_SKEW_MAX || !date.starts_with(signed.scope.day) {
        return Err(SignatureError::Skewed);
    }
    let payload = header("x-amz-content-sha256").unwrap_or(EMPTY_SHA256);
    if payload != EMPTY_SHA256 && payload != UNSIGNED_PAYLOAD {
        return Err(SignatureError::Malformed);
    }
    let mut lines = String::new();
    for name in &names {
        let values: Vec<&str> = head.headers.get_all(*name).iter().filter_map(|value| value.to_str().ok()).collect();
        if values.is_empty() {
            return Err(SignatureError::NotSigned);
        }
        let trimmed: Vec<String> = values.iter().map(|value| value.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        lines.push_str(&format!("{name}:{}\n", trimmed.join(",")));
    }
    let query = canonical_query(head.uri.query().unwrap_or(""));
    let (method, path, names) = (&head.method, head.uri.path(), signed.headers);
    let canonical = format!("{method}\n{path}\n{query}\n{lines}\n{names}\n{payload}");

    let credential = credentials.lookup(signed.access_key).await.map_err(|_| SignatureError::Unavailable)?;
    // An unknown key is checked against a secret nobody has, so that it takes as long as a known one.
    let nobodys = SecretKey::new("");
    let secret = credential.as_ref().map_or(&nobodys, |credential| &credential.secret);
    let expected = signature(secret, &signed.scope, date, &canonical);
    let matches: bool = expected.as_bytes().ct_eq(signed.signature.as_bytes()).into();
    match credential {
        Some(credential) if matches => Ok(credential.caller),
        Some(_) | None => Err(SignatureError::Wrong),
    }
}

struct Authorization<'a> {
    access_key: &'a str,
    scope: Scope<'a>,
    headers: &'a str,
    signature: &'a str,
}

impl<'a> Authorization<'a> {
    fn parse(text: &'a str) -> Result<Self, SignatureError> {
        let fields = text.strip_prefix("AWS4-HMAC-SHA256").ok_or(SignatureError::Malformed)?;
        let field = |wanted: &str| {
            fields
                .split(',')
                .filter_map(|field| field.trim().split_once('='))
                .find(|(name, _)| *name == wanted)
                .map(|(_, value)| value)
                .ok_or(SignatureError::Malformed)
        };
        let credential: Vec<&str> = field("Credential")?.rsplitn(5, '/').collect();
        let [terminator, service, region, day, access_key] = credential.as_slice() else {
            return Err(SignatureError::Malformed);
        };
        if *terminator != "aws4_request" || *service != "s3" || day.len() != 8 {
            return Err(SignatureError::Malformed);
        }
        let scope = Scope { day, region };
        Ok(Self { access_key, scope, headers: field("SignedHeaders")?, signature: field("Signature")? })
    }
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use gateway_s3::{Credential, S3Error};

    use super::*;

    struct OneKey;

    #[async_trait]
    impl Credentials for OneKey {
        async fn lookup(&self, access_key: &str) -> Result<Option<Credential>, S3Error> {
            let secret = SecretKey::new("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY");
            let caller = Caller::Root { access_key: access_key.into() };
            Ok((access_key == "AKIAIOSFODNN7EXAMPLE").then_some(Credential { secret, caller }))
        }
    }

    /// The examples of <https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html>.
    fn example(path: &str, range: Option<&str>, signature: &str) -> Parts {
        let headers =
            if range.is_some() { "host;range;x-amz-content-sha256;x-amz-date" } else { "host;x-amz-content-sha256;x-amz-date" };
        let credential = "AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request";
        let mut request = http::Request::get(path)
            .header("host", "examplebucket.s3.amazonaws.com")
            .header("x-amz-date", "20130524T000000Z")
            .header("x-amz-content-sha256", EMPTY_SHA256)
            .header(
                "authorization",
                format!("AWS4-HMAC-SHA256 Credential={credential},SignedHeaders={headers},Signature={signature}"),
            );
        if let Some(range) = range {
            request = request.header("range", range);
        }
        request.body(()).unwrap().into_parts().0
    }

    const AT: Timestamp = Timestamp::from_millis(1_369_353_600_000);
    const LIST: &str = "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7";

    #[tokio::test]
    async fn the_published_examples_verify() {
        for (path, range, signature) in [
            ("/test.txt", Some("bytes=0-9"), "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"),
            ("/?lifecycle", None, "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"),
            ("/?max-keys=2&prefix=J", None, LIST),
        ] {
            let caller = verify(&example(path, range, signature), AT, &OneKey).await;
            assert_eq!(caller, Ok(Caller::Root { access_key: "AKIAIOSFODNN7EXAMPLE".into() }), "{path}");
        }
    }

    #[tokio::test]
    async fn every_change_of_what_was_signed_is_noticed() {
        let good = || example("/?max-keys=2&prefix=J", None, LIST);
        let check = async |head: Parts, now, expected| assert_eq!(verify(&head, now, &OneKey).await.unwrap_err(), expected);
        check(example("/?max-keys=3&prefix=J", None, LIST), AT, SignatureError::Wrong).await;
        check(example("/other?max-keys=2&prefix=J", None, LIST), AT, SignatureError::Wrong).await;
        let mut post = good();
        post.method = http::Method::POST;
        check(post, AT, SignatureError::Wrong).await;
        check(good(), AT.plus(ADMIN_SKEW_MAX * 2), SignatureError::Skewed).await;
        check(good(), Timestamp::from_millis(0), SignatureError::Skewed).await;
        let mut changed = good();
        changed.headers.insert("host", "other".parse().unwrap());
        check(changed, AT, SignatureError::Wrong).await;
        let mut unsigned = good();
        unsigned.headers.remove("authorization");
        check(unsigned, AT, SignatureError::Malformed).await;
        for text in ["AWS4-HMAC-SHA256", "AWS4-HMAC-SHA256 Credential=a/b,SignedHeaders=host,Signature=x", "Basic x"] {
            let mut malformed = good();
            malformed.headers.insert("authorization", text.parse().unwrap());
            check(malformed, AT, SignatureError::Malformed).await;
        }
        let text =
            "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,SignedHeaders=host,Signature=x";
        let mut no_date = good();
        no_date.headers.insert("authorization", text.parse().unwrap());
        check(no_date, AT, SignatureError::NotSigned).await;
    }
}
