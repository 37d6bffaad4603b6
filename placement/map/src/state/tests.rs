use std::fmt::Write;
use std::time::Duration;

use placement_types::{Boot, BucketId, ClusterId, DiskId, GroupId, NodeId, Timestamp, ZoneName};

use super::*;
use crate::bucket::{Bucket, BucketState, BucketVersioning};
use crate::cluster_map::{ClusterSettings, DiskState, NodeState};
use crate::limits::{BUCKETS_MAX, TXNS_MAX};
use crate::plan::Plan;
use crate::system::{LayoutChange, NewDisk, NewNode, SystemChange};

pub(crate) fn new_disk(disk: DiskId) -> NewDisk {
    NewDisk { disk, capacity_bytes: 1 << 40 }
}

/// Node 1 with disks 10, 11 ..., node 2 with disks 20, 21 ...; each in zone `zones[number % zones.len()]`.
fn new_node(number: u128, disks: u128, zones: &[&str]) -> NewNode {
    NewNode {
        node: NodeId::from_u128(number),
        address: format!("node-{number}:9100"),
        zone: ZoneName::parse(zones[(number as usize - 1) % zones.len()]).unwrap(),
        disks: (0..disks).map(|disk| new_disk(DiskId::from_u128(number * 100 + disk))).collect(),
    }
}

fn form(nodes: u128, disks: u128, zones: &[&str], profile: Option<&str>) -> SystemChange {
    SystemChange::Form {
        cluster: ClusterId::from_u128(0xc1),
        nodes: (1..=nodes).map(|number| new_node(number, disks, zones)).collect(),
        profile: profile.map(|text| text.parse().unwrap()),
        partitions: 64,
        groups: 4,
    }
}

/// A cluster in one zone.
pub(crate) fn formed(nodes: u128, disks_per_node: u128, profile: &str) -> ClusterMap {
    let mut state = SystemState::default();
    let change = form(nodes, disks_per_node, &["default"], Some(profile));
    let (outcome, _) = state.apply(&SystemCommand { txn: TxnId::from_u128(1), time: Timestamp::default(), change });
    assert_eq!(outcome, SystemOutcome::Done);
    state.map.unwrap()
}

fn bucket(name: &str, id: u128) -> Bucket {
    Bucket {
        name: BucketName::parse(name).unwrap(),
        id: BucketId::from_u128(id),
        created: Timestamp::default(),
        index_shards: 8,
        region: "eu".into(),
        owner: "ann".into(),
        versioning: BucketVersioning::Unversioned,
        state: BucketState::Active,
    }
}

/// Runs a script: a line `> command` is applied, what comes of it is written below.
struct Script {
    state: SystemState,
    txn: u128,
    seconds: u64,
    out: String,
}

impl Script {
    fn run(text: &str) -> String {
        let mut script = Script { state: SystemState::default(), txn: 0, seconds: 0, out: String::new() };
        for line in text.lines() {
            if line.starts_with('#') || line.is_empty() {
                writeln!(script.out, "{line}").unwrap();
            } else if let Some(command) = line.strip_prefix("> ") {
                writeln!(script.out, "{line}").unwrap();
                script.step(&command.split(' ').collect::<Vec<_>>());
            }
        }
        script.out
    }

