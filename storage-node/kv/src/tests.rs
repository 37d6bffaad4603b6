//! Both stores, and the views over them, against a `BTreeMap`.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use proptest::prelude::*;

use super::*;

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

#[derive(Debug, Clone)]
enum Op {
    Write(Vec<WriteOp>, Durability),
    Get(Vec<u8>),
    Scan(Scan),
    Flush,
}

#[derive(Debug, Clone)]
struct Scan {
    from: Vec<u8>,
    to: Vec<u8>,
    /// What the visitor answers, in turn; `Next` after that. A `Seek` is relative to nothing: it may lie behind, or past the end.
    steps: Vec<Step>,
}

/// Few and short keys with the extremes among their bytes, so that they meet.
fn key() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(prop_oneof![Just(0u8), Just(1), Just(0x7f), Just(0xff)], 0..4)
}

fn write_op() -> impl Strategy<Value = WriteOp> {
    prop_oneof![
        4 => (key(), any::<u16>()).prop_map(|(key, value)| WriteOp::Put { key: key.into(), value: value.to_string().into() }),
        2 => key().prop_map(|key| WriteOp::Delete { key: key.into() }),
        1 => (key(), key()).prop_map(|(from, to)| WriteOp::DeleteRange { from: from.into(), to: to.into() }),
    ]
}

fn scan() -> impl Strategy<Value = Scan> {
    let step = prop_oneof![4 => Just(Step::Next), 3 => key().prop_map(Step::Seek), 1 => Just(Step::Stop)];
    (key(), key(), proptest::collection::vec(step, 0..8)).prop_map(|(from, to, steps)| Scan { from, to, steps })
}

fn op() -> impl Strategy<Value = Op> {
    let durability = prop_oneof![Just(Durability::Buffered), Just(Durability::Synced)];
    prop_oneof![
        6 => (proptest::collection::vec(write_op(), 0..6), durability).prop_map(|(ops, durability)| Op::Write(ops, durability)),
        3 => key().prop_map(Op::Get),
        6 => scan().prop_map(Op::Scan),
        1 => Just(Op::Flush),
    ]
}

fn batch_of(ops: &[WriteOp]) -> WriteBatch {
    let mut batch = WriteBatch::new();
    for op in ops.iter().cloned() {
        match op {
            WriteOp::Put { key, value } => batch.put(key, value),
            WriteOp::Delete { key } => batch.delete(key),
            WriteOp::DeleteRange { from, to } => batch.delete_range(from, to),
        }
    }
    batch
}

fn apply(model: &mut Model, ops: &[WriteOp]) {
    for op in ops {
        match op {
            WriteOp::Put { key, value } => {
                model.insert(key.to_vec(), value.to_vec());
            }
            WriteOp::Delete { key } => {
                model.remove(key.as_ref());
            }
            WriteOp::DeleteRange { from, to } => {
                model.retain(|key, _| key.as_slice() < from.as_ref() || key.as_slice() >= to.as_ref())
            }
        }
    }
}

/// What the definition of a scan says, in the most literal way.
fn expected(model: &Model, scan: &Scan) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut visited = Vec::new();
    let mut steps = scan.steps.iter();
    let mut at = scan.from.clone();
    for (key, value) in model {
        if *key < at || (!scan.to.is_empty() && *key >= scan.to) {
            continue;
        }
        visited.push((key.clone(), value.clone()));
        match steps.next() {
            None | Some(Step::Next) => {}
            Some(Step::Seek(next)) => at = next.clone().max(at),
            Some(Step::Stop) => break,
        }
    }
    visited
}

fn scanned(kv: &dyn KvRead, scan: &Scan) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut visited = Vec::new();
    let mut steps = scan.steps.iter();
    kv.scan(&scan.from, &scan.to, &mut |key, value| {
        visited.push((key.to_vec(), value.to_vec()));
        steps.next().cloned().unwrap_or(Step::Next)
    })
    .unwrap();
    visited
}

fn whole(kv: &dyn KvRead) -> Model {
    scanned(kv, &Scan { from: vec![], to: vec![], steps: vec![] }).into_iter().collect()
}

