//! Gathers the units of one stripe after another from the shards of a chunk.
//!
//! The healthy path asks only the data shards that the range needs. When one of them is missing, corrupt or slow, or is
//! expected to be, it asks as many other shards as make k, and the stripe is rebuilt. A shard that disappointed is asked
//! last from then on, but it *is* asked again when there is nothing better: rot in one unit does not spoil the others.

use std::collections::BTreeSet;
use std::ops::Range;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use placement_types::{Profile, ShardId};
use storage_node_proto::api::{ByteStream, ChunkError, ShardError};
use storage_node_proto::object::ChunkEntry;

use super::Coordinator;
use crate::holders::{Holder, Standing};
use crate::metrics;

/// The units of one stripe, by slot: all that were wanted, or any k.
pub(crate) type Units = Vec<Option<Bytes>>;

/// One shard of the chunk as a source of units.
struct Source {
    /// `None` where the entry names no disk, or nobody holds it.
    holder: Option<Holder>,
    /// How often it disappointed; `None` when it certainly has not got the shard.
    failures: Option<u32>,
    /// Its units from some stripe on, when a stream is open.
    open: Option<OpenStream>,
}

struct OpenStream {
    units: ByteStream<ShardError>,
    next: u32,
}

/// Reads the stripes `..end` of a chunk.
pub(crate) struct UnitReader {
    coordinator: Coordinator,
    entry: ChunkEntry,
    /// One past the last stripe that will be read.
    end: u32,
    sources: Vec<Source>,
}

/// What a fetch brings back: the slot, its stream if it can go on, and the unit.
type Fetched = (usize, Result<(OpenStream, Bytes), ShardError>);

impl UnitReader {
    pub fn new(coordinator: Coordinator, entry: ChunkEntry, end: u32) -> Self {
        let sources = entry
            .shards
            .iter()
            .map(|disk| {
                let holder = disk.and_then(|disk| coordinator.holders.holder(disk));
                let failures = holder.as_ref().map(|_| 0);
                Source { holder, failures, open: None }
            })
            .collect();
        Self { coordinator, entry, end, sources }
    }

    /// The units `wanted` of a stripe, or any k of it. `unit_bytes` is how long each must be.
    pub async fn stripe(&mut self, stripe: u32, unit_bytes: u64, wanted: Range<usize>) -> Result<Units, ChunkError> {
        let (env, limits) = (self.coordinator.env.clone(), self.coordinator.limits.clone());
        let needed = self.entry.profile.data();
        let mut got: Units = vec![None; self.entry.profile.width()];
        // Every slot asked for this stripe; of those, the ones that have not answered; of those, the ones past the hedge.
        let (mut asked, mut flying, mut late) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        let mut fetches: FuturesUnordered<BoxFuture<'static, Fetched>> = FuturesUnordered::new();
        let mut why = Vec::new();

        let mut degraded = !wanted.clone().all(|index| self.sources[index].is_sound());
        if !degraded {
            for index in wanted.clone() {
                asked.insert(index);
                flying.insert(index);
                fetches.push(self.fetch(index, stripe, unit_bytes));
            }
        }
        let give_up = env.monotonic() + limits.read_stripe;
        let mut hedge = env.monotonic() + limits.read_hedge;
        loop {
            let have = got.iter().flatten().count();
            if wanted.clone().all(|index| got[index].is_some()) || have >= needed {
                return Ok(got);
            }
            if degraded {
                let mut expected = have + flying.len() - late.len();
                while expected < needed {
                    let Some(index) = self.best_unasked(&asked) else { break };
                    asked.insert(index);
                    flying.insert(index);
                    fetches.push(self.fetch(index, stripe, unit_bytes));
                    hedge = env.monotonic() + limits.read_hedge;
                    expected += 1;
                }
            }
            let now = env.monotonic();
            if flying.is_empty() || now >= give_up {
                metrics::chunk_unreadable();
                return Err(self.unreadable(have, why));
            }
            let until = if late.len() == flying.len() { give_up } else { hedge.min(give_up) };
            match env.timeout(until.saturating_sub(now), fetches.next()).await {
                Ok(Some((index, result))) => {
                    flying.remove(&index);
                    late.remove(&index);
                    match result {
                        Ok((open, unit)) => {
                            self.sources[index].open = Some(open);
                            got[index] = Some(unit);
                        }
                        Err(error) => {
                            degraded = true;
                            why.push(error.to_string());
                            self.disappointed(index, &error);
                        }
                    }
                }
                Ok(None) => {}
                Err(_) => {
                    degraded = true;
                    for index in flying.difference(&late) {
                        metrics::read_hedged();
                        self.sources[*index].count_failure();
                        self.suspect(*index);
                    }
                    late.clone_from(&flying);
                }
            }
        }
    }

