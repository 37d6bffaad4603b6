//! The S3 protocol: HTTP, signatures, XML and checksums to and from typed requests.
//!
//! This is the only crate that names `s3s`, and it has never heard of a cluster. [`S3Api`] is the contract: someone else
//! implements it, this crate calls it with requests that are authenticated, well-formed and unambiguous.
//!
//! | File | Does |
//! |---|---|
//! | `server.rs` | listens, bounds connections, drains |
//! | `service.rs` | one request from head to answer |
//! | `auth.rs` | which credentials are accepted; the choke point before routing |
//! | `route.rs` | which operation a request is |
//! | `operations/` | one function per operation: headers, query and XML to a typed request, and the reply back |
//! | `integrity.rs`, `upload_body.rs`, `chunk_framing.rs` | the proof that a body arrived as its sender meant it |
//! | `signature.rs` | signs requests, for our own clients and the admin listener |
//! | `conditions.rs`, `range.rs`, `checksum.rs` | pure functions for the implementor of [`S3Api`] |

mod api;
mod auth;
mod call;
mod checksum;
mod chunk_framing;
mod conditions;
mod config;
mod copy_source;
mod credentials;
mod error;
mod etag_hasher;
mod header_text;
mod http_date;
mod integrity;
pub mod limits;
mod metrics;
mod operations;
mod patient_io;
mod query;
mod range;
mod reply;
mod request_conditions;
mod route;
mod server;
mod service;
pub mod signature;
mod tls;
mod upload_body;
mod wire_body;
mod write_headers;
mod xml_reader;
mod xml_writer;

pub use api::*;
pub use checksum::{Checksum, ChecksumAlgorithm, ChecksumHasher, ChecksumType, InvalidChecksum, combine_part_checksums};
pub use conditions::{
    EtagList, ReadConditions, Verdict, WriteCondition, copy_source_conditions_hold, evaluate_read_conditions, strip_etag_quotes,
};
pub use config::S3Config;
pub use credentials::{Credential, Credentials, SecretKey};
pub use error::{S3Error, S3ErrorCode};
pub use etag_hasher::EtagHasher;
pub use range::RangeRequest;
pub use server::serve;
pub use service::S3Service;
pub use signature::Signer;
pub use tls::{Tls, TlsError};
pub use upload_body::{UploadBody, VerifiedUpload};
pub use write_headers::{ContentHeaders, Tags, UserMetadata, WriteHeaders};
