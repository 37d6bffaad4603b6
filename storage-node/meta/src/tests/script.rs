//! The language of the golden scripts: a command or query per line, `verb arguments name=value ...`.
//!
//! Ids are small numbers: `t1` a transaction, `c1` a chunk, `d1` a disk, `u1` an upload; `@1000` is a time in milliseconds.
//!
//! ```text
//! put a t1 @1000 enabled if=absent etag=e1 inline=hello      chunks=c1:100:1.2.3.-  (2+2; a dash is a missing shard)
//! delete a t1 @1000 suspended version=null                   version=4-1            (sequence and salt)
//! recode a t2 @2000 owner=t1 from=c1:100:1.2.3.4 to=c2:100:1.2.3             (2+1)
//! complete a t1 @1000 u1 parts=1:t2:5,3:t4:7
//! ? version a version=4-1
//! ```

use std::collections::BTreeMap;

use bytes::Bytes;
use placement_types::{DiskId, ObjectKey, Timestamp, TxnId, UploadId};
use storage_node_proto::command::{Change, Command, WriteCondition};
use storage_node_proto::object::{
    ChunkEntry, Data, DataRef, ObjectAttributes, ObjectRecord, PartSummary, Upload, VersionId, VersionSelector, Versioning,
};
use storage_node_proto::query::{ListRange, Query};

use super::replica::{chunk, chunk_id, disk, key, record, shelf, time, txn};

pub(super) enum Line {
    Command(Box<Command>),
    Query(Box<Query>),
}

pub(super) fn parse(line: &str) -> Line {
    match line.strip_prefix("? ") {
        Some(query) => Line::Query(Box::new(Words::split(query).query())),
        None => Line::Command(Box::new(Words::split(line).command())),
    }
}

/// A line's words: the verb, those that stand alone, and the named ones.
struct Words<'a> {
    line: &'a str,
    verb: &'a str,
    alone: Vec<&'a str>,
    named: BTreeMap<&'a str, &'a str>,
}

impl<'a> Words<'a> {
    fn split(line: &'a str) -> Self {
        let mut words = line.split_whitespace();
        let verb = words.next().expect("a line has a verb");
        let (named, alone): (Vec<&str>, Vec<&str>) = words.partition(|word| word.contains('='));
        let named = named.into_iter().filter_map(|word| word.split_once('=')).collect();
        Self { line, verb, alone, named }
    }

    fn command(&self) -> Command {
        let shelf = shelf();
        let change = match self.verb {
            "put" => {
                let data = self.data();
                let record = record(self.txn(), self.named("etag").unwrap_or("e"), data.as_ref());
                let (key, versioning, condition) = (self.key(), self.versioning(), self.condition());
                Change::Put { shelf, key, versioning, condition, record, data }
            }
            "delete" => {
                let (key, versioning, condition, selector) = (self.key(), self.versioning(), self.condition(), self.selector());
                Change::Delete { shelf, key, versioning, condition, selector }
            }
            "set-attributes" => {
                let tags = vec![("tag".to_owned(), self.named("tag").unwrap_or("").to_owned())];
                let attributes = ObjectAttributes { tags, ..ObjectAttributes::default() };
                let (key, selector, written_by) = (self.key(), self.selector(), txn(self.number("written-by", 't')));
                Change::SetAttributes { shelf, key, selector, written_by, attributes }
            }
            "create-upload" => {
                let attributes = ObjectAttributes { storage_class: "STANDARD".into(), ..ObjectAttributes::default() };
                let upload = Upload { id: self.upload(), initiated: self.time(), attributes, checksum: None };
                Change::CreateUpload { shelf, key: self.key(), upload }
            }
            "put-part" => {
                let number = self.named("number").expect("a number").parse().expect("a part number");
                let (key, upload, data) = (self.key(), self.upload(), self.data());
                Change::PutPart { shelf, key, upload, number, md5: [0; 16], checksum: None, data }
            }
            "complete" => {
                let (key, upload, versioning, condition) = (self.key(), self.upload(), self.versioning(), self.condition());
                Change::CompleteUpload { shelf, key, upload, versioning, condition, record: self.part_list() }
            }
            "abort-upload" => Change::AbortUpload { shelf, key: self.key(), upload: self.upload() },
            "fence" => Change::FenceShelf { shelf },
            "unfence" => Change::UnfenceShelf { shelf },
            "purge" => Change::PurgeShelf { shelf },
            "abort-txns" => Change::AbortTxns { txns: self.txns() },
            "finish-gc" => {
                let chunks = self.named("chunks").expect("chunks").split(',').map(|one| chunk_id(id('c', one))).collect();
                Change::FinishGc { chunks, before: time(self.number("before", '@')) }
            }
            "move" => {
                let side = |name| self.named(name).filter(|one| *one != "-").map(|one| -> DiskId { disk(id('d', one)) });
                let index = self.named("slot").expect("a slot").parse().expect("a slot's number");
                let (owner, chunk) = (txn(self.number("owner", 't')), chunk_id(self.number("chunk", 'c')));
                Change::MoveShard { shelf, key: self.key(), owner, chunk, index, from: side("from"), to: side("to") }
            }
            "recode" => {
                let (owner, [from, to]) = (txn(self.number("owner", 't')), ["from", "to"].map(|name| self.chunk(name)));
                Change::Recode { shelf, key: self.key(), owner, from, to }
            }
            "forget" => Change::Forget { before: time(self.number("before", '@')) },
            "nothing" => Change::Nothing {},
            other => panic!("no such command: {other}"),
        };
        Command { txn: self.txn(), time: self.time(), change }
    }

