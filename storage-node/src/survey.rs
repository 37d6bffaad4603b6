//! Surveys: the leader of a group goes through all its chunks, sees what each lacks, does the most urgent, and tells.
//!
//! The metadata is walked, never the disks ([`Query::Survey`]): what matters is what the manifests refer to. Where there is a
//! reason to doubt that a disk has what they say it has, it is asked on the way ([`crate::absence`]). A pass remembers
//! the [`SURVEY_NEEDS_MAX`] most urgent chunks, and then works them off in that order: first those with shards that are lost
//! or have to leave their disk, then those that are to be coded anew or have shards to move, and among each the ones first that
//! can bear the least. As long as a pass found something to do, another follows. Nothing is written down: whoever leads next surveys
//! anew, and every step is a compare-and-swap, so that a pass that is cut off or done twice does no harm.
//!
//! A pass is due when the map places shards otherwise than at the last one, when that one left something to do, when bad
//! shards were reported, and now and then for the sake of the risk view.

mod totals;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::{join_all, ready};
use parking_lot::Mutex;
use placement_map::ClusterMap;
use placement_types::{ChunkId, DiskId, GroupId, TxnId};
use storage_node_proto::api::MetaError;
use storage_node_proto::command::FiledChunk;
use storage_node_proto::query::{Answer, Query, SurveyedChunk};
use storage_node_proto::upkeep::{GroupSurvey, UpkeepReport};

use self::totals::Totals;
use crate::absence::{self, Found, Inquiry, Reports};
use crate::diagnosis::{Cause, Diagnosis, Need, Step, diagnose};
use crate::duties::Duties;
use crate::limits::{LAYOUT_CONFIRM, RENEW_TRIES, REPAIRS_AT_ONCE, SURVEY_NEEDS_MAX, SURVEY_PAGE, SURVEY_REST};
use crate::metrics;
use crate::rebalance::{MoveError, move_shard};
use crate::recode::{RecodeError, recode};
use crate::repair::{RepairError, rebuild};

/// What the surveys of this node found, for its report.
#[derive(Default)]
pub(crate) struct Surveys {
    /// What nodes say of bad shards.
    pub reports: Reports,
    groups: Mutex<BTreeMap<GroupId, Surveyed>>,
    /// Where a shard could not be brought. An orphan of an earlier try may be in the way until the scrub finds it; another disk is
    /// better than waiting for that.
    failed: Mutex<BTreeMap<(ChunkId, u8, DiskId), Failed>>,
    /// Chunks that could not be written anew, and until when that is not tried again: it costs a whole chunk each time.
    not_renewed: Mutex<BTreeMap<ChunkId, Duration>>,
}

struct Failed {
    /// Not tried again before.
    until: Duration,
    /// How often that moves something that was there: it then may be an orphan that is in the way.
    times: u32,
}

#[derive(Clone)]
struct Surveyed {
    map: Arc<ClusterMap>,
    /// On the monotonic clock.
    at: Duration,
    /// When to look again because the pass left something to do.
    again_at: Option<Duration>,
    /// When to look again because writes that began by the layout before were still under way.
    confirm_at: Option<Duration>,
    /// How long the pass took.
    took: Duration,
    /// The newest report that the pass knew of.
    seen: u64,
    /// When all disks were asked what they have.
    all_asked_at: Duration,
    /// What to ask about once more: what was absent, and whoever did not answer.
    doubts: Inquiry,
    /// The disks that were expected to answer.
    served: BTreeSet<DiskId>,
    survey: GroupSurvey,
}

impl Surveys {
    /// One look at the groups this node leads; surveys those that are due, all at once.
    pub async fn round(&self, duties: &Duties) {
        let led = duties.leadership.led_groups();
        self.groups.lock().retain(|group, _| led.contains(group));
        let Some(map) = duties.holders.maps.borrow().clone() else { return };
        let passes = led.into_iter().filter(|group| self.is_due(duties, *group, &map));
        join_all(passes.map(|group| self.pass(duties, group, &map))).await;
        let groups = self.groups.lock();
        self.reports.forget(groups.values().map(|surveyed| surveyed.seen).min().unwrap_or_else(|| self.reports.newest()));
        let sum = |count: fn(&GroupSurvey) -> u64| groups.values().map(|surveyed| count(&surveyed.survey)).sum();
        metrics::surveyed(
            sum(|survey| survey.lost.shards),
            sum(|survey| survey.leaving.shards),
            sum(|survey| survey.misplaced.shards),
            sum(|survey| survey.outdated.shards),
            sum(|survey| survey.unreadable.chunks),
        );
    }

