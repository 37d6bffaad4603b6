//! Who sends a request: the one choke point before routing.
//!
//! s3s verifies the signatures: version 4 in the header, presigned, and per chunk; version 2 presigned. This module closes what it
//! leaves open. [`check_mechanism`] runs before it on the raw head: one mechanism per request, no version 2 header, no form
//! uploads, no streaming body without a header signature, no session tokens (there are none to have), no region that is none, with the
//! right one in the answer: s3cmd signs for `US` until it is told. [`SecretLookup`] connects it to
//! [`Credentials`]; [`verifier`] sets its limits. Only then does [`Dispatch`](crate::service) make a
//! [`Call`](crate::call::Call), so no operation can forget to authenticate.
//!
//! Every `x-amz-*` header sent must be signed, `x-amz-date` excepted: it is authenticated by being in the string to sign, and is
//! filled in from `Date` for clients that send only that.

use std::sync::Arc;

use async_trait::async_trait;
use http::header::{AUTHORIZATION, CONTENT_TYPE, DATE, HeaderName, HeaderValue};
use http::request::Parts;
use http::{HeaderMap, Method};
use s3s::host::{S3Host, VirtualHost};

use crate::chunk_framing::is_streaming;
use crate::config::S3Config;
use crate::credentials::Credentials;
use crate::error::{S3Error, S3ErrorCode};
use crate::limits::{CLOCK_SKEW_MAX, PRESIGNED_LIFETIME_MAX, SIGNED_CHUNK_BYTES_MAX};
use crate::query::Query;
use crate::route::host_bucket;
use crate::{header_text, http_date};

const AMZ_DATE: HeaderName = HeaderName::from_static("x-amz-date");

/// How a request says who it is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mechanism {
    Anonymous,
    HeaderV4,
    PresignedV4,
    PresignedV2,
}

/// Refuses requests whose credentials are ambiguous or of a kind that is not accepted, and fills in `x-amz-date`.
pub(crate) fn check_mechanism(parts: &mut Parts, query: &Query, config: &S3Config) -> Result<(), S3Error> {
    let mechanism = mechanism(&parts.headers, query)?;
    match mechanism {
        Mechanism::Anonymous => {}
        Mechanism::PresignedV4 => {
            let credential = query.get("X-Amz-Credential")?.unwrap_or("");
            check_region(credential, S3ErrorCode::AuthorizationQueryParametersError, config)?;
        }
        Mechanism::HeaderV4 => {
            fill_in_date(&mut parts.headers)?;
            check_region(header_credential(&parts.headers)?, S3ErrorCode::AuthorizationHeaderMalformed, config)?;
        }
        Mechanism::PresignedV2 => {
            let method_allowed = matches!(parts.method, Method::GET | Method::HEAD | Method::PUT);
            if !config.sig_v2_presigned || !method_allowed {
                return Err(S3Error::with_message(S3ErrorCode::AccessDenied, "Signature version 2 is not accepted here."));
            }
        }
    }
    let token = header_text::text(&parts.headers, "x-amz-security-token")?.is_some() || query_has(query, "x-amz-security-token");
    if token {
        return Err(S3ErrorCode::InvalidToken.into());
    }
    if is_form(&parts.headers) && parts.method == Method::POST {
        return Err(S3Error::with_message(S3ErrorCode::NotImplemented, "Form uploads are not implemented."));
    }
    let streaming = is_streaming(&parts.headers)?;
    if streaming && mechanism != Mechanism::HeaderV4 {
        let message = "A streaming payload needs a signature in the Authorization header.";
        return Err(S3Error::with_message(S3ErrorCode::AccessDenied, message));
    }
    if streaming && parts.method != Method::PUT {
        let message = "A streaming payload is only for uploads.";
        return Err(S3Error::with_message(S3ErrorCode::InvalidRequest, message));
    }
    Ok(())
}

fn mechanism(headers: &HeaderMap, query: &Query) -> Result<Mechanism, S3Error> {
    let header = header_text::present(headers, AUTHORIZATION.as_str())?;
    let v4 = ["x-amz-algorithm", "x-amz-credential", "x-amz-signature"].into_iter().any(|name| query_has(query, name));
    let v2 = query_has(query, "awsaccesskeyid") || query_has(query, "signature");
    if usize::from(header.is_some()) + usize::from(v4) + usize::from(v2) > 1 {
        let message = "Only one auth mechanism allowed; only the X-Amz-Algorithm query parameter, Signature query string \
            parameter or the Authorization header should be specified";
        return Err(S3Error::with_message(S3ErrorCode::InvalidArgument, message));
    }
    if let Some(header) = header {
        return header_mechanism(header);
    }
    if v4 {
        // s3s looks for exactly this name; without it the request would count as anonymous.
        return if query.has("X-Amz-Signature") {
            Ok(Mechanism::PresignedV4)
        } else {
            Err(S3ErrorCode::AuthorizationQueryParametersError.into())
        };
    }
    if v2 {
        return if query.has("Signature") && query.has("AWSAccessKeyId") {
            Ok(Mechanism::PresignedV2)
        } else {
            Err(S3ErrorCode::AccessDenied.into())
        };
    }
    Ok(Mechanism::Anonymous)
}

