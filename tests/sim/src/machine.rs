//! A machine: what is left of a node when its process dies.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use placement_env::sim::{SimClock, SimFs, SimRandom, SimTasks};
use placement_types::{Env, Fs, Timestamp};
use storage_node::{KvOpener, KvOpeners};
use storage_node_kv::{Kv, MemoryKv};

use crate::dice::{Dice, derive};
use crate::lying_fs::LyingFs;
use crate::network::SimNet;

/// Wall-clock time at the start of every simulation: 2026-01-01T00:00:00Z.
const STARTS_AT: Timestamp = Timestamp::from_millis(1_767_225_600_000);

/// The one data directory.
pub const DATA_DIR: &str = "/data";

/// A bug of the machines, to see that a run finds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plant {
    Nothing,
    /// The disk says that the Raft log is synced when it is not.
    LyingLog,
}

pub struct Machine {
    pub name: String,
    seed: u64,
    plant: Plant,
    fs: SimFs,
    stores: Mutex<BTreeMap<PathBuf, MemoryKv>>,
    starts: AtomicU64,
    /// The power is about to go: what fails now is the crash, not a bug.
    dying: AtomicBool,
    /// The process has come up and is part of the cluster.
    serving: AtomicBool,
}

impl Machine {
    /// A machine with an empty data directory.
    pub fn new(name: String, seed: u64, plant: Plant) -> Arc<Self> {
        let fs = SimFs::new(seed);
        fs.create_dir_all(Path::new(DATA_DIR)).expect("an empty file system takes a directory");
        fs.sync_dir(Path::new("/")).expect("no fault is planned yet");
        Arc::new(Self {
            name,
            seed,
            plant,
            fs,
            stores: Mutex::default(),
            starts: AtomicU64::new(0),
            dying: AtomicBool::new(false),
            serving: AtomicBool::new(false),
        })
    }

    /// The environment of the next process on this machine. To be called inside the simulation.
    pub fn boot(&self) -> Env {
        self.dying.store(false, Ordering::Relaxed);
        let start = self.starts.fetch_add(1, Ordering::Relaxed);
        let now = STARTS_AT.plus(turmoil::sim_elapsed().unwrap_or_default());
        Env {
            clock: Arc::new(SimClock::starting_at(now)),
            random: Arc::new(SimRandom::new(derive(self.seed, start))),
            net: Arc::new(SimNet),
            fs: match self.plant {
                Plant::Nothing => Arc::new(self.fs.clone()),
                Plant::LyingLog => Arc::new(LyingFs(self.fs.clone())),
            },
            tasks: Arc::new(SimTasks),
        }
    }

    /// The machine's stores, as its last process left them.
    pub fn stores(self: &Arc<Self>) -> KvOpeners {
        let machine = self.clone();
        let open: KvOpener = Arc::new(move |path: &Path| {
            let store = machine.stores.lock().entry(path.to_owned()).or_default().clone();
            Ok(Arc::new(store) as Arc<dyn Kv>)
        });
        KvOpeners { index: open.clone(), state: open }
    }

    /// From now on every change but the next `operations` fails, until the crash that this announces.
    pub fn halt_after(&self, operations: u64) {
        self.dying.store(true, Ordering::Relaxed);
        self.fs.halt_after(operations);
    }

    /// How many changes and syncs the disk has seen.
    pub fn disk_operations(&self) -> u64 {
        self.fs.operations()
    }

    pub fn is_dying(&self) -> bool {
        self.dying.load(Ordering::Relaxed)
    }

    /// Nothing of the process reaches the disks any more.
    pub fn cut_power(&self) {
        self.halt_after(0);
        self.serving.store(false, Ordering::Relaxed);
        for store in self.stores.lock().values() {
            store.fail();
        }
    }

    /// Loses what was not durable, after the process is gone. The dice decide whether unsynced writes are gone or torn, and how
    /// much of the stores had been flushed by chance. Returns how many batches of the stores were lost.
    pub fn lose_unsynced(&self, dice: &Dice) -> u64 {
        if dice.coin() {
            self.fs.crash();
        } else {
            self.fs.crash_losing_unsynced();
        }
        let mut lost = 0;
        for store in self.stores.lock().values() {
            let unsynced = store.unsynced_batches() as u64;
            let kept = if dice.coin() { 0 } else { dice.range(0, unsynced + 1) };
            store.crash_keeping(usize::try_from(kept).expect("a count of what is in memory"));
            lost += unsynced - kept;
        }
        lost
    }

    pub fn set_serving(&self) {
        self.serving.store(true, Ordering::Relaxed);
    }

    pub fn is_serving(&self) -> bool {
        self.serving.load(Ordering::Relaxed)
    }
}

/// How long a machine that was told to halt may live on when its disk is idle.
pub const HALT_PATIENCE: Duration = Duration::from_millis(200);