    /// Whether a group wants a pass. If not, what was found holds by the newest map too.
    fn is_due(&self, duties: &Duties, group: GroupId, map: &Arc<ClusterMap>) -> bool {
        let mut groups = self.groups.lock();
        let Some(last) = groups.get_mut(&group) else { return true };
        let now = duties.env.monotonic();
        let reported = self.reports.newest() > last.seen;
        let is_due = last.again_at.is_some_and(|at| now >= at)
            || (reported && now.saturating_sub(last.at) >= duties.limits.report_rest.max(last.took * SURVEY_REST))
            || now.saturating_sub(last.at) >= duties.limits.survey_interval
            || last.confirm_at.is_some_and(|at| now >= at)
            || !last.map.places_like(map);
        if !is_due {
            last.map = map.clone();
            last.survey.epoch = map.epoch;
        }
        is_due
    }

    /// What the next pass has to ask the disks about, and whether that is everything.
    fn inquiry(&self, duties: &Duties, group: GroupId, map: &ClusterMap) -> Inquiry {
        let groups = self.groups.lock();
        let cycle = map.settings.scrub_cycle;
        let Some(last) = groups.get(&group).filter(|last| duties.env.monotonic().saturating_sub(last.all_asked_at) < cycle)
        else {
            return Inquiry::everything();
        };
        let mut inquiry = last.doubts.clone();
        inquiry.extend(self.reports.since(last.seen));
        inquiry.disks.extend(served(map).difference(&last.served));
        inquiry
    }

    async fn pass(&self, duties: &Duties, group: GroupId, map: &Arc<ClusterMap>) {
        let (began, seen) = (duties.env.monotonic(), self.reports.newest());
        let inquiry = self.inquiry(duties, group, map);
        let found = match self.survey(duties, group, map, &inquiry).await {
            Ok(found) => found,
            Err(error) => {
                tracing::info!(%group, %error, "the survey of a group was put off");
                return;
            }
        };
        let PassFound { survey, needy, doubts } = found;
        // Those that nothing can be done about now are not among the needy: they wait for a map that places otherwise, or for a
        // disk to be tried again.
        let now = duties.env.monotonic();
        let again_at = (!needy.is_empty() || !doubts.disks.is_empty() || self.is_resting(now)).then_some(now);
        {
            let mut groups = self.groups.lock();
            let last = groups.get(&group);
            let all_asked_at = last.filter(|_| !inquiry.everything).map_or(began, |last| last.all_asked_at);
            let confirm_at = match last {
                Some(last) if last.map.layout == map.layout => last.confirm_at.filter(|at| began < *at),
                _ => Some(began + LAYOUT_CONFIRM),
            };
            let (map, took, served) = (map.clone(), now.saturating_sub(began), served(map));
            groups
                .insert(group, Surveyed { map, at: now, again_at, confirm_at, took, seen, all_asked_at, doubts, served, survey });
        }
        let chunks = needy.into_values().map(|chunk| self.mend_or_warn(duties, group, chunk));
        let mended =
            futures::stream::iter(chunks).buffer_unordered(REPAIRS_AT_ONCE).filter(|mended| ready(*mended)).count().await;
        if let Some(surveyed) = self.groups.lock().get_mut(&group).filter(|surveyed| surveyed.again_at.is_some()) {
            let rest = if mended > 0 { Duration::ZERO } else { duties.limits.survey_rest };
            surveyed.again_at = Some(duties.env.monotonic() + rest);
        }
    }