/// Runs the operations on the store and on the model; both must agree all the way. Returns the final state.
fn check(kv: &dyn Kv, ops: &[Op]) -> Model {
    let mut model = Model::new();
    for op in ops {
        match op {
            Op::Write(ops, durability) => {
                let before = model.clone();
                let snapshot = kv.snapshot();
                kv.write(&batch_of(ops), *durability).unwrap();
                apply(&mut model, ops);
                assert_eq!(whole(&*snapshot), before, "a snapshot does not see later writes");
                assert_eq!(whole(kv.as_read()), model);
            }
            Op::Get(key) => {
                assert_eq!(kv.get(key).unwrap().as_deref(), model.get(key).map(Vec::as_slice));
                assert_eq!(kv.snapshot().get(key).unwrap().as_deref(), model.get(key).map(Vec::as_slice));
            }
            Op::Scan(scan) => {
                assert_eq!(scanned(kv.as_read(), scan), expected(&model, scan));
                assert_eq!(scanned(&*kv.snapshot(), scan), expected(&model, scan));
            }
            Op::Flush => kv.flush().unwrap(),
        }
    }
    model
}

fn small(wal: bool) -> RocksOptions {
    RocksOptions { wal, block_cache_bytes: 1 << 20, write_buffer_bytes: 1 << 20 }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn memory_behaves_like_a_map(ops in proptest::collection::vec(op(), 0..24)) {
        check(&MemoryKv::new(), &ops);
    }

    #[test]
    fn an_overlay_behaves_like_a_map(
        base in proptest::collection::vec(write_op(), 0..24),
        changes in proptest::collection::vec((key(), proptest::option::of(any::<u16>())), 0..24),
        scans in proptest::collection::vec(scan(), 1..8),
    ) {
        let (kv, mut model) = (MemoryKv::new(), Model::new());
        kv.write(&batch_of(&base), Durability::Buffered).unwrap();
        apply(&mut model, &base);
        let mut overlay = Overlay::new(&kv);
        for (key, value) in changes {
            match value {
                Some(value) => {
                    overlay.put(key.clone(), value.to_string());
                    model.insert(key, value.to_string().into());
                }
                None => {
                    overlay.delete(key.clone());
                    model.remove(&key);
                }
            }
        }
        for scan in &scans {
            prop_assert_eq!(scanned(&overlay, scan), expected(&model, scan));
            prop_assert_eq!(overlay.get(&scan.from).unwrap(), model.get(&scan.from).cloned().map(Bytes::from));
        }
        kv.write(&overlay.into_batch(b""), Durability::Buffered).unwrap();
        prop_assert_eq!(whole(&kv), model, "the batch does what the overlay showed");
    }

    #[test]
    fn a_prefix_behaves_like_a_map_of_its_own(prefix in key(), ops in proptest::collection::vec(write_op(), 0..40), scan in scan()) {
        let (kv, mut model) = (MemoryKv::new(), Model::new());
        kv.write(&batch_of(&ops), Durability::Buffered).unwrap();
        apply(&mut model, &ops);
        let inside: Model =
            model.iter().filter_map(|(key, value)| Some((key.strip_prefix(prefix.as_slice())?.to_vec(), value.clone()))).collect();
        let view = Prefixed::new(&kv, prefix);
        prop_assert_eq!(scanned(&view, &scan), expected(&inside, &scan));
        prop_assert_eq!(view.get(&scan.from).unwrap(), inside.get(&scan.from).cloned().map(Bytes::from));
    }

    #[test]
    fn a_crash_of_the_double_loses_a_suffix_of_what_was_not_synced(
        writes in proptest::collection::vec((proptest::collection::vec(write_op(), 1..4), any::<bool>()), 0..12),
        kept in 0..12usize,
    ) {
        let kv = MemoryKv::new();
        let mut states = vec![Model::new()];
        let mut synced = 0;
        for (ops, sync) in &writes {
            kv.write(&batch_of(ops), if *sync { Durability::Synced } else { Durability::Buffered }).unwrap();
            let mut next = states.last().unwrap().clone();
            apply(&mut next, ops);
            states.push(next);
            if *sync {
                synced = states.len() - 1;
            }
        }
        prop_assert_eq!(kv.unsynced_batches(), states.len() - 1 - synced);
        kv.crash_keeping(kept);
        prop_assert_eq!(whole(&kv), states[(synced + kept).min(states.len() - 1)].clone());
        kv.crash();
        prop_assert_eq!(kv.unsynced_batches(), 0);
    }
}

proptest! {
    // Each case opens a database twice.
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn rocks_behaves_like_a_map_and_so_does_what_it_left(ops in proptest::collection::vec(op(), 0..24), wal: bool) {
        let dir = tempfile::tempdir().unwrap();
        let kv = RocksKv::open(dir.path(), small(wal)).unwrap();
        let model = check(&kv, &ops);
        kv.flush().unwrap();
        drop(kv);
        prop_assert_eq!(whole(&RocksKv::open(dir.path(), small(wal)).unwrap()), model);
    }
}

