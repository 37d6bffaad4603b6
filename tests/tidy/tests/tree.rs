//! The real tree under every check.

#![allow(clippy::disallowed_methods)]

use std::path::{Path, PathBuf};

use anyhow::Context;
use cargo_metadata::{DependencyKind, Metadata, MetadataCommand};
use tests_tidy::*;

/// Features whose absence only a stopwatch would show, by crate.
const FEATURES_REQUIRED: &[(&str, &[&str])] = &[("reed-solomon-erasure", &["simd-accel"])];

#[test]
fn crates_use_lower_layers_only() {
    hold(check_layers(&packages(&metadata())));
}

#[test]
fn crates_are_called_after_their_paths() {
    hold(check_names(&packages(&metadata())));
}

#[test]
fn one_crate_knows_s3s() {
    hold(check_s3s(&packages(&metadata())));
}

#[test]
fn code_that_must_be_vectorised_is() {
    let metadata = metadata();
    let resolve = metadata.resolve.as_ref().expect("cargo metadata resolves unless told not to");
    for (name, required) in FEATURES_REQUIRED {
        let package = metadata.packages.iter().find(|package| package.name.as_str() == *name).expect("the crate is in use");
        let node = resolve.nodes.iter().find(|node| node.id == package.id).expect("every package is resolved");
        let enabled: Vec<String> = node.features.iter().map(ToString::to_string).collect();
        hold(check_features(name, &enabled, required));
    }
}

#[test]
fn manifests_inherit_versions_and_lints() {
    hold(files().iter().filter(|file| file.name() == "Cargo.toml").flat_map(check_manifest));
}

#[test]
fn everything_built_comes_from_the_registry() {
    hold(files().iter().filter(|file| file.path == "Cargo.lock").flat_map(check_lockfile));
}

#[test]
fn lints_are_switched_off_only_where_that_was_decided() {
    hold(rust_files().iter().flat_map(check_exemptions));
}

#[test]
fn nothing_is_left_for_later() {
    hold(rust_files().iter().flat_map(check_words));
}

#[test]
fn modules_are_called_after_their_nouns() {
    hold(rust_files().iter().flat_map(check_module_name));
}

#[test]
fn every_file_is_compiled() {
    hold(check_compiled(&files()));
}

#[test]
fn files_are_short() {
    let files = rust_files();
    hold(files.iter().flat_map(check_length).chain(check_length_exceptions(&files)));
}

#[test]
fn front_doors_hold_no_logic() {
    hold(rust_files().iter().filter(|file| file.name() == "lib.rs" && !file.is_test()).flat_map(check_front_door));
}

#[test]
fn documents_exist_and_name_what_exists() {
    let files = files();
    let architecture = files.iter().find(|file| file.path == "ARCHITECTURE.md").expect("there is an ARCHITECTURE.md");
    hold(check_documents(&files).into_iter().chain(check_named_paths(architecture, &files)));
}

/// Fails with every problem at once.
fn hold(problems: impl IntoIterator<Item = Problem>) {
    let problems: Vec<Problem> = problems.into_iter().collect();
    assert!(problems.is_empty(), "{} to fix:\n{}", problems.len(), problems.join("\n"));
}

fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).expect("this crate is two directories below the root").to_owned()
}

fn files() -> Vec<TreeFile> {
    let files = read_tree(&root()).context("read the tree").unwrap();
    assert!(files.iter().any(|file| file.path == "tests/tidy/tests/tree.rs"), "the tree that is read is this one");
    files
}

fn rust_files() -> Vec<TreeFile> {
    files().into_iter().filter(|file| file.path.ends_with(".rs")).collect()
}

fn metadata() -> Metadata {
    let mut command = MetadataCommand::new();
    // What is locked is what is built.
    command.manifest_path(root().join("Cargo.toml")).other_options(["--locked".to_owned()]);
    command.exec().context("run cargo metadata").unwrap()
}

fn packages(metadata: &Metadata) -> Vec<Package> {
    let packages: Vec<Package> = metadata
        .workspace_packages()
        .into_iter()
        .map(|package| {
            let dir = package.manifest_path.parent().expect("a manifest is in a directory").as_std_path();
            let path = dir.strip_prefix(root()).expect("the workspace is below the root").to_string_lossy().into_owned();
            let dependencies = package
                .dependencies
                .iter()
                .map(|used| Dependency { name: used.name.clone(), is_dev: used.kind == DependencyKind::Development })
                .collect();
            Package { name: package.name.to_string(), path, layer: package.metadata["layer"].as_u64(), dependencies }
        })
        .collect();
    assert!(packages.iter().any(|package| package.name == "placement-types"), "the workspace was read");
    packages
}
