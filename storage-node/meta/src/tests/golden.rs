//! Golden scripts: commands, their outcomes and the rows they change, in `tests/golden/*.txt`. The diff is the review.
//!
//! Lines that start in the first column are commands (`script.rs`), queries (`? `) or comments (`#`); what follows indented is
//! what came of them. To write the results of new lines, set [`PRINT`] and copy what the test prints.

use placement_types::codec::Decode;
use placement_types::{ChunkId, Timestamp, TxnId, UploadId};
use storage_node_kv::WriteOp;
use storage_node_proto::command::{FiledChunk, Outcome};
use storage_node_proto::object::{Part, Upload, Version};

use super::replica::Replica;
use super::script::{Line, parse, shorten};
use crate::format::{self, Completed, DataRow, GarbageRow, Group, table};

/// Whether to print what the scripts should say instead of only comparing.
const PRINT: bool = false;

fn check(name: &str, script: &str) {
    let actual = run(script);
    if PRINT {
        println!("=== {name}\n{actual}");
    }
    for (at, (told, expected)) in actual.lines().zip(script.lines()).enumerate() {
        assert_eq!(told, expected, "{name}, line {}; all of it:\n{actual}", at + 1);
    }
    assert_eq!(actual, script, "{name}");
}

/// The script with what comes of each line now.
fn run(script: &str) -> String {
    let mut replica = Replica::default();
    let mut out = String::new();
    for line in script.lines().filter(|line| !line.starts_with(' ')) {
        out.push_str(line);
        out.push('\n');
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        match parse(line) {
            Line::Command(command) => {
                let (outcome, changes) = replica.apply_bytes(&command.to_versioned());
                let outcome = Outcome::from_versioned(&outcome).expect("our own bytes");
                out.push_str(&format!("  {}\n", shorten(&format!("{outcome:?}"))));
                changes.iter().filter_map(change).for_each(|text| out.push_str(&format!("  {text}\n")));
            }
            Line::Query(query) => out.push_str(&format!("  {}\n", shorten(&format!("{:?}", replica.ask(&query))))),
        }
    }
    out
}

/// A changed row as text; `None` for the bookkeeping of every command.
fn change(op: &WriteOp) -> Option<String> {
    match op {
        WriteOp::Put { key, value } if value.is_empty() => Some(shorten(&format!("+ {}", row(key)?))),
        WriteOp::Put { key, value } => Some(shorten(&format!("+ {} = {}", row(key)?, value_of(key[0], value)))),
        WriteOp::Delete { key } => Some(shorten(&format!("- {}", row(key)?))),
        WriteOp::DeleteRange { .. } => panic!("the state machine deletes row by row"),
    }
}

fn row(key: &[u8]) -> Option<String> {
    let filed = |name: &str, rest: &dyn Fn(&[u8]) -> String| {
        let (object, tail) = format::split_row(key).expect("a row under a key");
        format!("{name} {} {}", String::from_utf8_lossy(object), rest(tail)).trim_end().to_owned()
    };
    let txn = |bytes: &[u8]| format!("{:?}", TxnId::from_encoded(bytes).expect("a transaction"));
    let nothing = |_: &[u8]| String::new();
    let upload = |bytes: &[u8]| format!("{:?}", UploadId::from_encoded(bytes).expect("an upload"));
    let part = |bytes: &[u8]| format!("{} {}", upload(&bytes[..16]), u16::from_be_bytes([bytes[16], bytes[17]]));
    let after_tag = &key[1..];
    Some(match key[0] {
        table::VERSIONS => filed("version", &|_| format!("#{}", format::sequence_of(key).expect("a sequence"))),
        table::NULL_VERSIONS => filed("null-version", &nothing),
        table::DATA => filed("data", &txn),
        table::UPLOADS => filed("upload", &upload),
        table::PARTS => filed("part", &part),
        table::COMPLETED => filed("completed", &upload),
        table::FENCES => "fence".to_owned(),
        table::GARBAGE => {
            let (since, chunk, by) =
                <((Timestamp, ChunkId), TxnId)>::from_encoded(after_tag).map(|((a, b), c)| (a, b, c)).expect("garbage");
            format!("garbage {since:?} {chunk:?} {by:?}")
        }
        table::DEGRADED => format!("degraded {:?}", ChunkId::from_encoded(after_tag).expect("a chunk")),
        table::ABORTED => format!("aborted {}", txn(after_tag)),
        table::CLAIMS => format!("claims {}", txn(after_tag)),
        table::GROUP => "group".to_owned(),
        table::OUTCOMES | table::EXPIRY | table::UPLOADS_ORDERED | table::CHUNKED | table::GARBAGE_BY_CHUNK => return None,
        other => panic!("no such table: {other}"),
    })
}

fn value_of(tag: u8, value: &[u8]) -> String {
    fn text<T: Decode + std::fmt::Debug>(value: &[u8]) -> String {
        format!("{:?}", format::decode_value::<T>("a row", value).expect("our own bytes"))
    }
    match tag {
        table::VERSIONS => text::<Version>(value),
        table::NULL_VERSIONS | table::CLAIMS => text::<u64>(value),
        table::DATA => text::<DataRow>(value),
        table::UPLOADS => text::<Upload>(value),
        table::PARTS => text::<Part>(value),
        table::COMPLETED => text::<Completed>(value),
        table::FENCES => text::<Timestamp>(value),
        table::GARBAGE => text::<GarbageRow>(value),
        table::DEGRADED => text::<FiledChunk>(value),
        table::GROUP => text::<Group>(value),
        other => panic!("rows of table {other} have no value"),
    }
}

#[test]
fn put_replaces_under_its_condition() {
    check("put", include_str!("../../tests/golden/put.txt"));
}

#[test]
fn delete_makes_and_removes_markers() {
    check("delete", include_str!("../../tests/golden/delete.txt"));
}

#[test]
fn a_multipart_upload_appears_at_once() {
    check("multipart", include_str!("../../tests/golden/multipart.txt"));
}

#[test]
fn a_shelf_is_fenced_only_when_empty() {
    check("fence", include_str!("../../tests/golden/fence.txt"));
}

#[test]
fn garbage_moves_and_claims_balance() {
    check("shards", include_str!("../../tests/golden/shards.txt"));
}

#[test]
fn a_chunk_is_recoded_by_compare_and_swap() {
    check("recode", include_str!("../../tests/golden/recode.txt"));
}

#[test]
fn a_transaction_has_one_outcome() {
    check("transactions", include_str!("../../tests/golden/transactions.txt"));
}
