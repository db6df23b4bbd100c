//! Randomness, handed in: nothing else in the crate asks the operating system for it, but for ids
//! ([`crate::id::Ids`]).

use std::{fmt, sync::Arc};

use parking_lot::Mutex;
use rand::{CryptoRng, Rng as _, SeedableRng as _, distr::Alphanumeric, rngs::StdRng};

/// Where randomness comes from: the system in the daemon, a seed in tests. Either is fit for secrets, if the
/// seed is one.
#[derive(Clone, Default)]
pub enum Random {
    #[default]
    System,
    Seeded(Arc<Mutex<StdRng>>),
}

impl Random {
    /// One seed gives one sequence.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        Self::Seeded(Arc::new(Mutex::new(StdRng::seed_from_u64(seed))))
    }

    /// Lends the generator.
    pub fn with<T>(&self, draw: impl FnOnce(&mut dyn CryptoRng) -> T) -> T {
        match self {
            Self::System => draw(&mut rand::rng()),
            Self::Seeded(generator) => draw(&mut *generator.lock()),
        }
    }

    #[must_use]
    pub fn bytes<const N: usize>(&self) -> [u8; N] {
        self.with(|rng| rng.random())
    }

    /// From 0 to 1.
    #[must_use]
    pub fn fraction(&self) -> f64 {
        self.with(|rng| rng.random_range(0.0..=1.0))
    }

    /// Letters and digits, 5.95 bits each.
    #[must_use]
    pub fn alphanumeric(&self, length: usize) -> String {
        self.with(|rng| rng.sample_iter(Alphanumeric).take(length).map(char::from).collect())
    }
}

impl fmt::Debug for Random {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Random")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_itself_and_the_system_does_not() {
        let draw = |random: &Random| random.alphanumeric(32);
        let seeded = Random::seeded(1);
        let first = draw(&seeded);
        assert_eq!(first, draw(&Random::seeded(1)));
        assert_ne!(first, draw(&seeded));
        assert_ne!(draw(&Random::System), draw(&Random::System));
        assert!(first.len() == 32 && first.chars().all(|c| c.is_ascii_alphanumeric()));
    }
}