    /// Starts fetching a unit. The source's stream goes along; it comes back with the unit, or is closed.
    fn fetch(&mut self, index: usize, stripe: u32, unit_bytes: u64) -> BoxFuture<'static, Fetched> {
        let shard = self.shard(index);
        let source = &mut self.sources[index];
        let holder = source.holder.clone().expect("only sources with a holder are asked");
        let open = source.open.take().filter(|open| open.next == stripe);
        let count = self.end - stripe;
        async move { (index, next_unit(holder, shard, open, stripe, count, unit_bytes).await) }.boxed()
    }

    fn best_unasked(&self, asked: &BTreeSet<usize>) -> Option<usize> {
        let candidates = (0..self.sources.len()).filter(|index| !asked.contains(index));
        candidates.filter_map(|index| Some((self.sources[index].rank()?, index))).min().map(|(_, index)| index)
    }

    fn disappointed(&mut self, index: usize, error: &ShardError) {
        let shard = self.shard(index);
        let disk = self.entry.shards[index];
        tracing::warn!(%shard, disk = ?disk, %error, "a shard could not be read");
        let source = &mut self.sources[index];
        match error {
            ShardError::NotFound { .. } | ShardError::NoSuchDisk { .. } => {
                metrics::shard_missing();
                source.failures = None;
            }
            ShardError::Corrupt { .. } => {
                metrics::corrupt_read();
                source.count_failure();
            }
            ShardError::Full { .. }
            | ShardError::Dead { .. }
            | ShardError::Exists { .. }
            | ShardError::BodyFailed { .. }
            | ShardError::BadMessage { .. } => source.count_failure(),
            ShardError::Unreachable { .. } => {
                source.count_failure();
                self.suspect(index);
            }
        }
    }

    /// Spares the next reads and writes the wait for this disk.
    fn suspect(&self, index: usize) {
        if let Some(disk) = self.entry.shards[index] {
            self.coordinator.holders.suspects.add(disk);
        }
    }

    /// The error of a stripe whose units were read but do not make the chunk.
    pub fn not_rebuilt(&self, why: String) -> ChunkError {
        metrics::chunk_unreadable();
        self.unreadable(0, vec![why])
    }

    fn unreadable(&self, readable: usize, why: Vec<String>) -> ChunkError {
        let mut why = why.join("; ");
        if why.is_empty() {
            why = "too few disks are known and answer in time".into();
        }
        ChunkError::Unreadable { chunk: self.entry.chunk, readable, needed: self.entry.profile.data(), why }
    }

    fn shard(&self, index: usize) -> ShardId {
        ShardId { chunk: self.entry.chunk, index: u8::try_from(index).expect("a profile is narrower than 256") }
    }
}

impl Source {
    /// Nothing speaks against asking it first.
    fn is_sound(&self) -> bool {
        self.failures == Some(0) && self.holder.as_ref().is_some_and(|holder| holder.standing != Standing::Doubtful)
    }

    /// The smaller the better; `None` when there is no point in asking. An open stream costs nothing more to go on with.
    fn rank(&self) -> Option<(u32, bool, Standing)> {
        Some((self.failures?, self.open.is_none(), self.holder.as_ref()?.standing))
    }

    fn count_failure(&mut self) {
        self.failures = self.failures.map(|failures| failures.saturating_add(1));
    }
}

/// Takes the unit of `stripe` from an open stream, or opens one of `count` units.
async fn next_unit(
    holder: Holder,
    shard: ShardId,
    open: Option<OpenStream>,
    stripe: u32,
    count: u32,
    unit_bytes: u64,
) -> Result<(OpenStream, Bytes), ShardError> {
    let mut open = match open {
        Some(open) => open,
        None => OpenStream { units: holder.shards.read_units(holder.disk, shard, stripe, count).await?, next: stripe },
    };
    match open.units.next().await {
        Some(Ok(unit)) if unit.len() as u64 == unit_bytes => {
            open.next += 1;
            Ok((open, unit))
        }
        // Its own checksum holds, but it is not the unit that the manifest speaks of.
        Some(Ok(_)) => Err(ShardError::Corrupt { disk: holder.disk, shard, unit: stripe }),
        Some(Err(error)) => Err(error),
        None => Err(ShardError::BadMessage { why: "the units ended early".into() }),
    }
}

/// Which data slots hold `start..end` of a stripe, offsets within the stripe.
pub(crate) fn slots_of(profile: Profile, unit_bytes: u64, start: u64, end: u64) -> Range<usize> {
    let slot = |offset: u64| usize::try_from(offset / unit_bytes).expect("a slot number is small");
    let range = slot(start)..slot(end - 1) + 1;
    assert!(start < end && range.end <= profile.data(), "a stripe's bytes lie in its data units");
    range
}
