//! `tests/FAULTS.md` says the truth: every row is there, the tests that it names exist, and the rows that it says the simulation
//! and the soak count are those that they count.
#![allow(clippy::disallowed_methods)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use tests_faults::Row;

/// A line of the table.
struct Covered {
    row: Row,
    by: Vec<String>,
}

fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).expect("this crate is two directories below the root").to_owned()
}

fn table() -> Vec<Covered> {
    let text = fs::read_to_string(root().join("tests/FAULTS.md")).unwrap();
    let rows = text.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| ")?.strip_suffix(" |")?.split(" | ");
        let row = Row::parse(cells.next()?)?;
        assert_eq!(cells.next(), Some(row.fault()), "{}: the fault is called otherwise in rows.rs", row.id());
        let cover = cells.collect::<Vec<_>>().join(" | ");
        // A reason may have commas of its own.
        let by = if cover.starts_with("not yet: ") { vec![cover] } else { cover.split(", ").map(str::to_owned).collect() };
        Some(Covered { row, by })
    });
    rows.collect()
}

#[test]
fn every_row_of_the_catalogue_is_there_once() {
    let listed: Vec<Row> = table().iter().map(|covered| covered.row).collect();
    assert_eq!(listed, Row::ALL, "in the order of rows.rs");
}

#[test]
fn what_is_said_to_cover_a_row_exists() {
    for Covered { row, by } in table() {
        assert!(!by.is_empty(), "{}: say what covers it, or why nothing does", row.id());
        for cover in by {
            if matches!(cover.as_str(), "sim" | "soak") {
                continue;
            }
            if let Some(reason) = cover.strip_prefix("not yet: ") {
                assert!(reason.len() > 20, "{}: {reason:?} is no reason", row.id());
                continue;
            }
            let named = cover.strip_prefix('`').and_then(|rest| rest.strip_suffix('`')).and_then(|named| named.split_once("::"));
            let (path, test) = named.unwrap_or_else(|| panic!("{}: {cover:?} is no `path.rs::test`", row.id()));
            let text = fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{}: {path}: {error}", row.id()));
            assert!(is_test(&text, test), "{}: {path} has no test {test}", row.id());
        }
    }
}

/// Whether there is a function of this name, with an attribute for tests right above it, or inside a macro that makes tests.
fn is_test(text: &str, name: &str) -> bool {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let declared = lines.iter().position(|line| {
        let line = line.strip_prefix("async ").unwrap_or(line);
        line.strip_prefix("fn ").is_some_and(|rest| rest.strip_prefix(name).is_some_and(|rest| rest.starts_with('(')))
    });
    declared.is_some_and(|at| {
        let above = lines[..at].iter().rev().take_while(|line| line.starts_with('#') || line.starts_with("//"));
        above.into_iter().any(|line| line.contains("test"))
            || lines[..at].iter().rev().take(40).any(|line| line.contains("proptest!"))
    })
}

#[test]
fn the_simulation_and_the_soak_count_the_rows_that_are_marked() {
    for (word, dir) in [("sim", "tests/sim/src"), ("soak", "tests/soak/src")] {
        let marked: BTreeSet<Row> =
            table().iter().filter(|covered| covered.by.iter().any(|by| by == word)).map(|covered| covered.row).collect();
        let counted = rows_named_in(&root().join(dir));
        let ids = |rows: BTreeSet<Row>| rows.into_iter().map(Row::id).collect::<Vec<_>>();
        assert_eq!(ids(marked), ids(counted), "the rows marked {word}, and those that {dir} counts");
    }
}

fn rows_named_in(dir: &Path) -> BTreeSet<Row> {
    let mut named = BTreeSet::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            named.extend(rows_named_in(&path));
            continue;
        }
        let text = fs::read_to_string(path).unwrap();
        for rest in text.split("Row::").skip(1) {
            let id: String = rest.chars().take_while(|character| character.is_ascii_alphanumeric()).collect();
            named.extend(Row::parse(&id));
        }
    }
    named
}
