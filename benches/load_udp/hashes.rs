//! The info hashes that `aquatic_udp_load_test` makes, for a tracker that serves only a given list.
//!
//! They come from rand 0.8's `SmallRng` (xoshiro256++, seeded by PCG32), a byte a number.

/// The seed in its source.
const SEED: u64 = 0xc3aa_8be6_17b3_acce;

pub struct AquaticHashes {
    state: [u64; 4],
}

impl Default for AquaticHashes {
    fn default() -> Self {
        let mut seed = SEED;
        let mut word = || u64::from(pcg32(&mut seed)) | u64::from(pcg32(&mut seed)) << 32;
        let state = [word(), word(), word(), word()];
        Self { state }
    }
}

impl Iterator for AquaticHashes {
    type Item = [u8; 20];

    fn next(&mut self) -> Option<[u8; 20]> {
        Some(std::array::from_fn(|_| (self.number() >> 32) as u8))
    }
}

impl AquaticHashes {
    fn number(&mut self) -> u64 {
        let [a, b, c, d] = self.state;
        let number = a.wrapping_add(d).rotate_left(23).wrapping_add(a);
        let (c, d) = (c ^ a, d ^ b);
        self.state = [a ^ d, b ^ c, c ^ b << 17, d.rotate_left(45)];
        number
    }
}

fn pcg32(state: &mut u64) -> u32 {
    *state = state
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(11_634_580_027_462_260_723);
    let mix = ((*state >> 18 ^ *state) >> 27) as u32;
    mix.rotate_right((*state >> 59) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_that_aquatic_announces() {
        let hex = |hash: [u8; 20]| hash.map(|byte| format!("{byte:02x}")).concat();
        let first: Vec<_> = AquaticHashes::default().take(2).map(hex).collect();
        assert_eq!(
            first,
            [
                "9b2c89021127d21d52983827ff49ffb3f783d5af",
                "bb8f3bd4747077593f776fe69e474ba5dbafb877"
            ]
        );
    }
}
