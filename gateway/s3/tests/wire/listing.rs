//! Listings carry every key exactly.

use crate::Server;
use crate::client::{Answer, Request};

async fn list(server: &Server, query: &[(&str, &str)]) -> Answer {
    let request = query.iter().fold(Request::new("GET", "/bucket"), |request, (name, value)| request.query(name, value));
    server.connect().await.send(&request.sign_unsigned_payload(&server.env)).await
}

/// The texts of every `<Key>` and `<Prefix>` below the head.
fn names(answer: &Answer) -> Vec<String> {
    let text = answer.text();
    let body = &text[text.find("</IsTruncated>").unwrap()..];
    let mut names: Vec<(usize, String)> = Vec::new();
    for tag in ["Key", "Prefix"] {
        for (at, _) in body.match_indices(&format!("<{tag}>")) {
            let start = at + tag.len() + 2;
            let end = start + body[start..].find('<').unwrap();
            names.push((at, body[start..end].to_owned()));
        }
    }
    names.sort();
    names.into_iter().map(|(_, name)| name).collect()
}

async fn filled(paths: &[&str]) -> Server {
    let server = Server::start().await;
    for path in paths {
        let put = Request::new("PUT", &format!("/bucket/{path}")).body(b"x").sign_unsigned_payload(&server.env);
        assert_eq!(server.connect().await.send(&put).await.status, 200, "{path}");
    }
    server
}

#[tokio::test]
async fn strange_keys_survive_both_encodings() {
    let server = filled(&["a%01b", "c%0Dd%0Ae", "f%20g%2Bh%25", "i/j%26%3C"]).await;
    let plain = list(&server, &[]).await;
    assert_eq!(names(&plain), ["a&#1;b", "c&#13;d&#10;e", "f g+h%", "i/j&amp;&lt;"]);
    let encoded = list(&server, &[("encoding-type", "url")]).await;
    assert_eq!(names(&encoded), ["a%01b", "c%0Dd%0Ae", "f%20g%2Bh%25", "i/j%26%3C"]);
    assert_eq!(encoded.element("EncodingType").as_deref(), Some("url"));
    assert_eq!(list(&server, &[("encoding-type", "rot13")]).await.code(), (400, "InvalidArgument".to_owned()));
    server.stop().await;
}

#[tokio::test]
async fn a_page_ends_and_continues_on_a_common_prefix() {
    let server = filled(&["asdf", "boo/bar", "boo/baz", "cquux"]).await;
    let first = list(&server, &[("delimiter", "/"), ("max-keys", "2")]).await;
    assert_eq!(names(&first), ["asdf", "boo/"]);
    assert_eq!(first.element("NextMarker").as_deref(), Some("boo/"));
    assert_eq!(first.element("IsTruncated").as_deref(), Some("true"));
    let second = list(&server, &[("delimiter", "/"), ("marker", "boo/")]).await;
    assert_eq!(names(&second), ["cquux"]);
    assert_eq!(second.element("IsTruncated").as_deref(), Some("false"));
    let undelimited = list(&server, &[("max-keys", "2")]).await;
    assert_eq!(undelimited.element("NextMarker"), None, "only a delimiter makes v1 send it");
    assert!(undelimited.text().contains("<Owner>"));

    let v2 = list(&server, &[("list-type", "2"), ("max-keys", "3"), ("start-after", "a")]).await;
    assert_eq!(names(&v2), ["asdf", "boo/bar", "boo/baz"]);
    assert_eq!((v2.element("KeyCount").as_deref(), v2.element("StartAfter").as_deref()), (Some("3"), Some("a")));
    assert!(!v2.text().contains("<Owner>"));
    let token = v2.element("NextContinuationToken").unwrap();
    let rest = list(&server, &[("list-type", "2"), ("continuation-token", &token), ("start-after", "z")]).await;
    assert_eq!(names(&rest), ["cquux"]);
    let empty_token = list(&server, &[("list-type", "2"), ("continuation-token", "")]).await;
    assert_eq!((names(&empty_token).len(), empty_token.element("ContinuationToken").as_deref()), (4, Some("")));
    let foreign = list(&server, &[("list-type", "2"), ("continuation-token", "foreign")]).await;
    assert_eq!(foreign.code(), (400, "InvalidArgument".to_owned()));
    server.stop().await;
}

#[tokio::test]
async fn a_page_of_nothing_is_never_truncated() {
    let server = filled(&["a", "b"]).await;
    let none = list(&server, &[("max-keys", "0")]).await;
    assert_eq!((names(&none).len(), none.element("IsTruncated").as_deref()), (0, Some("false")));
    let many = list(&server, &[("max-keys", "5000")]).await;
    assert_eq!(many.element("MaxKeys").as_deref(), Some("1000"));
    assert_eq!(list(&server, &[("max-keys", "-1")]).await.code(), (400, "InvalidArgument".to_owned()));
    server.stop().await;
}

#[tokio::test]
async fn a_location_in_us_east_1_is_empty() {
    let server = filled(&[]).await;
    let answer = list(&server, &[("location", "")]).await;
    assert!(
        answer.text().ends_with("<LocationConstraint xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"></LocationConstraint>")
    );
    assert_eq!(answer.headers["x-amz-bucket-region"], "us-east-1");
    server.stop().await;
}
