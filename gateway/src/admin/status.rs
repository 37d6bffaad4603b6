//! `/admin/v1/status`: what the cluster consists of and how it is.

use futures::{StreamExt as _, stream};
use placement_map::{ClusterMap, DiskRole, DiskState, NodeState};
use placement_types::{GroupId, NodeId};
use serde_json::{Value, json};
use storage_node_proto::api::{DiskHealth, DiskReport};
use storage_node_proto::query::Query;
use storage_node_proto::upkeep::ScrubTally;

use crate::admin::upkeep;
use crate::gateway::Gateway;
use crate::limits::READY_DEADLINE;

pub async fn status(gw: &Gateway) -> Value {
    let Some(map) = gw.maps.borrow().clone() else {
        return json!({ "formed": false });
    };
    let nodes = stream::iter(map.nodes.keys().copied().collect::<Vec<_>>())
        .map(|node| node_status(gw, &map, node))
        .buffered(32)
        .collect::<Vec<_>>();
    let groups = stream::iter(map.metadata_groups().collect::<Vec<_>>())
        .map(|group| group_status(gw, &map, group))
        .buffered(64)
        .collect::<Vec<_>>();
    let (mut nodes, groups, upkeep) = futures::join!(nodes, groups, upkeep::gather(gw, &map));
    for (id, node) in map.nodes.keys().zip(&mut nodes) {
        let age = upkeep.system_copy_age(*id, gw.env.now());
        node.json["system_copy_age_seconds"] = json!(age.map(|age| age.as_secs()));
    }
    let drained = upkeep.is_drained(&map);
    let disks = nodes.iter_mut().filter_map(|node| node.json["disks"].as_array_mut()).flatten();
    disks.filter(|disk| drained && disk["role"] == "draining").for_each(|disk| disk["role"] = json!("drained"));
    let sum = |field: fn(&NodeStatus) -> u64| nodes.iter().map(field).sum::<u64>();
    let writable = map.disks.keys().filter(|disk| map.takes_shards(**disk)).count();
    json!({
        "formed": true,
        "cluster": map.cluster.to_string(),
        "epoch": map.epoch.0,
        "profile": map.profile.to_string(),
        "redundancy": redundancy(&map),
        "capacity": {
            "total_bytes": sum(|node| node.total_bytes),
            "available_bytes": sum(|node| node.available_bytes),
            "shard_bytes": sum(|node| node.shard_bytes),
            // Of what is available, this much is left for objects once parity is paid for.
            "available_object_bytes":
                (u128::from(sum(|node| node.available_bytes)) * map.profile.data() as u128 / map.profile.width() as u128) as u64,
        },
        "disks_writable": writable,
        "write_quorum": map.profile.write_quorum(),
        "layout": map.layout,
        "rebuild_after_seconds": map.settings.rebuild_after.as_secs(),
        "scrub_cycle_seconds": map.settings.scrub_cycle.as_secs(),
        "upkeep": upkeep.progress(&map),
        "nodes": nodes.into_iter().map(|node| node.json).collect::<Vec<_>>(),
        "groups": groups,
    })
}

/// What may be lost without loss of data, said plainly.
fn redundancy(map: &ClusterMap) -> String {
    match map.profile.parity() {
        0 => "none: the loss of a disk loses data".to_owned(),
        1 => "any one disk of a chunk may be lost".to_owned(),
        parity => format!("any {parity} disks of a chunk may be lost"),
    }
}

struct NodeStatus {
    json: Value,
    total_bytes: u64,
    available_bytes: u64,
    shard_bytes: u64,
}

async fn node_status(gw: &Gateway, map: &ClusterMap, id: NodeId) -> NodeStatus {
    let node = &map.nodes[&id];
    let reports = match gw.nodes.node(id) {
        Some(api) => gw.env.timeout(READY_DEADLINE, api.disks()).await.ok().and_then(Result::ok),
        None => None,
    };
    let reported = reports.is_some();
    let reports = reports.unwrap_or_default();
    let disks: Vec<Value> = map
        .disks
        .values()
        .filter(|disk| disk.node == id)
        .map(|disk| {
            let report = reports.iter().find(|report| report.disk == disk.id);
            json!({
                "id": disk.id.to_string(),
                "capacity_bytes": disk.capacity_bytes,
                "state": match disk.state {
                    DiskState::Good => "good",
                    DiskState::ReadOnly => "read-only",
                    DiskState::Dead => "dead",
                    DiskState::Lost => "lost",
                },
                "role": match disk.role {
                    DiskRole::Joining => "joining",
                    DiskRole::InUse => "in use",
                    DiskRole::Draining => "draining",
                },
                "report": report.map(disk_report),
            })
        })
        .collect();
    NodeStatus {
        json: json!({
            "id": id.to_string(),
            "address": node.address,
            "zone": node.zone.as_str(),
            "state": match node.state {
                NodeState::Up => "up",
                NodeState::Down => "down",
                NodeState::Lost => "lost",
            },
            "answers": reported,
            "disks": disks,
        }),
        total_bytes: reports.iter().map(|report| report.total_bytes).sum(),
        available_bytes: reports.iter().map(|report| report.available_bytes).sum(),
        shard_bytes: reports.iter().map(|report| report.shard_bytes).sum(),
    }
}

fn disk_report(report: &DiskReport) -> Value {
    json!({
        "path": report.path,
        "health": match report.health {
            DiskHealth::Good => "good",
            DiskHealth::Full => "full",
            DiskHealth::Dead => "dead",
        },
        "total_bytes": report.total_bytes,
        "available_bytes": report.available_bytes,
        "shard_bytes": report.shard_bytes,
        "shards": report.shards,
        "quarantined_shards": report.quarantined,
        "scrub": {
            "current": report.scrub.current.map(scrub_tally),
            "finished_ms": report.scrub.finished.map(|(at, _)| at.as_millis()),
            "finished": report.scrub.finished.map(|(_, tally)| scrub_tally(tally)),
        },
    })
}

fn scrub_tally(tally: ScrubTally) -> Value {
    json!({
        "began_ms": tally.began.as_millis(),
        "shards": tally.shards,
        "bytes": tally.bytes,
        "damaged_shards": tally.damaged,
        "dark_shards": tally.dark,
        "unreadable_dark_shards": tally.unreadable,
    })
}

async fn group_status(gw: &Gateway, map: &ClusterMap, group: GroupId) -> Value {
    let answer = gw.router.query_group(group, READY_DEADLINE, Query::Referenced { txns: Vec::new() }).await;
    let voters: Vec<String> = map.groups[&group].iter().map(NodeId::to_string).collect();
    // Only a leader answers, so whoever just did is it.
    let leader = answer.is_ok().then(|| gw.router.leader(group)).flatten();
    json!({ "id": group.0, "voters": voters, "leader": leader.map(|node| node.to_string()) })
}
