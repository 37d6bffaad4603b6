//! Where the code that we build comes from.

use crate::{Problem, TreeFile};

const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// Every crate in Cargo.lock comes from crates.io and carries its checksum, or is ours.
pub fn check_lockfile(lockfile: &TreeFile) -> Vec<Problem> {
    let packages = lockfile.text.split("[[package]]").skip(1);
    packages
        .filter_map(|package| {
            let value = |key: &str| {
                package.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(" = ")).map(|text| text.trim_matches('"'))
            };
            let source = value("source")?;
            let name = value("name").unwrap_or("?");
            let is_pinned = source == REGISTRY && value("checksum").is_some();
            (!is_pinned).then(|| format!("Cargo.lock: {name} comes from {source}; take it from crates.io, with its checksum"))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crate_from_elsewhere_or_without_checksum_is_found() {
        let check = |package: &str, problems: usize| {
            let text = format!("version = 4\n\n[[package]]\nname = \"ours\"\n\n[[package]]\nname = \"a\"\n{package}");
            let found = check_lockfile(&TreeFile::new("Cargo.lock", &text));
            assert_eq!(found.len(), problems, "{found:?}");
        };
        check(&format!("source = \"{REGISTRY}\"\nchecksum = \"00\"\n"), 0);
        check(&format!("source = \"{REGISTRY}\"\n"), 1);
        check("source = \"git+https://example.org/a\"\nchecksum = \"00\"\n", 1);
        check("", 0);
    }
}