fn header_mechanism(header: &str) -> Result<Mechanism, S3Error> {
    let scheme = header.split_ascii_whitespace().next().unwrap_or("");
    match scheme {
        "" => Err(S3ErrorCode::AccessDenied.into()),
        "AWS4-HMAC-SHA256" => Ok(Mechanism::HeaderV4),
        "AWS" => Err(S3Error::with_message(
            S3ErrorCode::InvalidRequest,
            "The authorization mechanism you have provided is not supported. Please use AWS4-HMAC-SHA256.",
        )),
        _ => Err(S3Error::with_message(S3ErrorCode::InvalidArgument, "Unsupported Authorization Type")),
    }
}

/// `Credential` of an `Authorization` header; empty when it is not where it belongs, which s3s will refuse.
fn header_credential(headers: &HeaderMap) -> Result<&str, S3Error> {
    let header = header_text::text(headers, AUTHORIZATION.as_str())?.unwrap_or("");
    let fields = header.split([' ', ',', '\t']);
    Ok(fields.filter_map(|field| field.strip_prefix("Credential=")).next().unwrap_or(""))
}

/// Refuses a credential whose region is not acceptable, naming the right one. Other oddities are left to s3s.
fn check_region(credential: &str, code: S3ErrorCode, config: &S3Config) -> Result<(), S3Error> {
    // An access key may contain slashes, so the scope is counted from its end: date/region/service/aws4_request.
    let Some(region) = credential.rsplit('/').nth(2) else { return Ok(()) };
    let is_region = !region.is_empty() && region.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if is_region && (!config.region_strict || region == config.region) {
        return Ok(());
    }
    let message = format!("The credential is malformed; the region '{region}' is wrong; expecting '{}'", config.region);
    let mut refused = S3Error::with_message(code, message);
    refused.region = Some(config.region.as_str().into());
    Err(refused)
}

fn query_has(query: &Query, name: &str) -> bool {
    query.names().any(|(given, _)| given.eq_ignore_ascii_case(name))
}

fn is_form(headers: &HeaderMap) -> bool {
    headers
        .get_all(CONTENT_TYPE)
        .iter()
        .any(|value| value.as_bytes().get(..19).is_some_and(|start| start.eq_ignore_ascii_case(b"multipart/form-data")))
}

/// A header signature needs a date. Clients that send only `Date` have signed that.
fn fill_in_date(headers: &mut HeaderMap) -> Result<(), S3Error> {
    let no_date = || {
        let message = "AWS authentication requires a valid Date or x-amz-date header";
        S3Error::with_message(S3ErrorCode::AccessDenied, message)
    };
    if let Some(given) = header_text::present(headers, AMZ_DATE.as_str())? {
        return if is_basic_time(given) { Ok(()) } else { Err(no_date()) };
    }
    let date = header_text::text(headers, DATE.as_str())?.ok_or_else(no_date)?;
    let basic = if is_basic_time(date) {
        date.to_owned()
    } else {
        let time = http_date::parse(date).ok_or_else(no_date)?;
        crate::xml_writer::iso_time(time).chars().filter(|c| !matches!(c, '-' | ':')).take(15).chain(['Z']).collect()
    };
    headers.insert(AMZ_DATE, HeaderValue::try_from(basic).map_err(|_| no_date())?);
    Ok(())
}

/// `20260131T235959Z`.
fn is_basic_time(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.len() == 16
        && bytes.iter().enumerate().all(|(at, byte)| match at {
            8 => *byte == b'T',
            15 => *byte == b'Z',
            _ => byte.is_ascii_digit(),
        })
}

