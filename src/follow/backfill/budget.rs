//! How much history one commit books, learnt from how long the last ones took.

use std::time::Duration;

const FEWEST: usize = 500;
const MOST: usize = 50_000;

/// A block that comes during a commit waits for its end, so that a commit must stay short; one that is too
/// small costs more for itself than for what it books. Counted in sides of movements.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    target: Duration,
    sides: usize,
}

impl Budget {
    /// For commits that take about `target`, beginning with `sides` in one.
    #[must_use]
    pub fn new(target: Duration, sides: usize) -> Self {
        Self { target, sides }
    }

    /// The sides after which a commit is full.
    #[must_use]
    pub fn sides(&self) -> usize {
        self.sides
    }

    /// A commit of `sides` took that long.
    pub fn took(&mut self, sides: usize, time: Duration) {
        if time > self.target * 2 {
            self.sides = (self.sides.min(sides) / 2).max(FEWEST);
        } else if time < self.target && sides >= self.sides - self.sides / 4 {
            self.sides = (self.sides * 2).min(MOST);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGET: Duration = Duration::from_millis(100);

    #[test]
    fn a_commit_grows_to_what_fits_in_its_time_and_shrinks_when_the_store_slows_down() {
        for per_movement in [1_u32, 10, 100, 1_000] {
            let mut budget = Budget::new(TARGET, FEWEST);
            let time = |sides: usize| {
                Duration::from_micros(u64::from(per_movement)) * u32::try_from(sides).unwrap()
            };
            let mut before = 0;
            while before != budget.sides() {
                before = budget.sides();
                budget.took(before, time(before));
            }
            let settled = budget.sides();
            assert!((FEWEST..=MOST).contains(&settled));
            assert!(time(settled) <= TARGET * 2 || settled == FEWEST, "{settled}");
            assert!(time(settled) * 2 >= TARGET || settled == MOST, "{settled}");
            for _ in 0..20 {
                budget.took(budget.sides(), TARGET * 3);
            }
            assert_eq!(budget.sides(), FEWEST);
        }
    }

    #[test]
    fn a_commit_that_was_not_full_says_nothing_about_full_ones() {
        let mut budget = Budget::new(TARGET, FEWEST);
        let before = budget.sides();
        budget.took(3, Duration::from_millis(1));
        assert_eq!(budget.sides(), before);
    }
}
