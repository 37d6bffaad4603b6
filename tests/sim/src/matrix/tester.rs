//! The tester: prepares each case, sees to it that somebody dies in it, and looks what is left.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use gateway_s3::{CompletedPart, S3Error, S3ErrorCode};
use parking_lot::Mutex;
use placement_map::ClusterSettings;
use placement_map::system::LayoutChange;
use placement_types::{Profile, UploadId, Waypoint};
use tests_faults::{Action, Operation, Outcome, Row, body};

use super::Stage;
use super::rows::{Act, Case, Chapter, row_of};
use crate::dice::Dice;
use crate::machine::Machine;
use crate::operator::{Operator, disks_of};
use crate::process::RunningGateway;
use crate::requests::{Read, Requests, now, outcome};

/// How long a case may take to get to its deaths, and everybody to be up after them.
const DEATH_MAX: Duration = Duration::from_secs(90);
const RETURN_MAX: Duration = Duration::from_secs(60);

/// K9: how long after the last case until disks and metadata agree.
const AUDIT_MAX: Duration = Duration::from_secs(120);

/// When a node that is away is given up, in the case of that.
const REBUILD_AFTER: Duration = Duration::from_secs(6);

/// Longer than the lease of a write here, and until every node has looked for orphans.
const LATE: Duration = Duration::from_secs(40);

/// Objects that a node is to have shards of: one of them may have gone by it.
const OBJECTS: u32 = 3;

const SMALL_BYTES: u64 = 2000;
const LARGE_BYTES: u64 = 2_300_000;
const MIDDLE_BYTES: u64 = 150_000;

pub struct Tester {
    stage: Arc<Stage>,
    running: RunningGateway,
    requests: Requests,
    operator: Operator,
    dice: Dice,
    bodies: Mutex<u64>,
}

impl Tester {
    pub fn new(stage: Arc<Stage>, running: RunningGateway, seed: u64) -> Self {
        let requests = Requests { env: running.env.clone(), gateway: running.gateway.clone() };
        let operator = Operator {
            env: running.env.clone(),
            client: running.client.clone(),
            maps: running.maps.clone(),
            nodes: running.nodes.clone(),
            orders: stage.run.orders.clone(),
        };
        Self { stage, running, requests, operator, dice: Dice::new(seed, 0xc0), bodies: Mutex::new(1) }
    }

    pub async fn play(&self, chapter: &Chapter) {
        self.requests.make_bucket(true).await;
        for (number, case) in (0..).zip(chapter.cases) {
            self.wait_whole(case).await;
            self.note(&format!("case {case:?}"));
            self.play_case(number * OBJECTS, case).await;
        }
        self.settle().await;
        self.note(&format!("passed {:?}", self.stage.points.passed()));
    }

    async fn play_case(&self, key: u32, case: &Case) {
        match case.act {
            Act::Put => self.put_case(key, case, LARGE_BYTES).await,
            Act::PutSmall => self.put_case(key, case, SMALL_BYTES).await,
            Act::PutLate => self.late_case(key, case).await,
            Act::Part => self.part_case(key, case).await,
            Act::Complete => self.complete_case(key, case).await,
            Act::Abort => self.abort_case(key, case).await,
            Act::Delete => self.delete_case(key, case).await,
            Act::Collect => {
                self.store(key, LARGE_BYTES).await;
                self.arm(case);
                self.delete(key).await;
                self.wait_whole(case).await;
                self.look(key).await;
            }
            Act::Scrub => self.put_case(key, case, MIDDLE_BYTES).await,
            Act::Refill => self.refill_case(key, case).await,
            Act::Rebuild => self.rebuild_case(key, case).await,
            Act::Drain => self.drain_case(key, case).await,
            Act::Recode => self.recode_case(key, case).await,
        }
    }

    /// An object is overwritten.
    async fn put_case(&self, key: u32, case: &Case, bytes: u64) {
        self.store(key, MIDDLE_BYTES).await;
        let (number, content) = self.fresh(bytes);
        self.arm(case);
        let started = now();
        let verdict = self.attempt(move |requests| async move { requests.put(key, content).await }).await;
        self.record(Action::Put { key, body: number }, started, told(&verdict));
        self.wait_whole(case).await;
        self.look(key).await;
    }

