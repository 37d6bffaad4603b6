//! Objects come back as they went in.

use std::sync::atomic::Ordering;

use crate::Server;
use crate::client::{Answer, EMPTY_SHA256, Request};

async fn send(server: &Server, request: Request) -> Answer {
    server.connect().await.send(&request.sign_unsigned_payload(&server.env)).await
}

#[tokio::test]
async fn an_object_comes_back_with_its_headers() {
    let server = Server::start().await;
    let put = Request::new("PUT", "/bucket/a%20b/%C3%A9")
        .header("content-type", "text/plain")
        .header("cache-control", "no-cache")
        .header("x-amz-meta-color", "blue")
        .header("x-amz-tagging", "a=1&b=2")
        .body(b"0123456789");
    assert_eq!(send(&server, put).await.status, 200);
    assert!(server.store.kept("a b/é").is_some());
    let get = send(&server, Request::new("GET", "/bucket/a%20b/%C3%A9")).await;
    assert_eq!((get.status, get.body.as_slice()), (200, &b"0123456789"[..]));
    for (name, value) in [
        ("content-type", "text/plain"),
        ("cache-control", "no-cache"),
        ("x-amz-meta-color", "blue"),
        ("x-amz-tagging-count", "2"),
        ("etag", "\"781e5e245d69b566979b86e28d23f2c7\""),
        ("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT"),
        ("accept-ranges", "bytes"),
        ("content-length", "10"),
    ] {
        assert_eq!(get.headers.get(name).map(String::as_str), Some(value), "{name}");
    }
    assert!(!get.headers.keys().any(|name| name.starts_with("x-amz-checksum")));
    let head = send(&server, Request::new("HEAD", "/bucket/a%20b/%C3%A9").header("x-amz-checksum-mode", "ENABLED")).await;
    assert_eq!((head.status, head.headers["content-length"].as_str()), (200, "10"));
    assert!(head.headers.contains_key("x-amz-checksum-crc64nvme"));
    assert_eq!(head.headers["x-amz-checksum-type"], "FULL_OBJECT");
    server.stop().await;
}

#[tokio::test]
async fn ranges_are_served_refused_or_ignored() {
    let server = Server::start().await;
    send(&server, Request::new("PUT", "/bucket/key").body(b"0123456789")).await;
    let get = |range: &'static str| send(&server, Request::new("GET", "/bucket/key").header("range", range));
    let part = get("bytes=2-5").await;
    assert_eq!((part.status, part.body.as_slice()), (206, &b"2345"[..]));
    assert_eq!(part.headers["content-range"], "bytes 2-5/10");
    let beyond = get("bytes=10-").await;
    assert_eq!(beyond.code(), (416, "InvalidRange".to_owned()));
    assert_eq!(beyond.headers["content-range"], "bytes */10");
    for ignored in ["bytes=5-2", "bytes=0-1,3-4", "nonsense"] {
        assert_eq!((get(ignored).await.status, get(ignored).await.body.len()), (200, 10), "{ignored}");
    }
    let both = Request::new("GET", "/bucket/key").query("partNumber", "1").header("range", "bytes=0-1");
    assert_eq!(send(&server, both).await.code(), (400, "InvalidRequest".to_owned()));
    server.stop().await;
}

#[tokio::test]
async fn a_304_and_a_head_error_have_no_body_and_leave_the_connection_usable() {
    let server = Server::start().await;
    send(&server, Request::new("PUT", "/bucket/key").body(b"0123456789")).await;
    let mut client = server.connect().await;
    let conditional = Request::new("GET", "/bucket/key").header("if-none-match", "781e5e245d69b566979b86e28d23f2c7");
    let unchanged = client.send(&conditional.sign(&server.env, EMPTY_SHA256)).await;
    assert_eq!((unchanged.status, unchanged.headers["etag"].as_str()), (304, "\"781e5e245d69b566979b86e28d23f2c7\""));
    assert!(unchanged.headers.contains_key("last-modified"));
    let missing = client.send(&Request::new("HEAD", "/bucket/missing").sign(&server.env, EMPTY_SHA256)).await;
    assert_eq!(missing.status, 404);
    let got = client.send(&Request::new("GET", "/bucket/key").sign(&server.env, EMPTY_SHA256)).await;
    assert_eq!((got.status, got.body.as_slice()), (200, &b"0123456789"[..]));
    server.stop().await;
}

#[tokio::test]
async fn a_reply_that_breaks_its_promise_breaks_the_connection() {
    let server = Server::start().await;
    send(&server, Request::new("PUT", "/bucket/key").body(b"0123456789")).await;
    server.store.breaks_promises.store(true, Ordering::Relaxed);
    let mut client = server.connect().await;
    client.send_bytes(&Request::new("GET", "/bucket/key").sign(&server.env, EMPTY_SHA256).to_bytes()).await;
    assert!(client.try_answer_to("GET").await.is_none(), "a short object must not look whole");
    server.stop().await;
}

#[tokio::test]
async fn what_is_not_served_is_never_taken_for_something_else() {
    let server = Server::start().await;
    let not_implemented = (501, "NotImplemented".to_owned());
    for name in ["tagging", "acl", "retention", "unknown"] {
        let put = Request::new("PUT", "/bucket/key").query(name, "").body(b"abc");
        assert_eq!(send(&server, put).await.code(), not_implemented, "{name}");
    }
    for (name, value) in [
        ("x-amz-server-side-encryption", "AES256"),
        ("x-amz-server-side-encryption-customer-algorithm", "AES256"),
        ("x-amz-write-offset-bytes", "5"),
    ] {
        let put = Request::new("PUT", "/bucket/key").header(name, value).body(b"abc");
        assert_eq!(send(&server, put).await.code(), not_implemented, "{name}");
    }
    let acl = Request::new("PUT", "/bucket/key").header("x-amz-acl", "public-read").body(b"abc");
    assert_eq!(send(&server, acl).await.code(), (400, "AccessControlListNotSupported".to_owned()));
    let internal = Request::new("PUT", "/bucket/key").header("x-dozo-internal", "1").body(b"abc");
    assert_eq!(send(&server, internal).await.code(), (400, "InvalidArgument".to_owned()));
    assert_eq!(server.store.count(), 0);
    server.stop().await;
}

#[tokio::test]
async fn a_copy_and_a_completion_answer_in_xml() {
    let server = Server::start().await;
    send(&server, Request::new("PUT", "/bucket/key").body(b"0123456789")).await;
    let copy = Request::new("PUT", "/bucket/copy").header("x-amz-copy-source", "/bucket/key").body(b"");
    let copied = send(&server, copy).await;
    assert_eq!(copied.element("ETag").as_deref(), Some("&quot;781e5e245d69b566979b86e28d23f2c7&quot;"), "{}", copied.text());
    assert_eq!(server.store.kept("copy").unwrap().bytes, b"0123456789");
    let create = send(&server, Request::new("POST", "/bucket/key").query("uploads", "").body(b"")).await;
    let id = create.element("UploadId").unwrap();
    let parts = b"<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>\"ab\"</ETag></Part></CompleteMultipartUpload>";
    let complete = send(&server, Request::new("POST", "/bucket/key").query("uploadId", &id).body(parts)).await;
    assert_eq!(complete.element("ETag").as_deref(), Some("&quot;ab-1&quot;"), "{}", complete.text());
    assert_eq!(complete.element("Location").as_deref(), Some("http://localhost:9000/bucket/key"));
    server.stop().await;
}
