//! Numbers that look random, and are the same again for the same seed.

use std::time::SystemTime;

/// Another seed in each run unless `TIDEWIRE_SEED` gives one; printed, so that a failure can be
/// played again.
pub(crate) fn seed() -> u64 {
    let given = std::env::var("TIDEWIRE_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or_else(|| {
        let since = SystemTime::UNIX_EPOCH.elapsed().expect("after 1970");
        u64::from(since.subsec_nanos())
    });
    println!("TIDEWIRE_SEED={seed}");
    seed
}

/// Dice of one seed.
#[derive(Clone, Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    /// Each part of a test that rolls for itself has its own.
    pub(crate) fn of(seed: u64, part: u64) -> Self {
        let mixed = seed.wrapping_add(part.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let mut dice = Self(mixed | 1);
        dice.roll(2);
        dice
    }

    /// One of `0..sides`.
    pub(crate) fn roll(&mut self, sides: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }

    /// Once in so many times.
    pub(crate) fn once_in(&mut self, times: u64) -> bool {
        self.roll(times) == 0
    }
}
