//! The Reed-Solomon code of one profile.

use bytes::{Bytes, BytesMut};
use placement_types::{Profile, STRIPE_BYTES};
use reed_solomon_erasure::galois_8::ReedSolomon;

/// Units from which a stripe cannot be rebuilt.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RebuildError {
    #[error("{present} units are there, {needed} are needed")]
    TooFew { present: usize, needed: usize },
    #[error("{units} units were given for a profile of {width}")]
    WrongCount { units: usize, width: usize },
    #[error("the units are not of one length above zero")]
    WrongLength,
}

/// Codes stripes of one profile. Making one inverts a small matrix: make it once per chunk.
#[derive(Debug)]
pub struct Coder {
    profile: Profile,
    /// `None` where nothing needs computing: without parity, and with k = 1, whose code is repetition.
    code: Option<ReedSolomon>,
}

impl Coder {
    pub fn new(profile: Profile) -> Self {
        let code = (profile.data() > 1 && profile.parity() > 0)
            .then(|| ReedSolomon::new(profile.data(), profile.parity()).expect("every profile is within the code's limits"));
        Self { profile, code }
    }

    /// The k+m units of a stripe, in slot order. Data units that a stripe fills are cut out of it without a copy.
    ///
    /// # Panics
    /// When the stripe is empty or longer than [`STRIPE_BYTES`].
    pub fn encode(&self, stripe: Bytes) -> Vec<Bytes> {
        assert!(!stripe.is_empty() && stripe.len() as u64 <= STRIPE_BYTES, "a stripe has 1 to STRIPE_BYTES bytes");
        if self.profile.data() == 1 {
            return vec![stripe; self.profile.width()];
        }
        let unit_bytes = usize::try_from(self.profile.unit_bytes(stripe.len() as u64)).expect("a unit fits in memory");
        let mut units: Vec<Bytes> = (0..self.profile.data()).map(|index| data_unit(&stripe, index, unit_bytes)).collect();
        if let Some(code) = &self.code {
            let mut parity = vec![vec![0; unit_bytes]; self.profile.parity()];
            code.encode_sep(&units, &mut parity).expect("the units are of one length and as many as the code wants");
            units.extend(parity.into_iter().map(Bytes::from));
        }
        units
    }

    /// Fills in the missing data units from any k units. Missing parity stays missing.
    pub fn rebuild_data(&self, units: &mut [Option<Bytes>]) -> Result<(), RebuildError> {
        let unit_bytes = self.check(units)?;
        let data = self.profile.data();
        if units[..data].iter().all(Option::is_some) {
            return Ok(());
        }
        let Some(code) = &self.code else {
            // Without parity nothing is missing here; with k = 1 every unit is the stripe.
            units[0] = units.iter().flatten().next().cloned();
            return Ok(());
        };
        // The code borrows every unit mutably though it only writes the missing ones: a unit that nobody else holds is
        // lent without a copy.
        let mut shards: Vec<(BytesMut, bool)> = units
            .iter_mut()
            .enumerate()
            .map(|(index, unit)| match unit.take() {
                Some(unit) => (BytesMut::from(unit), true),
                None if index < data => (BytesMut::zeroed(unit_bytes), false),
                None => (BytesMut::new(), false),
            })
            .collect();
        code.reconstruct_data(&mut shards).expect("enough units of one length were checked to be there");
        for (index, (unit, (shard, present))) in units.iter_mut().zip(shards).enumerate() {
            *unit = (present || index < data).then(|| shard.freeze());
        }
        Ok(())
    }

    /// The length of the units, all of which are well-formed and enough.
    fn check(&self, units: &[Option<Bytes>]) -> Result<usize, RebuildError> {
        let (width, needed) = (self.profile.width(), self.profile.data());
        if units.len() != width {
            return Err(RebuildError::WrongCount { units: units.len(), width });
        }
        let mut present = units.iter().flatten();
        let count = present.clone().count();
        if count < needed {
            return Err(RebuildError::TooFew { present: count, needed });
        }
        let unit_bytes = present.next().map_or(0, Bytes::len);
        if unit_bytes == 0 || present.any(|unit| unit.len() != unit_bytes) {
            return Err(RebuildError::WrongLength);
        }
        Ok(unit_bytes)
    }
}

