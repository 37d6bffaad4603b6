//! How fast a client takes what is read for it, and so how much may be read ahead.
//!
//! A leaky bucket: every byte taken counts, and every second in which there was something to take costs what a client that is
//! worth reading ahead for would have taken. The time a client waits for us costs nothing: slow disks do not make it slow.

use std::time::Duration;

use crate::limits::{PACE_BRISK_BYTES, PACE_BYTES_MAX, PACE_BYTES_PER_SECOND, PACE_STEADY_BYTES};

/// How a client takes its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Gait {
    /// It has just begun, stood still lately, or takes less than [`PACE_BYTES_PER_SECOND`]: nothing is read ahead for it.
    Slow,
    /// It takes something: while one stripe is taken, the next is read.
    Steady,
    /// It keeps up: whole chunks are opened, and the next one ahead.
    Brisk,
}

/// What is known of a client's speed.
#[derive(Debug)]
pub struct Pace {
    credit: u64,
}

impl Pace {
    /// Of a client that has taken nothing yet.
    pub fn unknown() -> Self {
        Self { credit: 0 }
    }

    /// It took so many bytes after they had been there for `idle`.
    pub fn took(&mut self, bytes: u64, idle: Duration) {
        let leak = u128::from(PACE_BYTES_PER_SECOND) * idle.as_micros() / 1_000_000;
        let leak = u64::try_from(leak).unwrap_or(u64::MAX);
        self.credit = self.credit.saturating_sub(leak).saturating_add(bytes).min(PACE_BYTES_MAX);
    }

    /// It stands still.
    pub fn stalled(&mut self) {
        self.credit = 0;
    }

    pub fn gait(&self) -> Gait {
        match self.credit {
            ..PACE_STEADY_BYTES => Gait::Slow,
            PACE_STEADY_BYTES..PACE_BRISK_BYTES => Gait::Steady,
            PACE_BRISK_BYTES.. => Gait::Brisk,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The gait after `takes` of 128 KiB, each so many microseconds after the bytes were there.
    fn check(pace: &mut Pace, takes: usize, idle_us: u64, expected: Gait) {
        for _ in 0..takes {
            pace.took(128 << 10, Duration::from_micros(idle_us));
        }
        assert_eq!(pace.gait(), expected, "{takes} takes of {idle_us} us: {pace:?}");
    }

    #[test]
    fn a_client_is_as_brisk_as_it_takes() {
        let mut pace = Pace::unknown();
        assert_eq!(pace.gait(), Gait::Slow);
        check(&mut pace, 10, 100, Gait::Steady);
        check(&mut pace, 30, 100, Gait::Brisk);
        pace.stalled();
        check(&mut pace, 1, 100, Gait::Slow);
        // 12.5 MB/s is enough, if for longer; 1.25 MB/s never is.
        check(&mut pace, 100, 10_000, Gait::Brisk);
        check(&mut pace, 1000, 100_000, Gait::Slow);
        check(&mut pace, 1, u64::MAX, Gait::Slow);
    }

    #[test]
    fn a_long_brisk_past_is_soon_forgotten() {
        let mut pace = Pace::unknown();
        check(&mut pace, 10_000, 0, Gait::Brisk);
        check(&mut pace, 50, 100_000, Gait::Slow);
    }
}
