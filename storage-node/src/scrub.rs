//! The scrub: reads every shard on a disk once in a cycle, and looks for what its index has lost.
//!
//! It goes at a steady pace, as fast as it must to be through before the cycle ends, but not slower than
//! [`SCRUB_BYTES_PER_SECOND_MIN`]: a small disk is done soon and then rests. Each step is background work
//! ([`crate::throttle`]), so it gives way to clients. Where it is is kept with the disk; a restart goes on there.
//!
//! What is bad goes into quarantine on its disk and to the leaders that repair it ([`crate::findings`]). Data that the index
//! does not know is put back into it: then it counts again, if a manifest names it, or else is an orphan, which the daily pass
//! over all shards deletes behind its fence ([`crate::orphans`]). The scrub itself deletes nothing.

use std::time::Duration;

use placement_types::Timestamp;
use storage_node_store::{DarkSearch, FinishedScrub, Held, ReadError, ScrubState, ScrubTally, WriteError};

use crate::duties::Duties;
use crate::findings::Findings;
use crate::limits::{DARK_READ_SHARE, PROBE_DEADLINE, SCRUB_BYTES_PER_SECOND_MIN, SHARD_READ_BYTES};
use crate::local_disk::{Called, LocalDisk};
use crate::metrics;

#[derive(Debug, thiserror::Error)]
enum ScrubError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error("the node is going down")]
    GoingDown,
}

/// Scrubs a disk for as long as the node runs.
pub(crate) async fn run(duties: &Duties, disk: &LocalDisk, findings: &Findings) {
    let mut scrub = Scrub { duties, disk, findings, state: ScrubState::default(), saved_at: Duration::ZERO };
    loop {
        match scrub.load_and_cycle().await {
            Ok(()) => {}
            Err(error) => tracing::warn!(disk = %disk.id, %error, "the scrub of a disk was put off"),
        }
        duties.pause(duties.limits.scrub_look).await;
    }
}

struct Scrub<'a> {
    duties: &'a Duties,
    disk: &'a LocalDisk,
    findings: &'a Findings,
    state: ScrubState,
    saved_at: Duration,
}

