//! ChaCha from a seed.

use parking_lot::Mutex;
use placement_types::Random;
use rand_chacha::ChaCha12Rng;
use rand_core::{RngCore, SeedableRng};

pub struct SimRandom {
    generator: Mutex<ChaCha12Rng>,
}

impl SimRandom {
    pub fn new(seed: u64) -> Self {
        Self { generator: Mutex::new(ChaCha12Rng::seed_from_u64(seed)) }
    }

    pub(super) fn u64(&self) -> u64 {
        self.generator.lock().next_u64()
    }

    /// Uniform in `0..bound`, and 0 for an empty range.
    pub(super) fn below(&self, bound: u64) -> u64 {
        ((u128::from(self.u64()) * u128::from(bound)) >> 64) as u64
    }

    pub(super) fn coin(&self) -> bool {
        self.u64() & 1 == 1
    }
}

impl Random for SimRandom {
    fn fill(&self, bytes: &mut [u8]) {
        self.generator.lock().fill_bytes(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seed_decides() {
        let first = |seed| {
            let mut bytes = [0; 32];
            SimRandom::new(seed).fill(&mut bytes);
            bytes
        };
        assert_eq!(first(1), first(1));
        assert_ne!(first(1), first(2));
    }
}
