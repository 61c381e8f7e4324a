//! Reproducible random choices: the seed is printed, and can be set with `BINDSCOPE_SEED`. With
//! `BINDSCOPE_PORTIONS=10`, long tests do a tenth of their work, for slow machines.

use std::time::{SystemTime, UNIX_EPOCH};

/// The divisor of the work.
#[must_use]
pub fn portions() -> usize {
    std::env::var("BINDSCOPE_PORTIONS").ok().and_then(|text| text.parse().ok()).unwrap_or(1).max(1)
}

/// How many of this number to do.
#[must_use]
pub fn portion(all: usize) -> usize {
    all.div_ceil(portions())
}

/// A small generator (SplitMix64, Steele, Lea and Flood 2014).
pub struct Random(u64);

impl Random {
    /// A generator whose seed is printed under `name`.
    #[must_use]
    pub fn seeded(name: &str) -> Random {
        let seed = std::env::var("BINDSCOPE_SEED").ok().and_then(|text| text.parse().ok());
        let seed = seed.unwrap_or_else(|| {
            u64::from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().subsec_nanos())
        });
        eprintln!("{name}: BINDSCOPE_SEED={seed}");
        Random(seed)
    }

    /// The next 64 bits.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap()
    }

    /// One of `items`.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }

    /// True once in `times`.
    pub fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }
}