impl Scrub<'_> {
    /// Goes on with the cycle under way, or begins one if it is time.
    async fn load_and_cycle(&mut self) -> Result<(), ScrubError> {
        self.state = self.disk.store().load_scrub().await?;
        self.disk.set_scrub(self.state);
        if self.state.current.is_none() && !self.is_due() {
            return Ok(());
        }
        if self.state.current.is_none() {
            let tally = ScrubTally { began: self.duties.env.now(), ..ScrubTally::default() };
            self.save(Some((tally, None))).await?;
        }
        self.read_shards().await?;
        self.look_for_dark_data().await?;
        let (tally, _) = self.state.current.take().expect("a cycle is under way");
        let finished = FinishedScrub { at: self.duties.env.now(), tally };
        self.state.finished = Some(finished);
        self.save(None).await?;
        metrics::scrub_finished(self.disk.id, finished.at);
        tracing::info!(disk = %self.disk.id, ?tally, "a disk was scrubbed");
        Ok(())
    }

    fn cycle(&self) -> Duration {
        self.duties.holders.maps.borrow().as_ref().map_or(Duration::MAX, |map| map.settings.scrub_cycle)
    }

    /// A clock that was set back makes it due: one cycle more does no harm.
    fn is_due(&self) -> bool {
        let now = self.duties.env.now();
        let waited = |began: Timestamp| now < began || now.since(began) >= self.cycle();
        self.cycle() < Duration::MAX && self.state.finished.is_none_or(|finished| waited(finished.tally.began))
    }

    async fn read_shards(&mut self) -> Result<(), ScrubError> {
        let mut rate = self.rate().await;
        let mut measured_at = self.duties.env.monotonic();
        loop {
            let began = self.duties.env.monotonic();
            let (mut tally, after) = self.state.current.expect("a cycle is under way");
            let step = match self.duties.throttle.background(self.disk.examine_next(after)).await {
                Called::Answered(step) => step?,
                Called::Lost => return Err(ScrubError::GoingDown),
            };
            let bytes: u64 = step.examined.iter().map(|examined| examined.bytes).sum();
            for examined in &step.examined {
                tally.shards += 1;
                tally.bytes += examined.bytes;
                if examined.held == Held::Damaged {
                    tally.damaged += 1;
                    self.findings.bad(self.disk.id, examined.shard);
                }
                if examined.news {
                    metrics::bitrot_detected();
                }
            }
            metrics::scrubbed(step.examined.len(), bytes);
            let last = step.examined.last().map(|examined| examined.shard);
            self.advance(Some((tally, last.or(after)))).await?;
            if step.next.is_none() {
                return Ok(());
            }
            let took = self.duties.env.monotonic().saturating_sub(began);
            let cost = bytes + SHARD_READ_BYTES * step.examined.len() as u64;
            self.duties.env.sleep(Duration::from_secs_f64(cost as f64 / rate).saturating_sub(took)).await;
            if self.duties.env.monotonic().saturating_sub(measured_at) >= self.duties.limits.scrub_look {
                rate = self.rate().await;
                measured_at = self.duties.env.monotonic();
            }
        }
    }

    /// Begins anew after a restart: it reads headers only.
    async fn look_for_dark_data(&mut self) -> Result<(), ScrubError> {
        let rate = self.rate().await;
        let mut search = DarkSearch::default();
        while !search.is_complete {
            let (began, before) = (self.duties.env.monotonic(), search.bytes);
            search = match self.duties.throttle.background(self.disk.search_dark(search)).await {
                Called::Answered(searched) => searched?,
                Called::Lost => return Err(ScrubError::GoingDown),
            };
            let read = (search.bytes - before) / DARK_READ_SHARE;
            let took = self.duties.env.monotonic().saturating_sub(began);
            self.duties.env.sleep(Duration::from_secs_f64(read as f64 / rate).saturating_sub(took)).await;
        }
        let adopted = self.disk.store().adopt(search).await?;
        let (mut tally, after) = self.state.current.expect("a cycle is under way");
        tally.dark += adopted.shards.len() as u64;
        tally.unreadable += adopted.unreadable;
        if !adopted.shards.is_empty() || adopted.unreadable > 0 {
            let (shards, unreadable) = (adopted.shards.len(), adopted.unreadable);
            metrics::dark_data(shards, unreadable);
            tracing::warn!(disk = %self.disk.id, shards, unreadable, "shards that the index had lost were found in the segments");
        }
        self.advance(Some((tally, after))).await
    }

    /// Bytes per second with which the cycle ends in time, with a tenth of it to spare.
    async fn rate(&self) -> f64 {
        let held = self.disk.report(PROBE_DEADLINE).await.shard_bytes;
        let needed = held as f64 / (self.cycle().as_secs_f64() * 0.9);
        needed.max(SCRUB_BYTES_PER_SECOND_MIN)
    }

    /// Remembers where the cycle is; on the disk only now and then.
    async fn advance(&mut self, current: Option<(ScrubTally, Option<placement_types::ShardId>)>) -> Result<(), ScrubError> {
        self.state.current = current;
        self.disk.set_scrub(self.state);
        if self.duties.env.monotonic().saturating_sub(self.saved_at) < self.duties.limits.scrub_save {
            return Ok(());
        }
        self.save(current).await
    }

    async fn save(&mut self, current: Option<(ScrubTally, Option<placement_types::ShardId>)>) -> Result<(), ScrubError> {
        self.state.current = current;
        self.disk.set_scrub(self.state);
        self.saved_at = self.duties.env.monotonic();
        self.disk.store().save_scrub(self.state).await?;
        Ok(())
    }
}
