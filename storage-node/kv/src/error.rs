//! Why the store could not answer.

/// Any of them means the disk under the store is to be treated as dead (I14).
#[derive(Debug, thiserror::Error)]
pub enum KvError {
    #[error("the store is corrupt: {detail}")]
    Corrupt { detail: String },
    #[error("the store cannot be read or written: {detail}")]
    Io { detail: String },
}
