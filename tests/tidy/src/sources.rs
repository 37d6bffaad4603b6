//! What a Rust file may be called, hold and allow.

use crate::{Problem, TreeFile};

/// Past it a second noun has moved in.
const LINES_MAX: usize = 600;

/// Files longer than [`LINES_MAX`], with their length. The list may only shrink.
const LONG_FILES: &[(&str, usize)] = &[];

/// Where time, randomness, network and files may be used directly.
const MACHINE_ALLOWED: &[&str] = &["placement/env/src/", "tests/", "src/main.rs"];

/// The one file with unsafe code.
const UNSAFE_ALLOWED: &str = "placement/env/src/system/sys.rs";

const NAMES_REFUSED: &[&str] = &["util", "utils", "common", "helper", "helpers", "misc", "manager"];

// In two halves, so that this file does not name what it looks for.
const WORDS_REFUSED: &[&str] = &[concat!("TO", "DO"), concat!("FIX", "ME")];
const MACHINE_LINTS: &[&str] = &[concat!("clippy::disallowed", "_methods"), concat!("clippy::disallowed", "_types")];
const UNSAFE_LINT: &str = concat!("unsafe", "_code");
const S3S_PATH: &str = concat!("s3s", "::");
const S3S_ALLOWED: &str = "gateway/s3/";

/// The lints that hold the architecture are switched off only where that was decided. A test module may switch off the first
/// kind for itself, since it has to damage files somehow, and so may generated code, which does not do as it is told.
pub fn check_exemptions(file: &TreeFile) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut lines = (1..).zip(file.text.lines()).peekable();
    while let Some((number, line)) = lines.next() {
        let path = &file.path;
        let switches = |lint: &str| line.trim_start().starts_with('#') && line.contains(lint);
        let is_test = file.is_test() || lines.peek().is_some_and(|(_, next)| is_test_module(next));
        let is_generated = lines.peek().is_some_and(|(_, next)| next.ends_with("mod generated {"));
        if MACHINE_LINTS.iter().any(|lint| switches(lint))
            && !is_test
            && !is_generated
            && !MACHINE_ALLOWED.iter().any(|allowed| path.starts_with(allowed))
        {
            problems.push(format!("{path}:{number}: take time, randomness, network and files from the Env that is passed in"));
        }
        if switches(UNSAFE_LINT) && path != UNSAFE_ALLOWED {
            problems
                .push(format!("{path}:{number}: unsafe code belongs into {UNSAFE_ALLOWED}, and only what std has no form of"));
        }
        let names_s3s = line.contains(S3S_PATH) && !line.trim_start().starts_with("//");
        if names_s3s && !path.starts_with(S3S_ALLOWED) {
            problems.push(format!("{path}:{number}: only gateway/s3 names s3s; go through its types"));
        }
    }
    problems
}

/// No promise of later work without an issue.
pub fn check_words(file: &TreeFile) -> Vec<Problem> {
    let found = |line: &str| WORDS_REFUSED.iter().find(|word| line.contains(**word)).copied();
    (1..)
        .zip(file.text.lines())
        .filter_map(|(number, line)| {
            Some(format!("{}:{number}: do it now or open an issue instead of {}", file.path, found(line)?))
        })
        .collect()
}

/// A module is called after its noun.
pub fn check_module_name(file: &TreeFile) -> Vec<Problem> {
    let path = file.path.strip_suffix(".rs").unwrap_or(&file.path);
    path.split('/')
        .filter(|part| NAMES_REFUSED.contains(part))
        .map(|part| format!("{}: `{part}` says nothing; call the module after what it holds", file.path))
        .collect()
}

/// A file is short enough, its tests not counted.
pub fn check_length(file: &TreeFile) -> Vec<Problem> {
    let lines = counted_lines(file);
    let allowed = LONG_FILES.iter().find(|(path, _)| *path == file.path).map_or(LINES_MAX, |(_, lines)| *lines);
    if lines <= allowed {
        return Vec::new();
    }
    vec![format!("{}: {lines} lines are over {allowed}; which second noun has moved in? give it a file of its own", file.path)]
}

/// The list of exceptions holds nothing that is no longer needed.
pub fn check_length_exceptions(files: &[TreeFile]) -> Vec<Problem> {
    stale_exceptions(LONG_FILES, files)
}

fn stale_exceptions(exceptions: &[(&str, usize)], files: &[TreeFile]) -> Vec<Problem> {
    let length = |path: &str| files.iter().find(|file| file.path == path).map_or(0, counted_lines);
    exceptions
        .iter()
        .filter(|(path, lines)| length(path) < *lines)
        .map(|(path, lines)| format!("tests/tidy/src/sources.rs: {path} is shorter than its {lines} lines now; shrink the entry"))
        .collect()
}

fn counted_lines(file: &TreeFile) -> usize {
    if file.is_test() {
        return 0;
    }
    let lines: Vec<&str> = file.text.lines().collect();
    lines.iter().position(|line| line.trim_end() == "mod tests {").unwrap_or(lines.len())
}

