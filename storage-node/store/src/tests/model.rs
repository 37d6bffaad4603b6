//! The store against a `BTreeMap`, under random operations, crashes at random steps and lost indexes.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use proptest::prelude::*;

use super::machine::*;
use crate::format::HEADER_BYTES;
use crate::position::Position;
use crate::{DarkSearch, Disk, Held, WriteError};

#[derive(Debug, Clone)]
enum Op {
    /// Writes several shards, their units interleaved.
    Put {
        ids: Vec<u8>,
        sizes: Vec<usize>,
    },
    /// Begins a shard and gives it up.
    Abandon {
        id: u8,
        sizes: Vec<usize>,
    },
    Delete {
        ids: Vec<u8>,
    },
    Compact,
    Checkpoint,
    Reopen,
    LoseIndex,
    /// Reads everything and looks for dark data: there is nothing to find.
    Scrub,
    /// Flips a bit somewhere in a shard, and repairs it as its owner would.
    Rot {
        id: u8,
        place: usize,
    },
}

#[derive(Debug, Clone)]
struct Step {
    op: Op,
    /// The machine halts after so many more writes and syncs, and crashes after the operation; then the index keeps so many of
    /// its unsynced batches.
    crash: Option<(u64, usize)>,
}

fn sizes() -> impl Strategy<Value = Vec<usize>> {
    let size = prop_oneof![Just(0), Just(1), Just(4000), Just(70_000), Just(500_000)];
    prop::collection::vec(size, 0..4)
}

fn ids() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(0..8u8, 1..4)
}

fn step() -> impl Strategy<Value = Step> {
    let op = prop_oneof![
        6 => (ids(), sizes()).prop_map(|(ids, sizes)| Op::Put { ids, sizes }),
        1 => (0..8u8, sizes()).prop_map(|(id, sizes)| Op::Abandon { id, sizes }),
        3 => ids().prop_map(|ids| Op::Delete { ids }),
        2 => Just(Op::Compact),
        1 => Just(Op::Checkpoint),
        1 => Just(Op::Reopen),
        1 => Just(Op::LoseIndex),
        1 => Just(Op::Scrub),
        2 => (0..8u8, 0..1_000_000usize).prop_map(|(id, place)| Op::Rot { id, place }),
    ];
    (op, prop::option::weighted(0.3, (0..20u64, 0..4usize))).prop_map(|(op, crash)| Step { op, crash })
}

type Content = Option<Vec<Bytes>>;

struct Run {
    machine: Machine,
    disk: Option<Disk>,
    model: BTreeMap<u8, Vec<Bytes>>,
    /// What else may be found of a shard whose last operation has no known outcome.
    doubtful: BTreeMap<u8, Vec<Content>>,
    /// Shards that rotted and whose repair has no known outcome.
    rotten: BTreeSet<u8>,
    /// Makes every written content another one.
    writes: u64,
}

impl Run {
    fn disk(&self) -> &Disk {
        self.disk.as_ref().expect("the disk is open between steps")
    }

    fn doubt(&mut self, id: u8, content: Content) {
        self.doubtful.entry(id).or_default().push(content);
    }

    async fn step(&mut self, step: &Step) {
        if let Some((after, _)) = step.crash {
            self.machine.fs.halt_after(after);
        }
        self.apply(&step.op, step.crash.is_some()).await;
        if let Some((_, batches)) = step.crash {
            if let Some(disk) = self.disk.take() {
                self.machine.crash(disk, batches).await;
            } else {
                self.machine.fs.crash();
                self.machine.kv.lock().crash_keeping(batches);
            }
            self.disk = Some(self.machine.open().await);
            for id in std::mem::take(&mut self.rotten) {
                self.repair(id).await.unwrap();
            }
            self.resolve().await;
        }
        self.check().await;
    }

    async fn apply(&mut self, op: &Op, may_fail: bool) {
        match op {
            Op::Put { ids, sizes } => self.put(ids, sizes, may_fail).await,
            Op::Abandon { id, sizes } => {
                let mut writer = writer(self.disk(), shard(u128::from(*id)));
                for unit in units(u64::MAX, sizes) {
                    if writer.append(unit).await.is_err() {
                        assert!(may_fail);
                        break;
                    }
                }
            }
            Op::Delete { ids } => {
                let deleted = self.disk().delete_shards(ids.iter().map(|id| shard(u128::from(*id))).collect()).await;
                for id in ids {
                    match &deleted {
                        Ok(()) => drop(self.model.remove(id)),
                        Err(_) => {
                            assert!(may_fail);
                            self.doubt(*id, None);
                        }
                    }
                }
            }
            Op::Compact => {
                for _ in 0..20 {
                    match self.disk().compact_once().await {
                        Ok(Some(run)) => assert!(run.stuck_shards == 0 || may_fail),
                        Ok(None) => break,
                        Err(_) => {
                            assert!(may_fail);
                            break;
                        }
                    }
                }
            }
            Op::Checkpoint => {
                let result = self.disk().checkpoint().await;
                assert!(result.is_ok() || may_fail);
            }
            Op::Reopen => {
                let closed = self.disk.take().expect("open").close().await;
                assert!(closed.is_ok() || may_fail);
                self.disk = self.machine.try_open().await.ok();
                assert!(self.disk.is_some() || may_fail);
            }
            Op::Scrub => self.scrub(may_fail).await,
            Op::Rot { id, place } => self.rot(*id, *place, may_fail).await,
            Op::LoseIndex => {
                let closed = self.disk.take().expect("open").close().await;
                assert!(closed.is_ok() || may_fail);
                self.machine.lose_index();
                self.disk = self.machine.try_open().await.ok();
                assert!(self.disk.is_some() || may_fail);
            }
        }
    }

