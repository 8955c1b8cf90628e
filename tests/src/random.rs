//! A small generator: the same seed, the same moments.

/// xorshift64*: good enough to choose moments and bytes.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Of a seed; 0 is as good as any.
    #[must_use]
    pub const fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// The next 64 bits.
    pub const fn bits(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `end`, which must not be 0.
    pub const fn below(&mut self, end: u64) -> u64 {
        (self.bits() >> 11) % end
    }
}
