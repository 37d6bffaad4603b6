//! What clients do while everything fails: writes of unique bodies, reads, deletions, listings and conditional writes through all
//! gateways, with every outcome noted.
//!
//! *Hot* keys are shared, few, and others in each round, so that operations meet and a key's history stays short. *Cold* keys are
//! written once by one client and stay: they are the durability manifest.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::StreamExt as _;
use http::Method;
use parking_lot::Mutex;
use tests_faults::{Action, Operation, Outcome, body};
use tests_sim::Dice;
use tokio::task::JoinSet;

use crate::s3::{BUCKET, Reply, S3};

/// Hot keys have numbers below this, a thousand for each round.
const COLD: u32 = 10_000_000;
const ROUND_KEYS: u32 = 1000;

/// Of the hot keys of a round the first are only written and read, the next also deleted, the last written under conditions.
const WRITTEN: u32 = 3;
const DELETED: u32 = 6;
const CONDITIONAL: u32 = 9;

/// Clients of each kind and gateway.
const HOT_CLIENTS: u32 = 3;
const COLD_CLIENTS: u32 = 2;

/// A client's number is that of its gateway times this, and its own.
const CLIENTS_PER_GATEWAY: usize = 10;

/// How many objects of the manifest are read back at a time.
const READERS: usize = 12;

/// One cluster's clients and what they were told.
pub struct Clients {
    gateways: Vec<S3>,
    seed: u64,
    began: Instant,
    history: Mutex<Vec<Operation>>,
    bodies: AtomicU64,
    round: AtomicU32,
    cold_next: AtomicU32,
    stop: AtomicBool,
    /// How many times as long clients rest between requests.
    rest: AtomicU32,
    /// Writes under way, by gateway.
    writing: Vec<AtomicU32>,
    /// Bodies seen under hot keys, to swap.
    seen: Mutex<BTreeMap<u32, (u64, String)>>,
}

/// What to do next to a key.
enum Wanted {
    Put,
    Create,
    Swap { expected: u64, etag: String },
}

impl Clients {
    pub fn new(gateways: Vec<S3>, seed: u64) -> Arc<Self> {
        Arc::new(Self {
            writing: gateways.iter().map(|_| AtomicU32::new(0)).collect(),
            gateways,
            seed,
            began: Instant::now(),
            history: Mutex::default(),
            bodies: AtomicU64::new(1),
            round: AtomicU32::new(0),
            cold_next: AtomicU32::new(COLD),
            stop: AtomicBool::new(false),
            rest: AtomicU32::new(1),
            seen: Mutex::default(),
        })
    }

    pub fn now(&self) -> Duration {
        self.began.elapsed()
    }

    pub fn history(&self) -> Vec<Operation> {
        self.history.lock().clone()
    }

    /// How many writes were acknowledged so far.
    pub fn acknowledged(&self) -> usize {
        self.history.lock().iter().filter(|operation| operation.is_ok() && operation.body().is_some()).count()
    }

    /// Whether a write is under way through every gateway.
    pub fn is_writing_everywhere(&self) -> bool {
        self.writing.iter().all(|writes| writes.load(Ordering::Relaxed) > 0)
    }

    pub fn begin_round(&self) {
        self.round.fetch_add(1, Ordering::Relaxed);
        self.seen.lock().clear();
    }

