//! Over TLS, in the version of HTTP that the client chooses.

use std::sync::Arc;

use bytes::Bytes;
use gateway_s3::{S3Config, Tls};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::crypto::aws_lc_rs;
use rustls_pki_types::ServerName;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::Server;
use crate::client::{EMPTY_SHA256, Request};

/// A server with a certificate of its own, and a client that trusts it.
async fn start() -> (Server, rustls::ClientConfig) {
    let own = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let tls = Tls::from_pem(own.cert.pem().as_bytes(), own.signing_key.serialize_pem().as_bytes()).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(own.cert.der().clone()).unwrap();
    let client = rustls::ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    (Server::start_on(S3Config::default(), Some(tls)).await, client)
}

async fn connect(server: &Server, mut config: rustls::ClientConfig, protocol: &[u8]) -> TlsStream<placement_types::BoxStream> {
    config.alpn_protocols = vec![protocol.to_vec()];
    let stream = server.env.net.connect(&server.address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap()
}

fn to_http(request: &Request) -> http::Request<Full<Bytes>> {
    let mut builder =
        http::Request::builder().method(request.method.as_str()).uri(format!("https://localhost:9000{}", request.path));
    for (name, value) in request.headers.iter().filter(|(name, _)| name != "host") {
        builder = builder.header(name, value);
    }
    builder.body(Full::new(Bytes::from(request.body.clone()))).unwrap()
}

#[tokio::test]
async fn http_2_is_signed_verified_and_bounded_like_http_1() {
    let (server, config) = start().await;
    let stream = connect(&server, config, b"h2").await;
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    let _driver = server.env.spawn("test connection", async move {
        let _ = connection.await;
    });
    let body = vec![b'x'; 3 << 20];
    let put = Request::new("PUT", "/bucket/key").body(&body).sign_unsigned_payload(&server.env);
    let answer = sender.send_request(to_http(&put)).await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(server.store.kept("key").unwrap().bytes, body);
    let get = Request::new("GET", "/bucket/key").sign(&server.env, EMPTY_SHA256);
    let answer = sender.send_request(to_http(&get)).await.unwrap();
    assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), body);
    let unsigned = sender.send_request(to_http(&Request::new("GET", "/bucket/key"))).await.unwrap();
    assert_eq!(unsigned.status(), 403);
    let missing =
        sender.send_request(to_http(&Request::new("HEAD", "/bucket/no").sign(&server.env, EMPTY_SHA256))).await.unwrap();
    assert_eq!(missing.status(), 404);
    assert!(missing.into_body().collect().await.unwrap().to_bytes().is_empty(), "a HEAD has no body in HTTP/2 either");

    server.store.breaks_promises.store(true, std::sync::atomic::Ordering::Relaxed);
    // The reset may overtake the head.
    if let Ok(short) = sender.send_request(to_http(&Request::new("GET", "/bucket/key").sign(&server.env, EMPTY_SHA256))).await {
        assert!(short.into_body().collect().await.is_err(), "a short object must not look whole");
    }
}

#[tokio::test]
async fn http_1_works_over_tls() {
    let (server, config) = start().await;
    let stream = connect(&server, config, b"http/1.1").await;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    let _driver = server.env.spawn("test connection", async move {
        let _ = connection.await;
    });
    let put = Request::new("PUT", "/bucket/key").body(b"abc").sign_unsigned_payload(&server.env);
    let mut request = to_http(&put);
    *request.uri_mut() = "/bucket/key".parse().unwrap();
    request.headers_mut().insert("host", "localhost:9000".parse().unwrap());
    assert_eq!(sender.send_request(request).await.unwrap().status(), 200);
    assert_eq!(server.store.kept("key").unwrap().bytes, b"abc");
}
