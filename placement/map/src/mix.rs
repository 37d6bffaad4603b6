//! A hash for choosing evenly among disks: fixed for ever, because what is chosen in the system group's state machine must
//! come out the same on every replica and in every build. Not for integrity.

/// Spreads `a` and `b` over 64 bits (the finalizer of MurmurHash3, twice).
pub(crate) fn mix(a: u64, b: u128) -> u64 {
    let folded = (b >> 64) as u64 ^ (b as u64).rotate_left(32);
    finalize(finalize(a ^ 0x9e37_79b9_7f4a_7c15).wrapping_add(folded))
}

fn finalize(mut value: u64) -> u64 {
    value ^= value >> 33;
    value = value.wrapping_mul(0xff51_afd7_ed55_8ccd);
    value ^= value >> 33;
    value = value.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    value ^ (value >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_never_changes() {
        assert_eq!(
            [mix(0, 0), mix(1, 0), mix(0, 1 << 64)],
            [0x6393_d51c_06c6_18dc, 0x3a3c_7f8a_d167_625a, 0x8d82_7513_99f5_5d54]
        );
    }
}
