//! One request from head to answer.
//!
//! ```text
//! hyper -> S3Service::answer -> limits of the head, credentials' kind          (front, auth)
//!                            -> s3s: host, signature, chunk decoding           (behind S3Route)
//!                            -> Dispatch: caller, route table, operation       (route, operations)
//!                            -> request id, region, errors of s3s as our own   (finish)
//! ```
//!
//! s3s is used for what it is good at, signatures and chunk framing, through its custom-route door; its typed operations are
//! not. Theirs answer 400 to a malformed Range, refuse lists of etags and repeated metadata, ignore `encoding-type`, fail a listing over
//! one control character and route an unknown sub-resource to the plain operation. Each of those would have to be undone from outside.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use async_trait::async_trait;
use http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, HOST, HeaderValue};
use http::{HeaderMap, Method, Request, Response, Uri};
use hyper::body::Incoming;
use placement_types::{Env, RequestId};
use s3s::route::S3Route;
use s3s::service::S3ServiceBuilder;

use crate::api::{Caller, RequestContext, S3Api};
use crate::auth::{Domains, SecretLookup, check_mechanism, verifier};
use crate::call::Call;
use crate::chunk_framing::{ChunkFraming, is_streaming};
use crate::config::S3Config;
use crate::credentials::Credentials;
use crate::error::{S3Error, S3ErrorCode};
use crate::limits::{HEADER_SECTION_BYTES_MAX, URI_BYTES_MAX};
use crate::query::Query;
use crate::reply::{Ours, Reply, error_document};
use crate::route::{Target, host_bucket, resolve};
use crate::wire_body::WireBody;
use crate::xml_reader::Element;
use crate::{header_text, metrics, operations};

/// The S3 protocol in front of an [`S3Api`]. Cheap to clone.
#[derive(Clone)]
pub struct S3Service(Arc<Inner>);

struct Inner {
    verifier: s3s::service::S3Service,
    config: Arc<S3Config>,
    env: Env,
    in_flight: AtomicUsize,
}

/// What is known of a connection.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    pub address: String,
    pub secure: bool,
}

/// Travels with the request through s3s.
#[derive(Clone)]
struct Ticket {
    peer: Peer,
    request_id: RequestId,
    query: Query,
}

/// Travels back with the answer.
#[derive(Clone, Copy)]
struct OperationName(&'static str);

/// The name of requests that never became an operation.
const NO_OPERATION: &str = "none";

impl S3Service {
    pub fn new(api: Arc<dyn S3Api>, credentials: Arc<dyn Credentials>, config: S3Config, env: Env) -> Self {
        let config = Arc::new(config);
        // The operations of s3s are never reached: the route below claims every request.
        let mut builder = S3ServiceBuilder::new(NoOperations);
        builder.set_config(Arc::new(s3s::config::StaticConfigProvider::new(Arc::new(verifier(&config)))));
        builder.set_auth(SecretLookup(Arc::clone(&credentials)));
        builder.set_host(Domains(config.domains.clone()));
        builder.set_route(Dispatch { api, credentials, config: Arc::clone(&config), env: env.clone() });
        Self(Arc::new(Inner { verifier: builder.build(), config, env, in_flight: AtomicUsize::new(0) }))
    }

    pub(crate) fn config(&self) -> &S3Config {
        &self.0.config
    }

    /// Answers one request, whatever it is.
    pub(crate) async fn answer(&self, request: Request<Incoming>, peer: &Peer) -> Response<s3s::Body> {
        let started = self.0.env.monotonic();
        let request_id = RequestId::random(&self.0.env);
        let (method, uri) = (request.method().clone(), request.uri().clone());
        let waits = waits_for_continue(&request);
        let asked = Arc::new(AtomicBool::new(false));
        let _serving = Serving::begin(&self.0.in_flight);
        let response = match self.0.in_flight.load(Ordering::Relaxed) > self.0.config.requests_max {
            true => {
                metrics::overloaded();
                refusal(&S3Error::slow_down(), &method, &uri, request_id)
            }
            false => self.verify_and_run(request, peer, request_id, &asked).await,
        };
        let mut response = self.finish(response, &method, &uri, request_id);
        // What comes next on the connection is this request's body to some clients and another request to others, and hyper takes
        // the first bytes it gets for the body.
        if waits && !asked.load(Ordering::Relaxed) {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        let operation = response.extensions().get::<OperationName>().map_or(NO_OPERATION, |name| name.0);
        let duration = self.0.env.monotonic().saturating_sub(started);
        metrics::request(operation, response.status(), duration);
        tracing::info!(
            target: "access",
            request = %request_id,
            peer = %peer.address,
            %method,
            path = uri.path(),
            operation,
            status = response.status().as_u16(),
            duration_ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX),
            "request"
        );
        response
    }

    async fn verify_and_run(
        &self,
        request: Request<Incoming>,
        peer: &Peer,
        request_id: RequestId,
        asked: &Arc<AtomicBool>,
    ) -> Response<s3s::Body> {
        let (mut parts, incoming) = request.into_parts();
        let (method, uri) = (parts.method.clone(), parts.uri.clone());
        let checked = check_head(&parts.headers, &uri).and_then(|query| {
            check_mechanism(&mut parts, &query, &self.0.config)?;
            Ok((query, framing(&parts.headers)?))
        });
        let (query, framing) = match checked {
            Ok(checked) => checked,
            Err(error) => return refusal(&error, &method, &uri, request_id),
        };
        parts.extensions.insert(Ticket { peer: peer.clone(), request_id, query });
        let body = WireBody::new(incoming, self.0.env.clone(), framing, asked_for(&parts.headers, asked));
        let request = Request::from_parts(parts, s3s::Body::http_body_unsync(body));
        match self.0.verifier.call(request).await {
            Ok(response) => response,
            Err(error) => {
                tracing::error!(%error, request = %request_id, "s3s could not answer");
                refusal(&S3ErrorCode::InternalError.into(), &method, &uri, request_id)
            }
        }
    }

    /// Adds what every answer carries, and makes an answer of s3s one of ours.
    fn finish(&self, response: Response<s3s::Body>, method: &Method, uri: &Uri, request_id: RequestId) -> Response<s3s::Body> {
        let mut response = match response.extensions().get::<Ours>() {
            Some(Ours) => response,
            None => adopt(response, method, uri, request_id),
        };
        let headers = response.headers_mut();
        let request_id = HeaderValue::try_from(request_id.to_string()).expect("hexadecimal digits are legal in a header");
        headers.insert("x-amz-request-id", request_id);
        headers.insert("server", HeaderValue::from_static("Dozo"));
        if let Ok(region) = HeaderValue::try_from(self.0.config.region.as_str()) {
            headers.insert("x-amz-bucket-region", region);
        }
        response
    }
}

/// Whether the client sends its body only after a `100 Continue`, which hyper sends when the body is asked for. While it was
/// not asked for, nobody can tell whether the body will come: a client that gets a final answer may send it or not (RFC 9110,
/// 10.1.1), so such a connection must not be used again.
fn waits_for_continue(request: &Request<Incoming>) -> bool {
    let expects = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"100-continue");
    request.version() == http::Version::HTTP_11 && request.headers().get(EXPECT).is_some_and(expects)
}

