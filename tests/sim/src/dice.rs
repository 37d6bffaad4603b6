//! The harness's own randomness, apart from every machine's.

use std::time::Duration;

use placement_env::sim::SimRandom;
use placement_types::Random;

pub struct Dice(SimRandom);

impl Dice {
    /// `purpose` keeps the streams of one seed apart.
    pub fn new(seed: u64, purpose: u64) -> Self {
        Self(SimRandom::new(derive(seed, purpose)))
    }

    /// Uniform in `from..to`.
    pub fn range(&self, from: u64, to: u64) -> u64 {
        let mut bytes = [0; 8];
        self.0.fill(&mut bytes);
        from + ((u128::from(u64::from_be_bytes(bytes)) * u128::from(to - from)) >> 64) as u64
    }

    pub fn coin(&self) -> bool {
        self.range(0, 2) == 0
    }

    pub fn millis(&self, from: u64, to: u64) -> Duration {
        Duration::from_millis(self.range(from, to))
    }
}

/// A seed of its own for each purpose.
pub fn derive(seed: u64, purpose: u64) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_be_bytes()).update(&purpose.to_be_bytes());
    let (head, _) = hasher.finalize().as_bytes().split_first_chunk().map(|(head, rest)| (*head, rest.len())).expect("32 bytes");
    u64::from_be_bytes(head)
}
