//! Checks of the tree's shape, so that the rules in ARCHITECTURE.md hold without anybody remembering them.
//!
//! Each check is a pure function from what was read to a list of problems, each of which says where it is and what to do. The
//! unit tests beside them prove that every check can fail; `tests/tree.rs` reads the real tree and runs them all.
//!
//! - `layers.rs`: who may use whom.
//! - `manifests.rs`: what a Cargo.toml may say; `lockfile.rs`: where the code that we build comes from.
//! - `sources.rs`: what a Rust file may be called, hold and allow.
//! - `modules.rs`: whether every Rust file is compiled.
//! - `documents.rs`: which documents there are, and that what they name exists.

#![allow(clippy::disallowed_methods)]

mod documents;
mod layers;
mod lockfile;
mod manifests;
mod modules;
mod sources;
mod tree;

pub use documents::{check_documents, check_named_paths};
pub use layers::{Dependency, Package, check_features, check_layers, check_names, check_s3s};
pub use lockfile::check_lockfile;
pub use manifests::check_manifest;
pub use modules::check_compiled;
pub use sources::{check_exemptions, check_front_door, check_length, check_length_exceptions, check_module_name, check_words};
pub use tree::{TreeFile, read_tree};

/// What is wrong, where, and what to do about it.
pub type Problem = String;