/// Where a body notes that it was asked for. An empty one never counts: hyper sends no `100 Continue` for it, and botocore
/// (every PUT of an empty object) then takes the next answer on the connection for this one's.
fn asked_for(headers: &HeaderMap, asked: &Arc<AtomicBool>) -> Arc<AtomicBool> {
    let is_empty = headers.get(CONTENT_LENGTH).is_some_and(|length| length.as_bytes() == b"0");
    if is_empty { Arc::default() } else { Arc::clone(asked) }
}

/// Counts a request for as long as its answer is being made.
struct Serving<'s>(&'s AtomicUsize);

impl<'s> Serving<'s> {
    fn begin(in_flight: &'s AtomicUsize) -> Self {
        metrics::requests_in_flight(in_flight.fetch_add(1, Ordering::Relaxed) + 1);
        Self(in_flight)
    }
}

impl Drop for Serving<'_> {
    fn drop(&mut self) {
        metrics::requests_in_flight(self.0.fetch_sub(1, Ordering::Relaxed) - 1);
    }
}

/// The limits of a request's head.
fn check_head(headers: &HeaderMap, uri: &Uri) -> Result<Query, S3Error> {
    if uri.path_and_query().map_or(0, |text| text.as_str().len()) > URI_BYTES_MAX {
        return Err(S3ErrorCode::URITooLong.into());
    }
    let section: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    if section > HEADER_SECTION_BYTES_MAX {
        // What makes it too large is nearly always metadata, and then Amazon S3 says so.
        let metadata: usize = headers.iter().filter(|(n, _)| n.as_str().starts_with("x-amz-meta-")).map(|(_, v)| v.len()).sum();
        let metadata_is_to_blame = metadata > crate::limits::METADATA_BYTES_MAX;
        let code = if metadata_is_to_blame { S3ErrorCode::MetadataTooLarge } else { S3ErrorCode::RequestHeaderSectionTooLarge };
        return Err(code.into());
    }
    Query::parse(uri.query().unwrap_or(""))
}

/// The observer of an aws-chunked body.
fn framing(headers: &HeaderMap) -> Result<Option<ChunkFraming>, S3Error> {
    if !is_streaming(headers)? {
        return Ok(None);
    }
    Ok(Some(ChunkFraming::new(header_text::text(headers, "x-amz-trailer")?)))
}

/// The answer to a request that is refused before it becomes a call.
fn refusal(error: &S3Error, method: &Method, uri: &Uri, request_id: RequestId) -> Response<s3s::Body> {
    let reply = Reply::error(error, uri.path(), request_id);
    if method == Method::HEAD { reply.without_body() } else { reply }.into_response()
}

