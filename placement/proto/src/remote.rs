//! The placement service and the meeting over gRPC: the client.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use placement_map::ClusterMap;
use placement_map::bucket::Bucket;
use placement_map::system::{SystemCommand, SystemOutcome};
use placement_types::codec::{Decode, DecodeError, Encode};
use placement_types::{BucketName, Env, Epoch};
use tonic::Status;
use tonic::transport::Channel;

use crate::api::{Heartbeat, PlacementApi, PlacementError, SystemCopy};
use crate::limits;
use crate::meeting::{Hello, MeetingApi, MeetingError, Pledge, PledgeReply};
use crate::wire::generated::placement_client::PlacementClient;
use crate::wire::{Request, from_reply};

/// A peer that may hold the system group. Cheap to clone.
#[derive(Clone)]
pub struct RemotePlacement {
    env: Env,
    client: PlacementClient<Channel>,
}

/// Which remote procedure to call.
#[derive(Clone, Copy)]
enum Method {
    Propose,
    Bucket,
    Buckets,
    NewerMap,
    Heartbeat,
    SystemCopy,
    Hello,
    Pledge,
}

/// Why a call failed before there was an answer.
enum CallError<E> {
    Answered(E),
    Lost { why: String },
    Undecodable { error: DecodeError },
}

impl RemotePlacement {
    pub fn new(env: Env, channel: Channel) -> Self {
        let client = PlacementClient::new(channel)
            .max_decoding_message_size(limits::MESSAGE_BYTES_MAX)
            .max_encoding_message_size(limits::MESSAGE_BYTES_MAX);
        Self { env, client }
    }

    async fn call<E: Decode>(&self, method: Method, payload: Bytes, deadline: Duration) -> Result<Bytes, CallError<E>> {
        let mut client = self.client.clone();
        let request = Request { payload };
        let sent = async {
            match method {
                Method::Propose => client.propose(request).await,
                Method::Bucket => client.bucket(request).await,
                Method::Buckets => client.buckets(request).await,
                Method::NewerMap => client.newer_map(request).await,
                Method::Heartbeat => client.heartbeat(request).await,
                Method::SystemCopy => client.system_copy(request).await,
                Method::Hello => client.hello(request).await,
                Method::Pledge => client.pledge(request).await,
            }
        };
        let lost = |status: Status| CallError::Lost { why: format!("{:?}: {}", status.code(), status.message()) };
        match self.env.timeout(deadline, sent).await {
            Ok(Ok(reply)) => {
                from_reply(reply.into_inner()).map_err(|error| CallError::Undecodable { error })?.map_err(CallError::Answered)
            }
            Ok(Err(status)) => Err(lost(status)),
            Err(_) => Err(CallError::Lost { why: "no answer within the deadline".to_owned() }),
        }
    }

    /// A call that changes nothing: losing it is harmless.
    async fn read<T: Decode>(&self, method: Method, payload: Bytes, deadline: Duration) -> Result<T, PlacementError> {
        let payload = self.call(method, payload, deadline).await.map_err(|error| match error {
            CallError::Answered(error) => error,
            CallError::Lost { why } => PlacementError::Unavailable { why },
            CallError::Undecodable { error } => PlacementError::BadMessage { why: error.to_string() },
        })?;
        T::from_encoded(&payload).map_err(|error| PlacementError::BadMessage { why: error.to_string() })
    }

    async fn meet<T: Decode>(&self, method: Method, payload: Bytes) -> Result<T, MeetingError> {
        let payload = self.call(method, payload, limits::CALL_DEADLINE).await.map_err(|error| match error {
            CallError::Answered(error) => error,
            CallError::Lost { why } => MeetingError::Unreachable { why },
            CallError::Undecodable { error } => MeetingError::BadMessage { why: error.to_string() },
        })?;
        T::from_encoded(&payload).map_err(|error| MeetingError::BadMessage { why: error.to_string() })
    }
}

#[async_trait]
impl PlacementApi for RemotePlacement {
    async fn propose(&self, command: SystemCommand) -> Result<SystemOutcome, PlacementError> {
        let payload =
            self.call(Method::Propose, command.to_encoded(), limits::CALL_DEADLINE).await.map_err(|error| match error {
                CallError::Answered(error) => error,
                CallError::Lost { why } => PlacementError::Unknown { why },
                CallError::Undecodable { error } => PlacementError::BadMessage { why: error.to_string() },
            })?;
        SystemOutcome::from_encoded(&payload).map_err(|error| PlacementError::BadMessage { why: error.to_string() })
    }

    async fn bucket(&self, name: &BucketName) -> Result<Option<Bucket>, PlacementError> {
        self.read(Method::Bucket, name.to_encoded(), limits::CALL_DEADLINE).await
    }

    async fn buckets(&self) -> Result<Vec<Bucket>, PlacementError> {
        self.read(Method::Buckets, Bytes::new(), limits::CALL_DEADLINE).await
    }

    async fn newer_map(&self, known: Epoch) -> Result<Arc<ClusterMap>, PlacementError> {
        self.read(Method::NewerMap, known.to_encoded(), limits::MAP_POLL_DEADLINE).await.map(Arc::new)
    }

    async fn system_copy(&self) -> Result<SystemCopy, PlacementError> {
        self.read(Method::SystemCopy, Bytes::new(), limits::CALL_DEADLINE).await
    }

    async fn heartbeat(&self, beat: Heartbeat) -> Result<(), PlacementError> {
        self.read::<bool>(Method::Heartbeat, beat.to_encoded(), limits::CALL_DEADLINE).await.map(|_| ())
    }
}

#[async_trait]
impl MeetingApi for RemotePlacement {
    async fn hello(&self, hello: Hello) -> Result<Hello, MeetingError> {
        self.meet(Method::Hello, hello.to_encoded()).await
    }

    async fn pledge(&self, pledge: Pledge) -> Result<PledgeReply, MeetingError> {
        self.meet(Method::Pledge, pledge.to_encoded()).await
    }
}
