//! A client that can say anything: it signs like an SDK, and sends whatever bytes it is told to.

use std::collections::BTreeMap;

use hmac::{Hmac, Mac as _};
use placement_types::{BoxStream, Env, Timestamp};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::{ACCESS_KEY, SECRET};

pub const EMPTY_SHA256: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// A connection.
pub struct Client {
    stream: BoxStream,
    received: Vec<u8>,
}

/// What the server answered.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

impl Answer {
    /// The text between `<name>` and `</name>`, as it is written.
    pub fn element(&self, name: &str) -> Option<String> {
        let text = self.text();
        let start = text.find(&format!("<{name}>"))? + name.len() + 2;
        let end = start + text[start..].find(&format!("</{name}>"))?;
        Some(text[start..end].to_owned())
    }

    pub fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    /// The status and `<Code>` of an error.
    pub fn code(&self) -> (u16, String) {
        (self.status, self.element("Code").unwrap_or_default())
    }
}

impl Client {
    pub async fn connect(env: &Env, address: &str) -> Self {
        Self { stream: env.net.connect(address).await.unwrap(), received: Vec::new() }
    }

    pub async fn send_bytes(&mut self, bytes: &[u8]) {
        // The server may have closed already: what it answered is still there to read.
        let _ = self.stream.write_all(bytes).await;
        let _ = self.stream.flush().await;
    }

    /// Says that nothing more will come.
    pub async fn finish_sending(&mut self) {
        let _ = self.stream.shutdown().await;
    }

    /// Sends a request and reads its answer.
    pub async fn send(&mut self, request: &Request) -> Answer {
        self.send_bytes(&request.to_bytes()).await;
        self.answer_to(&request.method).await
    }

    async fn read_more(&mut self) -> bool {
        let mut buffer = [0; 65536];
        match self.stream.read(&mut buffer).await {
            Ok(0) | Err(_) => false,
            Ok(read) => {
                self.received.extend_from_slice(&buffer[..read]);
                true
            }
        }
    }

    /// The next head, as text. `None` when the server closed before one was whole.
    pub async fn head(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.received.windows(4).position(|window| window == b"\r\n\r\n") {
                let head: Vec<u8> = self.received.drain(..end + 4).collect();
                return Some(String::from_utf8(head).unwrap());
            }
            if !self.read_more().await {
                return None;
            }
        }
    }

    pub async fn answer_to(&mut self, method: &str) -> Answer {
        self.try_answer_to(method).await.expect("the server answers")
    }

    /// `None` when the server closed before the answer was whole.
    pub async fn try_answer_to(&mut self, method: &str) -> Option<Answer> {
        let head = self.head().await?;
        let mut lines = head.split("\r\n");
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers: BTreeMap<String, String> =
            lines.filter_map(|line| line.split_once(':')).map(|(n, v)| (n.to_ascii_lowercase(), v.trim().to_owned())).collect();
        let length = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
        let bodiless = method == "HEAD" || matches!(status, 100 | 204 | 304);
        let length: usize = if bodiless { 0 } else { length };
        while self.received.len() < length {
            if !self.read_more().await {
                return None;
            }
        }
        let body = self.received.drain(..length).collect();
        Some(Answer { status, headers, body })
    }

    /// Whether the server closes without another byte.
    pub async fn is_closed(&mut self) -> bool {
        while self.read_more().await {}
        self.received.is_empty()
    }
}

