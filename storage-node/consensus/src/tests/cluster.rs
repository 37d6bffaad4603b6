//! What the tests run on: nodes that can be killed, lose their power, and be cut off.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use placement_env::sim::{self, SimFs};
use placement_types::{BoxFuture, Clock, Env, GroupId, ReplicaId, TaskHandle, Tasks};
use storage_node_kv::{KvError, KvRead, MemoryKv, Overlay, Step};

use crate::{Config, Consensus, GroupStatus, Machine, ProposeError, Role, StartError, Transport};

pub const GROUP: GroupId = GroupId(7);

/// Keeps the entries it was given, in order, under their numbers; replies with the number. Entries are short texts.
pub struct Journal;

/// To a [`Journal`], this entry is one for which its state turns out to be damaged, after half of it was written.
pub const DAMAGED: &str = "damaged";

impl Machine for Journal {
    fn apply(&self, state: &mut Overlay<'_>, _index: u64, entry: &[u8]) -> Result<Bytes, KvError> {
        let count = state.get(b"count")?.map_or(0, |bytes| number(&bytes)) + 1;
        state.put(&b"count"[..], count.to_be_bytes().to_vec());
        if entry == DAMAGED.as_bytes() {
            return Err(KvError::Corrupt { detail: "a row does not decode".to_owned() });
        }
        state.put([&b"entry"[..], &count.to_be_bytes()].concat(), entry.to_vec());
        Ok(Bytes::copy_from_slice(&count.to_be_bytes()))
    }
}

pub fn number(bytes: &[u8]) -> u64 {
    u64::from_be_bytes(bytes.try_into().expect("the machine writes eight bytes"))
}

/// Delivers messages after a random delay, unless they are lost or the way is cut.
pub struct Net {
    env: Env,
    nodes: Mutex<BTreeMap<ReplicaId, Consensus>>,
    cuts: Mutex<BTreeSet<(ReplicaId, ReplicaId)>>,
    loss_percent: Mutex<u64>,
    delay_ms_max: Mutex<u64>,
}

impl Net {
    fn carry(self: &Arc<Self>, from: ReplicaId, to: ReplicaId, messages: Vec<Bytes>) {
        let kept: Vec<Bytes> = messages.into_iter().filter(|_| self.env.random_below(100) >= *self.loss_percent.lock()).collect();
        let delay = Duration::from_millis(self.env.random_below(*self.delay_ms_max.lock() + 1));
        let net = self.clone();
        let arrive = async move {
            net.env.sleep(delay).await;
            if net.cuts.lock().contains(&(from, to)) {
                return;
            }
            let node = net.nodes.lock().get(&to).cloned();
            if let Some(node) = node {
                node.step(kept);
            }
        };
        self.env.spawn("message", arrive).detach();
    }
}

/// One node's end of the network.
struct Link {
    net: Arc<Net>,
    from: ReplicaId,
}

impl Transport for Link {
    fn send(&self, to: ReplicaId, messages: Vec<Bytes>) {
        self.net.carry(self.from, to, messages);
    }
}

/// Blocking work that takes a while, so that turns of the driver fall before, between and after it.
struct SlowTasks {
    tasks: Arc<dyn Tasks>,
    clock: Arc<dyn Clock>,
    env: Env,
    disk_lag_ms: Arc<AtomicU64>,
}

impl Tasks for SlowTasks {
    fn spawn(&self, name: &'static str, task: BoxFuture<'static, ()>) -> TaskHandle {
        self.tasks.spawn(name, task)
    }

    fn run_blocking(&self, work: Box<dyn FnOnce() + Send>) -> BoxFuture<'static, ()> {
        let clock = self.clock.clone();
        let lag = self.disk_lag_ms.load(Ordering::Relaxed);
        let lag = lag + self.env.random_below(lag / 4 + 1);
        let delays = [self.env.random_below(3) + lag, self.env.random_below(3)].map(Duration::from_millis);
        Box::pin(async move {
            clock.sleep(delays[0]).await;
            work();
            clock.sleep(delays[1]).await;
        })
    }
}

pub struct Node {
    pub fs: SimFs,
    pub kv: MemoryKv,
    pub env: Env,
    disk_lag_ms: Arc<AtomicU64>,
    running: Option<Consensus>,
}

