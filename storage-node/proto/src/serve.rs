//! A storage node over gRPC: the server.
//!
//! The port opens before the node behind it has started (founding a cluster needs the port): until [`Served`] is set, every
//! call answers `UNAVAILABLE`.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use placement_types::codec::{Decode, Encode};
use placement_types::{ByteRange, DiskId, Env, GroupId, ShardId};
use tonic::{Request as Incoming, Response, Status, Streaming};

use crate::api::{
    ByteStream, ChunkError, MetaError, NodeApi, RaftApi, RaftSender, RestoreShards, ShardError, WriteChunk, WriteShard,
};
use crate::command::Command;
use crate::damage::DamageReport;
use crate::limits;
use crate::object::ChunkEntry;
use crate::query::Query;
use crate::wire::generated::storage_node_server::{StorageNode, StorageNodeServer};
use crate::wire::{
    GroupRequest, Piece, RaftMessages, Received, Reply, Request, WireError, bad, from_pieces, piece, to_pieces, to_reply,
};

/// What stands behind the port once the node has started.
#[derive(Clone)]
pub struct Served {
    pub node: Arc<dyn NodeApi>,
    pub raft: Arc<dyn RaftApi>,
}

/// The gRPC service of a node, ready to be added to a router.
pub fn service(env: Env, served: Arc<OnceLock<Served>>) -> StorageNodeServer<impl StorageNode> {
    StorageNodeServer::new(Service { env, served })
        .max_decoding_message_size(limits::MESSAGE_BYTES_MAX)
        .max_encoding_message_size(limits::MESSAGE_BYTES_MAX)
}

struct Service {
    env: Env,
    served: Arc<OnceLock<Served>>,
}

type PieceStream = BoxStream<'static, Result<Piece, Status>>;

impl Service {
    fn served(&self) -> Result<&Served, Status> {
        self.served.get().ok_or_else(|| Status::unavailable("the node is starting"))
    }

    fn node(&self) -> Result<&Arc<dyn NodeApi>, Status> {
        self.served().map(|served| &served.node)
    }

    /// Takes the header off a request stream.
    async fn header<T: Decode, E: WireError>(&self, pieces: &mut Streaming<Piece>) -> Result<T, E> {
        match self.env.timeout(limits::PROGRESS_DEADLINE, pieces.message()).await {
            Ok(Ok(Some(Piece { item: Some(piece::Item::Header(header)) }))) => T::from_encoded(&header).map_err(bad),
            Ok(Ok(_)) => Err(E::bad_message("a stream without a header".to_owned())),
            Ok(Err(status)) => Err(E::unreachable(&status)),
            Err(_) => Err(E::body_failed("no header came".to_owned())),
        }
    }
}

/// A reply stream; an error at its start is its only item.
fn reply_stream<E: WireError>(env: &Env, result: Result<ByteStream<E>, E>) -> Response<PieceStream> {
    let bytes = result.unwrap_or_else(|error| futures::stream::once(async move { Err(error) }).boxed());
    Response::new(to_pieces(env.clone(), bytes).map(Ok).boxed())
}

#[tonic::async_trait]
impl StorageNode for Service {
    type ReadChunkStream = PieceStream;
    type ReadUnitsStream = PieceStream;

    async fn mutate(&self, request: Incoming<GroupRequest>) -> Result<Response<Reply>, Status> {
        let GroupRequest { group, payload } = request.into_inner();
        let result = match Command::from_versioned(&payload) {
            Ok(command) => self.node()?.mutate(GroupId(group), command).await.map(|outcome| outcome.to_versioned()),
            Err(error) => Err(bad::<MetaError>(error)),
        };
        Ok(Response::new(to_reply(result)))
    }

    async fn query(&self, request: Incoming<GroupRequest>) -> Result<Response<Reply>, Status> {
        let GroupRequest { group, payload } = request.into_inner();
        let result = match Query::from_versioned(&payload) {
            Ok(query) => self.node()?.query(GroupId(group), query).await.map(|answer| answer.to_versioned()),
            Err(error) => Err(bad::<MetaError>(error)),
        };
        Ok(Response::new(to_reply(result)))
    }

    async fn write_chunk(&self, request: Incoming<Streaming<Piece>>) -> Result<Response<Reply>, Status> {
        let mut pieces = request.into_inner();
        let result = match self.header::<WriteChunk, ChunkError>(&mut pieces).await {
            Ok(header) => self.node()?.write_chunk(header, from_pieces(self.env.clone(), pieces)).await,
            Err(error) => Err(error),
        };
        Ok(Response::new(to_reply(result.map(|entry| entry.to_encoded()))))
    }

