//! The S3 client of the soak: signed requests that say exactly what became of them.

use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use gateway_s3::{SecretKey, Signer};
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use placement_types::Env;
use tests_e2e::{ACCESS_KEY, SECRET_KEY};

/// A request that is not answered by then is given up, with its outcome unknown.
const PATIENCE: Duration = Duration::from_secs(30);

pub const BUCKET: &str = "soak";

/// A client of one gateway. Clones share connections.
#[derive(Clone)]
pub struct S3 {
    env: Env,
    http: Client<HttpConnector, Full<Bytes>>,
    endpoint: String,
}

pub struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Reply {
    /// The ETag without its quotes.
    pub fn etag(&self) -> &str {
        self.headers.get("etag").and_then(|value| value.to_str().ok()).unwrap_or_default().trim_matches('"')
    }
}

impl S3 {
    pub fn new(env: Env, endpoint: &str) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(Duration::from_secs(5)));
        let http = Client::builder(TokioExecutor::new()).pool_idle_timeout(Duration::from_secs(20)).build(connector);
        Self { env, http, endpoint: endpoint.to_owned() }
    }

    /// # Errors
    /// When there was no whole answer: nobody knows what became of the request.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&'static str, String)],
        body: Bytes,
    ) -> anyhow::Result<Reply> {
        let mut request = Request::builder().method(method).uri(format!("{}/{path}", self.endpoint));
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let mut request = request.body(Full::new(body)).context("not a legal request")?;
        let secret = SecretKey::new(SECRET_KEY.to_owned());
        let signer = Signer { access_key: ACCESS_KEY.to_owned(), secret, region: "us-east-1".to_owned() };
        signer.sign(&mut request, self.env.now());
        let whole = async {
            let (parts, body) = self.http.request(request).await.context("no answer")?.into_parts();
            let body = body.collect().await.context("the answer broke off")?.to_bytes();
            anyhow::Ok(Reply { status: parts.status, headers: parts.headers, body })
        };
        tokio::time::timeout(PATIENCE, whole).await.context("no answer in time")?
    }

    /// All keys with a prefix, page by page.
    ///
    /// # Errors
    /// When one page does not come.
    pub async fn list(&self, prefix: &str, page: u32) -> anyhow::Result<Vec<String>> {
        let mut keys = Vec::new();
        let mut token = String::new();
        loop {
            // In the order in which the signature wants them.
            let path = format!("{BUCKET}?{token}list-type=2&max-keys={page}&prefix={prefix}");
            let reply = self.send(Method::GET, &path, &[], Bytes::new()).await?;
            let text = String::from_utf8_lossy(&reply.body);
            anyhow::ensure!(reply.status == StatusCode::OK, "{}: {text}", reply.status);
            keys.extend(text.split("<Key>").skip(1).filter_map(|rest| rest.split("</Key>").next()).map(str::to_owned));
            let Some(next) = text.split("<NextContinuationToken>").nth(1).and_then(|rest| rest.split('<').next()) else {
                anyhow::ensure!(text.contains("<IsTruncated>false</IsTruncated>"), "a page without an end: {text}");
                return Ok(keys);
            };
            token = format!("continuation-token={}&", encode(next));
        }
    }
}

/// A query value.
fn encode(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}