/// What s3s is allowed to accept.
pub(crate) fn verifier(config: &S3Config) -> s3s::config::S3Config {
    let mut verifier = s3s::config::S3Config::default();
    let seconds = |duration: std::time::Duration| u32::try_from(duration.as_secs()).expect("our limits are days at most");
    verifier.xml_max_body_size = crate::limits::XML_BYTES_MAX;
    verifier.put_object_max_size = Some(crate::limits::PUT_BYTES_MAX);
    // Operations bound their bodies themselves; a limit here would apply to uploads.
    verifier.custom_route_max_body_size = None;
    verifier.aws_chunked_stream_max_chunk_size = SIGNED_CHUNK_BYTES_MAX;
    verifier.presigned_url_max_skew_time_secs = seconds(CLOCK_SKEW_MAX);
    verifier.presigned_url_max_expires_secs = seconds(PRESIGNED_LIFETIME_MAX);
    verifier.sig_v4_allowed_services = vec!["s3".to_owned()];
    verifier.enable_sig_v2 = config.sig_v2_presigned;
    verifier.allow_post_signature = false;
    verifier.operation_id_routing = false;
    verifier.unsigned_amz_header_allowlist = vec![AMZ_DATE.as_str().to_owned()];
    if config.region_strict {
        verifier.expected_region = s3s::region::Region::new(config.region.clone().into()).ok();
    }
    verifier
}

/// Gives s3s the secret of an access key.
pub(crate) struct SecretLookup(pub Arc<dyn Credentials>);

#[async_trait]
impl s3s::auth::S3Auth for SecretLookup {
    async fn get_secret_key(&self, access_key: &str) -> s3s::S3Result<s3s::auth::SecretKey> {
        match self.0.lookup(access_key).await {
            Ok(Some(credential)) => Ok(s3s::auth::SecretKey::from(credential.secret.expose())),
            Ok(None) => Err(s3s::S3ErrorCode::InvalidAccessKeyId.into()),
            Err(error) => {
                let code = s3s::S3ErrorCode::Custom(error.code.name().into());
                let mut refused = s3s::S3Error::with_message(code, error.message);
                refused.set_status_code(error.code.status());
                Err(refused)
            }
        }
    }
}

/// Tells s3s the bucket in front of a configured domain, which version 2 signs.
pub(crate) struct Domains(pub Vec<String>);

