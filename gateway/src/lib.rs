//! One file per S3 operation, written against traits.
