//! Nobody is somebody else, and nothing unsigned counts.

use std::time::Duration;

use gateway_s3::S3Config;
use placement_types::Timestamp;

use crate::Server;
use crate::client::{EMPTY_SHA256, Request};

/// One request for every operation served.
fn every_operation() -> Vec<Request> {
    let id = "00000000000000000000000000000007";
    let bucket = |method| Request::new(method, "/bucket");
    let object = |method| Request::new(method, "/bucket/key");
    vec![
        Request::new("GET", "/"),
        bucket("PUT"),
        bucket("HEAD"),
        bucket("DELETE"),
        bucket("GET").query("location", ""),
        bucket("GET"),
        bucket("GET").query("list-type", "2"),
        bucket("GET").query("uploads", ""),
        bucket("POST").query("delete", ""),
        object("PUT"),
        object("PUT").header("x-amz-copy-source", "bucket/other"),
        object("GET"),
        object("HEAD"),
        object("GET").query("attributes", ""),
        object("DELETE"),
        object("POST").query("uploads", ""),
        object("PUT").query("partNumber", "1").query("uploadId", id),
        object("PUT").query("partNumber", "1").query("uploadId", id).header("x-amz-copy-source", "bucket/other"),
        object("POST").query("uploadId", id),
        object("DELETE").query("uploadId", id),
        object("GET").query("uploadId", id),
    ]
}

