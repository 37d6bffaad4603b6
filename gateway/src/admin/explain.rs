//! `/admin/v1/explain`: where an object is, why there, and what it could bear.

use std::collections::BTreeMap;

use gateway_s3::{S3Error, S3ErrorCode};
use placement_map::{ClusterMap, DiskState, NodeState};
use placement_types::{BucketName, ObjectKey};
use serde_json::{Value, json};
use storage_node_proto::command::Shelf;
use storage_node_proto::object::{ChunkEntry, Data, ObjectRecord, Version, VersionBody, VersionSelector};
use storage_node_proto::query::{Answer, ListItem, ListRange, Query};

use crate::error::Failure;
use crate::gateway::Gateway;
use crate::limits::{EXPLAIN_CHUNKS_MAX, EXPLAIN_VERSIONS_MAX};
use crate::records::shelf_of;
use crate::version_id;

/// Everything known about a key: its versions, newest first, and of each the shards of each chunk.
pub async fn explain(gw: &Gateway, bucket: &str, key: &str) -> Result<Value, Failure> {
    let invalid = |why: String| Failure::Refused(S3Error::with_message(S3ErrorCode::InvalidArgument, why));
    let name = BucketName::parse(bucket).map_err(|error| invalid(error.to_string()))?;
    let key = ObjectKey::parse(key).map_err(|error| invalid(error.to_string()))?;
    let map = gw.maps.borrow().clone().ok_or_else(|| Failure::Refused(S3Error::unavailable()))?;
    let bucket = gw.buckets.fresh(&name).await?;
    let shelf = shelf_of(&bucket, &key);
    let group = map.group_of(shelf.slot());
    let mut chunks_left = EXPLAIN_CHUNKS_MAX;
    let mut versions = Vec::new();
    for (version, latest) in versions_of(gw, shelf, &key).await? {
        let (kind, data) = match &version.body {
            VersionBody::DeleteMarker => ("delete marker", Value::Null),
            VersionBody::Object(record) => ("object", data_of(gw, &map, shelf, &key, record, &mut chunks_left).await?),
        };
        versions.push(json!({
            "version_id": version_id::text(version.id),
            "latest": latest,
            "kind": kind,
            "modified_ms": version.modified.as_millis(),
            "data": data,
        }));
    }
    if versions.is_empty() {
        return Err(Failure::NoSuchKey { marker: None });
    }
    Ok(json!({
        "bucket": name.as_str(),
        "bucket_id": bucket.id.to_string(),
        "key": key.as_str(),
        "index_shard": shelf.index_shard,
        "slot": shelf.slot().0,
        "group": group.0,
        "group_leader": gw.router.leader(group).map(|node| node.to_string()),
        "versions": versions,
    }))
}

/// Up to [`EXPLAIN_VERSIONS_MAX`] versions of exactly this key. A listing leaves out where the data is, so each is asked for.
async fn versions_of(gw: &Gateway, shelf: Shelf, key: &ObjectKey) -> Result<Vec<(Version, bool)>, Failure> {
    let prefix = bytes::Bytes::copy_from_slice(key.as_bytes());
    let list = ListRange { prefix, limit: EXPLAIN_VERSIONS_MAX, ..ListRange::default() };
    let listed = match gw.router.query(shelf, Query::ListVersions { shelf, list, version_marker: None }).await? {
        Answer::Versions { items, .. } => items,
        other => return Err(Failure::of_answer("list versions", other)),
    };
    let mut versions = Vec::new();
    for item in listed {
        let ListItem::Entry { key: found, value: (version, latest) } = item else { continue };
        if found != *key {
            continue;
        }
        let query = Query::Version { shelf, key: key.clone(), selector: VersionSelector::Exact(version.id) };
        match gw.router.query(shelf, query).await? {
            Answer::Version { version, .. } => versions.push((version, latest)),
            // Deleted since it was listed.
            Answer::NoSuchVersion | Answer::NoSuchKey { .. } => {}
            other => return Err(Failure::of_answer("version", other)),
        }
    }
    Ok(versions)
}