    /// An object is overwritten, too late: the shards were taken for orphans, and the one who names them then is refused (P3).
    async fn late_case(&self, key: u32, case: &Case) {
        let before = self.store(key, MIDDLE_BYTES).await;
        let (number, content) = self.fresh(LARGE_BYTES);
        self.stage.points.stop(Waypoint::PutStaged, LATE);
        let started = now();
        let verdict = self.attempt(move |requests| async move { requests.put(key, content).await }).await;
        // Refused, not merely failed: anything else would pass by accident.
        match &verdict {
            Some(Err(error)) if error.code == S3ErrorCode::SlowDown && now() - started >= LATE => {
                self.stage.rows.lock().hit(Row::C4)
            }
            other => self.stage.missing.lock().push(format!("{case:?}: not stopped and refused: {other:?}")),
        }
        self.record(Action::Put { key, body: number }, started, told(&verdict));
        match self.insist(|| self.requests.read(key)).await {
            Ok(Read::Whole { bytes, .. }) if body::identify(&bytes) == Some(before) => {}
            _ => self.fail("P3 a write that was refused changed the object"),
        }
        self.look(key).await;
    }

    /// The part is sent again with other bytes: of two the one that was acknowledged last counts.
    async fn part_case(&self, key: u32, case: &Case) {
        self.store(key, MIDDLE_BYTES).await;
        let upload = self.begin_upload(key).await;
        let (_, content) = self.fresh(LARGE_BYTES);
        self.arm(case);
        self.attempt(move |requests| async move { requests.put_part(key, upload, content).await }).await;
        self.wait_whole(case).await;
        self.look(key).await;
        let (number, part) = self.put_part(key, upload).await;
        let started = now();
        let verdict = self.insist(|| self.requests.complete_upload(key, upload, part.clone())).await;
        self.record(Action::Put { key, body: number }, started, outcome(verdict.map(|_| ())));
        self.look(key).await;
    }

    /// Completing again answers the same, whether or not it was completed before.
    async fn complete_case(&self, key: u32, case: &Case) {
        self.store(key, MIDDLE_BYTES).await;
        let upload = self.begin_upload(key).await;
        let (number, part) = self.put_part(key, upload).await;
        self.arm(case);
        let (started, sent) = (now(), part.clone());
        let first = self.attempt(move |requests| async move { requests.complete_upload(key, upload, sent).await }).await;
        self.wait_whole(case).await;
        let again = self.insist(|| self.requests.complete_upload(key, upload, part.clone())).await;
        match (&first, &again) {
            (Some(Ok(first)), Ok(again)) if first != again => self.fail(&format!("completed as {first}, then as {again}")),
            (_, Err(error)) => self.fail(&format!("an upload could not be completed again: {error}")),
            _ => {}
        }
        self.record(Action::Put { key, body: number }, started, outcome(again.map(|_| ())));
        self.look(key).await;
    }

    async fn abort_case(&self, key: u32, case: &Case) {
        self.store(key, MIDDLE_BYTES).await;
        let upload = self.begin_upload(key).await;
        let (_, part) = self.put_part(key, upload).await;
        self.arm(case);
        self.attempt(move |requests| async move { requests.abort_upload(key, upload).await }).await;
        self.wait_whole(case).await;
        // Done, or done before: either way it is over.
        let _ = self.insist(|| self.requests.abort_upload(key, upload)).await;
        if self.insist(|| self.requests.complete_upload(key, upload, part.clone())).await.is_ok() {
            self.fail("an upload was completed after it was aborted");
        }
        self.look(key).await;
    }

    async fn delete_case(&self, key: u32, case: &Case) {
        self.store(key, MIDDLE_BYTES).await;
        self.arm(case);
        let started = now();
        let verdict = self.attempt(move |requests| async move { requests.delete(key).await }).await;
        self.record(Action::Delete { key }, started, told(&verdict));
        self.wait_whole(case).await;
        self.look(key).await;
    }

    async fn refill_case(&self, key: u32, case: &Case) {
        let victim = self.victim();
        self.stage.points.kill(victim);
        self.store_all(key, LARGE_BYTES).await;
        self.arm(case);
        self.bring_back(victim);
        self.wait_whole(case).await;
        self.settle_and_look(key).await;
    }

    async fn rebuild_case(&self, key: u32, case: &Case) {
        self.store_all(key, MIDDLE_BYTES).await;
        let settings = ClusterSettings { rebuild_after: REBUILD_AFTER, ..ClusterSettings::default() };
        self.operator.change_settings(settings).await;
        let victim = self.holding_victim().await;
        // What is garbage on the one that is away can be deleted only when it is back.
        let (now, later): (Vec<_>, Vec<_>) = case.deaths.iter().copied().partition(|(waypoint, _)| is_repair(*waypoint));
        self.arm_all(&now);
        self.stage.points.kill(victim);
        self.wait_deaths(case).await;
        if let Err(left) = self.operator.wait_settled().await {
            self.fail(&format!("K9 not rebuilt: {left}"));
        }
        self.arm_all(&later);
        self.bring_back(victim);
        self.wait_whole(case).await;
        self.operator.change_settings(ClusterSettings::default()).await;
        self.settle_and_look(key).await;
        self.clear(key).await;
    }