/// A request under construction. Signing it is the last step; what is added after that is unsigned.
#[derive(Clone)]
pub struct Request {
    pub method: String,
    pub path: String,
    pub query: Vec<(String, String)>,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

fn hmac(key: &[u8], text: &str) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

pub fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

fn basic_time(time: Timestamp) -> String {
    let time = time::OffsetDateTime::from_unix_timestamp(time.as_seconds() as i64).unwrap();
    let (h, m, s) = time.time().as_hms();
    format!("{:04}{:02}{:02}T{h:02}{m:02}{s:02}Z", time.year(), u8::from(time.month()), time.day())
}

fn encode(text: &str) -> String {
    const SET: &percent_encoding::AsciiSet =
        &percent_encoding::NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');
    percent_encoding::utf8_percent_encode(text, SET).to_string()
}

/// What signs: the scope, its key, and the signature of the request it signed.
pub struct Signed {
    pub date: String,
    pub scope: String,
    pub key: Vec<u8>,
    pub signature: String,
}

impl Request {
    pub fn new(method: &str, path: &str) -> Self {
        let headers = vec![("host".to_owned(), "localhost:9000".to_owned())];
        Self { method: method.to_owned(), path: path.to_owned(), query: Vec::new(), headers, body: Vec::new() }
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn query(mut self, name: &str, value: &str) -> Self {
        self.query.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Sets body and length.
    pub fn body(self, body: &[u8]) -> Self {
        let length = body.len().to_string();
        Self { body: body.to_vec(), ..self }.header("content-length", &length)
    }

    /// Sets the body without saying how long it is.
    pub fn raw_body(self, body: &[u8]) -> Self {
        Self { body: body.to_vec(), ..self }
    }

    pub fn canonical_query(&self) -> String {
        let mut pairs: Vec<String> = self.query.iter().map(|(n, v)| format!("{}={}", encode(n), encode(v))).collect();
        pairs.sort();
        pairs.join("&")
    }

    fn signature(&self, at: Timestamp, names: &[String], payload: &str) -> Signed {
        let date = basic_time(at);
        let scope = format!("{}/us-east-1/s3/aws4_request", &date[..8]);
        let headers: String = names
            .iter()
            .map(|name| {
                let values: Vec<&str> = self.headers.iter().filter(|(n, _)| n == name).map(|(_, v)| v.trim()).collect();
                format!("{name}:{}\n", values.join(","))
            })
            .collect();
        let canonical = [&self.method, &self.path, &self.canonical_query(), &headers, &names.join(";"), &payload.to_owned()]
            .map(String::as_str)
            .join("\n");
        let text = format!("AWS4-HMAC-SHA256\n{date}\n{scope}\n{}", sha256(canonical.as_bytes()));
        let mut key = format!("AWS4{SECRET}").into_bytes();
        for part in scope.split('/') {
            key = hmac(&key, part);
        }
        let signature = hex::encode(hmac(&key, &text));
        Signed { date, scope, key, signature }
    }

    /// Signs every header there is, with the payload hash given.
    pub fn sign(self, env: &Env, payload: &str) -> Self {
        self.sign_at(env.now(), payload).0
    }

    pub fn sign_at(self, at: Timestamp, payload: &str) -> (Self, Signed) {
        let request = self.header("x-amz-date", &basic_time(at)).header("x-amz-content-sha256", payload);
        let mut names: Vec<String> = request.headers.iter().map(|(name, _)| name.clone()).collect();
        names.sort();
        names.dedup();
        let signed = request.signature(at, &names, payload);
        let value = format!(
            "AWS4-HMAC-SHA256 Credential={ACCESS_KEY}/{}, SignedHeaders={}, Signature={}",
            signed.scope,
            names.join(";"),
            signed.signature
        );
        (request.header("authorization", &value), signed)
    }

    /// Signs a body that is not hashed.
    pub fn sign_unsigned_payload(self, env: &Env) -> Self {
        self.sign(env, "UNSIGNED-PAYLOAD")
    }

    /// Makes a presigned URL of version 4.
    pub fn presign(self, env: &Env, expires: i64) -> Self {
        let date = basic_time(env.now());
        let credential = format!("{ACCESS_KEY}/{}/us-east-1/s3/aws4_request", &date[..8]);
        let request = self
            .query("X-Amz-Algorithm", "AWS4-HMAC-SHA256")
            .query("X-Amz-Credential", &credential)
            .query("X-Amz-Date", &date)
            .query("X-Amz-Expires", &expires.to_string())
            .query("X-Amz-SignedHeaders", "host");
        let signed = request.signature(env.now(), &["host".to_owned()], "UNSIGNED-PAYLOAD");
        request.query("X-Amz-Signature", &signed.signature)
    }

    /// Makes a presigned URL of version 2.
    pub fn presign_v2(self, env: &Env) -> Self {
        use base64::Engine as _;
        let expires = (env.now().as_seconds() + 600).to_string();
        let text = format!("{}\n\n\n{expires}\n{}", self.method, self.path);
        let mut mac = Hmac::<sha1::Sha1>::new_from_slice(SECRET.as_bytes()).unwrap();
        mac.update(text.as_bytes());
        let signature = base64::engine::general_purpose::STANDARD.encode(mac.finalize().into_bytes());
        self.query("AWSAccessKeyId", ACCESS_KEY).query("Expires", &expires).query("Signature", &signature)
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        let query = self.canonical_query();
        let separator = if query.is_empty() { "" } else { "?" };
        let mut text = format!("{} {}{separator}{query} HTTP/1.1\r\n", self.method, self.path);
        for (name, value) in &self.headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text.push_str("\r\n");
        [text.into_bytes(), self.body.clone()].concat()
    }
}

/// Frames chunks and signs each, the final empty one included.
pub fn signed_chunks(signed: &Signed, chunks: &[&[u8]]) -> Vec<u8> {
    let mut previous = signed.signature.clone();
    let mut body = Vec::new();
    for chunk in chunks.iter().copied().chain([&b""[..]]) {
        let text =
            format!("AWS4-HMAC-SHA256-PAYLOAD\n{}\n{}\n{previous}\n{EMPTY_SHA256}\n{}", signed.date, signed.scope, sha256(chunk));
        previous = hex::encode(hmac(&signed.key, &text));
        body.extend_from_slice(format!("{:x};chunk-signature={previous}\r\n", chunk.len()).as_bytes());
        body.extend_from_slice(chunk);
        body.extend_from_slice(b"\r\n");
    }
    body
}
