//! A body that is not what its sender declared leaves nothing behind.

use gateway_s3::{Checksum, ChecksumAlgorithm};

use crate::Server;
use crate::client::{Request, sha256, signed_chunks};

const BODY: &[u8] = b"hello world";
const MD5: &str = "XrY7u+Ae7tCTyyK7j1rNww==";
const OTHER_MD5: &str = "XUFAKrxLKna5cZ2REBfFkg==";

fn crc32(bytes: &[u8]) -> String {
    Checksum::of(ChecksumAlgorithm::Crc32, bytes).text()
}

/// Sends a PUT on a fresh connection, and checks the answer and that nothing was kept.
async fn refused(server: &Server, name: &str, request: Request, status: u16, code: &str) {
    let mut client = server.connect().await;
    client.send_bytes(&request.to_bytes()).await;
    let answer = client.answer_to("PUT").await;
    assert_eq!(answer.code(), (status, code.to_owned()), "{name}: {}", answer.text());
    assert_eq!(server.store.count(), 0, "{name}: something was kept");
}

#[tokio::test]
async fn a_plain_body_is_kept_only_when_every_digest_fits() {
    let server = Server::start().await;
    let put = || Request::new("PUT", "/bucket/key").body(BODY);
    let cases: Vec<(&str, Request, u16, &str)> = vec![
        ("wrong md5", put().header("content-md5", OTHER_MD5), 400, "BadDigest"),
        ("malformed md5", put().header("content-md5", "abc"), 400, "InvalidDigest"),
        ("empty md5", put().header("content-md5", ""), 400, "InvalidDigest"),
        ("wrong crc", put().header("x-amz-checksum-crc32", &crc32(b"other")), 400, "BadDigest"),
        ("malformed crc", put().header("x-amz-checksum-crc32", "AAA"), 400, "InvalidRequest"),
        (
            "two checksums",
            put().header("x-amz-checksum-crc32", &crc32(BODY)).header("x-amz-checksum-crc32c", &crc32(BODY)),
            400,
            "InvalidRequest",
        ),
        ("a trailer without chunks", put().header("x-amz-trailer", "x-amz-checksum-crc32"), 400, "InvalidRequest"),
    ];
    for (name, request, status, code) in cases {
        refused(&server, name, request.sign_unsigned_payload(&server.env), status, code).await;
    }
    refused(&server, "wrong sha256", put().sign(&server.env, &sha256(b"other")), 400, "XAmzContentSHA256Mismatch").await;
    let no_length = Request::new("PUT", "/bucket/key").header("transfer-encoding", "chunked").raw_body(b"3\r\nabc\r\n0\r\n\r\n");
    refused(&server, "no length", no_length.sign_unsigned_payload(&server.env), 411, "MissingContentLength").await;

    let fits = put().header("content-md5", MD5).header("x-amz-checksum-crc32", &crc32(BODY)).sign(&server.env, &sha256(BODY));
    let answer = server.connect().await.send(&fits).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.headers["etag"], "\"5eb63bbbe01eeed093cb22bb8f5acdc3\"");
    assert_eq!(answer.headers["x-amz-checksum-crc32"], crc32(BODY));
    assert_eq!(server.store.kept("key").unwrap().bytes, BODY);
    server.stop().await;
}

#[tokio::test]
async fn a_body_shorter_than_its_length_is_not_kept() {
    let server = Server::start().await;
    let request = Request::new("PUT", "/bucket/key").header("content-length", "20").sign_unsigned_payload(&server.env);
    let mut client = server.connect().await;
    client.send_bytes(&request.raw_body(BODY).to_bytes()).await;
    client.finish_sending().await;
    if let Some(answer) = client.try_answer_to("PUT").await {
        assert_eq!(answer.code(), (400, "IncompleteBody".to_owned()));
    }
    assert_eq!(server.store.count(), 0);
    server.stop().await;
}

fn unsigned_trailer(server: &Server, declared: usize, trailer: Option<&str>, body: &[u8]) -> Request {
    let request = Request::new("PUT", "/bucket/key")
        .header("content-encoding", "aws-chunked")
        .header("x-amz-decoded-content-length", &declared.to_string())
        .body(body);
    let request = match trailer {
        Some(name) => request.header("x-amz-trailer", name),
        None => request,
    };
    request.sign(&server.env, "STREAMING-UNSIGNED-PAYLOAD-TRAILER")
}

