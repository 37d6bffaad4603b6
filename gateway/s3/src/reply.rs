//! Replies under construction, and how an error becomes one.

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue};
use http::{HeaderMap, StatusCode};
use placement_types::RequestId;

use crate::api::ObjectBody;
use crate::checksum::Checksum;
use crate::error::{S3Error, S3ErrorCode};
use crate::wire_body::ExactBody;
use crate::xml_writer::XmlWriter;

/// Status, headers and body of a reply.
pub(crate) struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    body: s3s::Body,
}

/// Marks a response that is a [`Reply`] of ours, as against one that s3s made because authentication failed.
#[derive(Clone, Copy)]
pub(crate) struct Ours;

impl Reply {
    pub fn empty(status: StatusCode) -> Self {
        Self { status, headers: HeaderMap::new(), body: s3s::Body::empty() }
    }

    /// 200 with a document.
    pub fn xml(xml: XmlWriter) -> Self {
        Self::document(StatusCode::OK, xml.finish())
    }

    fn document(status: StatusCode, text: String) -> Self {
        let mut reply = Self { status, headers: HeaderMap::new(), body: s3s::Body::from(Bytes::from(text)) };
        reply.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/xml"));
        reply
    }

    /// Sends `bytes` bytes of a stream, no more and no less.
    #[must_use]
    pub fn with_stream(mut self, stream: ObjectBody, bytes: u64) -> Self {
        self.body = s3s::Body::http_body_unsync(ExactBody::new(stream, bytes));
        self
    }

    /// Sets a header. A value no header can carry (a line break in stored metadata) is left out rather than sent wrong.
    pub fn set(&mut self, name: &'static str, value: impl AsRef<[u8]>) {
        match HeaderValue::from_bytes(value.as_ref()) {
            Ok(value) => {
                self.headers.insert(HeaderName::from_static(name), value);
            }
            Err(_) => tracing::warn!(header = name, "a stored value is not legal in a header"),
        }
    }

    pub fn set_optional(&mut self, name: &'static str, value: Option<impl AsRef<[u8]>>) {
        if let Some(value) = value {
            self.set(name, value);
        }
    }

    pub fn set_etag(&mut self, etag: &str) {
        self.set("etag", format!("\"{etag}\""));
    }

    /// The checksum and its type.
    pub fn set_checksum(&mut self, checksum: Option<&Checksum>) {
        if let Some(checksum) = checksum {
            self.set(checksum.algorithm().header(), checksum.text());
            self.set("x-amz-checksum-type", checksum.checksum_type().name());
        }
    }

    pub fn set_length(&mut self, bytes: u64) {
        self.headers.insert(CONTENT_LENGTH, HeaderValue::from(bytes));
    }

    /// The answer to a failed request. 304 has neither body nor type (RFC 9110 section 15.4.5).
    pub fn error(error: &S3Error, resource: &str, request_id: RequestId) -> Self {
        let status = error.code.status();
        let mut reply = if error.code == S3ErrorCode::NotModified {
            Self::empty(status)
        } else {
            let region = error.region.as_deref();
            Self::document(status, error_document(error.code.name(), &error.message, region, resource, request_id))
        };
        reply.headers.extend((*error.headers).clone());
        reply
    }

    /// Drops the body but keeps what describes it, as the answer to HEAD.
    #[must_use]
    pub fn without_body(mut self) -> Self {
        self.body = s3s::Body::empty();
        self
    }

    pub fn into_response(self) -> http::Response<s3s::Body> {
        let mut response = http::Response::new(self.body);
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers;
        response.extensions_mut().insert(Ours);
        response
    }
}

/// The XML of an error.
pub(crate) fn error_document(code: &str, message: &str, region: Option<&str>, resource: &str, request_id: RequestId) -> String {
    let mut xml = XmlWriter::bare("Error");
    xml.element("Code", code);
    xml.element("Message", message);
    xml.optional("Region", region);
    xml.element("Resource", resource);
    xml.element("RequestId", request_id);
    xml.finish()
}
