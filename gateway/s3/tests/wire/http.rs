//! HTTP itself: waiting clients, broken framing, connections that stay usable or are closed, and the end of the server.

use gateway_s3::S3Config;

use crate::Server;
use crate::client::{EMPTY_SHA256, Request};

fn expecting(path: &str) -> Request {
    Request::new("PUT", path).header("expect", "100-continue").header("content-length", "3")
}

#[tokio::test]
async fn a_client_is_told_to_continue_only_when_it_may() {
    let server = Server::start().await;
    let mut allowed = server.connect().await;
    allowed.send_bytes(&expecting("/bucket/key").sign_unsigned_payload(&server.env).to_bytes()).await;
    assert_eq!(allowed.head().await.unwrap(), "HTTP/1.1 100 Continue\r\n\r\n");
    allowed.send_bytes(b"abc").await;
    assert_eq!(allowed.answer_to("PUT").await.status, 200);
    assert_eq!(server.store.kept("key").unwrap().bytes, b"abc");

    let mut anonymous = server.connect().await;
    anonymous.send_bytes(&expecting("/bucket/other").to_bytes()).await;
    let refused = anonymous.answer_to("PUT").await;
    assert_eq!(refused.code(), (403, "AccessDenied".to_owned()));
    assert_eq!(refused.headers["connection"], "close", "the next bytes may be a body or a request, nobody can tell");
    assert!(anonymous.is_closed().await);
    let mut unserved = server.connect().await;
    unserved.send_bytes(&expecting("/bucket/other").query("acl", "").sign_unsigned_payload(&server.env).to_bytes()).await;
    assert_eq!(unserved.answer_to("PUT").await.status, 501);
    assert!(server.store.kept("other").is_none());
    server.stop().await;
}

#[tokio::test]
async fn an_unread_body_never_becomes_the_next_request() {
    let server = Server::start().await;
    let smuggled = Request::new("DELETE", "/bucket/key").sign(&server.env, EMPTY_SHA256).to_bytes();
    let put = Request::new("PUT", "/bucket/key").body(b"abc").sign_unsigned_payload(&server.env);
    server.connect().await.send(&put).await;
    let refused = Request::new("PUT", "/bucket/other").query("acl", "").body(&smuggled).sign_unsigned_payload(&server.env);
    let mut client = server.connect().await;
    client.send_bytes(&refused.to_bytes()).await;
    assert_eq!(client.answer_to("PUT").await.status, 501);
    let next = Request::new("GET", "/bucket/key").sign(&server.env, EMPTY_SHA256);
    client.send_bytes(&next.to_bytes()).await;
    if let Some(answer) = client.try_answer_to("GET").await {
        assert_eq!((answer.status, answer.body.as_slice()), (200, &b"abc"[..]));
    }
    assert!(server.store.kept("key").is_some(), "the body was not obeyed");
    server.stop().await;
}

