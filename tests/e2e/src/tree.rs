//! Directory trees to copy, and their comparison.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::bail;
use tempfile::TempDir;

use crate::client::Client;

/// How large a tree is.
#[derive(Debug, Clone, Copy)]
pub struct TreeShape {
    pub small_files: usize,
    pub large_files: usize,
    pub large_bytes: usize,
}

/// Fills `dir` with files of many sizes (empty ones too) and awkward names, always the same for a shape.
///
/// # Errors
/// When a file cannot be written.
pub fn make_tree(dir: &Path, shape: TreeShape) -> std::io::Result<()> {
    let names =
        ["plain", "with space", "plus+sign", "per%cent", "ünïcode", "a.b~c_d-e", "semi;colon", "quote'd", "hash#tag", "eq=ual"];
    for number in 0..shape.small_files {
        let folder = dir.join(format!("dir{}", number % 37)).join(format!("sub {}", number % 11));
        fs::create_dir_all(&folder)?;
        let bytes = match number % 10 {
            0 => 0,
            1 => 1,
            2 => 16 * 1024,
            3 => 16 * 1024 + 1,
            other => other * 997,
        };
        fs::write(folder.join(format!("{}-{number}.bin", names[number % names.len()])), noise(number as u64, bytes))?;
    }
    for number in 0..shape.large_files {
        // Odd lengths, so that stripes, chunks and parts end unevenly.
        fs::write(dir.join(format!("large-{number}.bin")), noise(1 << 32 | number as u64, shape.large_bytes + number * 4099))?;
    }
    Ok(())
}

fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut out = vec![0; bytes];
    blake3::Hasher::new().update(&seed.to_be_bytes()).finalize_xof().fill(&mut out);
    out
}

/// Every file's path below `dir` and BLAKE3.
///
/// # Errors
/// When a file cannot be read.
pub fn digest_tree(dir: &Path) -> std::io::Result<BTreeMap<String, blake3::Hash>> {
    let mut found = BTreeMap::new();
    let mut pending = vec![dir.to_owned()];
    while let Some(folder) = pending.pop() {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                pending.push(entry.path());
            } else {
                let name = entry.path().strip_prefix(dir).expect("found below it").display().to_string();
                found.insert(name, blake3::hash(&fs::read(entry.path())?));
            }
        }
    }
    Ok(found)
}

/// A tree that was synced into the bucket `tree`, to be compared with what comes back.
pub struct SyncedTree {
    source: TempDir,
    digest: BTreeMap<String, blake3::Hash>,
}

impl SyncedTree {
    /// Makes a tree and the bucket, and syncs the one into the other.
    ///
    /// # Errors
    /// When the client fails.
    pub fn upload(client: &Client, shape: TreeShape) -> anyhow::Result<Self> {
        let source = tempfile::tempdir()?;
        make_tree(source.path(), shape)?;
        let digest = digest_tree(source.path())?;
        let tree = Self { source, digest };
        client.aws(&["s3", "mb", "s3://tree"])?;
        tree.sync_to(client, "s3://tree/")?;
        Ok(tree)
    }

    /// Syncs the tree to another place.
    ///
    /// # Errors
    /// When the client fails.
    pub fn sync_to(&self, client: &Client, target: &str) -> anyhow::Result<String> {
        client.aws(&["s3", "sync", "--only-show-errors", &self.source.path().display().to_string(), target])
    }

    /// Syncs the bucket into an empty directory.
    ///
    /// # Errors
    /// When the client fails, or what came back is not the tree.
    pub fn compare(&self, client: &Client) -> anyhow::Result<()> {
        let back = tempfile::tempdir()?;
        client.aws(&["s3", "sync", "--only-show-errors", "s3://tree/", &back.path().display().to_string()])?;
        if digest_tree(back.path())? != self.digest {
            bail!("the tree is not identical");
        }
        Ok(())
    }
}
