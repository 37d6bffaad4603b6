//! The generated gRPC code, and the conversions both ends share.

use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use placement_types::Env;
use placement_types::codec::{Decode, DecodeError, Encode};
use tonic::Status;

use crate::api::{ByteStream, ChunkError, MetaError, ShardError};
use crate::limits;

#[allow(clippy::all, clippy::disallowed_types, missing_docs)]
pub(crate) mod generated {
    tonic::include_proto!("dozo.storage_node.v1");
}

pub(crate) use generated::{GroupRequest, Piece, RaftMessages, Received, Reply, Request, piece, reply};

/// An error that travels: it has a byte form, and forms for a peer that is gone or talks nonsense.
pub(crate) trait WireError: Encode + Decode + Send + 'static {
    fn unreachable(status: &Status) -> Self;
    fn bad_message(why: String) -> Self;
    fn body_failed(why: String) -> Self;
}

impl WireError for ChunkError {
    fn unreachable(status: &Status) -> Self {
        ChunkError::Unreachable { why: describe(status) }
    }

    fn bad_message(why: String) -> Self {
        ChunkError::BadMessage { why }
    }

    fn body_failed(why: String) -> Self {
        ChunkError::BodyFailed { why }
    }
}

impl WireError for ShardError {
    fn unreachable(status: &Status) -> Self {
        ShardError::Unreachable { why: describe(status) }
    }

    fn bad_message(why: String) -> Self {
        ShardError::BadMessage { why }
    }

    fn body_failed(why: String) -> Self {
        ShardError::BodyFailed { why }
    }
}

impl WireError for MetaError {
    /// A call that failed on its way may have been executed.
    fn unreachable(status: &Status) -> Self {
        MetaError::Unknown { group: placement_types::GroupId::SYSTEM, why: describe(status) }
    }

    fn bad_message(why: String) -> Self {
        MetaError::BadMessage { why }
    }

    fn body_failed(why: String) -> Self {
        MetaError::BadMessage { why }
    }
}

/// A status in a few words. hyper's own text says which half of the connection failed.
pub(crate) fn describe(status: &Status) -> String {
    format!("{:?}: {}", status.code(), status.message())
}

pub(crate) fn bad<E: WireError>(error: DecodeError) -> E {
    E::bad_message(error.to_string())
}

pub(crate) fn to_reply<E: Encode>(result: Result<Bytes, E>) -> Reply {
    let result = match result {
        Ok(payload) => reply::Result::Ok(payload),
        Err(error) => reply::Result::Error(error.to_encoded()),
    };
    Reply { result: Some(result) }
}

pub(crate) fn from_reply<E: WireError>(reply: Reply) -> Result<Bytes, E> {
    match reply.result {
        Some(reply::Result::Ok(payload)) => Ok(payload),
        Some(reply::Result::Error(error)) => Err(E::from_encoded(&error).unwrap_or_else(bad)),
        None => Err(E::bad_message("a reply without a result".to_owned())),
    }
}

pub(crate) fn to_piece(item: piece::Item) -> Piece {
    Piece { item: Some(item) }
}

/// A byte stream as pieces: its data, then the end or the error.
///
/// A body may come more slowly than a peer waits for progress: its client may pause, and a stripe is sent only when it is full.
/// While nothing comes, an empty piece every [`limits::KEEP_ALIVE`] says that the sender lives.
pub(crate) fn to_pieces<E: WireError>(env: Env, bytes: ByteStream<E>) -> stream::BoxStream<'static, Piece> {
    stream::unfold(Some((env, bytes)), |state| async move {
        let (env, mut bytes) = state?;
        match env.timeout(limits::KEEP_ALIVE, bytes.next()).await {
            Ok(Some(Ok(data))) => Some((to_piece(piece::Item::Data(data)), Some((env, bytes)))),
            Ok(Some(Err(error))) => Some((to_piece(piece::Item::Error(error.to_encoded())), None)),
            Ok(None) => Some((to_piece(piece::Item::End(true)), None)),
            Err(_) => Some((to_piece(piece::Item::Data(Bytes::new())), Some((env, bytes)))),
        }
    })
    .boxed()
}

/// What a stream of pieces says, without its signs of life. It ends well only with an end; a broken connection, silence past
/// the progress deadline, or an end that never came is an error item.
pub(crate) fn from_pieces<E, S>(env: Env, pieces: S) -> ByteStream<E>
where
    E: WireError,
    S: Stream<Item = Result<Piece, Status>> + Send + Unpin + 'static,
{
    stream::unfold(Some((env, pieces)), |state| async move {
        let (env, mut pieces) = state?;
        let error = loop {
            match env.timeout(limits::PROGRESS_DEADLINE, pieces.next()).await {
                Ok(Some(Ok(Piece { item: Some(piece::Item::Data(data)) }))) if data.is_empty() => {}
                Ok(Some(Ok(Piece { item: Some(piece::Item::Data(data)) }))) => return Some((Ok(data), Some((env, pieces)))),
                Ok(Some(Ok(Piece { item: Some(piece::Item::End(_)) }))) => return None,
                Ok(Some(Ok(Piece { item: Some(piece::Item::Error(error)) }))) => {
                    break E::from_encoded(&error).unwrap_or_else(bad);
                }
                Ok(Some(Ok(_))) => break E::bad_message("an unexpected item in a stream".to_owned()),
                Ok(None) => break E::body_failed("the stream stopped before its end".to_owned()),
                Ok(Some(Err(status))) => break E::unreachable(&status),
                Err(_) => break E::body_failed("the peer made no progress".to_owned()),
            }
        };
        Some((Err(error), None))
    })
    .boxed()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// One item, then silence, then another: sent, received, and what came out. Time is tokio's, paused.
    async fn through_the_wire(silence: Duration) -> (usize, Vec<Result<Bytes, ChunkError>>) {
        let (env, _) = placement_env::sim::env(1);
        let slow = env.clone();
        let body: ByteStream<ChunkError> = stream::iter([Duration::ZERO, silence])
            .then(move |pause| {
                let env = slow.clone();
                async move {
                    env.sleep(pause).await;
                    Ok(Bytes::from_static(b"piece"))
                }
            })
            .boxed();
        let sent = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let count = sent.clone();
        let pieces = to_pieces(env.clone(), body).map(move |piece| {
            count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            Ok(piece)
        });
        let received = from_pieces::<ChunkError, _>(env, pieces.boxed()).collect().await;
        (sent.load(std::sync::atomic::Ordering::SeqCst), received)
    }

    #[tokio::test(start_paused = true)]
    async fn a_sender_that_waits_for_its_client_shows_life_and_nobody_above_sees_it() {
        let (sent, received) = through_the_wire(10 * limits::PROGRESS_DEADLINE).await;
        let piece = || Ok(Bytes::from_static(b"piece"));
        assert_eq!(received, [piece(), piece()]);
        // Two pieces and the end; the rest were signs of life, several within each deadline.
        assert!(sent > 3 + 20, "{sent} pieces were sent");
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_sender_is_given_up() {
        let (env, _) = placement_env::sim::env(1);
        let silent = stream::pending::<Result<Piece, Status>>();
        let received: Vec<_> = from_pieces::<ChunkError, _>(env, silent).collect().await;
        assert!(matches!(received.as_slice(), [Err(ChunkError::BodyFailed { .. })]), "{received:?}");
    }
}
