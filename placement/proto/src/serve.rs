//! The placement service and the meeting over gRPC: the server.
//!
//! The port opens before there is a cluster: until the placement service is set, its calls answer
//! [`PlacementError::NotFormed`], while the meeting already works.

use std::sync::{Arc, OnceLock};

use placement_types::codec::{Decode, DecodeError};
use placement_types::{BucketName, Epoch};
use tonic::{Request as Incoming, Response, Status};

use crate::api::{Heartbeat, PlacementApi, PlacementError};
use crate::limits;
use crate::meeting::{Hello, MeetingApi, MeetingError, Pledge};
use crate::wire::generated::placement_server::{Placement, PlacementServer};
use crate::wire::{Reply, Request, to_reply};
use placement_map::system::SystemCommand;

/// The gRPC service, ready to be added to a router.
pub fn service(meeting: Arc<dyn MeetingApi>, placement: Arc<OnceLock<Arc<dyn PlacementApi>>>) -> PlacementServer<impl Placement> {
    PlacementServer::new(Service { meeting, placement })
        .max_decoding_message_size(limits::MESSAGE_BYTES_MAX)
        .max_encoding_message_size(limits::MESSAGE_BYTES_MAX)
}

struct Service {
    meeting: Arc<dyn MeetingApi>,
    placement: Arc<OnceLock<Arc<dyn PlacementApi>>>,
}

impl Service {
    fn placement(&self) -> Result<&Arc<dyn PlacementApi>, PlacementError> {
        self.placement.get().ok_or(PlacementError::NotFormed)
    }
}

fn decode<T: Decode>(request: Incoming<Request>) -> Result<T, PlacementError> {
    T::from_encoded(&request.into_inner().payload).map_err(|error| PlacementError::BadMessage { why: error.to_string() })
}

fn decode_meeting<T: Decode>(request: Incoming<Request>) -> Result<T, MeetingError> {
    let bad = |error: DecodeError| MeetingError::BadMessage { why: error.to_string() };
    T::from_encoded(&request.into_inner().payload).map_err(bad)
}

#[tonic::async_trait]
impl Placement for Service {
    async fn propose(&self, request: Incoming<Request>) -> Result<Response<Reply>, Status> {
        let outcome = async { self.placement()?.propose(decode::<SystemCommand>(request)?).await };
        Ok(Response::new(to_reply(outcome.await)))
    }

    async fn bucket(&self, request: Incoming<Request>) -> Result<Response<Reply>, Status> {
        let bucket = async { self.placement()?.bucket(&decode::<BucketName>(request)?).await };
        Ok(Response::new(to_reply(bucket.await)))
    }

    async fn buckets(&self, _request: Incoming<Request>) -> Result<Response<Reply>, Status> {
        let buckets = async { self.placement()?.buckets().await };
        Ok(Response::new(to_reply(buckets.await)))
    }

    async fn newer_map(&self, request: Incoming<Request>) -> Result<Response<Reply>, Status> {
        let map = async { self.placement()?.newer_map(decode::<Epoch>(request)?).await };
        Ok(Response::new(to_reply(map.await.map(|map| (*map).clone()))))
    }

    async fn system_copy(&self, _request: Incoming<Request>) -> Result<Response<Reply>, Status> {
        let copy = async { self.placement()?.system_copy().await };
        Ok(Response::new(to_reply(copy.await)))
    }

    async fn heartbeat(&self, request: Incoming<Request>) -> Result<Response<Reply>, Status> {
        let beat = async { self.placement()?.heartbeat(decode::<Heartbeat>(request)?).await };
        Ok(Response::new(to_reply(beat.await.map(|()| true))))
    }

    async fn hello(&self, request: Incoming<Request>) -> Result<Response<Reply>, Status> {
        let hello = async { self.meeting.hello(decode_meeting::<Hello>(request)?).await };
        Ok(Response::new(to_reply(hello.await)))
    }

    async fn pledge(&self, request: Incoming<Request>) -> Result<Response<Reply>, Status> {
        let reply = async { self.meeting.pledge(decode_meeting::<Pledge>(request)?).await };
        Ok(Response::new(to_reply(reply.await)))
    }
}
