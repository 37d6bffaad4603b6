//! The audit of the disks: what they hold is what the metadata names, to the shard and to the byte, and no garbage is queued,
//! whatever the clock said when it was dropped.
//!
//! It asks the product only for what every node and group tells anyway, and trusts none of the workers that are to have got
//! there: how many shards a disk has, whether it has each of those that manifests name, and how many bytes they take.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use placement_map::ClusterMap;
use placement_types::{DiskId, GroupId, ShardId, Timestamp};
use storage_node_proto::api::NodeApi;
use storage_node_proto::damage::Held;
use storage_node_proto::object::ChunkEntry;
use storage_node_proto::query::{Answer, Query};

use crate::operator::Operator;

const CALL: Duration = Duration::from_secs(2);
const PAGE: u32 = 1000;

/// What the manifests say of one disk.
#[derive(Default)]
struct Named {
    shards: Vec<ShardId>,
    bytes: u64,
    units: u64,
}

/// What a unit and a shard take besides their bytes, at most: a header each, and the rest of a block.
const HEADER_BYTES: u64 = 4096;

impl Operator {
    /// Waits until disks and metadata agree.
    ///
    /// # Errors
    /// What they still differ in when the time is up.
    pub async fn wait_audited(&self, limit: Duration) -> Result<(), String> {
        let began = self.env.monotonic();
        loop {
            match self.audit().await {
                Ok(()) => return Ok(()),
                Err(difference) if self.env.monotonic() - began > limit => return Err(difference),
                Err(_) => self.env.sleep(Duration::from_secs(1)).await,
            }
        }
    }

    async fn audit(&self) -> Result<(), String> {
        let map = self.maps.borrow().clone().ok_or("no map")?;
        let mut named: BTreeMap<DiskId, Named> = BTreeMap::new();
        for group in map.metadata_groups() {
            self.check_no_garbage(&map, group).await?;
            self.collect_named(&map, group, &mut named).await?;
        }
        for id in map.nodes.keys() {
            let node = self.nodes.node(*id).ok_or("a node cannot be reached")?;
            let reports = self.env.timeout(CALL, node.disks()).await.map_err(|elapsed| elapsed.to_string())?;
            for report in reports.map_err(|error| error.to_string())? {
                let Named { shards, bytes, units } = named.remove(&report.disk).unwrap_or_default();
                let disk = report.disk;
                if report.shards != shards.len() as u64 {
                    return Err(format!("disk {disk} holds {} shards, manifests name {}", report.shards, shards.len()));
                }
                let most = bytes + (units + report.shards) * HEADER_BYTES;
                if !(bytes..=most).contains(&report.shard_bytes) {
                    return Err(format!("disk {disk} holds {} bytes, {bytes} to {most} were expected", report.shard_bytes));
                }
                let held = self.env.timeout(CALL, node.check_shards(disk, shards.clone())).await;
                let held = held.map_err(|elapsed| elapsed.to_string())?.map_err(|error| error.to_string())?;
                if let Some((shard, held)) = shards.iter().zip(held).find(|(_, held)| *held != Held::Whole) {
                    return Err(format!("disk {disk}: shard {shard} is {held:?}"));
                }
            }
        }
        match named.first_key_value() {
            Some((disk, _)) => Err(format!("manifests name disk {disk}, which no node has")),
            None => Ok(()),
        }
    }

    async fn check_no_garbage(&self, map: &ClusterMap, group: GroupId) -> Result<(), String> {
        let query = Query::Garbage { before: Timestamp::from_millis(u64::MAX), after: None, limit: PAGE };
        let Answer::Garbage { garbage } = self.ask(map, group, &query).await? else {
            return Err(format!("{group} does not tell its garbage"));
        };
        if garbage.is_empty() { Ok(()) } else { Err(format!("{group}: {} rows of garbage", garbage.len())) }
    }

    async fn collect_named(&self, map: &ClusterMap, group: GroupId, named: &mut BTreeMap<DiskId, Named>) -> Result<(), String> {
        let mut after = None;
        loop {
            let query = Query::Survey { after: after.take(), limit: PAGE, now: self.env.now() };
            let Answer::Survey { chunks, next } = self.ask(map, group, &query).await? else {
                return Err(format!("{group} gives no survey"));
            };
            for entry in chunks.into_iter().map(|chunk| chunk.filed.entry) {
                if let Some(index) = entry.shards.iter().position(Option::is_none) {
                    return Err(format!("chunk {} lacks shard {index}", entry.chunk));
                }
                add_shards(&entry, named);
            }
            after = next;
            if after.is_none() {
                return Ok(());
            }
        }
    }

    /// Asks voter after voter, until the leader answers.
    async fn ask(&self, map: &ClusterMap, group: GroupId, query: &Query) -> Result<Answer, String> {
        for id in map.groups.get(&group).into_iter().flatten() {
            let Some(node): Option<Arc<dyn NodeApi>> = self.nodes.node(*id) else { continue };
            if let Ok(Ok(answer)) = self.env.timeout(CALL, node.query(group, query.clone())).await {
                return Ok(answer);
            }
        }
        Err(format!("nobody answers for {group}"))
    }
}

fn add_shards(entry: &ChunkEntry, named: &mut BTreeMap<DiskId, Named>) {
    for (index, disk) in (0..).zip(&entry.shards) {
        let Some(disk) = *disk else { continue };
        let on_disk = named.entry(disk).or_default();
        on_disk.shards.push(ShardId { chunk: entry.chunk, index });
        on_disk.bytes += entry.shard_bytes();
        on_disk.units += entry.profile.stripes(u64::from(entry.bytes));
    }
}
