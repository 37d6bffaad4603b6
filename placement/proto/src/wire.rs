//! The generated gRPC code, and the conversions both ends share.

use bytes::Bytes;
use placement_types::codec::{Decode, DecodeError, Encode};

#[allow(clippy::all, clippy::disallowed_types, missing_docs)]
pub(crate) mod generated {
    tonic::include_proto!("dozo.placement.v1");
}

pub(crate) use generated::{Reply, Request, reply};

pub(crate) fn to_reply<T: Encode, E: Encode>(result: Result<T, E>) -> Reply {
    let result = match result {
        Ok(value) => reply::Result::Ok(value.to_encoded()),
        Err(error) => reply::Result::Error(error.to_encoded()),
    };
    Reply { result: Some(result) }
}

pub(crate) fn from_reply<E: Decode>(reply: Reply) -> Result<Result<Bytes, E>, DecodeError> {
    match reply.result {
        Some(reply::Result::Ok(payload)) => Ok(Ok(payload)),
        Some(reply::Result::Error(error)) => E::from_encoded(&error).map(Err),
        None => Err(DecodeError::Truncated),
    }
}