pub struct Cluster {
    pub net: Arc<Net>,
    pub env: Env,
    pub nodes: BTreeMap<u64, Node>,
    configure: fn(&mut Config),
}

impl Cluster {
    /// Starts nodes 1 to `count`, without any group.
    pub async fn start(seed: u64, count: u64) -> Self {
        Self::start_with(seed, count, |_| {}).await
    }

    pub async fn start_with(seed: u64, count: u64, configure: fn(&mut Config)) -> Self {
        let (env, _) = sim::env(seed);
        let net = Net {
            env: env.clone(),
            nodes: Mutex::default(),
            cuts: Mutex::default(),
            loss_percent: Mutex::new(0),
            delay_ms_max: Mutex::new(3),
        };
        let mut cluster = Self { net: Arc::new(net), env, nodes: BTreeMap::new(), configure };
        for id in 1..=count {
            cluster.add(id).await;
        }
        cluster
    }

    /// Starts nodes and creates the group on all of them.
    pub async fn with_group(seed: u64, count: u64) -> Self {
        let cluster = Self::start(seed, count).await;
        cluster.create().await;
        cluster
    }

    pub async fn create(&self) {
        let voters: Vec<ReplicaId> = self.nodes.keys().copied().map(ReplicaId).collect();
        for id in self.nodes.keys() {
            self.node(*id).create_group(GROUP, voters.clone()).await.unwrap();
        }
    }

    pub async fn add(&mut self, id: u64) {
        let fs = SimFs::new(id * 1000 + self.env.random_below(1000));
        let (env, _) = sim::env_on(&fs, self.env.random_u64());
        let disk_lag_ms = Arc::new(AtomicU64::new(0));
        let (tasks, clock) = (env.tasks.clone(), env.clock.clone());
        let slow = SlowTasks { tasks, clock, env: env.clone(), disk_lag_ms: disk_lag_ms.clone() };
        let env = Env { tasks: Arc::new(slow), ..env };
        self.nodes.insert(id, Node { fs, kv: MemoryKv::new(), env, disk_lag_ms, running: None });
        self.restart(id).await.unwrap();
    }

    pub fn config(&self, id: u64) -> Config {
        let mut config = Config::new(ReplicaId(id), "/raft");
        config.segment_bytes = 1 << 20;
        config.flush_bytes = 1 << 20;
        (self.configure)(&mut config);
        config
    }

    pub async fn restart(&mut self, id: u64) -> Result<(), StartError> {
        let started = self.starting(id).await?;
        self.started(id, started);
        Ok(())
    }

    /// Starts a node on what its disk and store hold, without touching the cluster.
    pub fn starting(&self, id: u64) -> impl Future<Output = Result<Consensus, StartError>> + use<> {
        let node = &self.nodes[&id];
        let link = Arc::new(Link { net: self.net.clone(), from: ReplicaId(id) });
        let machines = Arc::new(|_| Arc::new(Journal) as Arc<dyn Machine>);
        Consensus::start(self.config(id), node.env.clone(), Arc::new(node.kv.clone()), link, machines)
    }

    pub fn started(&mut self, id: u64, node: Consensus) {
        self.net.nodes.lock().insert(ReplicaId(id), node.clone());
        self.nodes.get_mut(&id).unwrap().running = Some(node);
    }

    /// The process dies; what it wrote stays in the page cache.
    pub async fn kill(&mut self, id: u64) {
        self.stop_now(id);
        // Lets the runtime drop the task, and with it the lock.
        self.sleep_ms(20).await;
    }

    pub fn stop_now(&mut self, id: u64) {
        self.net.nodes.lock().remove(&ReplicaId(id));
        if let Some(node) = self.nodes.get_mut(&id).unwrap().running.take() {
            node.abort();
        }
    }

    /// The machine loses power: unsynced bytes are torn as the seed says, and the store loses some of its last batches.
    pub async fn cut_power(&mut self, id: u64) {
        self.kill(id).await;
        self.lose_unsynced(id);
    }

    pub fn lose_unsynced(&mut self, id: u64) {
        let node = &self.nodes[&id];
        node.fs.crash();
        let kept = self.env.random_below(node.kv.unsynced_batches() as u64 + 1);
        node.kv.crash_keeping(kept as usize);
    }

