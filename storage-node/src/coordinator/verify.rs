//! Reads every shard of a chunk and says how each was found.
//!
//! A read takes what it needs; this takes all there is: every unit of every shard is fetched from its disk, where it is checked
//! as always. Of each stripe the data is put together, coded again and compared with all units that came, so that a shard with
//! sound checksums and wrong content shows. The data is hashed and compared with the manifest. What is missing or corrupt was
//! noted by the node that has the disk, and will be repaired.

use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use futures::future::join_all;
use placement_types::{STRIPE_BYTES, ShardId};
use storage_node_erasure::Coder;
use storage_node_proto::api::{ByteStream, ChunkError, ShardError};
use storage_node_proto::damage::{ChunkVerdict, ContentVerdict, Held, ShardVerdict};
use storage_node_proto::object::ChunkEntry;

use super::Coordinator;
use super::read::check;
use crate::holders::{Holder, Standing};

pub(crate) async fn verify_chunk(coordinator: &Coordinator, entry: &ChunkEntry) -> Result<ChunkVerdict, ChunkError> {
    let bytes = u64::from(entry.bytes);
    check(entry, entry.whole())?;
    let mut sources: Vec<Source> = (0..entry.shards.len()).map(|index| Source::new(coordinator, entry, index)).collect();
    let coder = Arc::new(Coder::new(entry.profile));
    let (mut content, mut hasher) = (ContentVerdict::Right, blake3::Hasher::new());
    for stripe in 0..entry.profile.stripes(bytes) {
        let range = entry.profile.stripe_range(bytes, stripe).expect("the stripe lies in the chunk");
        let unit_bytes = entry.profile.unit_bytes(range.len());
        let stripe = u32::try_from(stripe).expect("a chunk has few stripes");
        let units = join_all(sources.iter_mut().map(|source| source.unit(coordinator, stripe, unit_bytes))).await;
        if units.iter().flatten().count() < entry.profile.data() {
            let unsure = sources.iter().any(|source| matches!(source.verdict, ShardVerdict::Unknown { .. }));
            content = if unsure { ContentVerdict::Unknown } else { ContentVerdict::Lost };
            continue;
        }
        let (coder, before) = (coder.clone(), hasher);
        let length = usize::try_from(range.len()).expect("a stripe fits in memory");
        let (after, different) = coordinator.env.run_blocking(move || compare(&coder, units, length, before)).await;
        hasher = after;
        for index in different {
            sources[index].verdict =
                ShardVerdict::Corrupt { why: format!("its unit {stripe} is not what the others make of the chunk") };
        }
    }
    join_all(sources.iter_mut().map(|source| source.confirm(coordinator))).await;
    if content == ContentVerdict::Right && hasher.finalize() != entry.hash {
        content = ContentVerdict::Wrong;
    }
    Ok(ChunkVerdict { shards: sources.into_iter().map(|source| source.verdict).collect(), content })
}

/// Puts a stripe together, hashes it, codes it again, and tells which of the units that came are different.
fn compare(coder: &Coder, units: Vec<Option<Bytes>>, length: usize, mut hasher: blake3::Hasher) -> (blake3::Hasher, Vec<usize>) {
    assert!(length as u64 <= STRIPE_BYTES, "a stripe is at most STRIPE_BYTES long");
    let mut rebuilt = units.clone();
    coder.rebuild_data(&mut rebuilt).expect("enough units of one length were checked to be there");
    let mut stripe = Vec::with_capacity(length);
    for unit in rebuilt.iter().map_while(Option::as_ref) {
        let left = length - stripe.len();
        stripe.extend_from_slice(&unit[..unit.len().min(left)]);
    }
    hasher.update(&stripe);
    let right = coder.encode(stripe.into());
    let differs = |(index, unit): (usize, &Option<Bytes>)| unit.as_ref().filter(|unit| **unit != right[index]).map(|_| index);
    (hasher, units.iter().enumerate().filter_map(differs).collect())
}

/// One shard.
struct Source {
    shard: ShardId,
    /// `None` once it is of no use to ask.
    holder: Option<Holder>,
    open: Option<ByteStream<ShardError>>,
    stripes: u32,
    verdict: ShardVerdict,
}

