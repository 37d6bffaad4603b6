//! What one operation of each workload sends.

use anyhow::{Context, bail};
use bytes::Bytes;
use clap::ValueEnum;
use http::Method;
use placement_types::Env;

use crate::client::S3Client;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Workload {
    /// Uploads new objects
    Put,
    /// Downloads whole objects
    Get,
    /// Asks for objects' metadata
    Head,
    /// Lists pages of 1,000 keys
    List,
    /// Deletes objects
    Delete,
    /// 45 % GET, 30 % HEAD, 15 % PUT, 10 % DELETE
    Mixed,
    /// Uploads objects in parts
    Multipart,
}

/// One request (or, for multipart, one upload).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    Put,
    Get,
    Head,
    List,
    Delete,
    Multipart,
}

impl Workload {
    /// Whether objects must be there before the clock starts.
    pub(super) fn reads_objects(self) -> bool {
        !matches!(self, Workload::Put | Workload::Multipart)
    }

    pub(super) fn pick(self, env: &Env) -> Operation {
        match self {
            Workload::Put => Operation::Put,
            Workload::Get => Operation::Get,
            Workload::Head => Operation::Head,
            Workload::List => Operation::List,
            Workload::Delete => Operation::Delete,
            Workload::Multipart => Operation::Multipart,
            Workload::Mixed => match env.random_below(100) {
                0..45 => Operation::Get,
                45..75 => Operation::Head,
                75..90 => Operation::Put,
                _ => Operation::Delete,
            },
        }
    }
}

/// What the workers share.
#[derive(Clone)]
pub(super) struct Target {
    pub env: Env,
    pub client: S3Client,
    pub bucket: String,
    pub object_bytes: usize,
    pub part_bytes: usize,
    pub key_prefix: String,
}

impl Target {
    pub(super) fn object_path(&self, number: u64) -> String {
        format!("/{}/{}{number:012}", self.bucket, self.key_prefix)
    }

    /// Random bytes of the object size. Only a head of 4 KiB is drawn fresh each time, the rest repeats one random block:
    /// neither deduplication nor compression could profit, and the generator is not what is measured.
    pub(super) fn body(&self, noise: &Bytes, bytes: usize) -> Bytes {
        let mut body = Vec::with_capacity(bytes);
        let mut head = vec![0; bytes.min(4096)];
        self.env.random.fill(&mut head);
        body.extend_from_slice(&head);
        while body.len() < bytes {
            let take = noise.len().min(bytes - body.len());
            body.extend_from_slice(&noise[..take]);
        }
        Bytes::from(body)
    }

    /// Runs one operation on object `number` and returns the payload bytes moved.
    pub(super) async fn perform(&self, operation: Operation, number: u64, noise: &Bytes) -> anyhow::Result<u64> {
        let path = self.object_path(number);
        match operation {
            Operation::Put => {
                let body = self.body(noise, self.object_bytes);
                self.expect(Method::PUT, &path, &[], body, &[200]).await?;
                Ok(self.object_bytes as u64)
            }
            Operation::Get => {
                // A mixed run deletes what others read: absent is an answer, not an error.
                let (status, bytes) = self.expect(Method::GET, &path, &[], Bytes::new(), &[200, 404]).await?;
                if status == 200 && bytes != self.object_bytes as u64 {
                    bail!("GET {path} returned {bytes} bytes instead of {}", self.object_bytes);
                }
                Ok(if status == 200 { bytes } else { 0 })
            }
            Operation::Head => self.expect(Method::HEAD, &path, &[], Bytes::new(), &[200, 404]).await.map(|_| 0),
            Operation::Delete => self.expect(Method::DELETE, &path, &[], Bytes::new(), &[204]).await.map(|_| 0),
            Operation::List => {
                let after = format!("{}{number:012}", self.key_prefix);
                let query = [("list-type", "2"), ("max-keys", "1000"), ("start-after", after.as_str())];
                self.expect(Method::GET, &format!("/{}", self.bucket), &query, Bytes::new(), &[200]).await.map(|(_, bytes)| bytes)
            }
            Operation::Multipart => self.multipart(&path, noise).await,
        }
    }

    async fn multipart(&self, path: &str, noise: &Bytes) -> anyhow::Result<u64> {
        let created = self.client.send(Method::POST, path, &[("uploads", "")], Bytes::new()).await?;
        let text = String::from_utf8_lossy(&created.body).into_owned();
        let upload = between(&text, "<UploadId>", "</UploadId>").with_context(|| format!("no upload id in: {text}"))?;
        let mut list = String::from("<CompleteMultipartUpload>");
        let mut left = self.object_bytes;
        let mut number = 0u32;
        while left > 0 {
            number += 1;
            let bytes = left.min(self.part_bytes);
            let number_text = number.to_string();
            let query = [("partNumber", number_text.as_str()), ("uploadId", upload)];
            let reply = self.client.send(Method::PUT, path, &query, self.body(noise, bytes)).await?;
            if reply.status != 200 {
                bail!("UploadPart answered {}: {}", reply.status, String::from_utf8_lossy(&reply.body));
            }
            let etag = reply.headers.get("etag").and_then(|value| value.to_str().ok()).unwrap_or_default();
            list.push_str(&format!("<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>"));
            left -= bytes;
        }
        list.push_str("</CompleteMultipartUpload>");
        let done = self.client.send(Method::POST, path, &[("uploadId", upload)], Bytes::from(list)).await?;
        let text = String::from_utf8_lossy(&done.body);
        if done.status != 200 || text.contains("<Error>") {
            bail!("CompleteMultipartUpload answered {}: {text}", done.status);
        }
        Ok(self.object_bytes as u64)
    }

    async fn expect(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, &str)],
        body: Bytes,
        expected: &[u16],
    ) -> anyhow::Result<(u16, u64)> {
        let (status, _, bytes) = self.client.send_discarding(method.clone(), path, query, body).await?;
        if !expected.contains(&status.as_u16()) {
            bail!("{method} {path} answered {status}");
        }
        Ok((status.as_u16(), bytes))
    }
}

fn between<'a>(text: &'a str, open: &str, close: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(open)?;
    rest.split_once(close).map(|(inside, _)| inside)
}