    pub fn is_running(&self, id: u64) -> bool {
        self.nodes[&id].running.is_some()
    }

    pub fn node(&self, id: u64) -> &Consensus {
        self.nodes[&id].running.as_ref().unwrap()
    }

    /// Cuts a node off from all others, both ways.
    pub fn isolate(&self, id: u64) {
        for other in self.nodes.keys().filter(|other| **other != id) {
            self.cut(id, *other);
            self.cut(*other, id);
        }
    }

    pub fn cut(&self, from: u64, to: u64) {
        self.net.cuts.lock().insert((ReplicaId(from), ReplicaId(to)));
    }

    pub fn heal(&self) {
        self.net.cuts.lock().clear();
    }

    pub fn set_loss(&self, percent: u64, delay_ms_max: u64) {
        *self.net.loss_percent.lock() = percent;
        *self.net.delay_ms_max.lock() = delay_ms_max;
    }

    /// How long a node's disk takes longer for everything it is asked; a quarter more now and then.
    pub fn set_disk_lag(&self, id: u64, ms: u64) {
        self.nodes[&id].disk_lag_ms.store(ms, Ordering::Relaxed);
    }

    pub async fn sleep_ms(&self, ms: u64) {
        self.env.sleep(Duration::from_millis(ms)).await;
    }

    /// Waits until one of the running nodes leads, and says which.
    pub async fn leader(&self) -> u64 {
        self.leader_among(&self.nodes.keys().copied().collect::<Vec<_>>()).await
    }

    /// Waits until one of these nodes leads and can read, and says which.
    pub async fn leader_among(&self, ids: &[u64]) -> u64 {
        for _ in 0..1000 {
            for id in ids.iter().filter(|id| self.is_running(**id)) {
                let leads = self.status(*id).is_some_and(|status| status.role == Role::Leader);
                let read = self.env.timeout(Duration::from_millis(500), self.node(*id).read_barrier(GROUP));
                if leads && read.await == Ok(Ok(())) {
                    return *id;
                }
            }
            self.sleep_ms(20).await;
        }
        panic!("nobody leads: {:?}", ids.iter().map(|id| self.status(*id)).collect::<Vec<_>>());
    }

    pub fn status(&self, id: u64) -> Option<GroupStatus> {
        self.nodes[&id].running.as_ref().and_then(|node| node.group_status(GROUP))
    }

    pub async fn propose(&self, id: u64, entry: &str) -> Result<u64, ProposeError> {
        self.node(id).propose(GROUP, Bytes::copy_from_slice(entry.as_bytes())).await.map(|reply| number(&reply))
    }

    /// Proposes to whoever leads until it is acknowledged.
    pub async fn write(&self, entry: &str) -> u64 {
        for _ in 0..100 {
            let leader = self.leader().await;
            match self.env.timeout(Duration::from_secs(10), self.propose(leader, entry)).await {
                Ok(Ok(number)) => return number,
                Ok(Err(ProposeError::NotLeader { .. } | ProposeError::Busy)) | Err(_) => self.sleep_ms(50).await,
                Ok(Err(error)) => panic!("{error}"),
            }
        }
        panic!("nothing can be written");
    }

    /// The entries in a node's state.
    pub fn journal(&self, id: u64) -> Vec<String> {
        self.node(id).read_state(GROUP, entries).unwrap_or_default()
    }

    /// Waits until all these nodes have the same entries as the leader.
    pub async fn converge(&self, ids: &[u64]) -> Vec<String> {
        for _ in 0..3000 {
            let leader = self.leader_among(ids).await;
            let expected = self.journal(leader);
            if ids.iter().all(|id| self.journal(*id) == expected) {
                return expected;
            }
            self.sleep_ms(50).await;
        }
        let counts: Vec<_> = ids.iter().map(|id| (*id, self.journal(*id).len(), self.status(*id))).collect();
        panic!("the nodes do not converge: {counts:#?}");
    }
}

pub fn entries(state: &dyn KvRead) -> Vec<String> {
    let mut entries = Vec::new();
    state
        .scan(b"entry", b"entrz", &mut |_, value| {
            entries.push(String::from_utf8(value.to_vec()).unwrap());
            Step::Next
        })
        .unwrap();
    entries
}
