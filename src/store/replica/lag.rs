//! How far a standby is behind, in time: how long ago the primary was where the standby is now.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// As many are kept as looks are taken in an hour; the oldest stay.
const MOST_MARKS: usize = 3_600;

/// Where the primary was seen, and when, as far as the standby has not come there yet. Positions in its log only say
/// who is ahead: an idle primary stays where it is, and after a failover the new one may begin further back.
#[derive(Debug, Default)]
pub(super) struct Lag {
    marks: VecDeque<(i64, Instant)>,
    newest: Option<i64>,
    met: bool,
}

impl Lag {
    /// The primary is at this position.
    pub fn primary_at(&mut self, position: i64, now: Instant) {
        if self.newest == Some(position) {
            return;
        }
        if self.newest.is_some_and(|newest| position < newest) {
            self.marks.clear();
        }
        self.newest = Some(position);
        if self.marks.len() < MOST_MARKS {
            self.marks.push_back((position, now));
        }
    }

    /// The standby is at this position: gives for how long the primary has been ahead of it.
    pub fn standby_at(&mut self, position: i64, now: Instant) -> Duration {
        while self.marks.front().is_some_and(|(mark, _)| *mark <= position) {
            self.marks.pop_front();
            self.met = true;
        }
        if let Some(newest) =
            self.newest.filter(|newest| self.marks.is_empty() && position < *newest)
        {
            // Another one, which is further behind.
            self.marks.push_back((newest, now));
        }
        self.marks
            .front()
            .map_or(Duration::ZERO, |(_, since)| now.saturating_duration_since(*since))
    }

    /// Whether the standby ever came to where the primary was seen: before that its lag is unknown.
    pub fn is_known(&self) -> bool {
        self.met
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_lag_is_how_long_ago_the_primary_was_where_the_standby_is() {
        let (mut lag, start) = (Lag::default(), Instant::now());
        let at = |second: u32| start + SECOND * second;
        for second in 0..10 {
            lag.primary_at(i64::from(second) * 100, at(second));
        }
        assert_eq!(lag.standby_at(-1, at(9)), SECOND * 9);
        assert!(!lag.is_known(), "it may be a day behind");
        assert_eq!(
            lag.standby_at(250, at(9)),
            SECOND * 6,
            "what was written after second 2 is not there"
        );
        assert!(lag.is_known());
        assert_eq!(lag.standby_at(250, at(20)), SECOND * 17, "it stands still");
        assert_eq!(lag.standby_at(899, at(20)), SECOND * 11);
        assert_eq!(lag.standby_at(900, at(20)), Duration::ZERO);
        lag.primary_at(900, at(500));
        assert_eq!(lag.standby_at(900, at(600)), Duration::ZERO, "an idle primary is no lag");
        assert_eq!(lag.standby_at(700, at(600)), Duration::ZERO);
        assert_eq!(
            lag.standby_at(700, at(605)),
            SECOND * 5,
            "another standby behind the same address"
        );
    }

    #[test]
    fn a_new_primary_that_begins_further_back_is_reached_again() {
        let (mut lag, start) = (Lag::default(), Instant::now());
        lag.primary_at(1_000, start);
        assert_eq!(lag.standby_at(1_000, start), Duration::ZERO);
        lag.primary_at(2_000, start + SECOND);
        assert_eq!(lag.standby_at(1_500, start + SECOND * 9), SECOND * 8);
        lag.primary_at(1_600, start + SECOND * 9);
        assert_eq!(lag.standby_at(1_600, start + SECOND * 9), Duration::ZERO);
    }

    #[test]
    fn a_standby_that_is_away_for_long_costs_a_bounded_memory_and_forgets_not_since_when() {
        let (mut lag, start) = (Lag::default(), Instant::now());
        for second in 0..10_000 {
            lag.primary_at(second.into(), start + SECOND * second);
        }
        assert_eq!(lag.marks.len(), MOST_MARKS);
        assert_eq!(lag.standby_at(-1, start + SECOND * 10_000), SECOND * 10_000);
        assert_eq!(lag.standby_at(9_999, start + SECOND * 10_000), Duration::ZERO);
    }
}
