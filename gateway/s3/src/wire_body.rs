//! Bodies on the wire: what stands between hyper and everything else, in both directions.
//!
//! [`WireBody`] is a request's body as it arrives: it gives up on a client that sends nothing for too long, turns transport
//! errors into [`S3Error`]s and lets [`ChunkFraming`] watch. Nobody polls it before the request is authorised, because the
//! first poll makes hyper send `100 Continue`. [`ExactBody`] is a reply's body: it has exactly the promised length or ends in
//! an error, so that a failed read becomes a broken connection and never a short object.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures::Stream as _;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use placement_types::{BoxFuture, Env};
use s3s::stream::aws_chunked_stream::AwsChunkedStreamError;
use s3s::stream::upload_stream::UploadStreamError;

use crate::api::ObjectBody;
use crate::chunk_framing::ChunkFraming;
use crate::error::{S3Error, S3ErrorCode};
use crate::limits::BODY_IDLE_TIMEOUT;

pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync + 'static>;

/// A request's body as it arrives.
pub(crate) struct WireBody {
    incoming: Incoming,
    env: Env,
    /// Set while the client keeps us waiting.
    idle: Option<BoxFuture<'static, ()>>,
    framing: Option<ChunkFraming>,
    ended: bool,
    asked: Arc<AtomicBool>,
}

impl WireBody {
    /// `framing` is set for an aws-chunked body; `asked` becomes true when somebody wants the body.
    pub fn new(incoming: Incoming, env: Env, framing: Option<ChunkFraming>, asked: Arc<AtomicBool>) -> Self {
        Self { incoming, env, idle: None, framing, ended: false, asked }
    }

    /// The next bytes, `None` at the proper end.
    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, S3Error>>> {
        self.asked.store(true, Ordering::Relaxed);
        loop {
            let Poll::Ready(frame) = Pin::new(&mut self.incoming).poll_frame(cx) else {
                let clock = &self.env.clock;
                let idle = self.idle.get_or_insert_with(|| clock.sleep(BODY_IDLE_TIMEOUT));
                ready!(idle.as_mut().poll(cx));
                return Poll::Ready(Some(Err(S3ErrorCode::RequestTimeout.into())));
            };
            self.idle = None;
            let observed = match frame {
                // Only a broken connection or broken HTTP framing fails here: the body is not whole.
                Some(Err(_)) => Err(S3ErrorCode::IncompleteBody.into()),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.framing.as_mut().map_or(Ok(()), |framing| framing.feed(&data)).map(|()| Some(data)),
                    // HTTP trailers are nobody's business: aws-chunked ones are inside the data.
                    Err(_) => continue,
                },
                None => self.framing.as_ref().map_or(Ok(()), ChunkFraming::finish).map(|()| None),
            };
            return Poll::Ready(observed.transpose());
        }
    }
}

impl Body for WireBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let polled = ready!(self.poll_data(cx));
        self.ended = !matches!(polled, Some(Ok(_)));
        Poll::Ready(polled.map(|result| result.map(Frame::data).map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        // An aws-chunked body without a byte still has to be refused by `finish`.
        self.ended || (self.framing.is_none() && self.incoming.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

/// What went wrong below an upload, as the client is to see it: our own errors as they are, those of s3s by their kind.
pub(crate) fn upload_error(error: &(dyn std::error::Error + 'static)) -> S3Error {
    if let Some(ours) = error.downcast_ref::<S3Error>() {
        return ours.clone();
    }
    if let Some(chunked) = error.downcast_ref::<AwsChunkedStreamError>() {
        return match chunked {
            AwsChunkedStreamError::Underlying(cause) => upload_error(cause.as_ref()),
            AwsChunkedStreamError::SignatureMismatch => S3ErrorCode::SignatureDoesNotMatch.into(),
            AwsChunkedStreamError::TrailersTooLarge(..) | AwsChunkedStreamError::TooManyTrailerHeaders(..) => {
                S3ErrorCode::MalformedTrailerError.into()
            }
            AwsChunkedStreamError::ChunkDataTooLarge(..) => S3Error::with_message(
                S3ErrorCode::EntityTooLarge,
                "A signed chunk is larger than the server holds in memory to verify it.",
            ),
            AwsChunkedStreamError::FormatError
            | AwsChunkedStreamError::Incomplete
            | AwsChunkedStreamError::LengthMismatch
            | AwsChunkedStreamError::ChunkMetaTooLarge(..) => S3ErrorCode::IncompleteBody.into(),
        };
    }
    if let Some(single) = error.downcast_ref::<UploadStreamError>() {
        return match single {
            UploadStreamError::Underlying(cause) => upload_error(cause.as_ref()),
            UploadStreamError::Sha256Mismatch => S3ErrorCode::XAmzContentSHA256Mismatch.into(),
            UploadStreamError::LengthMismatch | UploadStreamError::Incomplete => S3ErrorCode::IncompleteBody.into(),
        };
    }
    if error.is::<s3s::BodySizeLimitExceeded>() || error.is::<http_body_util::LengthLimitError>() {
        return S3ErrorCode::EntityTooLarge.into();
    }
    match error.source() {
        Some(cause) => upload_error(cause),
        None => S3ErrorCode::IncompleteBody.into(),
    }
}

/// A reply's body of a promised length.
pub(crate) struct ExactBody {
    stream: ObjectBody,
    remaining: u64,
}

/// A reply's stream that breaks its promise.
#[derive(Debug, thiserror::Error)]
enum BrokenReply {
    #[error("the object's stream ended {missing} bytes early")]
    Short { missing: u64 },
    #[error("the object's stream is longer than promised")]
    Long,
}

impl ExactBody {
    pub fn new(stream: ObjectBody, bytes: u64) -> Self {
        Self { stream, remaining: bytes }
    }
}

impl Body for ExactBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        Poll::Ready(match ready!(Pin::new(&mut this.stream).poll_next(cx)) {
            Some(Ok(bytes)) => match this.remaining.checked_sub(bytes.len() as u64) {
                Some(remaining) => {
                    this.remaining = remaining;
                    Some(Ok(Frame::data(bytes)))
                }
                None => Some(Err(BrokenReply::Long.into())),
            },
            Some(Err(error)) => {
                tracing::warn!(%error, "a reply broke off");
                Some(Err(error.into()))
            }
            None if this.remaining > 0 => {
                let error = BrokenReply::Short { missing: this.remaining };
                tracing::warn!(%error, "a reply broke off");
                Some(Err(error.into()))
            }
            None => None,
        })
    }

    fn is_end_stream(&self) -> bool {
        false
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.remaining)
    }
}
