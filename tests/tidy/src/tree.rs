//! Reading the tree.

use std::fs;
use std::io;
use std::path::Path;

/// A text file of the tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreeFile {
    /// From the root, with `/` between.
    pub path: String,
    pub text: String,
}

impl TreeFile {
    pub fn new(path: &str, text: &str) -> Self {
        Self { path: path.into(), text: text.into() }
    }

    /// The last part of the path.
    pub fn name(&self) -> &str {
        self.path.rsplit('/').next().expect("splitting gives at least one part")
    }

    /// Whether the file is there only for tests.
    pub fn is_test(&self) -> bool {
        self.path.starts_with("tests/") || self.name() == "tests.rs" || self.path.contains("/tests/")
    }
}

/// Every file under `root` that is text, sorted by path; hidden directories, build output and local data are left out.
pub fn read_tree(root: &Path) -> io::Result<Vec<TreeFile>> {
    let mut files = Vec::new();
    read_dir(root, "", &mut files)?;
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

fn read_dir(dir: &Path, prefix: &str, files: &mut Vec<TreeFile>) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = if prefix.is_empty() { name.clone() } else { format!("{prefix}/{name}") };
        let kind = entry.file_type()?;
        if kind.is_dir() && !name.starts_with('.') && !matches!(path.as_str(), "target" | "dozo-data") {
            read_dir(&entry.path(), &path, files)?;
        } else if kind.is_file()
            && let Ok(text) = String::from_utf8(fs::read(entry.path())?)
        {
            files.push(TreeFile { path, text });
        }
    }
    Ok(())
}
