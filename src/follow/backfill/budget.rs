//! How much history one commit books, learnt from how long the last ones took.

use std::time::Duration;

const FEWEST: usize = 500;
const MOST: usize = 50_000;

/// A block that comes during a commit waits for its end, so that a commit must stay short; one that is too
/// small moves more openings than transfers.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    target: Duration,
    movements: usize,
}

impl Budget {
    /// For commits that take about `target`, beginning with `movements` in one.
    #[must_use]
    pub fn new(target: Duration, movements: usize) -> Self {
        Self { target, movements }
    }

    /// The movements after which a commit is full.
    #[must_use]
    pub fn movements(&self) -> usize {
        self.movements
    }

    /// A commit of `movements` took that long.
    pub fn took(&mut self, movements: usize, time: Duration) {
        if time > self.target * 2 {
            self.movements = (self.movements.min(movements) / 2).max(FEWEST);
        } else if time < self.target && movements >= self.movements {
            self.movements = (self.movements * 2).min(MOST);
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
            let time = |movements: usize| {
                Duration::from_micros(u64::from(per_movement)) * u32::try_from(movements).unwrap()
            };
            let mut before = 0;
            while before != budget.movements() {
                before = budget.movements();
                budget.took(before, time(before));
            }
            let settled = budget.movements();
            assert!((FEWEST..=MOST).contains(&settled));
            assert!(time(settled) <= TARGET * 2 || settled == FEWEST, "{settled}");
            assert!(time(settled) * 2 >= TARGET || settled == MOST, "{settled}");
            for _ in 0..20 {
                budget.took(budget.movements(), TARGET * 3);
            }
            assert_eq!(budget.movements(), FEWEST);
        }
    }

    #[test]
    fn a_commit_that_was_not_full_says_nothing_about_full_ones() {
        let mut budget = Budget::new(TARGET, FEWEST);
        let before = budget.movements();
        budget.took(3, Duration::from_millis(1));
        assert_eq!(budget.movements(), before);
    }
}