    /// Lets clients rest so many times as long between requests as they do otherwise.
    pub fn set_rest(&self, times: u32) {
        self.rest.store(times, Ordering::Relaxed);
    }

    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Makes the bucket.
    ///
    /// # Errors
    /// When that does not succeed within a minute.
    pub async fn make_bucket(&self) -> anyhow::Result<()> {
        let mut last = String::new();
        for _ in 0..120 {
            match self.gateways[0].send(Method::PUT, BUCKET, &[], Bytes::new()).await {
                Ok(reply) if matches!(reply.status.as_u16(), 200 | 409) => return Ok(()),
                Ok(reply) => last = format!("{}: {}", reply.status, String::from_utf8_lossy(&reply.body)),
                Err(error) => last = format!("{error:#}"),
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        anyhow::bail!("no bucket: {last}")
    }

    /// Starts all clients; they run until [`Clients::stop`].
    pub fn start(self: &Arc<Self>) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
        for gateway in 0..self.gateways.len() {
            for number in 0..HOT_CLIENTS {
                let client = self.client(gateway, number);
                tasks.spawn(async move { client.work_hot().await });
            }
            for number in 0..COLD_CLIENTS {
                let client = self.client(gateway, 5 + number);
                tasks.spawn(async move { client.work_cold().await });
            }
        }
        tasks
    }

    fn client(self: &Arc<Self>, gateway: usize, number: u32) -> Client {
        let number = (gateway * CLIENTS_PER_GATEWAY) as u32 + number;
        let dice = Dice::new(self.seed, 0xc0 + u64::from(number));
        Client { all: self.clone(), s3: self.gateways[gateway].clone(), number, dice }
    }

    /// Writes and reads through every gateway, in a few shelves. How long the slowest of them took, when all succeeded.
    pub async fn probe(self: &Arc<Self>) -> Result<Duration, String> {
        let round = self.round.load(Ordering::Relaxed);
        let mut slowest = Duration::ZERO;
        for gateway in 0..self.gateways.len() {
            let client = self.client(gateway, 8);
            for probe in 0..3 {
                let key = round * ROUND_KEYS + 900 + probe;
                let began = self.now();
                let written = client.put(key, Wanted::Put, 20_000).await;
                slowest = slowest.max(self.now() - began);
                let began = self.now();
                let read = client.get(key).await;
                slowest = slowest.max(self.now() - began);
                if let Some(outcome) = [written, read].into_iter().find(|outcome| *outcome != Outcome::Ok) {
                    return Err(format!("gateway {gateway}: {outcome:?}"));
                }
            }
        }
        Ok(slowest)
    }

    /// Reads back every object of the manifest and every hot key of this round, and lists all of both. What does not answer is
    /// tried until `deadline`; returns what then still does not.
    pub async fn read_back(self: &Arc<Self>, deadline: Duration) -> Vec<String> {
        let round = self.round.load(Ordering::Relaxed);
        let hot = round * ROUND_KEYS..round * ROUND_KEYS + CONDITIONAL;
        let cold = COLD..self.cold_next.load(Ordering::Relaxed);
        let mut waiting: Vec<u32> = hot.clone().chain(cold.clone()).collect();
        let mut failures = Vec::new();
        loop {
            let reads = waiting.iter().enumerate().map(|(index, key)| {
                let (client, key) = (self.client(index % self.gateways.len(), 7), *key);
                async move { (key, client.get(key).await) }
            });
            let outcomes: Vec<(u32, Outcome)> = futures::stream::iter(reads).buffer_unordered(READERS).collect().await;
            let failed: Vec<(u32, Outcome)> = outcomes.into_iter().filter(|(_, outcome)| *outcome != Outcome::Ok).collect();
            waiting = failed.iter().map(|(key, _)| *key).collect();
            if waiting.is_empty() {
                break;
            }
            if self.now() > deadline {
                let told = failed.iter().take(5).map(|(key, outcome)| format!("GET {} still ends {outcome:?}", name(*key)));
                failures.extend(told);
                failures.push(format!("{} objects cannot be read although all faults are over", failed.len()));
                break;
            }
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        for (scope, page) in [(hot.start..hot.start + ROUND_KEYS, 4), (COLD..u32::MAX, 1000)] {
            for gateway in 0..self.gateways.len() {
                let client = self.client(gateway, 7);
                while let Outcome::Unknown(why) = client.list(scope.clone(), page).await {
                    if self.now() > deadline {
                        failures.push(format!("LIST of {scope:?} through gateway {gateway} still fails: {why}"));
                        break;
                    }
                    tokio::time::sleep(Duration::from_millis(300)).await;
                }
            }
        }
        failures
    }

    fn record(&self, client: u32, action: Action, started: Duration, outcome: Outcome) -> Outcome {
        let operation = Operation { client, action, started, ended: self.now(), outcome: outcome.clone() };
        self.history.lock().push(operation);
        outcome
    }
}

struct Client {
    all: Arc<Clients>,
    s3: S3,
    number: u32,
    dice: Dice,
}

impl Client {
    fn is_over(&self) -> bool {
        self.all.stop.load(Ordering::Relaxed)
    }

    async fn rest(&self, from_ms: u64, to_ms: u64) {
        tokio::time::sleep(self.dice.millis(from_ms, to_ms) * self.all.rest.load(Ordering::Relaxed)).await;
    }

    async fn work_hot(&self) {
        while !self.is_over() {
            let base = self.all.round.load(Ordering::Relaxed) * ROUND_KEYS;
            let offset = self.dice.range(0, u64::from(CONDITIONAL)) as u32;
            let key = base + offset;
            match self.dice.range(0, 100) {
                0..4 => drop(self.list(base..base + ROUND_KEYS, 4).await),
                4..45 => drop(self.get(key).await),
                45..60 if (WRITTEN..DELETED).contains(&offset) => drop(self.delete(key).await),
                _ if offset < DELETED => drop(self.put(key, Wanted::Put, self.some_size()).await),
                _ => {
                    let known = self.all.seen.lock().get(&key).cloned();
                    let wanted = match known {
                        Some((expected, etag)) if self.dice.range(0, 5) > 0 => Wanted::Swap { expected, etag },
                        _ => Wanted::Create,
                    };
                    self.put(key, wanted, self.some_size()).await;
                }
            }
            self.rest(20, 400).await;
        }
    }

    async fn work_cold(&self) {
        let mut mine = Vec::new();
        while !self.is_over() {
            let key = self.all.cold_next.fetch_add(1, Ordering::Relaxed);
            if self.put(key, Wanted::Put, self.some_size()).await == Outcome::Ok {
                mine.push(key);
            }
            if self.dice.range(0, 12) == 0 && !mine.is_empty() {
                let gone = mine.swap_remove(self.dice.range(0, mine.len() as u64) as usize);
                self.delete(gone).await;
            }
            self.rest(100, 500).await;
        }
    }

    /// Mostly small, since the disks are; inline, of one unit, of several.
    fn some_size(&self) -> u64 {
        match self.dice.range(0, 100) {
            0..60 => self.dice.range(body::BYTES_MIN, 4000),
            60..99 => self.dice.range(17_000, 80_000),
            _ => self.dice.range(1_100_000, 1_600_000),
        }
    }

    async fn put(&self, key: u32, wanted: Wanted, bytes: u64) -> Outcome {
        let number = self.all.bodies.fetch_add(1, Ordering::Relaxed);
        let content = body::content(number, bytes);
        let etag = body::etag(&content);
        let headers = match &wanted {
            Wanted::Put => vec![],
            Wanted::Create => vec![("if-none-match", "*".to_owned())],
            Wanted::Swap { etag, .. } => vec![("if-match", format!("\"{etag}\""))],
        };
        let action = match wanted {
            Wanted::Put => Action::Put { key, body: number },
            Wanted::Create => Action::Create { key, body: number },
            Wanted::Swap { expected, .. } => Action::Swap { key, expected, body: number },
        };
        let started = self.all.now();
        let writing = &self.all.writing[self.number as usize / CLIENTS_PER_GATEWAY];
        writing.fetch_add(1, Ordering::Relaxed);
        let reply = self.s3.send(Method::PUT, &path(key), &headers, content).await;
        writing.fetch_sub(1, Ordering::Relaxed);
        let wrong = reply.as_ref().ok().filter(|reply| reply.status == 200 && reply.etag() != etag);
        let action = match wrong {
            Some(reply) => Action::Wrong { key, what: format!("the PUT of #{number} was answered with etag {}", reply.etag()) },
            None => action,
        };
        let outcome = self.all.record(self.number, action, started, outcome(reply));
        if key % ROUND_KEYS >= DELETED && key < COLD && outcome == Outcome::Ok {
            self.all.seen.lock().insert(key, (number, etag));
        }
        outcome
    }

    async fn delete(&self, key: u32) -> Outcome {
        let started = self.all.now();
        let reply = self.s3.send(Method::DELETE, &path(key), &[], Bytes::new()).await;
        self.all.record(self.number, Action::Delete { key }, started, outcome(reply))
    }

    async fn get(&self, key: u32) -> Outcome {
        let started = self.all.now();
        let reply = self.s3.send(Method::GET, &path(key), &[], Bytes::new()).await;
        let (action, outcome) = match reply {
            Ok(reply) if reply.status == 404 => (Action::Get { key, seen: None }, Outcome::Ok),
            Ok(reply) if reply.status == 200 => match body::identify(&reply.body) {
                Some(number) if body::etag(&reply.body) == reply.etag() => {
                    if key < COLD && key % ROUND_KEYS >= DELETED {
                        self.all.seen.lock().insert(key, (number, reply.etag().to_owned()));
                    }
                    (Action::Get { key, seen: Some(number) }, Outcome::Ok)
                }
                Some(number) => (Action::Wrong { key, what: format!("#{number} came with etag {}", reply.etag()) }, Outcome::Ok),
                None => (Action::Wrong { key, what: format!("{} bytes nobody wrote", reply.body.len()) }, Outcome::Ok),
            },
            reply => (Action::Get { key, seen: None }, outcome(reply)),
        };
        self.all.record(self.number, action, started, outcome)
    }

    async fn list(&self, scope: std::ops::Range<u32>, page: u32) -> Outcome {
        let prefix = if scope.start >= COLD { "cold/".to_owned() } else { format!("hot/{:05}", scope.start / ROUND_KEYS) };
        let started = self.all.now();
        let (keys, outcome) = match self.s3.list(&prefix, page).await {
            Ok(names) => (names.iter().map(|name| number_of(name)).collect(), Outcome::Ok),
            Err(error) => (BTreeSet::new(), Outcome::Unknown(format!("{error:#}"))),
        };
        self.all.record(self.number, Action::List { scope, keys }, started, outcome)
    }
}

fn outcome(reply: anyhow::Result<Reply>) -> Outcome {
    match reply {
        Ok(reply) if reply.status.is_success() => Outcome::Ok,
        Ok(reply) if reply.status == 412 => Outcome::Unmet,
        Ok(reply) => {
            let said = String::from_utf8_lossy(&reply.body);
            let said = format!("{} {}", reply.status, said.chars().take(300).collect::<String>());
            if reply.status.is_client_error() { Outcome::Refused(said) } else { Outcome::Unknown(said) }
        }
        Err(error) => Outcome::Unknown(format!("{error:#}")),
    }
}

fn name(key: u32) -> String {
    if key >= COLD { format!("cold/{key:08}") } else { format!("hot/{key:08}") }
}

fn path(key: u32) -> String {
    format!("{BUCKET}/{}", name(key))
}

/// A key that no client made becomes a number that none has.
fn number_of(name: &str) -> u32 {
    let number = name.strip_prefix("hot/").or_else(|| name.strip_prefix("cold/"));
    number.and_then(|digits| digits.parse().ok()).unwrap_or(u32::MAX)
}