#[tokio::test]
async fn an_unsigned_chunked_body_is_kept_only_when_whole_and_verified() {
    let server = Server::start().await;
    let crc = "x-amz-checksum-crc32";
    let right = format!("b\r\nhello world\r\n0\r\n{crc}:{}\r\n\r\n", crc32(BODY));
    let wrong = format!("b\r\nhello world\r\n0\r\n{crc}:{}\r\n\r\n", crc32(b"other"));
    let garbled = format!("b\r\nhello world\r\n0\r\n{crc}:?\r\n\r\n");
    let twice = format!("b\r\nhello world\r\n0\r\n{crc}:{0}\r\n{crc}:{0}\r\n\r\n", crc32(BODY));
    let undeclared = format!("b\r\nhello world\r\n0\r\n{crc}:{}\r\nx-amz-meta-a:b\r\n\r\n", crc32(BODY));
    let another = "b\r\nhello world\r\n0\r\nx-amz-checksum-sha1:AAAA\r\n\r\n";
    let short_chunks = format!("5\r\nhello\r\n6\r\n world\r\n0\r\n{crc}:{}\r\n\r\n", crc32(BODY));
    let incomplete = (400, "IncompleteBody");
    let bad_trailer = (400, "MalformedTrailerError");
    let cases: Vec<(&str, usize, &str, (u16, &str))> = vec![
        ("wrong trailer checksum", 11, &wrong, (400, "BadDigest")),
        ("garbled trailer checksum", 11, &garbled, (400, "InvalidRequest")),
        ("missing trailer", 11, "b\r\nhello world\r\n0\r\n\r\n", bad_trailer),
        ("another trailer", 11, another, bad_trailer),
        ("trailer twice", 11, &twice, bad_trailer),
        ("undeclared trailer", 11, &undeclared, bad_trailer),
        ("missing final chunk", 11, "b\r\nhello world\r\n", incomplete),
        ("claimed chunk longer than sent", 11, "ff\r\nhello world\r\n0\r\n\r\n", incomplete),
        ("claimed chunk shorter than sent", 11, "5\r\nhello world\r\n0\r\n\r\n", incomplete),
        ("no chunk size", 11, "hello world", incomplete),
        ("decoded length too small", 5, &right, incomplete),
        ("decoded length too large", 50, &right, incomplete),
        ("a short chunk in the middle", 11, &short_chunks, (400, "InvalidChunkSizeError")),
    ];
    for (name, declared, body, (status, code)) in cases {
        refused(&server, name, unsigned_trailer(&server, declared, Some(crc), body.as_bytes()), status, code).await;
    }
    let no_trailer_header = unsigned_trailer(&server, 11, None, b"b\r\nhello world\r\n0\r\n\r\n");
    refused(&server, "no x-amz-trailer", no_trailer_header, 400, "InvalidRequest").await;

    let answer = server.connect().await.send(&unsigned_trailer(&server, 11, Some(crc), right.as_bytes())).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let kept = server.store.kept("key").unwrap();
    assert_eq!(kept.bytes, BODY);
    assert_eq!(kept.headers.content.content_encoding, None);
    server.stop().await;
}

#[tokio::test]
async fn an_unsigned_chunked_body_may_come_without_a_content_length() {
    let server = Server::start().await;
    let inner = format!("b\r\nhello world\r\n0\r\nx-amz-checksum-crc32:{}\r\n\r\n", crc32(BODY));
    let body = format!("{:x}\r\n{inner}\r\n0\r\n\r\n", inner.len());
    let request = Request::new("PUT", "/bucket/key")
        .header("content-encoding", "gzip,aws-chunked")
        .header("transfer-encoding", "chunked")
        .header("x-amz-decoded-content-length", "11")
        .header("x-amz-trailer", "x-amz-checksum-crc32")
        .raw_body(body.as_bytes())
        .sign(&server.env, "STREAMING-UNSIGNED-PAYLOAD-TRAILER");
    let answer = server.connect().await.send(&request).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let kept = server.store.kept("key").unwrap();
    assert_eq!(kept.bytes, BODY);
    assert_eq!(kept.headers.content.content_encoding.as_deref(), Some("gzip"));
    server.stop().await;
}