async fn data_of(
    gw: &Gateway,
    map: &ClusterMap,
    shelf: Shelf,
    key: &ObjectKey,
    record: &ObjectRecord,
    chunks_left: &mut usize,
) -> Result<Value, Failure> {
    let mut records = Vec::new();
    let mut omitted = 0usize;
    for data in &record.data {
        if *chunks_left == 0 {
            omitted += 1;
            continue;
        }
        let query = Query::Data { shelf, key: key.clone(), txns: vec![data.txn] };
        let found = match gw.router.query(shelf, query).await? {
            Answer::Data { records } => records.into_iter().next().flatten(),
            other => return Err(Failure::of_answer("data", other)),
        };
        records.push(match found {
            None => json!({ "txn": data.txn.to_string(), "bytes": data.bytes, "placed": "nowhere: the record was collected" }),
            Some(Data::Inline(content)) => {
                json!({ "txn": data.txn.to_string(), "bytes": content.len(), "placed": "inline in the metadata entry, on every replica of its group" })
            }
            Some(Data::Chunks(entries)) => {
                let shown = entries.len().min(*chunks_left);
                *chunks_left -= shown;
                let chunks: Vec<Value> = entries[..shown].iter().map(|entry| chunk(map, entry)).collect();
                json!({
                    "txn": data.txn.to_string(),
                    "bytes": data.bytes,
                    "chunks": chunks,
                    "chunks_omitted": entries.len() - shown,
                })
            }
        });
    }
    Ok(json!({ "bytes": record.bytes, "etag": record.etag, "records": records, "records_omitted": omitted }))
}

fn chunk(map: &ClusterMap, entry: &ChunkEntry) -> Value {
    let row = map.ring.row(entry.chunk);
    let mut by_node = BTreeMap::new();
    let mut by_zone = BTreeMap::new();
    let mut readable = 0usize;
    let shards: Vec<Value> = entry
        .shards
        .iter()
        .enumerate()
        .map(|(slot, disk)| {
            let Some(disk) = disk else {
                return json!({ "slot": slot, "disk": Value::Null, "why": "not written yet: repair owes it" });
            };
            let node = map.node_of_disk(*disk);
            let state = map.disks.get(disk).map(|disk| disk.state);
            let up = node.is_some_and(|node| node.state == NodeState::Up)
                && matches!(state, Some(DiskState::Good | DiskState::ReadOnly));
            if let (true, Some(node)) = (up, node) {
                readable += 1;
                *by_node.entry(node.id).or_insert(0usize) += 1;
                *by_zone.entry(node.zone.clone()).or_insert(0usize) += 1;
            }
            json!({
                "slot": slot,
                "kind": if slot < entry.profile.data() { "data" } else { "parity" },
                "disk": disk.to_string(),
                "node": node.map(|node| node.id.to_string()),
                "zone": node.map(|node| node.zone.as_str().to_owned()),
                "readable": up,
                "why": if row.get(slot) == Some(disk) {
                    "the ring's row names it"
                } else {
                    "written around a disk that was down, or the ring has changed since"
                },
            })
        })
        .collect();
    let needed = entry.profile.data();
    json!({
        "chunk": entry.chunk.to_string(),
        "bytes": entry.bytes,
        "profile": entry.profile.to_string(),
        "shards": shards,
        "readable_shards": readable,
        "needed_shards": needed,
        "readable": readable >= needed,
        "may_be_lost": {
            "disks": readable.saturating_sub(needed),
            "nodes": losses_borne(by_node.into_values(), readable, needed),
            "zones": losses_borne(by_zone.into_values(), readable, needed),
        },
    })
}

/// How many failure domains may be lost, whichever they are, before fewer than `needed` shards are left.
fn losses_borne(shards_per_domain: impl Iterator<Item = usize>, readable: usize, needed: usize) -> usize {
    let mut counts: Vec<usize> = shards_per_domain.collect();
    counts.sort_unstable_by(|a, b| b.cmp(a));
    let mut left = readable;
    counts
        .into_iter()
        .take_while(|count| {
            left = left.saturating_sub(*count);
            left >= needed
        })
        .count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_domains_are_lost_first() {
        let check = |counts: &[usize], needed, expected| {
            let readable = counts.iter().sum();
            assert_eq!(losses_borne(counts.iter().copied(), readable, needed), expected, "{counts:?} of {needed}");
        };
        check(&[1, 1, 1, 1, 1, 1], 4, 2);
        check(&[2, 2, 2], 4, 1);
        check(&[3, 1, 1, 1], 4, 0);
        check(&[1], 1, 0);
        check(&[1, 1, 1], 4, 0);
    }
}