/// Rewrites an answer that s3s made, which is always a refusal: our table's status and code where s3s' differ from Amazon's, and a
/// document that names the resource and the request.
fn adopt(response: Response<s3s::Body>, method: &Method, uri: &Uri, request_id: RequestId) -> Response<s3s::Body> {
    let (parts, mut body) = response.into_parts();
    let document = body.take_bytes().unwrap_or_default();
    let element = Element::parse(&document, "Error").ok();
    let text = |name| element.as_ref().and_then(|e| e.optional(name).ok().flatten()).unwrap_or("").to_owned();
    let (code, message) = (text("Code"), text("Message"));
    if let Some(code) = known_code(&code, &message) {
        let message = if message.is_empty() { code.message().to_owned() } else { message };
        return refusal(&S3Error::with_message(code, message), method, uri, request_id);
    }
    let status = parts.status;
    let mut response = Response::new(s3s::Body::empty());
    *response.status_mut() = status;
    *response.headers_mut() = parts.headers;
    response.headers_mut().remove(CONTENT_LENGTH);
    if !code.is_empty() {
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/xml"));
        *response.body_mut() = s3s::Body::from(error_document(&code, &message, None, uri.path(), request_id));
    }
    response
}

/// The code Amazon S3 uses where s3s uses another.
fn known_code(code: &str, message: &str) -> Option<S3ErrorCode> {
    match (code, message) {
        ("InvalidRequest", "invalid header: authorization") => Some(S3ErrorCode::AuthorizationHeaderMalformed),
        _ => S3ErrorCode::ALL.iter().copied().find(|known| known.name() == code),
    }
}

/// Behind s3s' verification: every request that gets here has a proven caller or none.
struct Dispatch {
    api: Arc<dyn S3Api>,
    credentials: Arc<dyn Credentials>,
    config: Arc<S3Config>,
    env: Env,
}

#[async_trait]
impl S3Route for Dispatch {
    fn is_match(&self, _: &Method, _: &Uri, _: &HeaderMap, _: &mut http::Extensions) -> bool {
        true
    }

    /// Anonymous requests pass here; the implementor of [`S3Api`] decides what they may do.
    async fn check_access(&self, _: &mut s3s::S3Request<s3s::Body>) -> s3s::S3Result<()> {
        Ok(())
    }

    async fn call(&self, mut request: s3s::S3Request<s3s::Body>) -> s3s::S3Result<s3s::S3Response<s3s::Body>> {
        let Some(ticket) = request.extensions.remove::<Ticket>() else {
            return Err(s3s::S3ErrorCode::InternalError.into());
        };
        let (method, uri, request_id) = (request.method.clone(), request.uri.clone(), ticket.request_id);
        let mut operation = OperationName(NO_OPERATION);
        let reply = match self.run(request, ticket, &mut operation).await {
            Ok(reply) => reply,
            Err(error) => Reply::error(&error, uri.path(), request_id),
        };
        let reply = if method == Method::HEAD { reply.without_body() } else { reply };
        let mut response = reply.into_response();
        response.extensions_mut().insert(operation);
        let (parts, body) = response.into_parts();
        Ok(s3s::S3Response { output: body, status: Some(parts.status), headers: parts.headers, extensions: parts.extensions })
    }
}

impl Dispatch {
    async fn run(&self, request: s3s::S3Request<s3s::Body>, ticket: Ticket, name: &mut OperationName) -> Result<Reply, S3Error> {
        let caller = self.caller(request.credentials.as_ref()).await?;
        let host = host_of(&request.headers, &request.uri);
        let target = Target::parse(&request.uri, host_bucket(&host, &self.config.domains))?;
        let operation = resolve(&request.method, &target, &ticket.query, &request.headers)?;
        *name = OperationName(operation.name());
        if request.trailing_headers.is_some() && !operation.streams() {
            let message = "An aws-chunked body does not go with this request.";
            return Err(S3Error::with_message(S3ErrorCode::InvalidRequest, message));
        }
        let scheme = if ticket.peer.secure { "https" } else { "http" };
        let call = Call {
            api: &*self.api,
            config: &self.config,
            env: &self.env,
            cx: RequestContext { caller, request_id: ticket.request_id, peer: ticket.peer.address, secure: ticket.peer.secure },
            query: ticket.query,
            origin: format!("{scheme}://{host}"),
            headers: request.headers,
            body: request.input,
            trailers: request.trailing_headers,
        };
        operations::run(operation, target, call).await
    }

    /// The key was valid a moment ago, when s3s asked for its secret; if it is gone now, it was revoked in between.
    async fn caller(&self, proven: Option<&s3s::auth::Credentials>) -> Result<Caller, S3Error> {
        let Some(proven) = proven else { return Ok(Caller::Anonymous) };
        let credential = self.credentials.lookup(&proven.access_key).await?;
        credential.map(|credential| credential.caller).ok_or_else(|| S3ErrorCode::InvalidAccessKeyId.into())
    }
}

fn host_of(headers: &HeaderMap, uri: &Uri) -> String {
    let header = headers.get(HOST).and_then(|host| host.to_str().ok());
    header.or(uri.authority().map(|authority| authority.as_str())).unwrap_or("localhost").to_owned()
}

/// s3s wants its operations implemented; these all answer `NotImplemented`, and are never reached.
struct NoOperations;

impl s3s::S3 for NoOperations {}
