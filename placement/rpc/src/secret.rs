//! The cluster secret: the one thing every process of a cluster shares.

use std::fmt;

/// At least 32 characters of anything, white space at both ends not counted. Never printed.
#[derive(Clone)]
pub struct ClusterSecret(Vec<u8>);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the cluster secret has {characters} characters; it needs at least {}: make one with `openssl rand -hex 32`",
    ClusterSecret::CHARACTERS_MIN
)]
pub struct InvalidSecret {
    pub characters: usize,
}

impl ClusterSecret {
    pub const CHARACTERS_MIN: usize = 32;

    pub fn parse(text: &str) -> Result<Self, InvalidSecret> {
        let text = text.trim();
        let characters = text.chars().count();
        if characters < Self::CHARACTERS_MIN {
            return Err(InvalidSecret { characters });
        }
        Ok(Self(text.as_bytes().to_vec()))
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for ClusterSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClusterSecret(redacted)")
    }
}
