//! What clients do: PUT, GET, DELETE and LIST on a few shared keys, through two gateways, noting what they are told.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use futures::future::join_all;
use gateway_s3::{ListEntry, ListObjects, S3Api as _, S3Error};
use parking_lot::Mutex;
use tests_faults::{Action, Operation, Outcome, body};

use crate::dice::Dice;
use crate::operator::{Operator, Orders};
use crate::process::RunningGateway;
use crate::requests::{Read, Requests, bucket, key_number, now, outcome};
use crate::scenario::AUDIT_MAX;

/// Keys that clients share: few, so that operations meet.
const KEYS: u32 = 8;

/// Clients of each gateway.
const CLIENTS: u32 = 3;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Stage {
    Starting,
    Working,
    /// All faults are long over: everything is written and read once more.
    Settling,
}

/// What all processes of a run share with the harness.
pub struct Run {
    pub seed: u64,
    pub history: Mutex<Vec<Operation>>,
    pub trace: Mutex<Vec<String>>,
    /// What is asked of the operator.
    pub orders: Arc<Orders>,
    /// What was left to repair or to move when it should have been done.
    pub unsettled: Mutex<Vec<String>>,
    stage: AtomicU8,
    ready: AtomicU8,
    settled: AtomicU8,
    bodies: AtomicU64,
}

impl Run {
    pub fn new(seed: u64) -> Arc<Self> {
        Arc::new(Self {
            seed,
            history: Mutex::default(),
            trace: Mutex::default(),
            orders: Arc::default(),
            unsettled: Mutex::default(),
            stage: AtomicU8::new(Stage::Starting as u8),
            ready: AtomicU8::new(0),
            settled: AtomicU8::new(0),
            bodies: AtomicU64::new(1),
        })
    }

    pub fn set_stage(&self, stage: Stage) {
        self.stage.store(stage as u8, Ordering::Relaxed);
    }

    fn has_reached(&self, stage: Stage) -> bool {
        self.stage.load(Ordering::Relaxed) >= stage as u8
    }

    /// How many gateways found the cluster and the bucket.
    pub fn ready_gateways(&self) -> u8 {
        self.ready.load(Ordering::Relaxed)
    }

    pub fn note(&self, at: Duration, text: &str) {
        self.trace.lock().push(format!("{:.3} {text}", at.as_secs_f64()));
    }
}

/// Runs all clients of one gateway until the end of the run.
pub async fn run_clients(run: Arc<Run>, running: RunningGateway, number: u32) -> turmoil::Result {
    let RunningGateway { env, gateway, maps, follower, client: placement, nodes } = running;
    let operator =
        Arc::new(Operator { env: env.clone(), client: placement, maps: maps.clone(), nodes, orders: run.orders.clone() });
    let requests = Requests { env: env.clone(), gateway };
    let client = |index: u32| Client {
        run: run.clone(),
        requests: requests.clone(),
        number: number * 10 + index,
        dice: Dice::new(run.seed, 0xc0 + u64::from(number * 10 + index)),
    };
    let epochs = env.spawn("epochs", {
        let (run, mut maps) = (run.clone(), maps);
        async move {
            while maps.changed().await.is_ok() {
                let epoch = maps.borrow_and_update().as_ref().map_or(0, |map| map.epoch.0);
                run.note(now(), &format!("gateway{number} epoch {epoch}"));
            }
        }
    });
    requests.make_bucket(number == 0).await;
    run.ready.fetch_add(1, Ordering::Relaxed);
    while !run.has_reached(Stage::Working) {
        env.sleep(Duration::from_millis(20)).await;
    }
    // One operator is enough.
    let at_work = (number == 0).then(|| {
        let operator = operator.clone();
        env.spawn("operator", async move { operator.work().await })
    });
    let clients: Vec<Client> = (0..CLIENTS).map(client).collect();
    join_all(clients.iter().map(Client::work)).await;
    if number == 0
        && let Err(left) = operator.wait_settled().await
    {
        run.unsettled.lock().push(left);
    }
    client(9).settle().await;
    run.settled.fetch_add(1, Ordering::Relaxed);
    if number == 0 {
        // What the other gateway writes last must have been written.
        while run.settled.load(Ordering::Relaxed) < run.ready_gateways() {
            env.sleep(Duration::from_millis(20)).await;
        }
        if let Err(difference) = operator.wait_audited(AUDIT_MAX).await {
            run.unsettled.lock().push(difference);
        }
    }
    drop((epochs, follower, at_work));
    Ok(())
}

