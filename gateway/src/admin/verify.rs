//! `/admin/v1/verify`: reads every shard of a stretch of a bucket and tells what is not as the manifests say.
//!
//! A bucket may be large and an object too, so an answer covers what can be read within [`VERIFY_PAGE_TIME`], and says where to
//! go on: after a version, or inside one, at a chunk. Nothing is remembered here between two pages.
//!
//! What changes while it is read is not held against anybody: what looks bad is looked up once more, and is bad only if the
//! manifest still says the same.

use std::time::Duration;

use futures::future::join_all;
use gateway_s3::{S3Error, S3ErrorCode};
use placement_map::ClusterMap;
use placement_types::{BucketName, ObjectKey, TxnId};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use storage_node_proto::command::Shelf;
use storage_node_proto::damage::{ChunkVerdict, ContentVerdict, ShardVerdict};
use storage_node_proto::object::{ChunkEntry, Data, ObjectRecord, Version, VersionBody, VersionSelector};
use storage_node_proto::query::{Answer, ListItem, Query};

use crate::error::Failure;
use crate::gateway::Gateway;
use crate::limits::{VERIFY_CHUNKS_AT_ONCE, VERIFY_NODES_MAX, VERIFY_PAGE_TIME, VERIFY_PAGE_VERSIONS};
use crate::listing::{self, Cursor, Versions};
use crate::records::shelves;
use crate::version_id;

#[derive(Debug, Deserialize)]
pub struct VerifyQuery {
    bucket: String,
    #[serde(default)]
    prefix: String,
    /// What the page before said under `next`.
    next: Option<String>,
}

/// Where a verification goes on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Place {
    key: String,
    version: String,
    /// The record and the chunk in it to begin with; `None` when the version is done.
    inside: Option<(usize, usize)>,
}

/// Verifies a page.
pub async fn verify(gw: &Gateway, query: &VerifyQuery) -> Result<Value, Failure> {
    let name = BucketName::parse(&query.bucket).map_err(|error| invalid(error.to_string()))?;
    let from: Option<Place> = match &query.next {
        Some(next) => Some(serde_json::from_str(next).map_err(|_| invalid("That is not where a page ended.".into()))?),
        None => None,
    };
    let map = gw.maps.borrow().clone().ok_or_else(|| Failure::Refused(S3Error::unavailable()))?;
    let bucket = gw.buckets.fresh(&name).await?;
    let mut page = Page { gw, map: &map, until: gw.env.monotonic() + VERIFY_PAGE_TIME, verified: Vec::new(), bad: Vec::new() };
    let shelf_of = |key: &ObjectKey| crate::records::shelf_of(&bucket, key);

    let mut next = None;
    if let Some(Place { key, version, inside: Some(inside) }) = &from {
        let key = ObjectKey::parse(key).map_err(|error| invalid(error.to_string()))?;
        next = page.version(shelf_of(&key), &key, version_id::parse(version)?, *inside).await?;
    }
    if next.is_none() {
        let cursor = match &from {
            Some(place) => {
                let version = Some(version_id::parse(&place.version)?);
                Cursor { after: place.key.clone().into(), version, ..Cursor::default() }
            }
            None => Cursor::default(),
        };
        let listed = Versions { prefix: query.prefix.clone().into() };
        let sources = shelves(&bucket).map(|shelf| (shelf, cursor.clone()));
        let listing = listing::list(&gw.router, sources, &listed, VERIFY_PAGE_VERSIONS).await?;
        let mut more = listing.more;
        for item in listing.items {
            let ListItem::Entry { key, value: (version, _) } = item else { continue };
            let place = |inside| Place { key: key.as_str().to_owned(), version: version_id::text(version.id), inside };
            next = page.version(shelf_of(&key), &key, version.id, (0, 0)).await?;
            if next.is_some() || page.is_over() {
                more = true;
                next = next.or_else(|| Some(place(None)));
                break;
            }
            if more {
                // Where the next page begins if this is the last of the listing.
                next = Some(place(None));
            }
        }
        if !more {
            next = None;
        } else if next.is_none() {
            return Err(Failure::UnfitAnswer { to: "list versions", answer: "no items, and more of them".into() });
        }
    }
    let next = next.map(|next| serde_json::to_string(&next).expect("a place is plain data"));
    Ok(json!({
        "cluster": map.cluster.to_string(),
        "bucket": name.as_str(),
        "verified": page.verified,
        "bad": page.bad,
        "next": next,
    }))
}

fn invalid(why: String) -> Failure {
    Failure::Refused(S3Error::with_message(S3ErrorCode::InvalidArgument, why))
}

