//! Whether a disk gets on with what it was given: a write or fsync that never returns is not an error anybody would see (D22).

use std::time::Duration;

use parking_lot::Mutex;

/// What a disk's tasks do one thing after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    Append,
    Commit,
}

/// Since when each stage is at what it does now, on the monotonic clock; `None` while it has nothing to do.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    since: Mutex<[Option<Duration>; 2]>,
}

/// A stage is at work until this is dropped.
pub(crate) struct AtWork<'a> {
    progress: &'a Progress,
    stage: Stage,
}

impl Progress {
    pub fn begin(&self, stage: Stage, now: Duration) -> AtWork<'_> {
        self.since.lock()[stage as usize] = Some(now);
        AtWork { progress: self, stage }
    }

    /// For how long the stage that waits longest has been at one thing.
    pub fn stuck_for(&self, now: Duration) -> Duration {
        let oldest = self.since.lock().iter().flatten().min().copied();
        oldest.map_or(Duration::ZERO, |since| now.saturating_sub(since))
    }
}

impl Drop for AtWork<'_> {
    fn drop(&mut self) {
        self.progress.since.lock()[self.stage as usize] = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stage_that_waits_longest_counts_until_it_is_done() {
        let progress = Progress::default();
        let seconds = Duration::from_secs;
        assert_eq!(progress.stuck_for(seconds(100)), Duration::ZERO, "an idle disk is not stuck");
        let commit = progress.begin(Stage::Commit, seconds(100));
        drop(progress.begin(Stage::Append, seconds(101)));
        let _append = progress.begin(Stage::Append, seconds(107));
        assert_eq!(progress.stuck_for(seconds(110)), seconds(10));
        drop(commit);
        assert_eq!(progress.stuck_for(seconds(110)), seconds(3));
    }
}
