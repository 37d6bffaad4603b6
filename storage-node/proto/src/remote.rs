//! A storage node over gRPC: the client.
//!
//! Every call has a deadline, every stream a progress deadline. What fails on the way is `Unreachable`, or, for a metadata
//! change, `Unknown`: it may have happened, and sending the same transaction again tells.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, stream};
use placement_types::codec::{Decode, Encode};
use placement_types::{ByteRange, DiskId, Env, GroupId, ShardId};
use tonic::transport::Channel;
use tonic::{Code, Response, Status};

use crate::api::{
    ByteStream, ChunkApi, ChunkError, DiskReport, MetaApi, MetaError, RaftApi, RaftSender, RestoreShards, ShardApi, ShardError,
    UpkeepApi, WriteChunk, WriteShard,
};
use crate::command::{Command, Outcome};
use crate::damage::{ChunkVerdict, DamageReport, Held};
use crate::limits;
use crate::object::ChunkEntry;
use crate::query::{Answer, Query};
use crate::upkeep::UpkeepReport;
use crate::wire::generated::storage_node_client::StorageNodeClient;
use crate::wire::{
    GroupRequest, Piece, RaftMessages, Request, WireError, bad, describe, from_pieces, from_reply, piece, to_piece, to_pieces,
};

/// Cheap to clone.
#[derive(Clone)]
pub struct RemoteNode {
    env: Env,
    control: StorageNodeClient<Channel>,
    bulk: StorageNodeClient<Channel>,
}

impl RemoteNode {
    pub fn new(env: Env, control: Channel, bulk: Channel) -> Self {
        let client = |channel| {
            StorageNodeClient::new(channel)
                .max_decoding_message_size(limits::MESSAGE_BYTES_MAX)
                .max_encoding_message_size(limits::MESSAGE_BYTES_MAX)
        };
        Self { env, control: client(control), bulk: client(bulk) }
    }

    /// A small call of the shard service.
    async fn call(&self, payload: Bytes, method: ShardMethod) -> Result<Bytes, ShardError> {
        let mut client = self.control.clone();
        let request = Request { payload };
        let sent = async {
            match method {
                ShardMethod::Delete => client.delete_shards(request).await,
                ShardMethod::Disks => client.disks(request).await,
                ShardMethod::Upkeep => client.upkeep(request).await,
                ShardMethod::Check => client.check_shards(request).await,
                ShardMethod::Damage => client.report_damage(request).await,
            }
        };
        let reply = self.within(limits::SHARD_DEADLINE, sent).await.map_err(|why| ShardError::Unreachable { why })?;
        from_reply(reply)
    }

    /// What a call brings in time, or why it brings nothing.
    async fn within<T>(&self, deadline: Duration, call: impl Future<Output = Result<Response<T>, Status>>) -> Result<T, String> {
        match self.env.timeout(deadline, call).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(describe(&status)),
            Err(_) => Err(LATE.to_owned()),
        }
    }
}

const LATE: &str = "no answer within the deadline";

enum ShardMethod {
    Delete,
    Disks,
    Upkeep,
    Check,
    Damage,
}

/// A header, then the pieces of a body.
fn with_header<E: WireError>(
    env: &Env,
    header: Bytes,
    body: ByteStream<E>,
) -> impl futures::Stream<Item = Piece> + Send + 'static {
    stream::once(async move { to_piece(piece::Item::Header(header)) }).chain(to_pieces(env.clone(), body))
}

#[async_trait]
impl MetaApi for RemoteNode {
    async fn mutate(&self, group: GroupId, command: Command) -> Result<Outcome, MetaError> {
        let mut client = self.control.clone();
        let request = GroupRequest { group: group.0, payload: command.to_versioned() };
        let reply = self.within(limits::META_DEADLINE, client.mutate(request)).await;
        let reply = reply.map_err(|why| MetaError::Unknown { group, why })?;
        Outcome::from_versioned(&from_reply::<MetaError>(reply)?).map_err(bad)
    }

    async fn query(&self, group: GroupId, query: Query) -> Result<Answer, MetaError> {
        let mut client = self.control.clone();
        let request = GroupRequest { group: group.0, payload: query.to_versioned() };
        let reply = self.within(limits::META_DEADLINE, client.query(request)).await;
        let reply = reply.map_err(|why| MetaError::Unavailable { group, why })?;
        Answer::from_versioned(&from_reply::<MetaError>(reply)?).map_err(bad)
    }
}

