//! Where access keys and their secrets come from.

use std::fmt;

use async_trait::async_trait;

use crate::api::Caller;
use crate::error::S3Error;

/// A secret key. Never shown by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretKey(String);

impl SecretKey {
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKey(..)")
    }
}

/// What an access key stands for.
#[derive(Debug, Clone)]
pub struct Credential {
    pub secret: SecretKey,
    /// Never [`Caller::Anonymous`].
    pub caller: Caller,
}

/// The access keys that are valid now. A revoked key must be gone from here at once: nothing is cached behind this trait.
#[async_trait]
pub trait Credentials: Send + Sync + 'static {
    /// `Ok(None)` when there is no such key; an error when that cannot be known, which refuses the request (A18).
    async fn lookup(&self, access_key: &str) -> Result<Option<Credential>, S3Error>;
}
