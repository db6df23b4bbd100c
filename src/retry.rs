//! How long to wait before trying again. The only place that names the `backoff` crate, which nobody
//! maintains any more: what replaces it replaces it here.

use std::time::Duration;

use backoff::{ExponentialBackoff, ExponentialBackoffBuilder, backoff::Backoff as _};

/// Delays that double from `initial` to `max`, each spread by half so that those who failed together do
/// not come back together. It never gives up; whoever waits decides when it has been enough.
#[derive(Debug)]
pub struct Backoff {
    inner: ExponentialBackoff,
    max: Duration,
}

impl Backoff {
    /// An `initial` delay of zero would stay zero for ever and is taken as a millisecond.
    #[must_use]
    pub fn new(initial: Duration, max: Duration) -> Self {
        let initial = initial.max(Duration::from_millis(1));
        let max = max.max(initial);
        let inner = ExponentialBackoffBuilder::new()
            .with_initial_interval(initial)
            .with_max_interval(max)
            .with_multiplier(2.0)
            .with_randomization_factor(0.5)
            .with_max_elapsed_time(None)
            .build();
        Self { inner, max }
    }

    /// The next delay: never longer than `max`, whatever the jitter.
    pub fn next_delay(&mut self) -> Duration {
        self.inner.next_backoff().unwrap_or(self.max).min(self.max)
    }

    /// Begins again with the shortest delay, after a success.
    pub fn reset(&mut self) {
        self.inner.reset();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INITIAL: Duration = Duration::from_millis(100);
    const MAX: Duration = Duration::from_secs(5);

    #[test]
    fn delays_grow_to_the_limit_and_never_beyond() {
        let mut backoff = Backoff::new(INITIAL, MAX);
        let mut expected = INITIAL;
        for _ in 0..100 {
            let delay = backoff.next_delay();
            assert!(delay >= expected / 2, "{delay:?} is shorter than half of {expected:?}");
            assert!(delay <= (expected * 3 / 2).min(MAX) + Duration::from_nanos(1), "{delay:?}");
            expected = (expected * 2).min(MAX);
        }
    }

    #[test]
    fn delays_of_two_waiters_differ() {
        let delays = || {
            let mut backoff = Backoff::new(INITIAL, MAX);
            (0..20).map(|_| backoff.next_delay()).collect::<Vec<_>>()
        };
        assert_ne!(delays(), delays());
    }

    #[test]
    fn a_reset_begins_with_the_shortest_delay() {
        let mut backoff = Backoff::new(INITIAL, MAX);
        for _ in 0..10 {
            backoff.next_delay();
        }
        backoff.reset();
        assert!(backoff.next_delay() <= INITIAL * 3 / 2 + Duration::from_nanos(1));
    }

    #[test]
    fn a_delay_of_zero_is_never_a_busy_loop() {
        let mut backoff = Backoff::new(Duration::ZERO, Duration::ZERO);
        assert!(backoff.next_delay() > Duration::ZERO);
        assert!(backoff.next_delay() > Duration::ZERO);
    }
}