    fn step(&mut self, words: &[&str]) {
        let number = |text: &str| text.parse::<u128>().unwrap();
        let name = |text: &str| BucketName::parse(text).unwrap();
        let id = |text: &str| BucketId::from_u128(text.parse().unwrap());
        self.txn += 1;
        let change = match words {
            ["after", seconds, "s:", rest @ ..] => {
                self.seconds += seconds.parse::<u64>().unwrap();
                self.txn -= 1;
                return self.step(rest);
            }
            ["again:", rest @ ..] => {
                self.txn -= 2;
                return self.step(rest);
            }
            ["form", nodes, "nodes", disks, "disks", zones, rest @ ..] => {
                form(number(nodes), number(disks), &zones.split(',').collect::<Vec<_>>(), rest.first().copied())
            }
            ["register", node, disks, "disks", zone] => {
                SystemChange::Register { node: new_node(number(node), number(disks), &[zone]) }
            }
            ["register", node, "with", "disk", disk] => {
                let mut node = new_node(number(node), 0, &["a"]);
                node.disks.push(new_disk(DiskId::from_u128(number(disk))));
                SystemChange::Register { node }
            }
            ["join", node, disks, "disks", zone] => SystemChange::Join { node: new_node(number(node), number(disks), &[zone]) },
            ["layout", planned_on, rest @ ..] => {
                SystemChange::SetLayout { planned_on: planned_on.parse().unwrap(), change: layout_change(rest) }
            }
            ["voters", group, from, "to", to] => {
                let nodes = |list: &str| list.split(',').map(|node| NodeId::from_u128(number(node))).collect();
                SystemChange::SetVoters { group: GroupId(group.parse().unwrap()), from: nodes(from), to: nodes(to) }
            }
            ["rebuild", "after", seconds] => {
                let rebuild_after = Duration::from_secs(seconds.parse().unwrap());
                SystemChange::SetSettings { settings: ClusterSettings { rebuild_after, ..ClusterSettings::default() } }
            }
            ["node", node, state] => {
                let state = match *state {
                    "up" => NodeState::Up,
                    "down" => NodeState::Down,
                    state => panic!("no such state: {state}"),
                };
                SystemChange::SetNodeState { node: NodeId::from_u128(number(node)), state }
            }
            ["disk", disk, state] => {
                let state = if *state == "dead" { DiskState::Dead } else { DiskState::ReadOnly };
                SystemChange::SetDiskState { disk: DiskId::from_u128(number(disk)), state }
            }
            ["claim", node, run, "after", known] => {
                let boot = |text: &str| {
                    let (number, nonce) = text.split_once('-').unwrap();
                    Boot { number: number.parse().unwrap(), nonce: nonce.parse().unwrap() }
                };
                let known = known.split(',').filter(|text| *text != "none").map(boot).collect();
                SystemChange::Claim { node: NodeId::from_u128(number(node)), boot: boot(run), known }
            }
            ["rebalance"] => SystemChange::Rebalance {},
            ["nothing"] => SystemChange::Nothing {},
            ["create", text, as_id] => SystemChange::CreateBucket { bucket: bucket(text, number(as_id)) },
            ["version", text, as_id] => {
                let versioning = BucketVersioning::Enabled;
                SystemChange::SetBucket { bucket: Bucket { versioning, ..bucket(text, number(as_id)) } }
            }
            ["reshard", text, as_id] => {
                SystemChange::SetBucket { bucket: Bucket { index_shards: 9, ..bucket(text, number(as_id)) } }
            }
            ["begin", text, of_id] => SystemChange::BeginDeleteBucket { name: name(text), id: id(of_id) },
            ["finish", text, of_id] => SystemChange::FinishDeleteBucket { name: name(text), id: id(of_id) },
            ["cancel", text, of_id] => SystemChange::CancelDeleteBucket { name: name(text), id: id(of_id) },
            words => panic!("no such command: {words:?}"),
        };
        let time = Timestamp::from_millis(self.seconds * 1000);
        let before = self.state.clone();
        let (outcome, changes) = self.state.apply(&SystemCommand { txn: TxnId::from_u128(self.txn), time, change });
        self.tell(&before, &outcome, &changes);
    }