    fn query(&self) -> Query {
        let shelf = shelf();
        let list = ListRange { limit: 100, ..ListRange::default() };
        let before = || time(self.number("before", '@'));
        match self.verb {
            "version" => Query::Version { shelf, key: self.key(), selector: self.selector() },
            "data" => Query::Data { shelf, key: self.key(), txns: self.txns() },
            "objects" => Query::ListObjects { shelf, list },
            "versions" => Query::ListVersions { shelf, list, version_marker: None },
            "uploads" => Query::ListUploads { shelf, list, upload_marker: None },
            "upload" => Query::Upload { shelf, key: self.key(), upload: self.upload() },
            "completed" => Query::CompletedUpload { shelf, key: self.key(), upload: self.upload() },
            "parts" => Query::ListParts { shelf, key: self.key(), upload: self.upload(), after: 0, limit: 100 },
            "garbage" => Query::Garbage { before: before(), after: None, limit: 100 },
            "degraded" => Query::Degraded { after: None, limit: 100 },
            "referenced" => Query::Referenced { txns: self.txns() },
            other => panic!("no such query: {other}"),
        }
    }

    fn named(&self, name: &str) -> Option<&'a str> {
        self.named.get(name).copied()
    }

    fn number(&self, name: &str, kind: char) -> u64 {
        id(kind, self.named(name).unwrap_or_else(|| panic!("{name} is missing in: {}", self.line)))
    }

    /// The first word that stands alone and is this kind of id.
    fn id(&self, kind: char) -> u64 {
        let is_id = |word: &&&str| word.strip_prefix(kind).is_some_and(|digits| digits.parse::<u64>().is_ok());
        id(kind, self.alone.iter().find(is_id).unwrap_or_else(|| panic!("no {kind} in: {}", self.line)))
    }

    fn key(&self) -> ObjectKey {
        key(self.alone.first().expect("a key"))
    }

    fn txn(&self) -> TxnId {
        txn(self.id('t'))
    }

    fn txns(&self) -> Vec<TxnId> {
        self.named("txns").expect("txns").split(',').map(|one| txn(id('t', one))).collect()
    }

    fn time(&self) -> Timestamp {
        time(self.id('@'))
    }

    fn upload(&self) -> UploadId {
        UploadId::from_u128(u128::from(self.id('u')))
    }

    fn versioning(&self) -> Versioning {
        match (self.alone.contains(&"enabled"), self.alone.contains(&"suspended")) {
            (true, _) => Versioning::Enabled,
            (_, true) => Versioning::Suspended,
            _ => Versioning::Unversioned,
        }
    }

    fn condition(&self) -> WriteCondition {
        match self.named("if") {
            None => WriteCondition::None,
            Some("absent") => WriteCondition::Absent,
            Some("present") => WriteCondition::Present,
            Some(etag) => WriteCondition::ETag { etag: etag.to_owned() },
        }
    }

    fn selector(&self) -> VersionSelector {
        match self.named("version") {
            None => VersionSelector::Current,
            Some("null") => VersionSelector::Exact(VersionId::Null),
            Some(id) => {
                let (sequence, salt) = id.split_once('-').expect("sequence-salt");
                let number = |text: &str| text.parse().expect("a number");
                VersionSelector::Exact(VersionId::Id { sequence: number(sequence), salt: number(salt) })
            }
        }
    }

    fn data(&self) -> Option<Data> {
        if let Some(text) = self.named("inline") {
            return Some(Data::Inline(Bytes::copy_from_slice(text.as_bytes())));
        }
        self.named("chunks").map(|chunks| Data::Chunks(chunks.split(',').map(chunk_of).collect()))
    }

    fn chunk(&self, name: &str) -> ChunkEntry {
        chunk_of(self.named(name).unwrap_or_else(|| panic!("{name} is missing in: {}", self.line)))
    }

    fn part_list(&self) -> ObjectRecord {
        let (mut parts, mut data) = (Vec::new(), Vec::new());
        for part in self.named("parts").expect("parts").split(',') {
            let fields: Vec<&str> = part.split(':').collect();
            let bytes = fields[2].parse().expect("a part's bytes");
            parts.push(PartSummary { number: fields[0].parse().expect("a part number"), bytes, checksum: None });
            data.push(DataRef { txn: txn(id('t', fields[1])), bytes });
        }
        let bytes = data.iter().map(|data| data.bytes).sum();
        ObjectRecord { bytes, parts, data, ..record(self.txn(), self.named("etag").unwrap_or("e-2"), None) }
    }
}

