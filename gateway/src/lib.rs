//! The gateway: one file per S3 operation, written against traits.
//!
//! Stateless: everything it knows is the cluster's. It turns typed requests ([`gateway_s3::S3Api`]) into chunks on storage
//! nodes and entries in metadata groups, and back. A PUT reads, from `ops/put_object.rs`: authorize, resolve the bucket,
//! store the body (`stripe_writer.rs`), verify it, commit (`meta_router.rs`).
//!
//! - [`Gateway`] is the front door; `ops/` has a file per operation; `authorize.rs` is the one choke point of authorisation.
//! - `meta_router.rs` finds the leader of a key's metadata group; `buckets.rs` resolves names; `listing.rs` merges shelves.
//! - `stripe_writer.rs` and `object_reader.rs` move bytes; `staged_data.rs` owns those that nothing refers to yet.
//! - [`admin`] is the operator's listener: health, metrics, status, explain.

pub mod admin;
mod authorize;
mod buckets;
mod conditions;
mod coordinators;
#[cfg(test)]
mod double;
mod error;
mod gateway;
mod limits;
mod listing;
mod meta_router;
mod metrics;
mod object_reader;
mod ops;
mod records;
mod staged_data;
mod stripe_writer;
mod system_group;
mod version_id;

pub use gateway::{Gateway, GatewayConfig, GatewayParts};
