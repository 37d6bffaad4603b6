//! Keeps background work from slowing clients down.
//!
//! Only so many pieces of background work run at once. While clients are being served it is one, and each is followed by a rest in
//! proportion to how long it took: background work then has a quarter of the time, whatever the disks and the network are
//! worth, and all of it when nobody else wants them. As much again is done for other nodes, but only while there are no clients:
//! what was begun before they came is brought to its end.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use placement_types::Env;
use tokio::sync::{Mutex, Semaphore};

use crate::limits::{BACKGROUND_AT_ONCE, BUSY_FOR, BUSY_REST, REST_MAX};

pub(crate) struct Throttle {
    env: Env,
    permits: Semaphore,
    /// For what is done for other nodes.
    lent: Semaphore,
    /// Who works while clients are served.
    turn: Mutex<()>,
    /// Client requests under way.
    serving: AtomicUsize,
    /// When the last one ended, in milliseconds of the monotonic clock, plus one; 0: there was none.
    served_at: AtomicU64,
}

/// A client's request under way.
pub(crate) struct Serving {
    throttle: Arc<Throttle>,
}

impl Throttle {
    pub fn new(env: Env) -> Arc<Self> {
        Arc::new(Self {
            env,
            permits: Semaphore::new(BACKGROUND_AT_ONCE),
            lent: Semaphore::new(BACKGROUND_AT_ONCE),
            turn: Mutex::default(),
            serving: AtomicUsize::new(0),
            served_at: AtomicU64::new(0),
        })
    }

    /// Until the guard is dropped, background work goes slowly.
    pub fn serve(self: &Arc<Self>) -> Serving {
        self.serving.fetch_add(1, Ordering::Relaxed);
        Serving { throttle: Arc::clone(self) }
    }

    /// Does a piece of background work when its turn has come.
    pub async fn background<T>(&self, work: impl Future<Output = T>) -> T {
        let _permit = self.permits.acquire().await.expect("the semaphore is never closed");
        let _turn = if self.is_busy() { Some(self.turn.lock().await) } else { None };
        let began = self.env.monotonic();
        let done = work.await;
        if self.is_busy() {
            let took = self.env.monotonic().saturating_sub(began);
            self.env.sleep((took * BUSY_REST).min(REST_MAX)).await;
        }
        done
    }

    /// Does a piece of background work for another node; `None` when clients are served here, or as much is being done for others as
    /// may be. Waits for no turn: whoever asks holds a permit meanwhile, and all nodes might wait for each other.
    pub async fn lend<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let _permit = self.lent.try_acquire().ok()?;
        if self.is_busy() { None } else { Some(work.await) }
    }

    /// Whether clients are served now, or were a moment ago.
    pub fn is_busy(&self) -> bool {
        if self.serving.load(Ordering::Relaxed) > 0 {
            return true;
        }
        let served_at = self.served_at.load(Ordering::Relaxed);
        served_at > 0 && millis(self.env.monotonic()).saturating_sub(served_at - 1) < millis(BUSY_FOR)
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let throttle = &self.throttle;
        throttle.served_at.store(millis(throttle.env.monotonic()).saturating_add(1), Ordering::Relaxed);
        throttle.serving.fetch_sub(1, Ordering::Relaxed);
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How long ten pieces of one second take, one after another.
    async fn ten_seconds_of_work(throttle: &Throttle) -> u64 {
        let began = throttle.env.monotonic();
        for _ in 0..10 {
            throttle.background(throttle.env.sleep(Duration::from_secs(1))).await;
        }
        (throttle.env.monotonic() - began).as_secs()
    }

    #[tokio::test(start_paused = true)]
    async fn background_work_rests_while_clients_are_served() {
        let (env, _) = placement_env::sim::env(1);
        let throttle = Throttle::new(env);
        assert_eq!(ten_seconds_of_work(&throttle).await, 10);
        let serving = throttle.serve();
        assert_eq!(ten_seconds_of_work(&throttle).await, 40);
        drop(serving);
        throttle.env.sleep(BUSY_FOR).await;
        assert_eq!(ten_seconds_of_work(&throttle).await, 10);
    }

    #[tokio::test(start_paused = true)]
    async fn one_piece_at_a_time_runs_while_clients_are_served() {
        let (env, _) = placement_env::sim::env(1);
        let throttle = Throttle::new(env.clone());
        let serving = throttle.serve();
        let pieces = (0..3 * BACKGROUND_AT_ONCE).map(|_| throttle.background(env.sleep(Duration::from_secs(1))));
        let began = env.monotonic();
        futures::future::join_all(pieces).await;
        assert_eq!((env.monotonic() - began).as_secs(), 3 * BACKGROUND_AT_ONCE as u64 * (1 + u64::from(BUSY_REST)));
        drop(serving);
    }

    #[tokio::test(start_paused = true)]
    async fn a_hand_is_lent_at_once_or_not_at_all() {
        let (env, _) = placement_env::sim::env(1);
        let throttle = Throttle::new(env.clone());
        // Permits of its own work are no reason to refuse.
        let own = (0..BACKGROUND_AT_ONCE).map(|_| throttle.background(env.sleep(Duration::from_secs(1))));
        let lent = (0..BACKGROUND_AT_ONCE + 2).map(|_| throttle.lend(env.sleep(Duration::from_secs(1))));
        let began = env.monotonic();
        let (_, lent) = tokio::join!(futures::future::join_all(own), futures::future::join_all(lent));
        assert_eq!(lent.iter().flatten().count(), BACKGROUND_AT_ONCE);
        assert_eq!((env.monotonic() - began).as_secs(), 1);
        let serving = throttle.serve();
        assert_eq!(throttle.lend(std::future::ready(())).await, None);
        drop(serving);
        throttle.env.sleep(BUSY_FOR).await;
        assert_eq!(throttle.lend(std::future::ready(())).await, Some(()));
    }

    #[tokio::test(start_paused = true)]
    async fn only_so_much_runs_at_once() {
        let (env, _) = placement_env::sim::env(1);
        let throttle = Throttle::new(env.clone());
        let pieces = (0..3 * BACKGROUND_AT_ONCE).map(|_| throttle.background(env.sleep(Duration::from_secs(1))));
        let began = env.monotonic();
        futures::future::join_all(pieces).await;
        assert_eq!((env.monotonic() - began).as_secs(), 3);
    }
}
