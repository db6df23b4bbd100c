//! How long to wait before trying again: as we choose, and as others ask. The only place that names the `backoff`
//! crate, which nobody maintains any more: what replaces it replaces it here.

use std::{
    fmt,
    time::{Duration, Instant},
};

use backoff::{ExponentialBackoff, ExponentialBackoffBuilder, backoff::Backoff as _};

use crate::{clock::Millis, store::StoreError};

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

/// Reads a `Retry-After` header: seconds, or a date (RFC 9110, section 10.2.3), which says something only if it is known
/// what time it is.
#[must_use]
pub fn retry_after(header: &str, now: Option<Millis>) -> Option<Duration> {
    let header = header.trim();
    if !header.is_empty() && header.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than a number holds mean: very long.
        return Some(header.parse().map_or(Duration::MAX, Duration::from_secs));
    }
    Some(http_date(header)?.since(now?))
}

/// Reads a date of HTTP (RFC 9110, section 5.6.7).
#[must_use]
pub fn http_date(text: &str) -> Option<Millis> {
    let date = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text.trim()).ok()?;
    Some(Millis(date.as_millisecond()))
}

/// How a long-lived task gets through the time in which the store does not answer: it tries again after
/// growing pauses and logs once when that begins and once when it ends.
#[derive(Debug)]
pub struct StoreRetry {
    task: String,
    backoff: Backoff,
    failing: Option<Failing>,
    /// Until when nothing is said: where some of it succeeds and some fails, that would never end.
    silent_until: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Failing {
    Said,
    Unsaid,
}

impl StoreRetry {
    const INITIAL: Duration = Duration::from_millis(100);
    /// The store is back a moment before its users are.
    const MAX: Duration = Duration::from_millis(500);
    const SILENCE: Duration = Duration::from_secs(30);

    /// `task` is named in the log.
    #[must_use]
    pub fn new(task: impl Into<String>) -> Self {
        Self {
            task: task.into(),
            backoff: Backoff::new(Self::INITIAL, Self::MAX),
            failing: None,
            silent_until: None,
        }
    }

    /// How long to wait before the next try.
    ///
    /// # Errors
    /// `error` itself, if trying again cannot help.
    pub fn pause_after(&mut self, error: StoreError) -> Result<Duration, StoreError> {
        if !error.is_transient() {
            return Err(error);
        }
        Ok(self.pause(&error))
    }

    /// The same, where it is known that trying again can help.
    pub fn pause(&mut self, error: impl fmt::Display) -> Duration {
        if self.failing.is_none() {
            let silent = self.silent_until.is_some_and(|until| Instant::now() < until);
            self.failing = Some(if silent { Failing::Unsaid } else { Failing::Said });
            if !silent {
                tracing::warn!(task = %self.task, %error, "waiting for the store, trying again");
            }
        }
        self.backoff.next_delay()
    }

    /// The store has answered.
    pub fn succeeded(&mut self) {
        if self.failing.take() == Some(Failing::Said) {
            tracing::info!(task = %self.task, "the store answers again");
            self.silent_until = Some(Instant::now() + Self::SILENCE);
        }
        self.backoff.reset();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::outage::{Cause, Outage};

    const INITIAL: Duration = Duration::from_millis(100);
    const MAX: Duration = Duration::from_secs(5);

    #[test]
    fn retry_after_is_read_as_seconds_or_as_a_date() {
        let now = http_date("Thu, 15 Jan 2026 09:30:00 GMT");
        assert_eq!(now, Some(Millis(1_768_469_400_000)));
        assert_eq!(retry_after(" 120 ", now), Some(Duration::from_mins(2)));
        assert_eq!(retry_after("120", None), Some(Duration::from_mins(2)));
        assert_eq!(retry_after("99999999999999999999999", now), Some(Duration::MAX));
        let date = "Thu, 15 Jan 2026 09:31:00 GMT";
        assert_eq!(retry_after(date, now), Some(Duration::from_mins(1)));
        assert_eq!(retry_after("Thu, 15 Jan 2026 09:29:00 GMT", now), Some(Duration::ZERO));
        assert_eq!(retry_after(date, None), None, "nobody knows how long that is");
        for nonsense in ["", "soon", "-1", "1.5"] {
            assert_eq!(retry_after(nonsense, now), None, "{nonsense}");
        }
    }

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

    fn unavailable() -> StoreError {
        StoreError::Unavailable(Outage::new(Cause::Restarting, "restarting"))
    }

    #[test]
    fn a_store_that_does_not_answer_is_tried_again_and_a_broken_one_is_not() {
        let mut retry = StoreRetry::new("test");
        for _ in 0..100 {
            let unavailable = unavailable();
            assert!(retry.pause_after(unavailable).unwrap() <= StoreRetry::MAX);
        }
        assert!(retry.pause_after(StoreError::Collision("lost".to_owned())).is_ok());
        assert!(retry.pause_after(StoreError::Unusable("damaged".to_owned())).is_err());
        assert!(retry.pause_after(StoreError::corrupt("nonsense")).is_err());
        retry.succeeded();
        let first = retry.pause_after(unavailable()).unwrap();
        assert!(first <= StoreRetry::INITIAL * 3 / 2 + Duration::from_nanos(1));
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
