//! Objects of one chunk, written and read as a gateway does: the chunk first, then the version that lists it.

use bytes::Bytes;
use futures::StreamExt;
use placement_types::{BucketId, ByteRange, ChunkId, Env, GroupId, ObjectKey, Profile, TxnId};
use storage_node_proto::api::{ChunkApi, MetaApi, Owner, WriteChunk};
use storage_node_proto::command::{Change, Command, Outcome, Shelf, WriteCondition};
use storage_node_proto::object::{
    ChunkEntry, Data, DataRef, ObjectAttributes, ObjectRecord, VersionBody, VersionSelector, Versioning,
};
use storage_node_proto::query::{Answer, Query};

use super::body;

pub(crate) const GROUP: GroupId = GroupId(1);
pub(crate) const SHELF: Shelf = Shelf { bucket: BucketId::from_u128(5), index_shard: 0 };

pub(crate) fn key(name: &str) -> ObjectKey {
    ObjectKey::parse(name).unwrap()
}

/// What stores objects of one chunk in the metadata group [`GROUP`].
pub(crate) trait Objects {
    fn env(&self) -> Env;
    fn profile(&self) -> Profile;
    fn chunks(&self) -> &dyn ChunkApi;
    fn meta(&self) -> &dyn MetaApi;

    async fn write(&self, txn: TxnId, whole: &Bytes) -> ChunkEntry {
        let owner = Owner { txn, slot: SHELF.slot() };
        let request = WriteChunk { chunk: ChunkId::random(&self.env()), owner, profile: self.profile(), bytes: None };
        self.chunks().write_chunk(request, body(whole, 1 << 20)).await.unwrap()
    }

    async fn propose(&self, txn: TxnId, change: Change) -> Outcome {
        self.meta().mutate(GROUP, Command { txn, time: self.env().now(), change }).await.unwrap()
    }

    async fn commit(&self, txn: TxnId, name: &str, entry: &ChunkEntry) -> Outcome {
        let bytes = u64::from(entry.bytes);
        let record = ObjectRecord {
            bytes,
            etag: "etag".into(),
            attributes: ObjectAttributes::default(),
            checksum: None,
            data: vec![DataRef { txn, bytes }],
            parts: Vec::new(),
        };
        let change = Change::Put {
            shelf: SHELF,
            key: key(name),
            versioning: Versioning::Unversioned,
            condition: WriteCondition::None,
            record,
            data: Some(Data::Chunks(vec![entry.clone()])),
        };
        self.propose(txn, change).await
    }

    async fn put(&self, name: &str, whole: &Bytes) -> ChunkEntry {
        let txn = TxnId::random(&self.env());
        let entry = self.write(txn, whole).await;
        let outcome = self.commit(txn, name, &entry).await;
        assert!(matches!(outcome, Outcome::Written { .. }), "{outcome:?}");
        entry
    }

    /// The manifest entry of an object, as committed.
    async fn entry(&self, name: &str) -> ChunkEntry {
        let query = Query::Version { shelf: SHELF, key: key(name), selector: VersionSelector::Current };
        let Ok(Answer::Version { version, .. }) = self.meta().query(GROUP, query).await else { panic!("no {name}") };
        assert!(matches!(version.body, VersionBody::Object(_)));
        let query = Query::Data { shelf: SHELF, key: key(name), txns: vec![version.txn] };
        let Ok(Answer::Data { records }) = self.meta().query(GROUP, query).await else { panic!("no data of {name}") };
        let Some(Some(Data::Chunks(chunks))) = records.into_iter().next() else { panic!("no chunks of {name}") };
        chunks.into_iter().next().unwrap()
    }

    async fn read(&self, entry: &ChunkEntry) -> Vec<u8> {
        let range = ByteRange::new(0, u64::from(entry.bytes)).unwrap();
        let mut stream = self.chunks().read_chunk(entry.clone(), range).await.unwrap();
        let mut whole = Vec::new();
        while let Some(piece) = stream.next().await {
            whole.extend_from_slice(&piece.unwrap());
        }
        whole
    }

    async fn get(&self, name: &str) -> Vec<u8> {
        self.read(&self.entry(name).await).await
    }
}
