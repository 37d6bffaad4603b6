//! The product's own composition of a storage node, as the binary uses it.

#[path = "../../../src/roles/ballast.rs"]
pub mod ballast;
#[path = "../../../src/roles/data_dirs.rs"]
#[allow(clippy::disallowed_methods)]
mod data_dirs;
#[path = "../../../src/roles/storage.rs"]
#[allow(dead_code)]
pub mod storage;
