//! The internal port: who may speak on it, and how.
//!
//! Guarantees: without the cluster secret nothing on this port answers, in either direction. From the secret every process
//! derives the same certificate authority and issues itself a certificate that names it; both ends of every connection
//! demand one ([`Identity`]). Nothing here is derived from S3 keys.
//!
//! - `secret.rs`, `identity.rs`: the secret, the authority, certificates.
//! - `admission.rs`, `verify.rs`: removed nodes are refused, by both ends.
//! - `lineage.rs`: nobody of another incarnation of the cluster is spoken to.
//! - `channel.rs`: client side: [`Channels`] to a peer by address.
//! - `server.rs`: [`serve`], the accept loop that a bad peer cannot stop.
//! - `limits.rs`: windows, sizes and deadlines, with the measurements behind them.

mod admission;
mod channel;
mod identity;
pub mod limits;
mod lineage;
mod secret;
mod server;
mod verify;

#[cfg(test)]
mod tests;

pub use admission::Admission;
pub use channel::{Channels, Peer};
pub use identity::{Identity, IdentityError, PeerIdentity, Security, Subject};
pub use lineage::Lineage;
pub use secret::{ClusterSecret, InvalidSecret};
pub use server::serve;