#[async_trait]
impl ChunkApi for RemoteNode {
    async fn write_chunk(&self, request: WriteChunk, body: ByteStream<ChunkError>) -> Result<ChunkEntry, ChunkError> {
        let mut client = self.bulk.clone();
        let reply = client
            .write_chunk(with_header(&self.env, request.to_encoded(), body))
            .await
            .map_err(|status| ChunkError::unreachable(&status))?;
        ChunkEntry::from_encoded(&from_reply::<ChunkError>(reply.into_inner())?).map_err(bad)
    }

    async fn read_chunk(&self, entry: ChunkEntry, range: ByteRange) -> Result<ByteStream<ChunkError>, ChunkError> {
        let mut client = self.bulk.clone();
        let request = Request { payload: (entry, range).to_encoded() };
        let pieces = self.within(limits::PROGRESS_DEADLINE, client.read_chunk(request)).await;
        Ok(from_pieces(self.env.clone(), pieces.map_err(|why| ChunkError::Unreachable { why })?))
    }

    async fn restore_shards(&self, request: RestoreShards) -> Result<Option<Vec<Option<DiskId>>>, ChunkError> {
        let mut client = self.control.clone();
        let request = Request { payload: request.to_encoded() };
        let reply = self.within(limits::RESTORE_DEADLINE, client.restore_shards(request)).await;
        let reply = reply.map_err(|why| ChunkError::Unreachable { why })?;
        Option::<Vec<Option<DiskId>>>::from_encoded(&from_reply::<ChunkError>(reply)?).map_err(bad)
    }

    async fn verify_chunk(&self, entry: ChunkEntry) -> Result<ChunkVerdict, ChunkError> {
        let mut client = self.control.clone();
        let request = Request { payload: entry.to_encoded() };
        let reply = self.within(limits::VERIFY_DEADLINE, client.verify_chunk(request)).await;
        let reply = reply.map_err(|why| ChunkError::Unreachable { why })?;
        ChunkVerdict::from_encoded(&from_reply::<ChunkError>(reply)?).map_err(bad)
    }
}

#[async_trait]
impl ShardApi for RemoteNode {
    async fn write_shard(&self, request: WriteShard, units: ByteStream<ShardError>) -> Result<(), ShardError> {
        let mut client = self.bulk.clone();
        let reply = client
            .write_shard(with_header(&self.env, request.to_encoded(), units))
            .await
            .map_err(|status| ShardError::unreachable(&status))?;
        from_reply(reply.into_inner()).map(|_| ())
    }

    async fn read_units(
        &self,
        disk: DiskId,
        shard: ShardId,
        first: u32,
        count: u32,
    ) -> Result<ByteStream<ShardError>, ShardError> {
        let mut client = self.bulk.clone();
        let request = Request { payload: ((disk, shard), (first, count)).to_encoded() };
        let pieces = self.within(limits::PROGRESS_DEADLINE, client.read_units(request)).await;
        Ok(from_pieces(self.env.clone(), pieces.map_err(|why| ShardError::Unreachable { why })?))
    }

    async fn delete_shards(&self, disk: DiskId, shards: Vec<ShardId>) -> Result<(), ShardError> {
        self.call((disk, shards).to_encoded(), ShardMethod::Delete).await.map(|_| ())
    }

    async fn check_shards(&self, disk: DiskId, shards: Vec<ShardId>) -> Result<Vec<Held>, ShardError> {
        let payload = self.call((disk, shards).to_encoded(), ShardMethod::Check).await?;
        Vec::<Held>::from_encoded(&payload).map_err(bad)
    }

    async fn disks(&self) -> Result<Vec<DiskReport>, ShardError> {
        let payload = self.call(Bytes::new(), ShardMethod::Disks).await?;
        Vec::<DiskReport>::from_encoded(&payload).map_err(bad)
    }
}

#[async_trait]
impl UpkeepApi for RemoteNode {
    async fn upkeep(&self) -> Result<UpkeepReport, ShardError> {
        let payload = self.call(Bytes::new(), ShardMethod::Upkeep).await?;
        UpkeepReport::from_encoded(&payload).map_err(bad)
    }

    async fn report_damage(&self, report: DamageReport) -> Result<(), ShardError> {
        self.call(report.to_encoded(), ShardMethod::Damage).await.map(|_| ())
    }
}

#[async_trait]
impl RaftApi for RemoteNode {
    async fn raft(&self, sender: RaftSender, messages: Vec<Bytes>) -> Result<(), Status> {
        let mut client = self.control.clone();
        let request = RaftMessages { messages, sender: sender.to_encoded() };
        match self.env.timeout(limits::RAFT_DEADLINE, client.raft(request)).await {
            Ok(received) => received.map(|_| ()),
            Err(_) => Err(Status::new(Code::DeadlineExceeded, LATE)),
        }
    }
}