impl S3Host for Domains {
    fn parse_host_header<'a>(&'a self, host: &'a str) -> s3s::S3Result<VirtualHost<'a>> {
        let virtual_host = VirtualHost::new(host);
        Ok(match host_bucket(host, &self.0) {
            Some(bucket) => virtual_host.with_bucket(bucket),
            None => virtual_host,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(method: Method, uri: &str, headers: &[(&'static str, &str)], expected: Result<(), S3ErrorCode>) {
        let mut request = http::Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (mut parts, ()) = request.body(()).unwrap().into_parts();
        let query = Query::parse(parts.uri.query().unwrap_or("")).unwrap();
        let got = check_mechanism(&mut parts, &query, &S3Config::default()).map_err(|error| error.code);
        assert_eq!(got, expected, "{uri} {headers:?}");
    }

    #[test]
    fn ambiguous_or_foreign_credentials_are_refused() {
        use S3ErrorCode as Code;
        let v4 = ("authorization", "AWS4-HMAC-SHA256 Credential=x");
        let date = ("x-amz-date", "20260131T235959Z");
        check(Method::GET, "/b/k", &[], Ok(()));
        check(Method::GET, "/b/k", &[v4, date], Ok(()));
        check(Method::GET, "/b/k", &[("authorization", "AWS key:signature")], Err(Code::InvalidRequest));
        check(Method::GET, "/b/k", &[("authorization", "Basic x")], Err(Code::InvalidArgument));
        check(Method::GET, "/b/k", &[("authorization", "")], Err(Code::AccessDenied));
        check(Method::GET, "/b/k", &[v4, v4, date], Err(Code::InvalidArgument));
        check(Method::GET, "/b/k?X-Amz-Signature=x", &[v4, date], Err(Code::InvalidArgument));
        check(Method::GET, "/b/k?X-Amz-Signature=x&Signature=y", &[], Err(Code::InvalidArgument));
        check(Method::GET, "/b/k?X-Amz-Signature=x", &[], Ok(()));
        check(Method::GET, "/b/k?X-Amz-Credential=x", &[], Err(Code::AuthorizationQueryParametersError));
        check(Method::GET, "/b/k?x-amz-signature=x", &[], Err(Code::AuthorizationQueryParametersError));
        check(Method::GET, "/b/k?AWSAccessKeyId=a&Signature=b&Expires=1", &[], Ok(()));
        check(Method::PUT, "/b/k?AWSAccessKeyId=a&Signature=b&Expires=1", &[], Ok(()));
        check(Method::DELETE, "/b/k?AWSAccessKeyId=a&Signature=b&Expires=1", &[], Err(Code::AccessDenied));
        check(Method::GET, "/b/k?AWSAccessKeyId=a", &[], Err(Code::AccessDenied));
        check(Method::GET, "/b/k", &[v4, date, ("x-amz-security-token", "t")], Err(Code::InvalidToken));
        check(Method::GET, "/b/k?X-Amz-Signature=x&X-Amz-Security-Token=t", &[], Err(Code::InvalidToken));
        check(Method::POST, "/b", &[("content-type", "multipart/form-data; boundary=x")], Err(Code::NotImplemented));
    }

    #[test]
    fn a_credential_for_no_region_is_told_the_right_one() {
        let check = |credential: &str, region_strict, expected: bool| {
            let config = S3Config { region_strict, ..S3Config::default() };
            let verdict = check_region(credential, S3ErrorCode::AuthorizationHeaderMalformed, &config);
            assert_eq!(verdict.is_ok(), expected, "{credential}");
            if let Err(refused) = verdict {
                assert_eq!(refused.code, S3ErrorCode::AuthorizationHeaderMalformed);
                assert_eq!(refused.region.as_deref(), Some("us-east-1"));
            }
        };
        check("key/20260131/us-east-1/s3/aws4_request", false, true);
        check("key/20260131/us-east-1/s3/aws4_request", true, true);
        check("key/20260131/eu-west-1/s3/aws4_request", false, true);
        check("key/20260131/eu-west-1/s3/aws4_request", true, false);
        check("a/key/20260131/eu-west-1/s3/aws4_request", false, true);
        check("key/20260131/US/s3/aws4_request", false, false);
        check("key/20260131//s3/aws4_request", false, false);
        check("nonsense", true, true);
        let header = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(AUTHORIZATION, value.parse().unwrap());
            header_credential(&headers).unwrap().to_owned()
        };
        assert_eq!(header("AWS4-HMAC-SHA256 Credential=a/b, SignedHeaders=host, Signature=0"), "a/b");
        assert_eq!(header("AWS4-HMAC-SHA256 SignedHeaders=host,Credential=a/b,Signature=0"), "a/b");
        assert_eq!(header("AWS4-HMAC-SHA256"), "");
    }

    #[test]
    fn a_streaming_body_needs_a_header_signature() {
        use S3ErrorCode as Code;
        let v4 = ("authorization", "AWS4-HMAC-SHA256 Credential=x");
        let date = ("x-amz-date", "20260131T235959Z");
        for payload in ["STREAMING-UNSIGNED-PAYLOAD-TRAILER", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"] {
            let payload = ("x-amz-content-sha256", payload);
            check(Method::PUT, "/b/k", &[v4, date, payload], Ok(()));
            check(Method::POST, "/b?delete", &[v4, date, payload], Err(Code::InvalidRequest));
            check(Method::PUT, "/b/k", &[payload], Err(Code::AccessDenied));
            check(Method::PUT, "/b/k?X-Amz-Signature=x", &[payload], Err(Code::AccessDenied));
            check(Method::PUT, "/b/k?AWSAccessKeyId=a&Signature=b&Expires=1", &[payload], Err(Code::AccessDenied));
        }
    }

    #[test]
    fn a_date_is_taken_from_either_header() {
        let filled = |headers: &[(&'static str, &str)]| {
            let mut map = HeaderMap::new();
            for (name, value) in headers {
                map.insert(*name, value.parse().unwrap());
            }
            fill_in_date(&mut map).map(|()| map["x-amz-date"].to_str().unwrap().to_owned()).map_err(|error| error.code)
        };
        assert_eq!(filled(&[("x-amz-date", "20260131T235959Z")]), Ok("20260131T235959Z".to_owned()));
        assert_eq!(filled(&[("date", "Sun, 06 Nov 1994 08:49:37 GMT")]), Ok("19941106T084937Z".to_owned()));
        assert_eq!(filled(&[("date", "Sun, 06 Nov 1994 08:49:37 -0000")]), Ok("19941106T084937Z".to_owned()));
        assert_eq!(filled(&[("date", "19941106T084937Z")]), Ok("19941106T084937Z".to_owned()));
        for bad in [&[("date", "now")][..], &[("x-amz-date", "")], &[("x-amz-date", "2026-01-31T23:59:59Z")], &[]] {
            assert_eq!(filled(bad), Err(S3ErrorCode::AccessDenied), "{bad:?}");
        }
    }
}
