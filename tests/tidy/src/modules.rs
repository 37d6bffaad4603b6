//! Whether every Rust file is compiled: one that no other names is silently no part of anything, and its tests never run.

use std::collections::BTreeMap;

use crate::{Problem, TreeFile};

/// Every file is the root of a crate, or a module that the file above it names.
pub fn check_compiled(files: &[TreeFile]) -> Vec<Problem> {
    let texts: BTreeMap<&str, &str> = files.iter().map(|file| (file.path.as_str(), file.text.as_str())).collect();
    let lost = texts.keys().filter(|path| path.ends_with(".rs") && !is_root(path, &texts) && !is_named(path, &texts));
    lost.map(|path| format!("{path}: no file has `mod` for it, so it is not compiled: name it or remove it")).collect()
}

/// What cargo compiles without being told by another file.
fn is_root(path: &str, texts: &BTreeMap<&str, &str>) -> bool {
    let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
    if matches!(name, "lib.rs" | "main.rs" | "build.rs") {
        return true;
    }
    let package = dir.strip_suffix("tests").map(|package| package.trim_end_matches('/'));
    let Some(package) = package else { return false };
    let manifest = if package.is_empty() { "Cargo.toml".to_owned() } else { format!("{package}/Cargo.toml") };
    let Some(manifest) = texts.get(manifest.as_str()) else { return false };
    !manifest.contains("autotests = false") || manifest.contains(&format!("path = \"tests/{name}\""))
}

fn is_named(path: &str, texts: &BTreeMap<&str, &str>) -> bool {
    let module = path.strip_suffix("/mod.rs").or_else(|| path.strip_suffix(".rs")).unwrap_or(path);
    let (dir, name) = module.rsplit_once('/').unwrap_or(("", module));
    let parents = [format!("{dir}/lib.rs"), format!("{dir}/main.rs"), format!("{dir}/mod.rs"), format!("{dir}.rs")];
    let declares = |line: &str| line.trim().ends_with(&format!("mod {name};"));
    parents.iter().filter_map(|parent| texts.get(parent.as_str())).any(|text| text.lines().any(declares))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_nobody_names_is_found() {
        let manifest = "autotests = false\n[[test]]\npath = \"tests/own.rs\"\n";
        let files = [
            TreeFile::new("a/Cargo.toml", manifest),
            TreeFile::new("a/src/lib.rs", "mod named;\npub(crate) mod deep;\n"),
            TreeFile::new("a/src/named.rs", ""),
            TreeFile::new("a/src/deep.rs", "mod below;\n"),
            TreeFile::new("a/src/deep/below.rs", ""),
            TreeFile::new("a/src/deep/lost.rs", ""),
            TreeFile::new("a/src/amed.rs", ""),
            TreeFile::new("a/tests/main.rs", "mod part;\n"),
            TreeFile::new("a/tests/part.rs", ""),
            TreeFile::new("a/tests/own.rs", ""),
            TreeFile::new("a/tests/forgotten.rs", ""),
            TreeFile::new("b/Cargo.toml", ""),
            TreeFile::new("b/tests/found.rs", ""),
        ];
        let problems = check_compiled(&files);
        let lost: Vec<&str> = problems.iter().map(|problem| problem.split(':').next().expect("a path")).collect();
        assert_eq!(lost, ["a/src/amed.rs", "a/src/deep/lost.rs", "a/tests/forgotten.rs"]);
    }
}
