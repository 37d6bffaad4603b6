//! What a crate's Cargo.toml may say.

use crate::{Problem, TreeFile};

/// Versions come from the root, and so do the lints.
pub fn check_manifest(manifest: &TreeFile) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut section = "";
    let mut section_line = 0;
    let mut inherits_lints = false;
    let mut inherits_version = true;
    for (number, line) in (1..).zip(manifest.text.lines()) {
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.starts_with('[') {
            close(manifest, section_line, inherits_version, &mut problems);
            (section, section_line) = (line.trim_matches(['[', ']']), number);
            inherits_version = !is_one_dependency(section);
            continue;
        }
        let squeezed: String = line.chars().filter(|character| !character.is_whitespace()).collect();
        if section == "lints" && squeezed == "workspace=true" {
            inherits_lints = true;
        }
        if is_one_dependency(section) && squeezed == "workspace=true" {
            inherits_version = true;
        }
        if is_dependencies(section) && !line.is_empty() && !squeezed.contains("workspace=true") {
            problems.push(own_version(manifest, number));
        }
    }
    close(manifest, section_line, inherits_version, &mut problems);
    if !inherits_lints {
        problems.push(format!("{}: add `[lints] workspace = true`", manifest.path));
    }
    problems
}

fn close(manifest: &TreeFile, line: usize, inherits_version: bool, problems: &mut Vec<Problem>) {
    if !inherits_version {
        problems.push(own_version(manifest, line));
    }
}

fn own_version(manifest: &TreeFile, line: usize) -> Problem {
    format!(
        "{}:{line}: write `{{ workspace = true }}` here, and the version into [workspace.dependencies] of the root Cargo.toml",
        manifest.path
    )
}

/// `[dependencies]`, also of a target, also for development or building.
fn is_dependencies(section: &str) -> bool {
    !section.starts_with("workspace") && section.ends_with("dependencies")
}

/// `[dependencies.name]`.
fn is_one_dependency(section: &str) -> bool {
    section.rsplit_once('.').is_some_and(|(table, _)| is_dependencies(table))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(dependencies: &str, problems: usize) {
        let text = format!("[package]\nname = \"a\"\n{dependencies}\n[lints]\nworkspace = true\n");
        let found = check_manifest(&TreeFile::new("a/Cargo.toml", &text));
        assert_eq!(found.len(), problems, "{found:?}");
    }

    #[test]
    fn a_version_of_ones_own_is_found() {
        check("[dependencies]\nbytes = { workspace = true }\ntokio.workspace = true # why\n\n[dev-dependencies]\n", 0);
        check("[dependencies]\nbytes = \"1\"\n", 1);
        check("[dev-dependencies]\nbytes = { version = \"1\", features = [] }\n", 1);
        check("[target.'cfg(unix)'.dependencies]\nlibc = \"1\"\n", 1);
        check("[dependencies.bytes]\nversion = \"1\"\n", 1);
        check("[dependencies.bytes]\nworkspace = true\n", 0);
        check("[workspace.dependencies]\nbytes = \"1\"\n", 0);
    }

    #[test]
    fn a_crate_without_the_lints_is_found() {
        assert_eq!(check_manifest(&TreeFile::new("a/Cargo.toml", "[package]\n")).len(), 1);
    }
}
