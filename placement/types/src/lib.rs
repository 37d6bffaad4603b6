//! The vocabulary of Dozo: ids, names, sizes, the byte codec, and the [`Env`] seam.
//!
//! This crate does no I/O and knows no wire format. Every other crate may depend on it; it depends on none of ours.
//!
//! Words mean what ARCHITECTURE.md's glossary says: a *chunk* is a run of an object's bytes (up to 16 MiB, the unit of
//! placement), a *stripe* is 1 MiB of a chunk, coded at once into k+m *units*, a *shard* is what one disk holds of a
//! chunk (its units in stripe order).

pub mod codec;
mod env;
mod ids;
mod incarnation;
mod names;
mod sizes;
mod time;
mod waypoint;

pub use env::{
    BoxFuture, BoxStream, Clock, DirEntry, Elapsed, Env, File, FileMetadata, Fs, Listener, Net, OpenMode, Random, Space, Stream,
    TaskHandle, Tasks,
};
pub use ids::{
    Boot, BucketId, ChunkId, ClusterId, DiskId, Epoch, GroupId, InvalidId, NodeId, ReplicaId, RequestId, ShardId, Slot, Term,
    TxnId, UploadId,
};
pub use incarnation::{Incarnation, Kinship};
pub use names::{BucketName, InvalidBucketName, InvalidObjectKey, InvalidZoneName, ObjectKey, ZoneName};
pub use sizes::{ByteRange, CHUNK_BYTES_MAX, INLINE_BYTES_MAX, InvalidProfile, Profile, SLOTS, STRIPE_BYTES};
pub use time::Timestamp;
pub use waypoint::{Watcher, Waypoint};