    async fn survey(&self, duties: &Duties, group: GroupId, map: &ClusterMap, inquiry: &Inquiry) -> Result<PassFound, MetaError> {
        let (mut totals, mut doubts) = (Totals::default(), Inquiry::default());
        let mut needy = BTreeMap::new();
        let mut after = None;
        loop {
            let query = Query::Survey { after: after.take(), limit: SURVEY_PAGE, now: duties.env.now() };
            let Answer::Survey { chunks, next } = duties.groups.query(group, &query).await? else {
                return Err(MetaError::BadMessage { why: "the answer is not a survey".into() });
            };
            let replies = duties.throttle.background(absence::ask(duties, map, inquiry, &chunks)).await;
            doubts.disks.extend(&replies.silent);
            for mut chunk in chunks {
                self.add_failed(duties, &mut chunk);
                let found = Found { absent: replies.absent(chunk.filed.entry.chunk), chunk };
                doubts.add(&found);
                let chunk = found.as_found();
                let diagnosis = diagnose(map, &chunk.filed.entry, &chunk.departed);
                let step = self.step(duties, &chunk.filed, &diagnosis);
                totals.count(map, &chunk.filed, &diagnosis, step);
                if let Some(step) = step {
                    let margin = diagnosis.kept as i64 - chunk.filed.entry.profile.data() as i64;
                    needy.insert((step >= Step::Recode, margin, step, totals.all.chunks), found);
                    if needy.len() > SURVEY_NEEDS_MAX {
                        needy.pop_last();
                    }
                }
            }
            after = next;
            if after.is_none() {
                return Ok(PassFound { survey: totals.into_survey(group, map.epoch, duties.env.now()), needy, doubts });
            }
        }
    }

    /// Whether anything was done.
    async fn mend_or_warn(&self, duties: &Duties, group: GroupId, found: Found) -> bool {
        match duties.throttle.background(self.mend(duties, group, &found)).await {
            Ok(done) => done,
            Err(error) => {
                metrics::repair_failed();
                let chunk = found.chunk.filed.entry.chunk;
                tracing::warn!(%chunk, %error, "a chunk could not be repaired, moved or coded anew yet");
                false
            }
        }
    }

    /// Does what a chunk needs, by the newest map: rebuilds what is lost, then moves what should be elsewhere, and rebuilds what
    /// could not be read where it was. Codes it anew when that is all it needs: else its entry is another one by then, and the
    /// next pass has it.
    async fn mend(&self, duties: &Duties, group: GroupId, found: &Found) -> Result<bool, MendError> {
        let Some(map) = duties.holders.maps.borrow().clone() else { return Ok(false) };
        let SurveyedChunk { filed: chunk, movers, .. } = &found.chunk;
        let as_found = found.as_found();
        let diagnosis = diagnose(&map, &as_found.filed.entry, &as_found.departed);
        match self.step(duties, chunk, &diagnosis) {
            Some(Step::Recode) => return Ok(recode(duties, group, chunk, &map).await?),
            Some(Step::Renew) => return Ok(self.renew(duties, group, chunk, &map).await?),
            Some(Step::Rebuild | Step::Vacate | Step::Move) | None => {}
        }
        let lost: Vec<Need> = diagnosis.placed(Cause::Lost).copied().collect();
        let mut done = 0;
        if !lost.is_empty() {
            done += self.rebuild(duties, group, chunk, movers, &lost).await?;
        }
        let mut unreadable = Vec::new();
        for need in diagnosis.placed(Cause::Leaving).chain(diagnosis.placed(Cause::Misplaced)) {
            match move_shard(duties, group, chunk, need).await {
                Ok(moved) => done += usize::from(moved),
                Err(MoveError::Source { source }) => {
                    tracing::info!(chunk = %chunk.entry.chunk, index = need.index, error = %source, "a shard to be moved is rebuilt");
                    unreadable.push(*need);
                }
                Err(error) => {
                    if matches!(error, MoveError::Target { .. }) {
                        self.note_failed(duties, chunk, need);
                    }
                    return Err(error.into());
                }
            }
        }
        if !unreadable.is_empty() {
            done += self.rebuild(duties, group, chunk, movers, &unreadable).await?;
        }
        Ok(done > 0)
    }

    async fn renew(&self, duties: &Duties, group: GroupId, chunk: &FiledChunk, map: &ClusterMap) -> Result<bool, RecodeError> {
        let renewed = recode(duties, group, chunk, map).await;
        if !matches!(renewed, Ok(true)) {
            let now = duties.env.monotonic();
            let mut not_renewed = self.not_renewed.lock();
            not_renewed.retain(|_, until| *until > now);
            if not_renewed.len() < SURVEY_NEEDS_MAX {
                not_renewed.insert(chunk.entry.chunk, now + duties.limits.target_rest);
            }
        }
        renewed
    }