struct Page<'a> {
    gw: &'a Gateway,
    map: &'a ClusterMap,
    /// On the monotonic clock.
    until: Duration,
    /// Versions that were read to their end.
    verified: Vec<Value>,
    bad: Vec<Value>,
}

impl Page<'_> {
    fn is_over(&self) -> bool {
        self.gw.env.monotonic() >= self.until
    }

    /// Reads a version from a place in it on. Returns where to go on when the time is over before its end.
    async fn version(
        &mut self,
        shelf: Shelf,
        key: &ObjectKey,
        id: storage_node_proto::object::VersionId,
        from: (usize, usize),
    ) -> Result<Option<Place>, Failure> {
        let query = Query::Version { shelf, key: key.clone(), selector: VersionSelector::Exact(id) };
        let version = match self.gw.router.query(shelf, query).await? {
            Answer::Version { version, .. } => version,
            // Deleted since it was listed.
            Answer::NoSuchVersion | Answer::NoSuchKey { .. } => return Ok(None),
            other => return Err(Failure::of_answer("version", other)),
        };
        if let VersionBody::Object(record) = &version.body
            && let Some(inside) = self.object(shelf, key, &version, record, from).await?
        {
            return Ok(Some(Place { key: key.as_str().to_owned(), version: version_id::text(id), inside: Some(inside) }));
        }
        self.verified.push(verified(key, &version));
        Ok(None)
    }

    async fn object(
        &mut self,
        shelf: Shelf,
        key: &ObjectKey,
        version: &Version,
        object: &ObjectRecord,
        from: (usize, usize),
    ) -> Result<Option<(usize, usize)>, Failure> {
        let place = json!({ "key": key.as_str(), "version_id": version_id::text(version.id) });
        if object.data.iter().map(|data| data.bytes).sum::<u64>() != object.bytes {
            self.bad
                .push(with(&place, json!({ "what": "object", "state": "wrong", "why": "its records are not as long as it is" })));
        }
        for (record, data) in object.data.iter().enumerate().skip(from.0) {
            let Some(found) = data_record(self.gw, shelf, key, data.txn).await? else {
                // Overwritten, or deleted, since it was listed; else something is wrong.
                if !self.is_gone(shelf, key, version).await? {
                    self.bad
                        .push(with(&place, json!({ "what": "object", "state": "lost", "why": "a data record is not there" })));
                }
                return Ok(None);
            };
            if found.bytes() != data.bytes {
                self.bad
                    .push(with(&place, json!({ "what": "object", "state": "wrong", "why": "a data record has another length" })));
            }
            let Data::Chunks(entries) = found else { continue };
            let mut chunk = if record == from.0 { from.1 } else { 0 };
            while chunk < entries.len() {
                let end = entries.len().min(chunk + VERIFY_CHUNKS_AT_ONCE);
                let batch = (chunk..end).map(|number| self.chunk(shelf, key, data.txn, number, &entries[number]));
                let verdicts = join_all(batch).await;
                for (number, entry, verdict) in verdicts.into_iter().flatten() {
                    let place = with(&place, json!({ "record": record, "chunk": number, "chunk_id": entry.chunk.to_string() }));
                    self.tell(&place, &entry, verdict);
                }
                chunk = end;
                let more = chunk < entries.len() || record + 1 < object.data.len();
                if more && self.is_over() {
                    return Ok(Some(if chunk < entries.len() { (record, chunk) } else { (record + 1, 0) }));
                }
            }
        }
        Ok(None)
    }

    /// How a chunk was found; `None` when it is not there any more, which is nobody's fault.
    async fn chunk(
        &self,
        shelf: Shelf,
        key: &ObjectKey,
        txn: TxnId,
        number: usize,
        entry: &ChunkEntry,
    ) -> Option<(usize, ChunkEntry, Result<ChunkVerdict, String>)> {
        let verdict = self.ask(entry).await;
        if verdict.as_ref().is_ok_and(is_whole) {
            return Some((number, entry.clone(), verdict));
        }
        match data_record(self.gw, shelf, key, txn).await {
            Ok(Some(Data::Chunks(entries))) => match entries.into_iter().nth(number) {
                // Repaired or moved in the meantime: what it is now counts.
                Some(now) if now != *entry => {
                    let verdict = self.ask(&now).await;
                    Some((number, now, verdict))
                }
                _ => Some((number, entry.clone(), verdict)),
            },
            Ok(_) => None,
            Err(_) => Some((number, entry.clone(), verdict)),
        }
    }

    async fn ask(&self, entry: &ChunkEntry) -> Result<ChunkVerdict, String> {
        let mut why = "no node is known that could read it".to_owned();
        for node in self.gw.writer.coordinators().to_read(self.map, entry).into_iter().take(VERIFY_NODES_MAX) {
            let Some(node) = self.gw.nodes.node(node) else { continue };
            match node.verify_chunk(entry.clone()).await {
                Ok(verdict) => return Ok(verdict),
                Err(error) => why = error.to_string(),
            }
        }
        Err(why)
    }

    fn tell(&mut self, place: &Value, entry: &ChunkEntry, verdict: Result<ChunkVerdict, String>) {
        let verdict = match verdict {
            Ok(verdict) if verdict.shards.len() == entry.shards.len() => verdict,
            Ok(_) => return self.bad.push(with(place, json!({ "what": "chunk", "state": "unknown", "why": "a wrong answer" }))),
            Err(why) => return self.bad.push(with(place, json!({ "what": "chunk", "state": "unknown", "why": why }))),
        };
        let whole = verdict.shards.iter().filter(|shard| **shard == ShardVerdict::Whole).count();
        // How many more whole shards may be lost; below zero the chunk is read from what is left of damaged ones, if at all.
        let spare = whole as i64 - entry.profile.data() as i64;
        let content = match verdict.content {
            ContentVerdict::Right => None,
            ContentVerdict::Wrong => Some(("wrong", "its bytes have another hash than the manifest says")),
            ContentVerdict::Lost => Some(("lost", "fewer shards are left than it takes to read it")),
            ContentVerdict::Unknown => Some(("unknown", "too few disks answer")),
        };
        if let Some((state, why)) = content {
            self.bad.push(with(place, json!({ "what": "chunk", "state": state, "why": why, "may_be_lost": spare })));
        }
        for (slot, (disk, shard)) in entry.shards.iter().zip(verdict.shards).enumerate() {
            let (state, why) = match shard {
                ShardVerdict::Whole => continue,
                ShardVerdict::Owed => ("owed", "no disk has it yet".to_owned()),
                ShardVerdict::Missing => ("missing", "its disk has not got it".to_owned()),
                ShardVerdict::Corrupt { why } => ("corrupt", why),
                ShardVerdict::Unknown { why } => ("unknown", why),
            };
            let node = disk.and_then(|disk| self.map.node_of_disk(disk)).map(|node| node.id.to_string());
            self.bad.push(with(
                place,
                json!({
                    "what": "shard",
                    "slot": slot,
                    "kind": if slot < entry.profile.data() { "data" } else { "parity" },
                    "disk": disk.map(|disk| disk.to_string()),
                    "node": node,
                    "state": state,
                    "why": why,
                    "may_be_lost": spare,
                }),
            ));
        }
    }

    async fn is_gone(&self, shelf: Shelf, key: &ObjectKey, version: &Version) -> Result<bool, Failure> {
        let query = Query::Version { shelf, key: key.clone(), selector: VersionSelector::Exact(version.id) };
        match self.gw.router.query(shelf, query).await? {
            Answer::Version { version: now, .. } => Ok(now.txn != version.txn),
            Answer::NoSuchVersion | Answer::NoSuchKey { .. } => Ok(true),
            other => Err(Failure::of_answer("version", other)),
        }
    }
}