/// A copy of a store's files as they are, which is what a kill leaves.
fn copy(from: &Path) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), dir.path().join(entry.file_name())).unwrap();
    }
    dir
}

fn file_with_ending(dir: &Path, ending: &str) -> PathBuf {
    let mut found: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.retain(|path| path.to_string_lossy().ends_with(ending) && fs::metadata(path).unwrap().len() > 0);
    found.sort();
    found.pop().expect("there is such a file")
}

fn put(kv: &dyn Kv, key: &str, durability: Durability) {
    let mut batch = WriteBatch::new();
    batch.put(key.to_owned(), vec![b'v'; 100]);
    kv.write(&batch, durability).unwrap();
}

#[test]
fn synced_writes_survive_a_kill_with_and_without_a_log() {
    for wal in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let kv = RocksKv::open(dir.path(), small(wal)).unwrap();
        put(&kv, "first", Durability::Buffered);
        put(&kv, "synced", Durability::Synced);
        let killed = copy(dir.path());
        let found = whole(&RocksKv::open(killed.path(), small(wal)).unwrap());
        assert!(found.contains_key(b"first".as_slice()) && found.contains_key(b"synced".as_slice()), "wal {wal}");
    }
}

#[test]
fn without_a_log_a_kill_loses_what_was_not_flushed() {
    let dir = tempfile::tempdir().unwrap();
    let kv = RocksKv::open(dir.path(), small(false)).unwrap();
    put(&kv, "flushed", Durability::Buffered);
    kv.flush().unwrap();
    put(&kv, "lost", Durability::Buffered);
    let killed = copy(dir.path());
    assert_eq!(whole(&RocksKv::open(killed.path(), small(false)).unwrap()).keys().collect::<Vec<_>>(), [b"flushed"]);
}

#[test]
fn a_log_cut_anywhere_opens_with_a_prefix_of_the_writes() {
    let dir = tempfile::tempdir().unwrap();
    let kv = RocksKv::open(dir.path(), small(true)).unwrap();
    let keys = ["a", "b", "c"];
    let lengths: Vec<u64> = keys
        .iter()
        .map(|key| {
            put(&kv, key, Durability::Synced);
            fs::metadata(file_with_ending(dir.path(), ".log")).unwrap().len()
        })
        .collect();
    let end = lengths[2];
    for cut in [lengths[0], lengths[0] + 3, lengths[1] - 1, lengths[1], lengths[1] + 7, lengths[1] + 50, end - 1, end] {
        let killed = copy(dir.path());
        OpenOptions::new().write(true).open(file_with_ending(killed.path(), ".log")).unwrap().set_len(cut).unwrap();
        let found = whole(&RocksKv::open(killed.path(), small(true)).unwrap());
        let whole_records = lengths.iter().filter(|length| **length <= cut).count();
        assert_eq!(found.len(), whole_records, "cut at {cut} of {lengths:?}");
        assert!(keys[..whole_records].iter().all(|key| found.contains_key(key.as_bytes())));
    }
}

/// Every byte of the log, each bit: lengths and kinds are damaged as well as payloads.
#[test]
fn a_damaged_record_refuses_to_open_be_it_the_last_one() {
    let dir = tempfile::tempdir().unwrap();
    let kv = RocksKv::open(dir.path(), small(true)).unwrap();
    let keys = ["a", "b", "c"];
    for key in keys {
        let mut batch = WriteBatch::new();
        batch.put(key, "value");
        kv.write(&batch, Durability::Synced).unwrap();
    }
    let log = file_with_ending(dir.path(), ".log");
    let end = fs::metadata(&log).unwrap().len();
    for (offset, bit) in (0..end).flat_map(|offset| (0..8).map(move |bit| (offset, bit))) {
        let damaged = copy(dir.path());
        flip(&file_with_ending(damaged.path(), ".log"), offset, bit);
        match RocksKv::open(damaged.path(), small(true)) {
            Err(KvError::Corrupt { detail }) => assert!(detail.contains(damaged.path().to_str().unwrap()), "{detail}"),
            Err(error) => panic!("bit {bit} of byte {offset}: {error}"),
            Ok(kv) => panic!("bit {bit} of byte {offset} of {end} was not noticed, found {:?}", whole(&kv).keys()),
        }
    }
}

