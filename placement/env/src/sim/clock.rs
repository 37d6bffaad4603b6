//! A clock that follows tokio's: paused and advanced by tests, simulated by turmoil.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use placement_types::{BoxFuture, Clock, Timestamp};
use tokio::time::Instant;

/// Wall-clock time at which every simulation starts: 2026-01-01T00:00:00Z.
const STARTS_AT: Timestamp = Timestamp::from_millis(1_767_225_600_000);

/// Starts when it is first read, so that it may be made outside the runtime that it will follow.
#[derive(Clone)]
pub struct SimClock {
    starts_at: Timestamp,
    base: Arc<OnceLock<Instant>>,
    skew_ms: Arc<AtomicI64>,
}

impl SimClock {
    pub fn new() -> Self {
        Self::starting_at(STARTS_AT)
    }

    /// For a node that starts later than the simulation did.
    pub fn starting_at(starts_at: Timestamp) -> Self {
        Self { starts_at, base: Arc::default(), skew_ms: Arc::default() }
    }

    /// Sets the wall clock wrong by this much. Monotonic time does not notice.
    pub fn skew_wall_clock(&self, milliseconds: i64) {
        self.skew_ms.store(milliseconds, Ordering::Relaxed);
    }
}

impl Default for SimClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SimClock {
    fn now(&self) -> Timestamp {
        let right = self.starts_at.plus(self.monotonic());
        Timestamp::from_millis(right.as_millis().saturating_add_signed(self.skew_ms.load(Ordering::Relaxed)))
    }

    fn monotonic(&self) -> Duration {
        let now = Instant::now();
        now.saturating_duration_since(*self.base.get_or_init(|| now))
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(duration))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn time_passes_only_by_sleeping() {
        let clock = SimClock::new();
        assert_eq!((clock.now(), clock.monotonic()), (STARTS_AT, Duration::ZERO));
        clock.sleep(Duration::from_secs(90)).await;
        assert_eq!(clock.monotonic().as_secs(), 90);
        clock.skew_wall_clock(-100_000);
        assert_eq!(clock.now().as_seconds(), STARTS_AT.as_seconds() - 10);
        assert_eq!(clock.monotonic().as_secs(), 90);
    }
}