/// `c1:100:1.2.3.-`, or `c1:100:1.2.3` for one that is coded 2+1.
fn chunk_of(text: &str) -> ChunkEntry {
    let fields: Vec<&str> = text.split(':').collect();
    let disks = || fields[2].split('.').map(|disk| if disk == "-" { 0 } else { disk.parse().expect("a disk") });
    let bytes = fields[1].parse().expect("a chunk's bytes");
    let mut four = disks().chain([0]);
    let mut entry = chunk(id('c', fields[0]), bytes, std::array::from_fn(|_| four.next().expect("three disks or four")));
    if disks().count() == 3 {
        entry.profile = "2+1".parse().expect("a legal profile");
        entry.shards.truncate(3);
    }
    entry
}

fn id(kind: char, text: &str) -> u64 {
    text.strip_prefix(kind).and_then(|digits| digits.parse().ok()).unwrap_or_else(|| panic!("not {kind} and a number: {text}"))
}

/// A debug text with the scripts' names for ids, and without what is the same everywhere.
pub(super) fn shorten(text: &str) -> String {
    let mut short = String::new();
    let mut rest = text;
    let kinds = [("TxnId(", 't'), ("ChunkId(", 'c'), ("DiskId(", 'd'), ("UploadId(", 'u'), ("BucketId(", 'b')];
    while let Some((at, name, kind)) = kinds.iter().filter_map(|(name, kind)| Some((rest.find(name)?, *name, *kind))).min() {
        short.push_str(&rest[..at]);
        let digits = &rest[at + name.len()..][..32];
        // The lower half: transactions have their number in both.
        let number = u64::from_str_radix(&digits[16..], 16).expect("an id is 32 hexadecimal digits");
        short.push(kind);
        short.push_str(&number.to_string());
        rest = &rest[at + name.len() + 33..];
    }
    short.push_str(rest);
    let hash = format!(", hash: {:?}", [7u8; 32]);
    let md5 = format!(", md5: {:?}", [0u8; 16]);
    let attributes = format!(", attributes: {:?}", ObjectAttributes::default());
    let shelf = shorten_shelf();
    for same in
        [hash.as_str(), &md5, &attributes, ", checksum: None", ", parts: []", &shelf, ", profile: Profile { data: 2, parity: 2 }"]
    {
        short = short.replace(same, "");
    }
    for (long, name) in [("Timestamp(", "@("), ("ObjectAttributes ", ""), ("headers: [], metadata: [], ", "")] {
        short = short.replace(long, name);
    }
    short
}

fn shorten_shelf() -> String {
    format!("shelf: Shelf {{ bucket: b{}, index_shard: {} }}, ", 0xb0, shelf().index_shard)
}