    async fn drain_case(&self, key: u32, case: &Case) {
        self.store_all(key, LARGE_BYTES).await;
        let victim = &self.holding_victim().await.name;
        self.arm(case);
        self.operator.change_layout(|map| LayoutChange::Drain { disks: disks_of(map, victim) }).await;
        self.wait_whole(case).await;
        self.settle_and_look(key).await;
        // What is there when the disk is in use again would want to return to it, which takes an hour.
        self.clear(key).await;
        self.operator.change_layout(|map| LayoutChange::Keep { disks: disks_of(map, victim) }).await;
        self.operator.wait_ring_settled().await;
    }

    async fn recode_case(&self, key: u32, case: &Case) {
        self.store_all(key, MIDDLE_BYTES).await;
        self.arm(case);
        let other = |profile: Profile| if profile.data() == 1 { Profile::new(2, 2) } else { Profile::new(1, 2) };
        let map = self.running.maps.borrow().clone().expect("there is a cluster");
        let profile = other(map.profile).expect("a legal profile");
        self.operator.change_layout(|_| LayoutChange::SetProfile { profile }).await;
        self.wait_whole(case).await;
        self.settle_and_look(key).await;
    }

    fn victim(&self) -> &Arc<Machine> {
        self.choose(&self.stage.nodes.iter().collect::<Vec<_>>())
    }

    /// One that has shards.
    async fn holding_victim(&self) -> &Arc<Machine> {
        let holders = self.operator.holders_of_shards().await;
        let holds = |node: &&Arc<Machine>| holders.iter().any(|address| address.split(':').next() == Some(&node.name));
        self.choose(&self.stage.nodes.iter().filter(holds).collect::<Vec<_>>())
    }