#[tokio::test]
async fn broken_http_is_refused_and_nothing_is_smuggled() {
    let server = Server::start().await;
    let put = Request::new("PUT", "/bucket/key").body(b"abc").sign_unsigned_payload(&server.env);
    server.connect().await.send(&put).await;
    let smuggled = String::from_utf8(Request::new("DELETE", "/bucket/key").sign(&server.env, EMPTY_SHA256).to_bytes()).unwrap();
    let head = "PUT /bucket/other HTTP/1.1\r\nhost: localhost\r\n";
    let cases = [
        ("bad request line", format!("NONSENSE\r\n\r\n{smuggled}")),
        ("no version", format!("GET /\r\n\r\n{smuggled}")),
        ("two lengths", format!("{head}content-length: 3\r\ncontent-length: 0\r\n\r\n{smuggled}")),
        ("negative length", format!("{head}content-length: -1\r\n\r\n{smuggled}")),
        ("length and chunks", format!("{head}content-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n{smuggled}")),
        ("folded header", format!("{head}x-a: b\r\n c\r\n\r\n{smuggled}")),
        ("NUL in a header", format!("{head}x-a: b\0c\r\n\r\n{smuggled}")),
        ("space before the colon", format!("{head}content-length : 3\r\n\r\n{smuggled}")),
    ];
    for (name, bytes) in cases {
        let mut client = server.connect().await;
        client.send_bytes(bytes.as_bytes()).await;
        client.finish_sending().await;
        let answer = client.try_answer_to("PUT").await;
        assert!(answer.as_ref().is_none_or(|answer| answer.status >= 400), "{name}: {answer:?}");
        assert!(client.is_closed().await, "{name}: the connection goes on");
        assert!(server.store.kept("key").is_some(), "{name}: smuggled");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_request_with_two_framings_is_the_last_of_its_connection() {
    let server = Server::start().await;
    let put = Request::new("PUT", "/bucket/key").body(b"abc").sign_unsigned_payload(&server.env);
    server.connect().await.send(&put).await;
    let smuggled = Request::new("DELETE", "/bucket/key").sign(&server.env, EMPTY_SHA256).to_bytes();
    for (first, second) in
        [("content-length: 5", "transfer-encoding: chunked"), ("transfer-encoding: chunked", "content-length: 5")]
    {
        let (first, second) = (first.split_once(": ").unwrap(), second.split_once(": ").unwrap());
        let outer = Request::new("HEAD", "/bucket").sign_unsigned_payload(&server.env);
        let outer = outer.header(first.0, first.1).header(second.0, second.1).raw_body(&[b"0\r\n\r\n", &smuggled[..]].concat());
        let mut client = server.connect().await;
        client.send_bytes(&outer.to_bytes()).await;
        let _ = client.try_answer_to("HEAD").await;
        assert!(client.is_closed().await, "the connection goes on");
        assert!(server.store.kept("key").is_some(), "smuggled");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_head_is_bounded() {
    let server = Server::start().await;
    let check = async |name: &str, request: Request, expected: &[u16]| {
        let answer = server.connect().await.send(&request.sign(&server.env, EMPTY_SHA256)).await;
        assert!(expected.contains(&answer.status), "{name}: {} {}", answer.status, answer.text());
    };
    check("9 KiB of headers", Request::new("GET", "/bucket/key").header("x-a", &"a".repeat(9 << 10)), &[400]).await;
    check("a URI of 20 KiB", Request::new("GET", "/bucket").query("prefix", &"a".repeat(20 << 10)), &[414]).await;
    let many = (0..200).fold(Request::new("GET", "/bucket/key"), |request, i| request.header(&format!("x-{i}"), "a"));
    check("200 headers", many, &[400, 431]).await;
    check("1 MiB of headers", Request::new("GET", "/bucket/key").header("x-a", &"a".repeat(1 << 20)), &[400, 431]).await;
    check("a key of 1025 bytes", Request::new("GET", &format!("/bucket/{}", "k".repeat(1025))), &[400]).await;
    check("no UTF-8", Request::new("GET", "/bucket/%FF"), &[400]).await;
    check("NUL", Request::new("GET", "/bucket/%00"), &[400]).await;
    server.stop().await;
}

#[tokio::test]
async fn too_many_requests_are_told_to_slow_down() {
    let server = Server::start_with(S3Config { requests_max: 1, ..S3Config::default() }).await;
    let mut first = server.connect().await;
    first.send_bytes(&expecting("/bucket/key").sign_unsigned_payload(&server.env).to_bytes()).await;
    assert!(first.head().await.unwrap().contains("100 Continue"), "the first request is being served");
    let second = server.connect().await.send(&Request::new("GET", "/bucket/key").sign(&server.env, EMPTY_SHA256)).await;
    assert_eq!(second.code(), (503, "SlowDown".to_owned()));
    assert!(second.headers.contains_key("retry-after"));
    first.send_bytes(b"abc").await;
    assert_eq!(first.answer_to("PUT").await.status, 200);
    let third = server.connect().await.send(&Request::new("GET", "/bucket/key").sign(&server.env, EMPTY_SHA256)).await;
    assert_eq!(third.status, 200);
    server.stop().await;
}

#[tokio::test]
async fn a_bucket_may_be_in_the_host() {
    let server = Server::start_with(S3Config { domains: vec!["s3.test".to_owned()], ..S3Config::default() }).await;
    let mut put = Request::new("PUT", "/a/b").body(b"abc");
    put.headers[0].1 = "bucket.s3.test:9000".to_owned();
    let answer = server.connect().await.send(&put.sign_unsigned_payload(&server.env)).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(server.store.kept("a/b").unwrap().bytes, b"abc");
    server.stop().await;
}

#[tokio::test]
async fn stopping_lets_the_request_at_hand_finish() {
    let server = Server::start().await;
    let mut busy = server.connect().await;
    busy.send_bytes(&expecting("/bucket/key").sign_unsigned_payload(&server.env).to_bytes()).await;
    assert!(busy.head().await.unwrap().contains("100 Continue"));
    let mut idle = server.connect().await;
    assert_eq!(idle.send(&Request::new("HEAD", "/bucket").sign(&server.env, EMPTY_SHA256)).await.status, 200);
    server.begin_stop();
    assert!(idle.is_closed().await, "an idle connection is closed");
    busy.send_bytes(b"abc").await;
    assert_eq!(busy.answer_to("PUT").await.status, 200);
    assert!(busy.is_closed().await, "the connection ends with its request");
    server.stop().await;
}
