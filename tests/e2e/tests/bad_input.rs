//! Malformed requests: the exact error, nothing stored, the server goes on.
#![allow(clippy::disallowed_methods)]

use tests_e2e::{Server, raw_http};

#[test]
fn malformed_requests_get_an_error_and_store_nothing() {
    let mut server = Server::start(1).unwrap();
    server.client().aws(&["s3", "mb", "s3://bad"]).unwrap();
    let huge_header = format!("GET / HTTP/1.1\r\nhost: x\r\nx-filler: {}\r\n\r\n", "a".repeat(1 << 20));
    let long_uri = format!("GET /bad/{} HTTP/1.1\r\nhost: x\r\n\r\n", "k".repeat(64 << 10));
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("rubbish", b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n".to_vec()),
        ("no version", b"GET /\r\n\r\n".to_vec()),
        ("two lengths", b"PUT /bad/k HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab".to_vec()),
        ("negative length", b"PUT /bad/k HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n".to_vec()),
        (
            "chunked and length",
            b"PUT /bad/k HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n".to_vec(),
        ),
        ("a huge header", huge_header.into_bytes()),
        ("a long target", long_uri.into_bytes()),
        ("bad escapes", b"GET /bad/%ff%fe HTTP/1.1\r\nhost: x\r\n\r\n".to_vec()),
        ("a NUL in the key", b"GET /bad/a%00b HTTP/1.1\r\nhost: x\r\n\r\n".to_vec()),
        ("a bad signature", b"GET /bad/k HTTP/1.1\r\nhost: x\r\nauthorization: AWS4-HMAC-SHA256 rubbish\r\n\r\n".to_vec()),
        ("an unknown sub-resource", b"GET /bad?nonsense HTTP/1.1\r\nhost: x\r\n\r\n".to_vec()),
        ("an unknown method", b"BREW /bad/k HTTP/1.1\r\nhost: x\r\n\r\n".to_vec()),
    ];
    for (name, request) in cases {
        let reply = raw_http(server.s3(), &request).unwrap();
        let status = reply.status();
        assert!((400..600).contains(&status) && status != 500 || (status == 0 && reply.closed), "{name}: {reply:?}");
    }
    let listed = server.client().aws(&["s3", "ls", "--recursive", "s3://bad"]).unwrap_or_default();
    assert_eq!(listed.trim(), "");
    assert!(server.process().peak_rss_bytes().unwrap() < 512 << 20);
}
