//! Which documents there are, and that what they name exists.

use crate::{Problem, TreeFile};

const DOCUMENTS: &[&str] = &["README.md", "ARCHITECTURE.md", "CHANGELOG.md", "LICENSE"];

/// The documents that somebody who finds the project looks for.
pub fn check_documents(files: &[TreeFile]) -> Vec<Problem> {
    DOCUMENTS
        .iter()
        .filter(|name| !files.iter().any(|file| file.path == **name && !file.text.trim().is_empty()))
        .map(|name| format!("{name} is missing or empty: write it"))
        .collect()
}

/// Every `.rs` path that a document names exists, whole or as the end of a path.
pub fn check_named_paths(document: &TreeFile, files: &[TreeFile]) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (number, line) in (1..).zip(document.text.lines()) {
        for named in named_paths(line) {
            let exists = files.iter().any(|file| {
                file.path.strip_suffix(named.as_str()).is_some_and(|before| before.is_empty() || before.ends_with('/'))
            });
            if !exists {
                problems.push(format!("{}:{number}: there is no {named}; name the file that does this now", document.path));
            }
        }
    }
    problems
}

/// The words of a line that end in `.rs`, with `{a,b}.rs` written out.
fn named_paths(line: &str) -> Vec<String> {
    let is_path = |character: char| character.is_ascii_alphanumeric() || "_-./{},".contains(character);
    line.split(|character| !is_path(character))
        .map(|word| word.trim_matches(['.', ',']))
        .filter(|word| word.ends_with(".rs") && !word.starts_with('/'))
        .flat_map(|word| match (word.split_once('{'), word.rsplit_once('}')) {
            (Some((before, _)), Some((_, after))) => {
                let alternatives = &word[before.len() + 1..word.len() - after.len() - 1];
                alternatives.split(',').map(|alternative| format!("{before}{alternative}{after}")).collect()
            }
            // Without braces a comma separates two words.
            _ => word.split(',').map(str::to_owned).collect::<Vec<_>>(),
        })
        .filter(|path| path.ends_with(".rs") && path != ".rs")
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_or_empty_document_is_found() {
        let mut files: Vec<_> = DOCUMENTS.iter().map(|name| TreeFile::new(name, "text")).collect();
        assert!(check_documents(&files).is_empty());
        files[0].text = "\n".into();
        files.pop();
        assert_eq!(check_documents(&files).len(), 2);
    }

    #[test]
    fn a_named_file_that_is_gone_is_found() {
        let files = [TreeFile::new("gateway/src/server.rs", ""), TreeFile::new("gateway/src/ops/get.rs", "")];
        let check = |text: &str, problems: usize| {
            let found = check_named_paths(&TreeFile::new("ARCHITECTURE.md", text), &files);
            assert_eq!(found.len(), problems, "{text}: {found:?}");
        };
        check("see `gateway/src/server.rs`, (`ops/get.rs`) and server.rs.", 0);
        check("`gateway/src/{server,ops/get}.rs`", 0);
        check("see `gateway/src/sever.rs`", 1);
        check("see `src/server.rs`,`erver.rs`", 1);
        check("`gateway/src/{server,gone}.rs`", 1);
        check("https://rustup.rs and *.rs", 0);
    }
}
