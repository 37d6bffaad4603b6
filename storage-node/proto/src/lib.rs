//! What a storage node says and understands: messages, error codes, and the client of a node.
//!
//! - [`object`]: what metadata groups store of an object: versions, uploads, parts, manifests.
//! - [`command`] and [`query`]: what a metadata group can be asked to change and to tell.
//! - [`api`]: the traits a node implements, over gRPC or in the same process.
//! - [`remote`] and [`serve`]: the gRPC client and server of those traits.
//! - [`upkeep`]: what a node tells about the state of the data.
//! - [`damage`]: what nodes tell each other about shards that are missing or bad.
//! - [`key`]: how a key hashes to an index shard, a slot and a chunk's partition.

pub mod api;
pub mod command;
pub mod damage;
mod format;
pub mod key;
pub mod limits;
pub mod object;
pub mod query;
pub mod remote;
pub mod serve;
pub mod upkeep;
mod wire;