/// A `lib.rs` is a front door: docs, modules and what they export, no logic.
pub fn check_front_door(file: &TreeFile) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut inside = false;
    for (number, line) in (1..).zip(file.text.lines()) {
        let code = line.split("//").next().unwrap_or_default().trim();
        if code.is_empty() || (!inside && code.starts_with('#')) {
            continue;
        }
        let starts = ["mod ", "pub mod ", "pub(crate) mod ", "use ", "pub use ", "pub(crate) use "];
        if !inside && !starts.iter().any(|start| code.starts_with(start)) {
            problems
                .push(format!("{}:{number}: a lib.rs holds docs, `mod` and `pub use` only; move this into a module", file.path));
            // What follows belongs to the same item.
            break;
        }
        inside = !code.ends_with(';');
    }
    problems
}

fn is_test_module(line: &str) -> bool {
    let line = line.trim();
    line == "mod tests;" || line == "mod tests {"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(checker: fn(&TreeFile) -> Vec<Problem>, path: &str, text: &str, problems: usize) {
        let found = checker(&TreeFile::new(path, text));
        assert_eq!(found.len(), problems, "{path}: {found:?}");
    }

    #[test]
    fn a_lint_switched_off_elsewhere_is_found() {
        for lint in MACHINE_LINTS {
            let text = format!("//! Docs.\n#![allow({lint})]\n");
            check(check_exemptions, "gateway/src/lib.rs", &text, 1);
            check(check_exemptions, "placement/env/src/lib.rs", &text, 0);
            check(check_exemptions, "tests/e2e/src/lib.rs", &text, 0);
            check(check_exemptions, "gateway/src/tests.rs", &text, 0);
            check(check_exemptions, "gateway/src/lib.rs", &format!("#[allow({lint})]\nmod tests;\n"), 0);
            check(check_exemptions, "gateway/src/wire.rs", &format!("#[allow({lint})]\npub(crate) mod generated {{\n"), 0);
            check(check_exemptions, "gateway/src/lib.rs", &format!("#[expect({lint})]\nmod server;\n"), 1);
        }
        let text = format!("#![allow({UNSAFE_LINT})]\n");
        check(check_exemptions, UNSAFE_ALLOWED, &text, 0);
        check(check_exemptions, "placement/env/src/lib.rs", &text, 1);
        check(check_exemptions, "tests/sim/src/lib.rs", &text, 1);
    }

    #[test]
    fn naming_s3s_elsewhere_is_found() {
        let text = format!("use {S3S_PATH}S3;\n");
        check(check_exemptions, "gateway/src/server.rs", &text, 1);
        check(check_exemptions, "gateway/s3/src/server.rs", &text, 0);
    }

    #[test]
    fn promises_of_later_work_are_found() {
        for word in WORDS_REFUSED {
            check(check_words, "a.rs", &format!("// {word}: later\n"), 1);
        }
        check(check_words, "a.rs", "// to do, or to fix me\n", 0);
    }

    #[test]
    fn names_that_say_nothing_are_found() {
        for path in ["gateway/src/util.rs", "gateway/src/common/range.rs", "gateway/src/misc/mod.rs"] {
            check(check_module_name, path, "", 1);
        }
        check(check_module_name, "gateway/src/utilisation.rs", "", 0);
    }

    #[test]
    fn a_long_file_is_found_and_its_tests_do_not_count() {
        let lines = |count| "line\n".repeat(count);
        check(check_length, "a/src/b.rs", &lines(LINES_MAX), 0);
        check(check_length, "a/src/b.rs", &lines(LINES_MAX + 1), 1);
        check(check_length, "a/src/b/tests.rs", &lines(LINES_MAX + 1), 0);
        check(check_length, "a/src/b.rs", &format!("line\n#[cfg(test)]\nmod tests {{\n{}", lines(LINES_MAX)), 0);
    }

    #[test]
    fn an_exception_that_is_not_needed_is_found() {
        let files = [TreeFile::new("a.rs", &"line\n".repeat(700))];
        assert!(stale_exceptions(&[("a.rs", 700)], &files).is_empty());
        assert_eq!(stale_exceptions(&[("a.rs", 701), ("gone.rs", 700)], &files).len(), 2);
    }

    #[test]
    fn logic_in_a_front_door_is_found() {
        check(
            check_front_door,
            "a/src/lib.rs",
            "//! Docs.\n\n#![deny(x)]\n\nmod a;\n/// B.\npub mod b; // why\n\npub use a::{\n    A,\n};\n",
            0,
        );
        check(check_front_door, "a/src/lib.rs", "mod a;\n\npub fn logic() {\n    a::run();\n}\n", 1);
        check(check_front_door, "a/src/lib.rs", "pub const X: u8 = 1;\n", 1);
    }
}