struct Client {
    run: Arc<Run>,
    requests: Requests,
    number: u32,
    dice: Dice,
}

impl Client {
    async fn work(&self) {
        while !self.run.has_reached(Stage::Settling) {
            let key = self.dice.range(0, u64::from(KEYS)) as u32;
            match self.dice.range(0, 100) {
                0..40 => self.put(key).await,
                40..80 => self.get(key).await,
                80..92 => self.delete(key).await,
                _ => self.list().await,
            }
            self.requests.env.sleep(self.dice.millis(5, 250)).await;
        }
    }

    /// Reads, rewrites and reads every key, and lists: with nothing in the way, all of it has to work.
    async fn settle(&self) {
        self.list().await;
        for key in 0..KEYS {
            self.get(key).await;
        }
        // The gateways share the keys, so that the last listing is exact.
        for key in (0..KEYS).filter(|key| key % 2 == self.number / 10) {
            self.put(key).await;
            self.get(key).await;
        }
        self.list().await;
    }

    async fn put(&self, key: u32) {
        let bytes = match self.dice.range(0, 10) {
            0..4 => self.dice.range(body::BYTES_MIN, 4000),
            4..8 => self.dice.range(17_000, 400_000),
            _ => self.dice.range(1_100_000, 3_000_000),
        };
        let number = self.run.bodies.fetch_add(1, Ordering::Relaxed);
        let content = body::content(number, bytes);
        let started = now();
        let verdict = self.requests.put(key, content.clone()).await;
        let action = match &verdict {
            Ok(etag) if *etag != body::etag(&content) => {
                Action::Wrong { key, what: format!("the PUT of #{number} was answered with etag {etag}") }
            }
            _ => Action::Put { key, body: number },
        };
        self.record(action, started, outcome(verdict.map(|_| ())));
    }

    async fn delete(&self, key: u32) {
        let started = now();
        let verdict = self.requests.delete(key).await;
        self.record(Action::Delete { key }, started, outcome(verdict));
    }

    async fn get(&self, key: u32) {
        let started = now();
        let (action, verdict) = match self.requests.read(key).await {
            Ok(Read::Absent) => (Action::Get { key, seen: None }, Ok(())),
            Ok(Read::Whole { bytes, etag }) => match body::identify(&bytes) {
                Some(number) if etag == body::etag(&bytes) => (Action::Get { key, seen: Some(number) }, Ok(())),
                Some(number) => (Action::Wrong { key, what: format!("#{number} came with etag {etag}") }, Ok(())),
                None => (Action::Wrong { key, what: format!("{} bytes that nobody wrote", bytes.len()) }, Ok(())),
            },
            Err(error) => (Action::Get { key, seen: None }, Err(error)),
        };
        self.record(action, started, outcome(verdict));
    }

    async fn list(&self) {
        let started = now();
        let verdict = self.list_pages().await;
        let (keys, verdict) = match verdict {
            Ok(keys) => (keys, Ok(())),
            Err(error) => (BTreeSet::new(), Err(error)),
        };
        self.record(Action::List { scope: 0..KEYS, keys }, started, outcome(verdict));
    }

    /// In pages of three, so that a listing is made of several.
    async fn list_pages(&self) -> Result<BTreeSet<u32>, S3Error> {
        let mut keys = BTreeSet::new();
        let mut after = None;
        loop {
            let request = ListObjects { bucket: bucket(), prefix: String::new(), delimiter: None, after, max_keys: 3 };
            let reply = self.requests.gateway.list_objects(&self.requests.context(), request).await?;
            for entry in reply.entries {
                if let ListEntry::Object(object) = entry {
                    keys.insert(key_number(&object.key));
                }
            }
            after = reply.next;
            if after.is_none() {
                return Ok(keys);
            }
        }
    }

    fn record(&self, action: Action, started: Duration, outcome: Outcome) {
        let operation = Operation { client: self.number, action, started, ended: now(), outcome };
        self.run.note(operation.ended, &operation.to_string());
        self.run.history.lock().push(operation);
    }
}
