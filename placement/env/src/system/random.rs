//! The kernel's generator.

use placement_types::Random;

use super::sys;

pub(super) struct SystemRandom;

impl Random for SystemRandom {
    fn fill(&self, bytes: &mut [u8]) {
        // Ids, keys and tokens come from here. Without randomness nothing may go on, so there is no error to return.
        sys::fill_random(bytes).expect("every Linux since 3.17 has getrandom(2), and it fails only for want of it");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_and_empty_buffers_are_filled_whole() {
        SystemRandom.fill(&mut []);
        let mut bytes = vec![0; 1 << 20];
        SystemRandom.fill(&mut bytes);
        // 64 zero bytes in a row have a probability of 2^-492 per place: seeing them means a part was not filled.
        assert!(bytes.chunks(64).all(|run| run.iter().any(|byte| *byte != 0)));
    }
}
