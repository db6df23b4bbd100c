//! What follows from an attempt: values in, a decision out.

use std::time::Duration;

use crate::clock::Millis;

/// No receiver puts an attempt off for longer.
const MAX_RETRY_AFTER: Duration = Duration::from_hours(24);
/// Pauses are stretched or shortened by up to this share, so that what failed together does not return
/// together.
const JITTER: f64 = 0.2;

/// What came of one attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The receiver answered. `retry_after` is its wish, where it uttered one.
    Answered { status: u16, retry_after: Option<Duration> },
    /// No answer within the deadline.
    TimedOut,
    /// No connection, or one that broke; a word says where.
    Unreachable(&'static str),
    /// Not sent, because of how the endpoint is set up; the text says why.
    Refused(String),
    /// Not sent, because the endpoint was closed or the event is gone.
    Withdrawn,
}

impl Outcome {
    #[must_use]
    pub fn is_success(&self) -> bool {
        matches!(self, Self::Answered { status: 200..=299, .. })
    }

    /// The metric's label.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Answered { .. } if self.is_success() => "delivered",
            Self::Answered { .. } => "rejected",
            Self::TimedOut => "timeout",
            Self::Unreachable(_) => "unreachable",
            Self::Refused(_) | Self::Withdrawn => "refused",
        }
    }

    #[must_use]
    pub fn status_code(&self) -> Option<u16> {
        match self {
            Self::Answered { status, .. } => Some(*status),
            _ => None,
        }
    }

    /// What the tenant reads beside the attempt; nothing for a success.
    #[must_use]
    pub fn error(&self) -> Option<String> {
        match self {
            Self::Answered { .. } if self.is_success() => None,
            Self::Answered { .. } => Some("rejected".to_owned()),
            Self::TimedOut => Some("timeout".to_owned()),
            Self::Unreachable(word) => Some(format!("unreachable: {word}")),
            Self::Refused(why) => Some(format!("refused: {why}")),
            Self::Withdrawn => Some("withdrawn".to_owned()),
        }
    }
}

/// What to do after an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    Delivered,
    Retry {
        at: Millis,
    },
    /// The delivery has used up its attempts.
    Failed,
    /// The endpoint gets nothing any more, and what waits for it has failed.
    Disable(Reason),
}

/// Why an endpoint is disabled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It answered 410.
    Gone,
    /// It has failed for too long without a success.
    Failing,
}

impl Reason {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Gone => "gone",
            Self::Failing => "failing",
        }
    }
}

/// Decides what follows from an attempt. `attempts` counts those made before it, `failing_since` is the
/// endpoint's first failure since its last success, `jitter` is a random number from 0 to 1.
#[must_use]
pub fn decide(
    outcome: &Outcome,
    attempts: i64,
    schedule: &[Duration],
    now: Millis,
    failing_since: Option<Millis>,
    disable_after: Duration,
    jitter: f64,
) -> Next {
    if outcome.is_success() {
        return Next::Delivered;
    }
    let asked = match outcome {
        Outcome::Withdrawn => return Next::Failed,
        Outcome::Answered { status: 410, .. } => return Next::Disable(Reason::Gone),
        Outcome::Answered { status: 429 | 503, retry_after } => *retry_after,
        _ => None,
    };
    if failing_since.is_some_and(|since| now.since(since) >= disable_after) {
        return Next::Disable(Reason::Failing);
    }
    let Some(pause) = usize::try_from(attempts).ok().and_then(|done| schedule.get(done)) else {
        return Next::Failed;
    };
    let asked = asked.unwrap_or_default().min(MAX_RETRY_AFTER);
    Next::Retry { at: now.plus(jittered(*pause, jitter).max(asked)) }
}

fn jittered(pause: Duration, jitter: f64) -> Duration {
    let factor = 1.0 - JITTER + 2.0 * JITTER * jitter.clamp(0.0, 1.0);
    Duration::try_from_secs_f64(pause.as_secs_f64() * factor).unwrap_or(pause)
}