fn is_whole(verdict: &ChunkVerdict) -> bool {
    verdict.content == ContentVerdict::Right && verdict.shards.iter().all(|shard| *shard == ShardVerdict::Whole)
}

async fn data_record(gw: &Gateway, shelf: Shelf, key: &ObjectKey, txn: TxnId) -> Result<Option<Data>, Failure> {
    match gw.router.query(shelf, Query::Data { shelf, key: key.clone(), txns: vec![txn] }).await? {
        Answer::Data { records } => Ok(records.into_iter().next().flatten()),
        other => Err(Failure::of_answer("data", other)),
    }
}

/// What a version is by its record: what the summary is made from.
fn verified(key: &ObjectKey, version: &Version) -> Value {
    let (kind, bytes, etag) = match &version.body {
        VersionBody::DeleteMarker => ("delete marker", 0, ""),
        VersionBody::Object(record) => ("object", record.bytes, record.etag.as_str()),
    };
    json!({
        "key": key.as_str(),
        "version_id": version_id::text(version.id),
        "kind": kind,
        "bytes": bytes,
        "etag": etag,
        "modified_ms": version.modified.as_millis(),
    })
}

fn with(place: &Value, more: Value) -> Value {
    let mut all = place.clone();
    if let (Value::Object(all), Value::Object(more)) = (&mut all, more) {
        all.extend(more);
    }
    all
}
