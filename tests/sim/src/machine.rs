//! A machine: what is left of a node when its process dies.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use placement_env::sim::{FaultKind, SimClock, SimFs, SimRandom, SimTasks};
use placement_types::{BoxFuture, Clock as _, Env, Fs, OpenMode, Timestamp, Watcher};
use storage_node::{KvOpener, KvOpeners};
use storage_node_kv::{Kv, MemoryKv};

use crate::dice::{Dice, derive};
use crate::lying_fs::LyingFs;
use crate::network::SimNet;
use crate::roles::ballast;

/// Wall-clock time at the start of every simulation: 2026-01-01T00:00:00Z.
const STARTS_AT: Timestamp = Timestamp::from_millis(1_767_225_600_000);

/// The one data directory, where its shards are, and their files.
pub const DATA_DIR: &str = "/data";
const DISK_DIR: &str = "/data/disk";
const SEGMENTS_DIR: &str = "/data/disk/segments";

/// Where the Raft log is.
const LOG_DIR: &str = "/data/node/log";

/// What a disk holds that is not full.
const CAPACITY_BYTES: u64 = 1 << 40;

/// What a process may have to write before it is up, where it has no ballast for that.
const START_BYTES: u64 = 64 << 10;

/// How often a process looks whether its machine is switched on.
const POWER_LOOK: Duration = Duration::from_millis(100);

/// How many bits rot at once.
const BITS_ROTTEN: u64 = 12;

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
    /// No fsync of shards succeeds.
    failing: AtomicBool,
    /// The process has come up and is part of the cluster.
    serving: AtomicBool,
    /// The machine is switched on; until then its process does nothing.
    powered: AtomicBool,
    /// The disk says that shards are durable when they are not.
    lying: Arc<AtomicBool>,
    /// The clock of the process that runs.
    clock: Mutex<SimClock>,
    watcher: Mutex<Option<Arc<dyn Watcher>>>,
    clock_wrong_by_ms: AtomicI64,
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
            failing: AtomicBool::new(false),
            serving: AtomicBool::new(false),
            powered: AtomicBool::new(true),
            lying: Arc::default(),
            clock: Mutex::default(),
            watcher: Mutex::default(),
            clock_wrong_by_ms: AtomicI64::new(0),
        })
    }

    /// The environment of the next process on this machine. To be called inside the simulation.
    pub fn boot(&self) -> Env {
        self.serving.store(false, Ordering::Relaxed);
        self.dying.store(false, Ordering::Relaxed);
        let start = self.starts.fetch_add(1, Ordering::Relaxed);
        let now = STARTS_AT.plus(turmoil::sim_elapsed().unwrap_or_default());
        let clock = SimClock::starting_at(now);
        clock.skew_wall_clock(self.clock_wrong_by_ms.load(Ordering::Relaxed));
        *self.clock.lock() = clock.clone();
        Env {
            clock: Arc::new(clock),
            random: Arc::new(SimRandom::new(derive(self.seed, start))),
            net: Arc::new(SimNet),
            fs: match self.plant {
                Plant::Nothing => Arc::new(LyingFs::new(self.fs.clone(), SEGMENTS_DIR, self.lying.clone())),
                Plant::LyingLog => Arc::new(LyingFs::new(self.fs.clone(), LOG_DIR, Arc::new(AtomicBool::new(true)))),
            },
            tasks: Arc::new(SimTasks),
            watcher: self.watcher.lock().clone(),
        }
    }

    /// From the next start on, `watcher` sees what the processes of this machine come past.
    pub fn set_watcher(&self, watcher: Arc<dyn Watcher>) {
        *self.watcher.lock() = Some(watcher);
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

    /// Whether its process may fail to start: the machine is losing its power, or its disk fails.
    pub fn may_fail(&self) -> bool {
        self.is_dying() || self.failing.load(Ordering::Relaxed)
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

    /// The segments that hold something, and where that ends. The rest of them is reserved and zero.
    pub fn written(&self) -> Vec<(PathBuf, u64)> {
        let Ok(mut entries) = self.fs.read_dir(Path::new(SEGMENTS_DIR)) else { return Vec::new() };
        entries.sort_by(|left, right| left.path.cmp(&right.path));
        let ends = entries.into_iter().filter_map(|entry| {
            let file = self.fs.open(&entry.path, OpenMode::Read).ok()?;
            let mut content = vec![0; usize::try_from(file.len().ok()?).ok()?];
            let read = file.read_at(&mut content, 0).ok()?;
            let last = content[..read].iter().rposition(|byte| *byte != 0)?;
            Some((entry.path, last as u64 + 1))
        });
        ends.collect()
    }

    /// Flips bits of what is written in the segments. Returns how many.
    pub fn rot(&self, dice: &Dice) -> u64 {
        let written = self.written();
        if written.is_empty() {
            return 0;
        }
        for _ in 0..BITS_ROTTEN {
            let (path, end) = &written[dice.range(0, written.len() as u64) as usize];
            self.fs.flip_bit(path, dice.range(0, *end), dice.range(0, 8) as u8);
        }
        BITS_ROTTEN
    }

    /// No fsync of shards succeeds any more, until the disk is mended.
    pub fn fail_syncs(&self) {
        self.failing.store(true, Ordering::Relaxed);
        self.fs.fail_all(DISK_DIR, FaultKind::Sync);
    }

    /// Not one more byte fits, but for a process that is still starting: it has to write down that it runs, and ends when it cannot.
    pub fn fill(&self) {
        let space = self.fs.space(Path::new(DATA_DIR)).expect("the data directory is there");
        self.fs.set_capacity(space.total_bytes - space.available_bytes);
        if !self.is_serving() {
            self.make_room();
        }
    }

    /// What an operator has to do before a process starts on a full disk that has no ballast to give up.
    pub fn prepare_start(&self) {
        // One that a crash took away again may be there in name.
        let ballast = Path::new(DATA_DIR).join(ballast::FILE);
        if !matches!(self.fs.metadata(&ballast), Ok(Some(ballast)) if ballast.bytes > START_BYTES) {
            self.make_room();
        }
    }

    fn make_room(&self) {
        // Before the first start there is nothing.
        let Ok(space) = self.fs.space(Path::new(DATA_DIR)) else { return };
        self.fs.set_capacity(space.total_bytes + START_BYTES.saturating_sub(space.available_bytes));
    }

    /// The disk claims that shards are durable when they are not, until its power goes.
    pub fn lie(&self) {
        self.lying.store(true, Ordering::Relaxed);
    }

    /// The disk is as good as new, but for what it has lost.
    pub fn mend_disk(&self) {
        self.fs.clear_faults();
        self.failing.store(false, Ordering::Relaxed);
        self.fs.set_capacity(CAPACITY_BYTES);
        self.lying.store(false, Ordering::Relaxed);
    }

    /// Passes the time of the process that runs.
    pub fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        self.clock.lock().sleep(duration)
    }

    /// The wall clock goes wrong, also for the next process.
    pub fn set_clock_wrong(&self, by_ms: i64) {
        self.clock_wrong_by_ms.store(by_ms, Ordering::Relaxed);
        self.clock.lock().skew_wall_clock(by_ms);
    }

    /// A machine that is not switched on yet.
    pub fn power_off(&self) {
        self.powered.store(false, Ordering::Relaxed);
    }

    pub fn power_on(&self) {
        self.powered.store(true, Ordering::Relaxed);
    }

    pub async fn wait_for_power(&self) {
        let clock = SimClock::new();
        while !self.powered.load(Ordering::Relaxed) {
            clock.sleep(POWER_LOOK).await;
        }
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