impl Source {
    fn new(coordinator: &Coordinator, entry: &ChunkEntry, index: usize) -> Self {
        let disk = entry.shards[index];
        let holder = disk.and_then(|disk| coordinator.holders.holder(disk));
        let verdict = match (disk, &holder) {
            (None, _) => ShardVerdict::Owed,
            (Some(disk), None) if coordinator.holders.is_removed(disk) => ShardVerdict::Missing,
            (Some(_), None) => ShardVerdict::Unknown { why: "nobody is known who has the disk".into() },
            (Some(_), Some(_)) => ShardVerdict::Whole,
        };
        Self {
            shard: ShardId { chunk: entry.chunk, index: u8::try_from(index).expect("a profile is narrower than 256") },
            holder,
            open: None,
            stripes: u32::try_from(entry.profile.stripes(u64::from(entry.bytes))).expect("a chunk has few stripes"),
            verdict,
        }
    }

    /// The unit of a stripe, if it is there and sound.
    async fn unit(&mut self, coordinator: &Coordinator, stripe: u32, unit_bytes: u64) -> Option<Bytes> {
        let holder = self.holder.clone()?;
        let limits = &coordinator.limits;
        let patience = if holder.standing == Standing::Doubtful { limits.read_hedge } else { limits.verify_unit };
        let why = match coordinator.env.timeout(patience, self.fetch(&holder, stripe)).await {
            Ok(Ok(unit)) if unit.len() as u64 == unit_bytes => return Some(unit),
            Ok(Ok(unit)) => format!("its unit {stripe} has {} bytes, not {unit_bytes}", unit.len()),
            Ok(Err(error)) => match error {
                ShardError::Corrupt { .. } => error.to_string(),
                ShardError::NotFound { .. } => {
                    self.end(ShardVerdict::Missing);
                    return None;
                }
                ShardError::NoSuchDisk { .. }
                | ShardError::Full { .. }
                | ShardError::Dead { .. }
                | ShardError::Exists { .. }
                | ShardError::BodyFailed { .. }
                | ShardError::Unreachable { .. }
                | ShardError::BadMessage { .. } => {
                    self.end(ShardVerdict::Unknown { why: error.to_string() });
                    return None;
                }
            },
            Err(elapsed) => {
                coordinator.holders.suspects.add(holder.disk);
                self.end(ShardVerdict::Unknown { why: elapsed.to_string() });
                return None;
            }
        };
        // The other units may be sound, and the last there are of their stripes.
        self.open = None;
        self.verdict = ShardVerdict::Corrupt { why };
        None
    }

    /// Asks the disk whether it counts the shard as held: its list of units may be bad though the units are not, and what is in
    /// quarantine is still to be repaired.
    async fn confirm(&mut self, coordinator: &Coordinator) {
        let Some(holder) = self.holder.clone().filter(|_| self.verdict == ShardVerdict::Whole) else { return };
        let asked = holder.shards.check_shards(holder.disk, vec![self.shard]);
        self.verdict = match coordinator.env.timeout(coordinator.limits.call, asked).await {
            Ok(Ok(held)) => match held.as_slice() {
                [Held::Whole] => ShardVerdict::Whole,
                [Held::Missing] => ShardVerdict::Missing,
                [Held::Damaged] => ShardVerdict::Corrupt { why: "it is in quarantine".into() },
                _ => ShardVerdict::Unknown { why: "the disk gave a wrong answer".into() },
            },
            Ok(Err(error)) => ShardVerdict::Unknown { why: error.to_string() },
            Err(elapsed) => ShardVerdict::Unknown { why: elapsed.to_string() },
        };
    }

    async fn fetch(&mut self, holder: &Holder, stripe: u32) -> Result<Bytes, ShardError> {
        let units = match &mut self.open {
            Some(units) => units,
            None => {
                let units = holder.shards.read_units(holder.disk, self.shard, stripe, self.stripes - stripe).await?;
                self.open.insert(units)
            }
        };
        units.next().await.unwrap_or_else(|| Err(ShardError::BadMessage { why: "the units ended early".into() }))
    }

    fn end(&mut self, verdict: ShardVerdict) {
        self.holder = None;
        self.open = None;
        // What was found wrong stays so.
        if self.verdict == ShardVerdict::Whole {
            self.verdict = verdict;
        }
    }
}