    fn tell(&mut self, before: &SystemState, outcome: &SystemOutcome, changes: &Changes) {
        let told = match outcome {
            SystemOutcome::BucketExists { bucket } => format!("BucketExists {} {}", bucket.name, bucket.id.as_u128()),
            outcome => format!("{outcome:?}"),
        };
        writeln!(self.out, "{told}").unwrap();
        if let Some(map) = &changes.map {
            write!(self.out, "  epoch {} {}", map.epoch, map.profile).unwrap();
            match &before.map {
                Some(before) => {
                    write!(self.out, " moved {}", Plan::between(before, map, 0).slots_moved).unwrap();
                    if before.layout != map.layout {
                        write!(self.out, " layout {}", map.layout).unwrap();
                    }
                    for (id, node) in map.nodes.iter().filter(|(id, node)| before.nodes.get(id) != Some(node)) {
                        write!(self.out, " node {} {:?} {} {}", id.as_u128(), node.state, node.address, node.zone).unwrap();
                        if !before.nodes.contains_key(id) {
                            write!(self.out, " replica {}", node.replica).unwrap();
                        }
                    }
                    for (id, disk) in map.disks.iter().filter(|(id, disk)| before.disks.get(id) != Some(disk)) {
                        write!(self.out, " disk {} {:?} {:?}", id.as_u128(), disk.role, disk.state).unwrap();
                    }
                    for id in before.nodes.keys().filter(|id| !map.nodes.contains_key(id)) {
                        write!(self.out, " without node {}", id.as_u128()).unwrap();
                    }
                    for id in before.disks.keys().filter(|id| !map.disks.contains_key(id)) {
                        write!(self.out, " without disk {}", id.as_u128()).unwrap();
                    }
                    for (group, voters) in map.groups.iter().filter(|(group, voters)| before.groups.get(group) != Some(voters)) {
                        let voters: Vec<u128> = voters.iter().map(|node| node.as_u128()).collect();
                        write!(self.out, " group {group} {voters:?}").unwrap();
                    }
                    for (node, boot) in map.boots.iter().filter(|(node, boot)| before.boots.get(node) != Some(boot)) {
                        write!(self.out, " boot {} {boot}", node.as_u128()).unwrap();
                    }
                    if before.settings != map.settings {
                        write!(self.out, " {:?}", map.settings).unwrap();
                    }
                }
                None => {
                    for (group, voters) in &map.groups {
                        let voters: Vec<u128> = voters.iter().map(|node| node.as_u128()).collect();
                        write!(self.out, " group {group} {voters:?}").unwrap();
                    }
                }
            }
            self.out.push('\n');
        }
        match &changes.bucket {
            Some(BucketChange::Put(BucketRow { bucket, .. })) => {
                writeln!(self.out, "  put {} {} {:?} {:?}", bucket.name, bucket.id.as_u128(), bucket.versioning, bucket.state)
            }
            Some(BucketChange::Remove(name)) => writeln!(self.out, "  remove {name}"),
            None => Ok(()),
        }
        .unwrap();
    }
}

fn layout_change(words: &[&str]) -> LayoutChange {
    let disk = |text: &str| DiskId::from_u128(text.parse().unwrap());
    let disks = |list: &str| list.split(',').map(disk).collect();
    match words {
        ["take-in", list] => LayoutChange::TakeIn { disks: disks(list) },
        ["drain", list] => LayoutChange::Drain { disks: disks(list) },
        ["keep", list] => LayoutChange::Keep { disks: disks(list) },
        ["weigh", one, bytes] => LayoutChange::Weigh { disk: disk(one), weight_bytes: bytes.parse().ok() },
        ["remove-disks", list] => LayoutChange::RemoveDisks { disks: disks(list) },
        ["remove-node", node] => LayoutChange::RemoveNode { node: NodeId::from_u128(node.parse().unwrap()) },
        ["profile", profile] => LayoutChange::SetProfile { profile: profile.parse().unwrap() },
        words => panic!("no such change of layout: {words:?}"),
    }
}

#[test]
fn the_golden_script_comes_out_as_written() {
    let written = include_str!("../../golden/system.txt");
    let told = Script::run(written);
    assert!(told == written, "the script now gives:\n{told}");
}

#[test]
fn outcomes_are_remembered_for_the_last_transactions_only() {
    let mut state = SystemState::default();
    let mut apply = |txn: u64, change: SystemChange| {
        state.apply(&SystemCommand { txn: TxnId::from_u128(txn.into()), time: Timestamp::default(), change }).0
    };
    assert_eq!(apply(0, SystemChange::Rebalance {}), SystemOutcome::NotFormed);
    assert_eq!(apply(1, form(1, 1, &["a"], None)), SystemOutcome::Done);
    (2..TXNS_MAX).for_each(|txn| assert_eq!(apply(txn, SystemChange::Nothing {}), SystemOutcome::Done));
    assert_eq!(apply(0, SystemChange::Rebalance {}), SystemOutcome::NotFormed, "still remembered");
    apply(TXNS_MAX, SystemChange::Nothing {});
    assert_eq!(apply(0, SystemChange::Rebalance {}), SystemOutcome::Done, "forgotten and done now");
}

#[test]
fn there_is_a_limit_to_buckets() {
    let map = formed(1, 1, "1+0");
    let command = |change| SystemCommand { txn: TxnId::from_u128(5), time: Timestamp::default(), change };
    let view = |buckets| SystemView { map: Some(&map), bucket: None, buckets };
    let create = command(SystemChange::CreateBucket { bucket: bucket("photos", 1) });
    assert_eq!(apply(view(BUCKETS_MAX), &create).0, SystemOutcome::TooManyBuckets);
    assert_eq!(apply(view(BUCKETS_MAX - 1), &create).0, SystemOutcome::Done);
}