    async fn read_chunk(&self, request: Incoming<Request>) -> Result<Response<PieceStream>, Status> {
        let result = match <(ChunkEntry, ByteRange)>::from_encoded(&request.into_inner().payload) {
            Ok((entry, range)) => self.node()?.read_chunk(entry, range).await,
            Err(error) => Err(bad(error)),
        };
        Ok(reply_stream(&self.env, result))
    }

    async fn write_shard(&self, request: Incoming<Streaming<Piece>>) -> Result<Response<Reply>, Status> {
        let mut pieces = request.into_inner();
        let result = match self.header::<WriteShard, ShardError>(&mut pieces).await {
            Ok(header) => self.node()?.write_shard(header, from_pieces(self.env.clone(), pieces)).await,
            Err(error) => Err(error),
        };
        Ok(Response::new(to_reply(result.map(|()| Bytes::new()))))
    }

    async fn read_units(&self, request: Incoming<Request>) -> Result<Response<PieceStream>, Status> {
        let result = match <((DiskId, ShardId), (u32, u32))>::from_encoded(&request.into_inner().payload) {
            Ok(((disk, shard), (first, count))) => self.node()?.read_units(disk, shard, first, count).await,
            Err(error) => Err(bad(error)),
        };
        Ok(reply_stream(&self.env, result))
    }

    async fn verify_chunk(&self, request: Incoming<Request>) -> Result<Response<Reply>, Status> {
        let result = match ChunkEntry::from_encoded(&request.into_inner().payload) {
            Ok(entry) => self.node()?.verify_chunk(entry).await.map(|verdict| verdict.to_encoded()),
            Err(error) => Err(bad::<ChunkError>(error)),
        };
        Ok(Response::new(to_reply(result)))
    }

    async fn restore_shards(&self, request: Incoming<Request>) -> Result<Response<Reply>, Status> {
        let result = match RestoreShards::from_encoded(&request.into_inner().payload) {
            Ok(request) => self.node()?.restore_shards(request).await.map(|acked| acked.to_encoded()),
            Err(error) => Err(bad::<ChunkError>(error)),
        };
        Ok(Response::new(to_reply(result)))
    }

    async fn check_shards(&self, request: Incoming<Request>) -> Result<Response<Reply>, Status> {
        let result = match <(DiskId, Vec<ShardId>)>::from_encoded(&request.into_inner().payload) {
            Ok((disk, shards)) => self.node()?.check_shards(disk, shards).await.map(|held| held.to_encoded()),
            Err(error) => Err(bad::<ShardError>(error)),
        };
        Ok(Response::new(to_reply(result)))
    }

    async fn report_damage(&self, request: Incoming<Request>) -> Result<Response<Reply>, Status> {
        let result = match DamageReport::from_encoded(&request.into_inner().payload) {
            Ok(report) => self.node()?.report_damage(report).await.map(|()| Bytes::new()),
            Err(error) => Err(bad::<ShardError>(error)),
        };
        Ok(Response::new(to_reply(result)))
    }

    async fn delete_shards(&self, request: Incoming<Request>) -> Result<Response<Reply>, Status> {
        let result = match <(DiskId, Vec<ShardId>)>::from_encoded(&request.into_inner().payload) {
            Ok((disk, shards)) => self.node()?.delete_shards(disk, shards).await.map(|()| Bytes::new()),
            Err(error) => Err(bad::<ShardError>(error)),
        };
        Ok(Response::new(to_reply(result)))
    }

    async fn disks(&self, _request: Incoming<Request>) -> Result<Response<Reply>, Status> {
        Ok(Response::new(to_reply(self.node()?.disks().await.map(|reports| reports.to_encoded()))))
    }

    async fn upkeep(&self, _request: Incoming<Request>) -> Result<Response<Reply>, Status> {
        Ok(Response::new(to_reply(self.node()?.upkeep().await.map(|report| report.to_encoded()))))
    }

    async fn raft(&self, request: Incoming<RaftMessages>) -> Result<Response<Received>, Status> {
        let RaftMessages { messages, sender } = request.into_inner();
        let sender = RaftSender::from_encoded(&sender).map_err(|error| Status::invalid_argument(error.to_string()))?;
        self.served()?.raft.raft(sender, messages).await?;
        Ok(Response::new(Received {}))
    }
}