    fn choose<'a>(&self, nodes: &[&'a Arc<Machine>]) -> &'a Arc<Machine> {
        nodes[self.dice.range(0, nodes.len() as u64) as usize]
    }

    fn bring_back(&self, machine: &Machine) {
        self.stage.returning.lock().push(machine.name.clone());
    }

    /// Waits until nothing is left to do, and the disks hold what they are to.
    async fn settle(&self) {
        self.note("settling");
        if let Err(left) = self.operator.wait_settled().await {
            self.fail(&format!("K9 not done: {left}"));
        }
        match self.operator.wait_audited(AUDIT_MAX).await {
            Ok(()) => self.note("audited"),
            Err(difference) => self.fail(&format!("K9 {difference}")),
        }
    }

    async fn settle_and_look(&self, first: u32) {
        self.settle().await;
        for key in first..first + OBJECTS {
            self.look(key).await;
        }
    }

    async fn clear(&self, first: u32) {
        for key in first..first + OBJECTS {
            self.delete(key).await;
            self.look(key).await;
        }
        // Nor are there shards that are garbage: whoever is drained next has others.
        self.settle().await;
    }

    fn arm(&self, case: &Case) {
        self.arm_all(case.deaths);
    }

    fn arm_all(&self, deaths: &[(Waypoint, u64)]) {
        self.stage.points.arm(deaths.iter().map(|(waypoint, passes)| (*waypoint, self.dice.range(0, *passes))));
    }

    /// Waits until everybody died who is to.
    async fn wait_deaths(&self, case: &Case) {
        let began = now();
        while !self.stage.points.armed().is_empty() {
            if now() - began > DEATH_MAX {
                let armed = self.stage.points.armed();
                self.stage.missing.lock().push(format!("{case:?}: nobody died at {armed:?}"));
                self.stage.points.arm([]);
            }
            self.requests.env.sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until everybody died who is to, and is up again.
    async fn wait_whole(&self, case: &Case) {
        self.wait_deaths(case).await;
        let began = now();
        let machines = || self.stage.nodes.iter().chain([&self.stage.doomed]);
        while let Some(machine) = machines().find(|machine| !machine.is_serving()) {
            if now() - began > RETURN_MAX {
                return self.fail(&format!("{} is not up after {case:?}", machine.name));
            }
            self.requests.env.sleep(Duration::from_millis(20)).await;
        }
    }

    /// Has the gateway that may die do something. `None` when it died of it.
    async fn attempt<T: Send + 'static, F: Future<Output = Result<T, S3Error>> + Send + 'static>(
        &self,
        work: impl FnOnce(Requests) -> F + Send + 'static,
    ) -> Option<Result<T, S3Error>> {
        let answer = Arc::new(Mutex::new(None));
        let told = answer.clone();
        let job: super::Job = Box::new(move |requests| async move { *told.lock() = Some(work(requests).await) }.boxed());
        self.stage.jobs.lock().push_back(job);
        // The job lives as long as the process, and with it the other half of the answer.
        while Arc::strong_count(&answer) > 1 {
            self.requests.env.sleep(Duration::from_millis(5)).await;
        }
        answer.lock().take()
    }

    /// Asks the tester's own gateway again and again while it fails for no fault of the asker.
    async fn insist<T, F: Future<Output = Result<T, S3Error>>>(&self, ask: impl Fn() -> F) -> Result<T, S3Error> {
        loop {
            match ask().await {
                Err(error) if !error.code.status().is_client_error() => {
                    self.requests.env.sleep(Duration::from_millis(200)).await;
                }
                verdict => return verdict,
            }
        }
    }

    /// Returns the number of the body.
    async fn store(&self, key: u32, bytes: u64) -> u64 {
        let (number, content) = self.fresh(bytes);
        let started = now();
        let verdict = self.insist(|| self.requests.put(key, content.clone())).await;
        self.record(Action::Put { key, body: number }, started, outcome(verdict.map(|_| ())));
        number
    }

    async fn store_all(&self, first: u32, bytes: u64) {
        for key in first..first + OBJECTS {
            self.store(key, bytes).await;
        }
    }

    async fn delete(&self, key: u32) {
        let started = now();
        let verdict = self.insist(|| self.requests.delete(key)).await;
        self.record(Action::Delete { key }, started, outcome(verdict));
    }

    async fn begin_upload(&self, key: u32) -> UploadId {
        self.insist(|| self.requests.begin_upload(key)).await.expect("an upload may begin")
    }

    async fn put_part(&self, key: u32, upload: UploadId) -> (u64, CompletedPart) {
        let (number, content) = self.fresh(MIDDLE_BYTES);
        let part = self.insist(|| self.requests.put_part(key, upload, content.clone())).await;
        (number, part.expect("a part may be sent"))
    }

    /// Reads through either gateway.
    async fn look(&self, key: u32) {
        let started = now();
        let verdict = self.insist(|| self.requests.read(key)).await;
        self.record_read(key, started, verdict);
        let started = now();
        if let Some(verdict) = self.attempt(move |requests| async move { requests.read(key).await }).await {
            self.record_read(key, started, verdict);
        }
    }

    fn record_read(&self, key: u32, started: Duration, verdict: Result<Read, S3Error>) {
        let (action, verdict) = match verdict {
            Ok(Read::Absent) => (Action::Get { key, seen: None }, Ok(())),
            Ok(Read::Whole { bytes, .. }) => match body::identify(&bytes) {
                Some(number) => (Action::Get { key, seen: Some(number) }, Ok(())),
                None => (Action::Wrong { key, what: format!("{} bytes that nobody wrote", bytes.len()) }, Ok(())),
            },
            Err(error) => (Action::Get { key, seen: None }, Err(error)),
        };
        self.record(action, started, outcome(verdict));
    }

    fn fresh(&self, bytes: u64) -> (u64, Bytes) {
        let mut bodies = self.bodies.lock();
        *bodies += 1;
        (*bodies, body::content(*bodies, bytes))
    }

    fn record(&self, action: Action, started: Duration, outcome: Outcome) {
        let operation = Operation { client: 0, action, started, ended: now(), outcome };
        self.stage.run.note(operation.ended, &operation.to_string());
        self.stage.run.history.lock().push(operation);
    }

    fn note(&self, text: &str) {
        self.stage.run.note(now(), text);
    }

    fn fail(&self, text: &str) {
        self.note(text);
        self.stage.failures.lock().push(text.to_owned());
    }
}

fn is_repair(waypoint: Waypoint) -> bool {
    row_of(waypoint) == Some(Row::P19)
}

/// What a client makes of an answer that may not have come.
fn told<T>(verdict: &Option<Result<T, S3Error>>) -> Outcome {
    match verdict {
        Some(Ok(_)) => Outcome::Ok,
        Some(Err(error)) => outcome(Err(error.clone())),
        None => Outcome::Unknown("the gateway died".into()),
    }
}
