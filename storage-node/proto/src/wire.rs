//! The generated gRPC code, and the conversions both ends share.

use bytes::Bytes;
use futures::StreamExt;
use futures::stream;
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
pub(crate) fn to_pieces<E: WireError>(bytes: ByteStream<E>) -> stream::BoxStream<'static, Piece> {
    stream::unfold(Some(bytes), |bytes| async move {
        let mut bytes = bytes?;
        match bytes.next().await {
            Some(Ok(data)) => Some((to_piece(piece::Item::Data(data)), Some(bytes))),
            Some(Err(error)) => Some((to_piece(piece::Item::Error(error.to_encoded())), None)),
            None => Some((to_piece(piece::Item::End(true)), None)),
        }
    })
    .boxed()
}

/// What a stream of pieces says. It ends well only with an end; a broken connection, silence past the progress deadline, or
/// an end that never came is an error item.
pub(crate) fn from_pieces<E: WireError>(env: Env, pieces: tonic::Streaming<Piece>) -> ByteStream<E> {
    stream::unfold(Some((env, pieces)), |state| async move {
        let (env, mut pieces) = state?;
        let error = match env.timeout(limits::PROGRESS_DEADLINE, pieces.message()).await {
            Ok(Ok(Some(Piece { item: Some(piece::Item::Data(data)) }))) => return Some((Ok(data), Some((env, pieces)))),
            Ok(Ok(Some(Piece { item: Some(piece::Item::End(_)) }))) => return None,
            Ok(Ok(Some(Piece { item: Some(piece::Item::Error(error)) }))) => E::from_encoded(&error).unwrap_or_else(bad),
            Ok(Ok(Some(_))) => E::bad_message("an unexpected item in a stream".to_owned()),
            Ok(Ok(None)) => E::body_failed("the stream stopped before its end".to_owned()),
            Ok(Err(status)) => E::unreachable(&status),
            Err(_) => E::body_failed("the peer made no progress".to_owned()),
        };
        Some((Err(error), None))
    })
    .boxed()
}