/// Reads a `Retry-After` header: seconds, or a date (RFC 9110, section 10.2.3).
#[must_use]
pub fn retry_after(header: &str, now: Millis) -> Option<Duration> {
    let header = header.trim();
    if !header.is_empty() && header.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than a number holds mean: very long.
        return Some(header.parse().map_or(MAX_RETRY_AFTER, Duration::from_secs));
    }
    let date = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(header).ok()?;
    Some(Millis(date.as_millisecond()).since(now))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DAY: Duration = Duration::from_hours(24);
    const NOW: Millis = Millis(1_768_469_400_000);

    fn schedule() -> Vec<Duration> {
        [5, 30, 120].map(Duration::from_secs).to_vec()
    }

    fn answered(status: u16) -> Outcome {
        Outcome::Answered { status, retry_after: None }
    }

    fn after(outcome: &Outcome, attempts: i64) -> Next {
        decide(outcome, attempts, &schedule(), NOW, Some(NOW), 5 * DAY, 0.5)
    }

    #[test]
    fn any_2xx_is_a_delivery_and_nothing_else_is() {
        for status in 200..300 {
            assert_eq!(after(&answered(status), 99), Next::Delivered);
        }
        for status in [100, 199, 300, 301, 307, 400, 404, 500, 503] {
            assert_eq!(after(&answered(status), 0), Next::Retry { at: Millis(NOW.0 + 5000) });
        }
    }

    #[test]
    fn a_delivery_fails_when_the_schedule_is_used_up() {
        assert_eq!(after(&Outcome::TimedOut, 2), Next::Retry { at: Millis(NOW.0 + 120_000) });
        assert_eq!(after(&Outcome::TimedOut, 3), Next::Failed);
        assert_eq!(after(&Outcome::Withdrawn, 0), Next::Failed);
    }

    #[test]
    fn gone_disables_at_once_and_failure_for_long_disables_too() {
        assert_eq!(after(&answered(410), 0), Next::Disable(Reason::Gone));
        let late =
            |since| decide(&Outcome::TimedOut, 0, &schedule(), NOW, Some(since), 5 * DAY, 0.5);
        assert_eq!(late(Millis(NOW.0 - 432_000_000)), Next::Disable(Reason::Failing));
        assert!(matches!(late(Millis(NOW.0 - 431_999_999)), Next::Retry { .. }));
    }

    #[test]
    fn a_receivers_wish_to_wait_is_honoured_up_to_a_day() {
        let wish = |status, seconds| {
            let retry_after = Some(Duration::from_secs(seconds));
            after(&Outcome::Answered { status, retry_after }, 0)
        };
        assert_eq!(wish(429, 60), Next::Retry { at: Millis(NOW.0 + 60_000) });
        assert_eq!(wish(503, 60), Next::Retry { at: Millis(NOW.0 + 60_000) });
        assert_eq!(
            wish(503, 1),
            Next::Retry { at: Millis(NOW.0 + 5000) },
            "never sooner than ours"
        );
        assert_eq!(wish(500, 60), Next::Retry { at: Millis(NOW.0 + 5000) }, "not theirs to ask");
        assert_eq!(wish(429, u64::MAX), Next::Retry { at: NOW.plus(DAY) });
    }

    #[test]
    fn retry_after_is_read_as_seconds_or_as_a_date() {
        assert_eq!(retry_after(" 120 ", NOW), Some(Duration::from_mins(2)));
        assert_eq!(retry_after("99999999999999999999999", NOW), Some(MAX_RETRY_AFTER));
        // NOW is Thu, 15 Jan 2026 09:30:00 GMT.
        let date = "Thu, 15 Jan 2026 09:31:00 GMT";
        assert_eq!(retry_after(date, NOW), Some(Duration::from_mins(1)));
        assert_eq!(retry_after("Thu, 15 Jan 2026 09:29:00 GMT", NOW), Some(Duration::ZERO));
        for nonsense in ["", "soon", "-1", "1.5"] {
            assert_eq!(retry_after(nonsense, NOW), None, "{nonsense}");
        }
    }

    proptest! {
        #[test]
        fn a_retry_is_within_a_fifth_of_its_pause(
            attempts in 0_i64..3, jitter in 0.0_f64..=1.0, status in 300_u16..409,
        ) {
            let next = decide(&answered(status), attempts, &schedule(), NOW, Some(NOW), DAY, jitter);
            let Next::Retry { at } = next else { panic!("{next:?}") };
            let pause = schedule()[usize::try_from(attempts).unwrap()];
            prop_assert!(at.since(NOW) + Duration::from_millis(1) >= pause.mul_f64(0.8));
            prop_assert!(at.since(NOW) <= pause.mul_f64(1.2));
        }

        #[test]
        fn every_delivery_comes_to_an_end(status in 0_u16..600, start in 0_i64..4) {
            let outcome = answered(status);
            let ended = (start..).take(5).any(|attempts| {
                !matches!(after(&outcome, attempts), Next::Retry { .. })
            });
            prop_assert!(ended);
        }

        #[test]
        fn no_header_breaks_the_reader(header in "\\PC{0,40}") {
            let _ = retry_after(&header, NOW);
        }
    }
}