/// Data unit `index` of a stripe, padded with zeros where the stripe ends within it or before it.
fn data_unit(stripe: &Bytes, index: usize, unit_bytes: usize) -> Bytes {
    let start = stripe.len().min(index * unit_bytes);
    let end = stripe.len().min(start + unit_bytes);
    if end - start == unit_bytes {
        return stripe.slice(start..end);
    }
    let mut unit = BytesMut::zeroed(unit_bytes);
    unit[..end - start].copy_from_slice(&stripe[start..end]);
    unit.freeze()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn stripe(bytes: usize) -> Bytes {
        (0..bytes).map(|at| (at * 31 + at / 251) as u8).collect::<Vec<_>>().into()
    }

    fn joined(units: &[Option<Bytes>], data: usize, bytes: usize) -> Vec<u8> {
        let mut whole: Vec<u8> = units[..data].iter().flat_map(|unit| unit.clone().unwrap()).collect();
        whole.truncate(bytes);
        whole
    }

    proptest! {
        #[test]
        fn any_k_units_rebuild_a_stripe(data in 1u8..=16, parity in 0u8..=8, bytes in 1usize..5000, drop in any::<u64>()) {
            let Ok(profile) = Profile::new(data, parity) else { return Ok(()) };
            let coder = Coder::new(profile);
            let original = stripe(bytes);
            let mut units: Vec<Option<Bytes>> = coder.encode(original.clone()).into_iter().map(Some).collect();
            prop_assert_eq!(units.len(), profile.width());
            prop_assert!(units.iter().flatten().all(|unit| unit.len() as u64 == profile.unit_bytes(bytes as u64)));
            // Drop m units chosen by the seed.
            let mut seed = drop;
            for _ in 0..profile.parity() {
                let present: Vec<usize> = (0..units.len()).filter(|index| units[*index].is_some()).collect();
                units[present[(seed % present.len() as u64) as usize]] = None;
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            }
            coder.rebuild_data(&mut units).unwrap();
            prop_assert_eq!(joined(&units, profile.data(), bytes), original.to_vec());
        }
    }

    #[test]
    fn a_unit_that_the_caller_still_holds_is_not_changed() {
        let coder = Coder::new(Profile::new(2, 1).unwrap());
        let original = coder.encode(stripe(1000));
        let mut units = vec![None, Some(original[1].clone()), Some(original[2].clone())];
        coder.rebuild_data(&mut units).unwrap();
        assert_eq!(units[0].as_ref(), Some(&original[0]));
        assert_eq!(units[1].as_ref(), Some(&original[1]));
    }

    #[test]
    fn too_few_or_uneven_units_are_refused() {
        let coder = Coder::new(Profile::new(2, 2).unwrap());
        let unit = |bytes| Some(Bytes::from(vec![1; bytes]));
        let check = |mut units: Vec<Option<Bytes>>, error| assert_eq!(coder.rebuild_data(&mut units), Err(error));
        check(vec![unit(3), None, None, None], RebuildError::TooFew { present: 1, needed: 2 });
        check(vec![unit(3), None, unit(4), None], RebuildError::WrongLength);
        check(vec![unit(0), None, unit(0), None], RebuildError::WrongLength);
        check(vec![unit(3), unit(3)], RebuildError::WrongCount { units: 2, width: 4 });
    }

    #[test]
    fn the_code_is_vectorised() {
        // Without this feature coding is a hundred times slower, and nothing else would show it.
        let manifest = include_str!("../../../Cargo.toml");
        let line = manifest.lines().find(|line| line.starts_with("reed-solomon-erasure")).unwrap();
        assert!(line.contains("\"simd-accel\""), "{line}");
    }
}