    /// What is done about a chunk first. That it is written anew waits: for the rest after a try that failed, and until no disk is
    /// left out only because it did not take a shard once or twice, as one does not that restarts. A single shard is cheaper.
    fn step(&self, duties: &Duties, chunk: &FiledChunk, diagnosis: &Diagnosis) -> Option<Step> {
        let (now, id) = (duties.env.monotonic(), chunk.entry.chunk);
        let rests = || self.not_renewed.lock().get(&id).is_some_and(|until| *until > now);
        let hopes = || of_chunk(&self.failed.lock(), id).any(|(_, failed)| failed.until > now && failed.times < RENEW_TRIES);
        diagnosis.step().filter(|step| *step != Step::Renew || !(rests() || hopes()))
    }

    async fn rebuild(
        &self,
        duties: &Duties,
        group: GroupId,
        chunk: &FiledChunk,
        movers: &[(u8, TxnId)],
        needs: &[Need],
    ) -> Result<usize, RepairError> {
        let rebuilt = rebuild(duties, group, chunk, movers, needs).await;
        let in_full = matches!(rebuilt, Ok(filled) if filled == needs.len());
        if !in_full && !matches!(rebuilt, Err(RepairError::Meta(_))) {
            needs.iter().for_each(|need| self.note_failed(duties, chunk, need));
        }
        rebuilt
    }

    fn note_failed(&self, duties: &Duties, chunk: &FiledChunk, need: &Need) {
        let (Some(disk), Ok(index)) = (need.to, u8::try_from(need.index)) else { return };
        let now = duties.env.monotonic();
        let (rest, key) = (duties.limits.target_rest, (chunk.entry.chunk, index, disk));
        let mut failed = self.failed.lock();
        // What came to nothing again and again is remembered for longer than it rests.
        failed.retain(|_, failed| now < failed.until + rest * RENEW_TRIES);
        if failed.len() < SURVEY_NEEDS_MAX || failed.contains_key(&key) {
            let failed = failed.entry(key).or_insert(Failed { until: now, times: 0 });
            failed.until = now + rest;
            // A slot that was empty is filled under the chunk's own transaction, which no orphan is in the way of.
            failed.times += u32::from(need.from.is_some());
        }
    }

    /// Whether something is not tried for a while.
    fn is_resting(&self, now: Duration) -> bool {
        self.failed.lock().values().any(|failed| failed.until > now) || self.not_renewed.lock().values().any(|until| *until > now)
    }

    /// Treats the disks where a shard could not be brought lately as ones it left.
    fn add_failed(&self, duties: &Duties, chunk: &mut SurveyedChunk) {
        let failed = self.failed.lock();
        if failed.is_empty() {
            return;
        }
        let now = duties.env.monotonic();
        let resting = of_chunk(&failed, chunk.filed.entry.chunk).filter(|(_, failed)| failed.until > now);
        chunk.departed.extend(resting.map(|((_, index, disk), _)| (*index, *disk)));
    }

    /// What the newest passes found, and how fast this node repairs and moves.
    pub fn report(&self, duties: &Duties) -> UpkeepReport {
        let (bytes_last_minute, bytes_total) = duties.meter.read(&duties.env);
        let surveys = self.groups.lock().values().map(|surveyed| surveyed.survey.clone()).collect();
        UpkeepReport { surveys, bytes_last_minute, bytes_total, system_copied: None }
    }
}

/// Where shards of one chunk could not be brought.
fn of_chunk(
    failed: &BTreeMap<(ChunkId, u8, DiskId), Failed>,
    chunk: ChunkId,
) -> impl Iterator<Item = (&(ChunkId, u8, DiskId), &Failed)> {
    failed.range((chunk, 0, DiskId::from_u128(0))..=(chunk, u8::MAX, DiskId::from_u128(u128::MAX)))
}

/// The disks that can be asked.
fn served(map: &ClusterMap) -> BTreeSet<DiskId> {
    map.disks.keys().copied().filter(|disk| map.serves_shards(*disk)).collect()
}

/// What one pass found.
struct PassFound {
    survey: GroupSurvey,
    /// What to ask about in the next pass.
    doubts: Inquiry,
    /// The most urgent first: whether it can wait, how many more shards may be lost, what is to be done.
    needy: BTreeMap<(bool, i64, Step, u64), Found>,
}

#[derive(Debug, thiserror::Error)]
enum MendError {
    #[error(transparent)]
    Repair(#[from] RepairError),
    #[error(transparent)]
    Move(#[from] MoveError),
    #[error(transparent)]
    Recode(#[from] RecodeError),
}