#[tokio::test]
async fn a_signed_chunked_body_is_kept_only_when_every_signature_fits() {
    let server = Server::start().await;
    let first = vec![b'a'; 8192];
    let request = || {
        Request::new("PUT", "/bucket/key")
            .header("content-encoding", "aws-chunked")
            .header("x-amz-decoded-content-length", "8195")
            // The length of the framing is the same for every variant below unless it says otherwise.
            .sign_at(server.env.now(), "STREAMING-AWS4-HMAC-SHA256-PAYLOAD")
    };
    let send = |request: Request, body: &[u8]| request.header("content-length", &body.len().to_string()).raw_body(body);
    let forbidden = (403, "SignatureDoesNotMatch");
    type Spoil = fn(Vec<u8>) -> Vec<u8>;
    let spoils: [(&str, Spoil, (u16, &str)); 5] = [
        (
            "a changed byte",
            |mut body| {
                body[200] ^= 1;
                body
            },
            forbidden,
        ),
        (
            "a changed signature",
            |mut body| {
                body[30] = if body[30] == b'0' { b'1' } else { b'0' };
                body
            },
            forbidden,
        ),
        (
            "a changed final signature",
            |mut body| {
                let at = body.len() - 10;
                body[at] = if body[at] == b'0' { b'1' } else { b'0' };
                body
            },
            forbidden,
        ),
        (
            "no final chunk",
            |body| {
                let end = body.windows(4).rposition(|w| w == b"\r\n0;").unwrap() + 2;
                body[..end].to_vec()
            },
            (400, "IncompleteBody"),
        ),
        (
            "unsigned chunks",
            |_| [format!("2003\r\n{}\r\n0\r\n\r\n", "a".repeat(8195)).into_bytes()].concat(),
            (400, "IncompleteBody"),
        ),
    ];
    for (name, spoil, (status, code)) in spoils {
        let (request, signed) = request();
        let body = spoil(signed_chunks(&signed, &[&first, b"bcd"]));
        refused(&server, name, send(request, &body), status, code).await;
    }
    let (put, signed) = request();
    let whole = signed_chunks(&signed, &[&first, b"bcd"]);
    let answer = server.connect().await.send(&send(put, &whole)).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(server.store.kept("key").unwrap().bytes, [&first[..], b"bcd"].concat());
    server.stop().await;
}

#[tokio::test]
async fn a_part_is_verified_like_an_object() {
    let server = Server::start().await;
    let part = || {
        Request::new("PUT", "/bucket/key")
            .query("partNumber", "2")
            .query("uploadId", "00000000000000000000000000000007")
            .body(BODY)
    };
    let wrong = part().header("x-amz-checksum-crc32", &crc32(b"other")).sign_unsigned_payload(&server.env);
    refused(&server, "wrong crc of a part", wrong, 400, "BadDigest").await;
    let unknown = Request::new("PUT", "/bucket/key").query("partNumber", "2").query("uploadId", "no-id").body(BODY);
    refused(&server, "foreign upload id", unknown.sign_unsigned_payload(&server.env), 404, "NoSuchUpload").await;
    let right = part().header("x-amz-checksum-crc32", &crc32(BODY)).sign_unsigned_payload(&server.env);
    let answer = server.connect().await.send(&right).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.headers["x-amz-checksum-crc64nvme"], Checksum::of(ChecksumAlgorithm::Crc64Nvme, BODY).text());
    server.stop().await;
}

#[tokio::test]
async fn a_document_is_verified_before_it_is_obeyed() {
    let server = Server::start().await;
    let put = Request::new("PUT", "/bucket/key").body(BODY).sign_unsigned_payload(&server.env);
    server.connect().await.send(&put).await;
    let document = b"<Delete><Object><Key>key</Key></Object></Delete>";
    let delete = || Request::new("POST", "/bucket").query("delete", "").body(document);
    let refusals = [
        ("no digest", delete(), "InvalidRequest"),
        ("wrong md5", delete().header("content-md5", OTHER_MD5), "BadDigest"),
        ("wrong crc", delete().header("x-amz-checksum-crc32", &crc32(b"other")), "BadDigest"),
        (
            "not xml",
            Request::new("POST", "/bucket").query("delete", "").body(b"<D").header("x-amz-checksum-crc32", &crc32(b"<D")),
            "MalformedXML",
        ),
    ];
    for (name, request, code) in refusals {
        let answer = server.connect().await.send(&request.sign_unsigned_payload(&server.env)).await;
        assert_eq!(answer.code(), (400, code.to_owned()), "{name}");
        assert_eq!(server.store.count(), 1, "{name}");
    }
    let right = delete().header("x-amz-checksum-crc32", &crc32(document)).sign(&server.env, &sha256(document));
    let answer = server.connect().await.send(&right).await;
    assert_eq!((answer.status, answer.element("Key").as_deref()), (200, Some("key")), "{}", answer.text());
    assert_eq!(server.store.count(), 0);
    server.stop().await;
}
