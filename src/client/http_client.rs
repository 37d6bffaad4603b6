//! Signed requests over HTTP/1.1 with kept-alive connections.

use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use gateway_s3::Signer;
use http::{HeaderMap, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use placement_types::Env;

/// What S3 leaves unencoded in a path, besides letters and digits.
const PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b'/');
const QUERY: &AsciiSet = &PATH.add(b'/');

/// An `http://host:port` address.
#[derive(Debug, Clone)]
pub struct Endpoint(String);

impl Endpoint {
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let uri: Uri = text.parse().with_context(|| format!("{text:?} is not a URL"))?;
        if uri.scheme_str() != Some("http") {
            bail!(
                "{text:?} is not an http:// endpoint; https is not supported by this client, put it on the server's own network"
            );
        }
        if uri.authority().is_none() || !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            bail!("an endpoint is http://HOST:PORT, not {text:?}");
        }
        Ok(Self(text.trim_end_matches('/').to_owned()))
    }
}

/// A client of one endpoint. Cheap to clone; clones share connections.
#[derive(Clone)]
pub struct S3Client {
    env: Env,
    http: Client<HttpConnector, Full<Bytes>>,
    endpoint: Endpoint,
    signer: Signer,
}

pub struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl S3Client {
    pub fn new(env: Env, endpoint: Endpoint, signer: Signer) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(Duration::from_secs(5)));
        let http = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(1024).build(connector);
        Self { env, http, endpoint, signer }
    }

    /// Sends a request and reads the whole reply. `path` begins with `/` and is not encoded yet, nor is the query.
    ///
    /// # Errors
    /// Only when there was no reply; an error status is a reply.
    pub async fn send(&self, method: Method, path: &str, query: &[(&str, &str)], body: Bytes) -> anyhow::Result<Reply> {
        let (reply, body) = self.start(method, path, query, body).await?.into_parts();
        let body = body.collect().await.context("the reply broke off")?.to_bytes();
        Ok(Reply { status: reply.status, headers: reply.headers, body })
    }

    /// Sends a request and throws the reply's body away, counting its bytes.
    pub async fn send_discarding(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, &str)],
        body: Bytes,
    ) -> anyhow::Result<(StatusCode, HeaderMap, u64)> {
        let (reply, mut body) = self.start(method, path, query, body).await?.into_parts();
        let mut bytes = 0;
        while let Some(frame) = body.frame().await {
            let frame = frame.context("the reply broke off")?;
            bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
        }
        Ok((reply.status, reply.headers, bytes))
    }

    async fn start(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, &str)],
        body: Bytes,
    ) -> anyhow::Result<http::Response<hyper::body::Incoming>> {
        let mut pairs: Vec<String> = query
            .iter()
            .map(|(name, value)| format!("{}={}", utf8_percent_encode(name, QUERY), utf8_percent_encode(value, QUERY)))
            .collect();
        pairs.sort();
        let separator = if pairs.is_empty() { "" } else { "?" };
        let uri = format!("{}{}{separator}{}", self.endpoint.0, utf8_percent_encode(path, PATH), pairs.join("&"));
        let mut request = Request::builder().method(method).uri(&uri).body(Full::new(body)).context("not a legal request")?;
        self.signer.sign(&mut request, self.env.now());
        self.http.request(request).await.with_context(|| format!("no reply from {}", self.endpoint.0))
    }
}