    async fn scrub(&self, may_fail: bool) {
        let mut after = None;
        loop {
            let step = self.disk().examine_next(after).await.unwrap();
            assert!(step.examined.iter().all(|examined| examined.held == Held::Whole), "{step:?}");
            after = step.next;
            if after.is_none() {
                break;
            }
        }
        let mut search = DarkSearch::default();
        while !search.is_complete {
            search = self.disk().search_dark(search).await.unwrap();
        }
        match self.disk().adopt(search).await {
            // A seal whose units a power cut took was never acknowledged; it stays dark until its segment is compacted.
            Ok(adopted) => assert_eq!(adopted.shards, []),
            Err(_) => assert!(may_fail),
        }
    }

    async fn rot(&mut self, id: u8, place: usize, may_fail: bool) {
        if !self.model.contains_key(&id) {
            return;
        }
        let (disk, shard) = (self.disk(), shard(u128::from(id)));
        let entry = disk.handle.core.index.get(shard).unwrap().expect("it is acknowledged");
        let mut records: Vec<(Position, usize)> = entry.units.iter().map(|unit| (unit.at, unit.bytes as usize)).collect();
        records.push((entry.seal, 0));
        let (at, bytes) = records[place % records.len()];
        let offset = at.offset() + (place % (HEADER_BYTES + bytes)) as u64;
        self.machine.fs.flip_bit(self.machine.segment_path(at.segment), offset, (place % 8) as u8);
        assert_eq!(disk.examine(shard).await.unwrap().held, Held::Damaged);
        assert_eq!(disk.held(vec![shard]).await.unwrap(), [Held::Damaged]);
        match self.repair(id).await {
            // A machine that has halted reads nothing either.
            Ok(()) => assert!(may_fail || self.disk().examine(shard).await.unwrap().held == Held::Whole),
            Err(_) => {
                assert!(may_fail);
                self.rotten.insert(id);
            }
        }
    }

    async fn repair(&self, id: u8) -> Result<(), WriteError> {
        let shard = shard(u128::from(id));
        // A crash may have made the disk forget that the shard is bad, and then it takes it for written already.
        self.disk().examine(shard).await.unwrap();
        put(self.disk(), shard, &self.model[&id]).await
    }

    async fn put(&mut self, ids: &[u8], sizes: &[usize], may_fail: bool) {
        let mut writers = Vec::new();
        for id in ids {
            self.writes += 1;
            writers.push((*id, writer(self.disk(), shard(u128::from(*id))), units(self.writes, sizes), Ok(())));
        }
        for unit in 0..sizes.len() {
            for (_, writer, content, result) in &mut writers {
                if result.is_ok() {
                    *result = writer.append(content[unit].clone()).await;
                }
            }
        }
        for (id, writer, content, appended) in writers {
            let result = match appended {
                Ok(()) => writer.finish().await,
                Err(error) => Err(error),
            };
            match result {
                Ok(()) => {
                    // Empty shards and zero-length units are equal whatever was meant.
                    let before = self.model.insert(id, content.clone());
                    assert!(before.is_none_or(|before| before == content), "an existing shard was replaced");
                }
                Err(WriteError::AlreadyExists { .. }) => {
                    let doubtful = self.doubtful.contains_key(&id);
                    assert!(doubtful || self.model.get(&id).is_some_and(|before| *before != content));
                }
                Err(_) => {
                    assert!(may_fail);
                    if !self.model.contains_key(&id) {
                        self.doubt(id, Some(content));
                    }
                }
            }
        }
    }

    /// After a crash: what had no known outcome has one of the possible ones, and from now on that one.
    async fn resolve(&mut self) {
        for (id, mut possible) in std::mem::take(&mut self.doubtful) {
            possible.push(self.model.get(&id).cloned());
            let found = get(self.disk(), shard(u128::from(id))).await;
            assert!(possible.contains(&found), "shard {id} is none of what it may be");
            match found {
                Some(content) => drop(self.model.insert(id, content)),
                None => drop(self.model.remove(&id)),
            }
        }
    }

    async fn check(&self) {
        let disk = self.disk();
        let listed: Vec<_> = disk.shards(None, 100).await.unwrap().into_iter().map(|summary| summary.shard).collect();
        let mut expected: Vec<_> = self.model.keys().map(|id| shard(u128::from(*id))).collect();
        expected.sort_by_key(|shard| shard.to_bytes());
        assert_eq!(listed, expected);
        for (id, content) in &self.model {
            assert!(get(disk, shard(u128::from(*id))).await.as_ref() == Some(content), "shard {id} reads wrong");
        }
        let usage = disk.usage().await.unwrap();
        assert_eq!(usage.shards, self.model.len() as u64);
        let least: usize = self.model.values().flatten().map(|unit| unit.len()).sum();
        assert!(usage.live_bytes >= least as u64 && usage.live_bytes <= least as u64 + 8 * 4 * 8192, "{usage:?} for {least}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn the_store_is_a_map_that_survives_crashes(seed: u64, steps in prop::collection::vec(step(), 1..24)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let machine = Machine::new(seed).await;
            let disk = Some(machine.open().await);
            let mut run = Run { machine, disk, model: BTreeMap::new(), doubtful: BTreeMap::new(), rotten: BTreeSet::new(), writes: 0 };
            for step in &steps {
                run.step(step).await;
            }
        });
    }
}