#[tokio::test]
async fn no_operation_runs_on_a_wrong_signature() {
    let server = Server::start().await;
    for request in every_operation() {
        let mut signed = request.body(b"").sign(&server.env, EMPTY_SHA256);
        let (_, authorization) = signed.headers.last_mut().unwrap();
        let last = if authorization.ends_with('0') { '1' } else { '0' };
        authorization.pop();
        authorization.push(last);
        let answer = server.connect().await.send(&signed).await;
        let code = if signed.method == "HEAD" { String::new() } else { "SignatureDoesNotMatch".to_owned() };
        assert_eq!(answer.code(), (403, code), "{} {}", signed.method, signed.path);
        if signed.method != "HEAD" {
            assert_eq!(answer.element("RequestId").as_ref(), answer.headers.get("x-amz-request-id"));
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn a_client_that_signs_for_no_region_is_told_the_right_one() {
    let server = Server::start().await;
    let mut signed = Request::new("GET", "/bucket").sign(&server.env, EMPTY_SHA256);
    let (_, authorization) = signed.headers.last_mut().unwrap();
    *authorization = authorization.replace("/us-east-1/", "/US/");
    let answer = server.connect().await.send(&signed).await;
    assert_eq!(answer.code(), (400, "AuthorizationHeaderMalformed".to_owned()));
    assert_eq!(answer.element("Region").as_deref(), Some("us-east-1"));
    let mut presigned = Request::new("GET", "/bucket/key").presign(&server.env, 600);
    let (_, credential) = presigned.query.iter_mut().find(|(name, _)| name == "X-Amz-Credential").unwrap();
    *credential = credential.replace("/us-east-1/", "/US/");
    let answer = server.connect().await.send(&presigned).await;
    assert_eq!(answer.code(), (400, "AuthorizationQueryParametersError".to_owned()));
    assert_eq!(answer.element("Region").as_deref(), Some("us-east-1"));
    // Another failure of the header names no region, or clients would sign again without end.
    let other = Request::new("GET", "/bucket")
        .header("authorization", "AWS4-HMAC-SHA256 nonsense")
        .header("x-amz-date", "20260131T235959Z");
    let answer = server.connect().await.send(&other).await;
    assert_eq!((answer.code().1.as_str(), answer.element("Region")), ("AuthorizationHeaderMalformed", None));
    server.stop().await;
}

#[tokio::test]
async fn a_fabricated_streaming_upload_is_refused_everywhere() {
    let server = Server::start().await;
    for request in every_operation() {
        for payload in ["STREAMING-UNSIGNED-PAYLOAD-TRAILER", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"] {
            let body = b"3\r\nabc\r\n0\r\n\r\n";
            let streaming = |request: Request| {
                request.header("x-amz-content-sha256", payload).header("x-amz-decoded-content-length", "3").body(body)
            };
            let anonymous = streaming(request.clone());
            let presigned = streaming(request.clone().presign(&server.env, 600));
            for refused in [anonymous, presigned] {
                let answer = server.connect().await.send(&refused).await;
                assert_eq!(answer.status, 403, "{} {}", refused.method, refused.path);
            }
        }
    }
    assert_eq!(server.store.count(), 0);
    server.stop().await;
}

#[tokio::test]
async fn an_added_amz_header_must_be_signed() {
    let server = Server::start().await;
    for (name, value) in
        [("x-amz-copy-source", "bucket/other"), ("x-amz-tagging", "a=b"), ("x-amz-acl", "private"), ("x-amz-meta-a", "b")]
    {
        let signed = Request::new("PUT", "/bucket/key").body(b"abc").sign_unsigned_payload(&server.env);
        let presigned = Request::new("PUT", "/bucket/key").presign(&server.env, 600).body(b"abc");
        for request in [signed, presigned] {
            let answer = server.connect().await.send(&request.header(name, value)).await;
            assert_eq!(answer.code(), (403, "AccessDenied".to_owned()), "{name}");
        }
    }
    assert_eq!(server.store.count(), 0);
    server.stop().await;
}

#[tokio::test]
async fn a_presigned_url_is_good_for_what_it_says() {
    let server = Server::start().await;
    let put = Request::new("PUT", "/bucket/key").presign(&server.env, 600).body(b"abc");
    assert_eq!(server.connect().await.send(&put).await.status, 200);
    let get = Request::new("GET", "/bucket/key").presign(&server.env, 600);
    assert_eq!(server.connect().await.send(&get).await.body, b"abc");
    let other_method = Request { method: "DELETE".to_owned(), ..get.clone() };
    let other_key = Request { path: "/bucket/other".to_owned(), ..get.clone() };
    let other_query = get.clone().query("response-content-type", "text/html");
    for changed in [other_method, other_key, other_query] {
        let answer = server.connect().await.send(&changed).await;
        assert_eq!(answer.code(), (403, "SignatureDoesNotMatch".to_owned()), "{} {}", changed.method, changed.path);
    }
    for expires in [0, -1, 604_801] {
        let answer = server.connect().await.send(&Request::new("GET", "/bucket/key").presign(&server.env, expires)).await;
        assert!(matches!(answer.status, 400 | 403), "{expires}: {}", answer.status);
    }
    let too_long = server.connect().await.send(&Request::new("GET", "/bucket/key").presign(&server.env, 604_801)).await;
    assert_eq!(too_long.code(), (400, "AuthorizationQueryParametersError".to_owned()));
    server.stop().await;
}

#[tokio::test]
async fn version_2_is_for_presigned_urls_only_and_can_be_switched_off() {
    let server = Server::start().await;
    let put = Request::new("PUT", "/bucket/key").presign_v2(&server.env).body(b"abc");
    let answer = server.connect().await.send(&put).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let get = Request::new("GET", "/bucket/key").presign_v2(&server.env);
    assert_eq!(server.connect().await.send(&get).await.body, b"abc");
    let delete = Request::new("DELETE", "/bucket/key").presign_v2(&server.env);
    assert_eq!(server.connect().await.send(&delete).await.code(), (403, "AccessDenied".to_owned()));
    let header = Request::new("GET", "/bucket/key").header("authorization", "AWS AKIDEXAMPLE:c2lnbmF0dXJl");
    assert_eq!(server.connect().await.send(&header).await.code(), (400, "InvalidRequest".to_owned()));
    server.stop().await;

    let strict = Server::start_with(S3Config { sig_v2_presigned: false, ..S3Config::default() }).await;
    let get = Request::new("GET", "/bucket/key").presign_v2(&strict.env);
    assert_eq!(strict.connect().await.send(&get).await.code(), (403, "AccessDenied".to_owned()));
    strict.stop().await;
}

#[tokio::test]
async fn a_clock_may_be_wrong_by_15_minutes() {
    let server = Server::start().await;
    let now = server.env.now();
    let earlier = |seconds: u64| Timestamp::from_millis(now.as_millis() - seconds * 1000);
    let later = |seconds: u64| now.plus(Duration::from_secs(seconds));
    let skewed = (403, "RequestTimeTooSkewed".to_owned());
    for (at, expected) in [(earlier(800), None), (earlier(1000), Some(&skewed)), (later(800), None), (later(1000), Some(&skewed))]
    {
        let (request, _) = Request::new("GET", "/bucket/key").sign_at(at, EMPTY_SHA256);
        let code = server.connect().await.send(&request).await.code();
        assert_eq!(Some(&code) == Some(&skewed), expected.is_some(), "{code:?}");
    }
    server.stop().await;
}

#[tokio::test]
async fn an_unknown_key_and_an_anonymous_caller_are_refused() {
    let server = Server::start().await;
    let anonymous = server.connect().await.send(&Request::new("GET", "/bucket/key")).await;
    assert_eq!(anonymous.code(), (403, "AccessDenied".to_owned()));
    let mut unknown = Request::new("GET", "/bucket/key").sign(&server.env, EMPTY_SHA256);
    let (_, authorization) = unknown.headers.last_mut().unwrap();
    *authorization = authorization.replace("AKIDEXAMPLE", "AKIDSTRANGER");
    let answer = server.connect().await.send(&unknown).await;
    assert_eq!(answer.code(), (403, "InvalidAccessKeyId".to_owned()));
    server.stop().await;
}
