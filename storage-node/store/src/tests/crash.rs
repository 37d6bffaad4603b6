//! Crashes at every write and every sync of a fixed script (P6 to P8, P20), under several seeds.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::machine::*;
use crate::{Disk, WriteError};

/// What may be found of a shard after the crash.
#[derive(Debug, Clone, PartialEq)]
enum Expected {
    Exactly(Option<Vec<Bytes>>),
    Either(Option<Vec<Bytes>>, Option<Vec<Bytes>>),
}

struct Script {
    disk: Disk,
    expected: BTreeMap<u128, Expected>,
}

impl Script {
    fn now(&self, id: u128) -> Option<Vec<Bytes>> {
        match self.expected.get(&id) {
            None => None,
            Some(Expected::Exactly(content)) => content.clone(),
            Some(Expected::Either(..)) => unreachable!("the script ends at the first error"),
        }
    }

    async fn change(&mut self, id: u128, to: Option<Vec<Bytes>>) -> Result<(), WriteError> {
        let before = self.now(id);
        self.expected.insert(id, Expected::Either(before, to.clone()));
        match &to {
            Some(content) => put(&self.disk, shard(id), content).await?,
            None => self.disk.delete_shards(vec![shard(id)]).await?,
        }
        self.expected.insert(id, Expected::Exactly(to));
        Ok(())
    }

    /// Fills two segments, kills most of the first, compacts it, and goes on.
    async fn run(&mut self) -> Result<(), WriteError> {
        for id in 0..6 {
            self.change(id, Some(units(id as u64, &[400_000, 100_000, 7]))).await?;
        }
        self.disk.checkpoint().await?;
        for id in [0, 2] {
            self.change(id, None).await?;
        }
        self.change(10, Some(units(10, &[3000]))).await?;
        while self.disk.compact_once().await?.is_some() {}
        self.change(2, Some(units(22, &[600_000, 5]))).await?;
        self.change(1, None).await?;
        while self.disk.compact_once().await?.is_some() {}
        self.change(11, Some(units(11, &[5000, 5000]))).await
    }
}

#[tokio::test]
async fn a_crash_at_any_step_loses_nothing_acknowledged_and_brings_nothing_back() {
    for seed in 0..3 {
        let mut step = 0;
        loop {
            let machine = Machine::new(seed).await;
            let mut script = Script { disk: machine.open().await, expected: BTreeMap::new() };
            machine.fs.halt_after(step);
            let result = script.run().await;
            let Script { disk, expected } = script;
            machine.crash(disk, (seed * step) as usize % 5).await;
            check(&machine, &expected, step).await;
            // The same must come out of the segments alone.
            machine.lose_index();
            check(&machine, &expected, step).await;
            if result.is_ok() {
                assert!(step > 60, "the script has {step} steps");
                break;
            }
            step += 1;
        }
    }
}

async fn check(machine: &Machine, expected: &BTreeMap<u128, Expected>, step: u64) {
    let disk = machine.open().await;
    for (id, expected) in expected {
        let found = get(&disk, shard(*id)).await;
        match expected {
            Expected::Exactly(content) => assert!(found == *content, "step {step}: shard {id} is not what was acknowledged"),
            Expected::Either(before, after) => {
                assert!(found == *before || found == *after, "step {step}: shard {id} is neither old nor new");
            }
        }
    }
    // And the disk works.
    put(&disk, shard(500), &units(500, &[9000])).await.unwrap();
    assert_eq!(get(&disk, shard(500)).await.unwrap(), units(500, &[9000]));
    disk.delete_shards(vec![shard(500)]).await.unwrap();
    disk.close().await.unwrap();
}

#[tokio::test]
async fn records_that_a_failed_fsync_forgot_are_written_again_before_they_count() {
    let machine = Machine::new(3).await;
    let disk = machine.open().await;
    put(&disk, shard(1), &units(1, &[10])).await.unwrap();
    machine.fs.fail_all("/disk/segments", placement_env::sim::FaultKind::Sync);
    put(&disk, shard(2), &units(2, &[5000])).await.unwrap_err();
    drop(disk);
    tokio::task::yield_now().await;
    machine.fs.clear_faults();
    let disk = machine.open().await;
    // Its record is in the page cache, from which the failed sync left it as if it were clean (D31).
    assert_eq!(get(&disk, shard(2)).await, Some(units(2, &[5000])));
    put(&disk, shard(2), &units(2, &[5000])).await.unwrap();
    machine.fs.crash_losing_unsynced();
    machine.kv.lock().crash();
    drop(disk);
    tokio::task::yield_now().await;
    let disk = machine.open().await;
    assert_eq!(get(&disk, shard(1)).await, Some(units(1, &[10])));
    assert_eq!(get(&disk, shard(2)).await, Some(units(2, &[5000])));
}

#[tokio::test]
async fn records_found_in_the_page_cache_survive_the_next_power_cut() {
    let machine = Machine::new(3).await;
    let disk = machine.open().await;
    put(&disk, shard(1), &units(1, &[10])).await.unwrap();
    // Dies between the write and the sync.
    machine.fs.halt_after(1);
    put(&disk, shard(2), &units(2, &[5000])).await.unwrap_err();
    drop(disk);
    tokio::task::yield_now().await;
    machine.fs.clear_faults();
    let disk = machine.open().await;
    assert_eq!(get(&disk, shard(2)).await, Some(units(2, &[5000])), "the record was written");
    // A retry is acknowledged without writing anything.
    put(&disk, shard(2), &units(2, &[5000])).await.unwrap();
    drop(disk);
    tokio::task::yield_now().await;
    machine.fs.crash_losing_unsynced();
    machine.kv.lock().crash();
    let disk = machine.open().await;
    assert_eq!(get(&disk, shard(2)).await, Some(units(2, &[5000])));
}