#[test]
fn a_zeroed_sector_refuses_to_open_wherever_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let kv = RocksKv::open(dir.path(), small(true)).unwrap();
    // Several blocks of records, of lengths such that some begin with a sector.
    for number in 0..600 {
        let mut batch = WriteBatch::new();
        batch.put(format!("{number:04}"), vec![b'v'; number % 300]);
        kv.write(&batch, Durability::Synced).unwrap();
    }
    let log = file_with_ending(dir.path(), ".log");
    let end = fs::metadata(&log).unwrap().len();
    assert!(end > 3 * 32768, "{end}");
    for start in (0..end - 512).step_by(512) {
        let damaged = copy(dir.path());
        let file = OpenOptions::new().write(true).open(file_with_ending(damaged.path(), ".log")).unwrap();
        file.write_all_at(&[0; 512], start).unwrap();
        let error = RocksKv::open(damaged.path(), small(true)).err().unwrap_or_else(|| panic!("sector at {start} of {end}"));
        assert!(matches!(error, KvError::Corrupt { .. }), "{error}");
    }
}

#[test]
fn zeros_after_the_last_record_are_room_that_was_not_used() {
    let dir = tempfile::tempdir().unwrap();
    let kv = RocksKv::open(dir.path(), small(true)).unwrap();
    put(&kv, "a", Durability::Synced);
    let killed = copy(dir.path());
    OpenOptions::new().write(true).open(file_with_ending(killed.path(), ".log")).unwrap().set_len(100_000).unwrap();
    assert_eq!(whole(&RocksKv::open(killed.path(), small(true)).unwrap()).len(), 1);
}

#[test]
fn a_damaged_table_is_an_error_and_never_a_missing_key() {
    let dir = tempfile::tempdir().unwrap();
    let kv = RocksKv::open(dir.path(), small(false)).unwrap();
    for number in 0..400 {
        put(&kv, &format!("key {number:04}"), Durability::Buffered);
    }
    kv.flush().unwrap();
    let table = fs::metadata(file_with_ending(dir.path(), ".sst")).unwrap().len();
    let mut damage_seen = 0;
    for offset in (0..table).step_by(97) {
        let damaged = copy(dir.path());
        flip(&file_with_ending(damaged.path(), ".sst"), offset, 4);
        let read = RocksKv::open(damaged.path(), small(false)).and_then(|kv| {
            let mut keys = 0;
            kv.scan(b"", b"", &mut |_, _| {
                keys += 1;
                Step::Next
            })?;
            for number in 0..400 {
                let found = kv.get(format!("key {number:04}").as_bytes())?;
                assert_eq!(found.as_deref(), Some([b'v'; 100].as_slice()), "offset {offset}");
            }
            Ok(keys)
        });
        match read {
            // Some bytes of a table are of no consequence to reads, such as its statistics.
            Ok(keys) => assert_eq!(keys, 400, "offset {offset}"),
            Err(KvError::Corrupt { .. }) => damage_seen += 1,
            Err(error) => panic!("offset {offset}: {error}"),
        }
    }
    assert!(damage_seen > 0);
}

#[test]
fn a_missing_file_is_an_error_and_never_an_empty_store() {
    let dir = tempfile::tempdir().unwrap();
    let kv = RocksKv::open(dir.path(), small(true)).unwrap();
    put(&kv, "a", Durability::Synced);
    kv.flush().unwrap();
    put(&kv, "b", Durability::Synced);
    for missing in ["CURRENT", ".sst"] {
        let damaged = copy(dir.path());
        fs::remove_file(file_with_ending(damaged.path(), missing)).unwrap();
        let error = RocksKv::open(damaged.path(), small(true)).err().expect("a file is missing");
        assert!(matches!(error, KvError::Corrupt { .. }), "{missing}: {error}");
    }
}

#[test]
fn a_second_opener_is_told_that_the_store_is_in_use() {
    let dir = tempfile::tempdir().unwrap();
    let _held = RocksKv::open(dir.path(), small(true)).unwrap();
    let error = RocksKv::open(dir.path(), small(true)).err().expect("the store is in use").to_string();
    assert!(error.contains("is in use") && error.contains(dir.path().to_str().unwrap()), "{error}");
}

#[test]
fn a_failed_double_answers_nothing_until_it_crashed() {
    let kv = MemoryKv::new();
    put(&kv, "a", Durability::Synced);
    kv.fail();
    assert!(kv.get(b"a").is_err() && kv.flush().is_err() && kv.write(&WriteBatch::new(), Durability::Synced).is_err());
    kv.crash();
    assert!(kv.get(b"a").unwrap().is_some());
}

fn flip(path: &Path, offset: u64, bit: u8) {
    let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ (1 << bit)], offset).unwrap();
}
