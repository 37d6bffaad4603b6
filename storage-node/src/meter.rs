//! How many bytes of shards repair, rebalance and re-coding write, and how fast.

use std::collections::VecDeque;

use parking_lot::Mutex;
use placement_types::Env;

use crate::limits::RATE_WINDOW;
use crate::metrics;

/// Counts by the second, so that its memory is bounded.
#[derive(Default)]
pub(crate) struct Meter {
    counts: Mutex<Counts>,
}

#[derive(Default)]
struct Counts {
    total: u64,
    /// Seconds of the monotonic clock with what was written in each, oldest first.
    recent: VecDeque<(u64, u64)>,
}

impl Meter {
    pub fn add(&self, env: &Env, bytes: u64) {
        metrics::upkeep_bytes(bytes);
        let mut counts = self.counts.lock();
        counts.total = counts.total.saturating_add(bytes);
        let second = env.monotonic().as_secs();
        counts.forget_before(second);
        match counts.recent.back_mut() {
            Some((last, count)) if *last == second => *count += bytes,
            _ => counts.recent.push_back((second, bytes)),
        }
    }

    /// Bytes within the last [`RATE_WINDOW`], and since the start.
    pub fn read(&self, env: &Env) -> (u64, u64) {
        let mut counts = self.counts.lock();
        counts.forget_before(env.monotonic().as_secs());
        (counts.recent.iter().map(|(_, bytes)| bytes).sum(), counts.total)
    }
}

impl Counts {
    fn forget_before(&mut self, second: u64) {
        let window = RATE_WINDOW.as_secs();
        while self.recent.front().is_some_and(|(oldest, _)| oldest + window <= second) {
            self.recent.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn only_the_last_minute_is_recent() {
        let (env, _) = placement_env::sim::env(1);
        let meter = Meter::default();
        for _ in 0..90 {
            meter.add(&env, 10);
            env.sleep(Duration::from_secs(1)).await;
        }
        assert_eq!(meter.read(&env), (590, 900));
        env.sleep(RATE_WINDOW).await;
        assert_eq!(meter.read(&env), (0, 900));
    }
}
