//! What follows from an attempt: values in, a decision out.

use std::time::Duration;

use crate::{
    clock::Millis,
    config::WebhookConfig,
    delivery::{AttemptOutcome, DeliveryOutcome, DisabledReason, EndpointHealth},
};

/// No receiver puts an attempt off for longer.
const MAX_RETRY_AFTER: Duration = Duration::from_hours(24);
/// Pauses are longer or shorter by up to this share, so that what failed together does not return together.
const JITTER: f64 = 0.2;

/// What to do after an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    pub delivery: DeliveryOutcome,
    /// The endpoint is to be disabled, and what waits for it has failed.
    pub disable: Option<DisabledReason>,
}

impl From<DeliveryOutcome> for Decision {
    fn from(delivery: DeliveryOutcome) -> Self {
        Self { delivery, disable: None }
    }
}

impl Decision {
    fn disable(reason: DisabledReason) -> Self {
        Self { delivery: DeliveryOutcome::Failed, disable: Some(reason) }
    }
}

/// Decides what follows from an attempt. `attempts` counts those made before it, `jitter` is a random number
/// from 0 to 1.
#[must_use]
pub fn decide(
    outcome: &AttemptOutcome,
    attempts: i64,
    endpoint: EndpointHealth,
    config: &WebhookConfig,
    now: Millis,
    jitter: f64,
) -> Decision {
    if outcome.is_success() {
        return DeliveryOutcome::Delivered.into();
    }
    if endpoint.closed || *outcome == AttemptOutcome::Withdrawn {
        return DeliveryOutcome::Failed.into();
    }
    let asked = match outcome {
        AttemptOutcome::Answered { status: 410, .. } => {
            return Decision::disable(DisabledReason::Gone);
        }
        AttemptOutcome::Answered { status: 429 | 503, retry_after } => *retry_after,
        _ => None,
    };
    if endpoint.failing_since.is_some_and(|since| now.since(since) >= config.disable_after) {
        return Decision::disable(DisabledReason::Failing);
    }
    let pause = usize::try_from(attempts).ok().and_then(|made| config.retry_schedule.get(made));
    let Some(pause) = pause else {
        return DeliveryOutcome::Failed.into();
    };
    let asked = asked.unwrap_or_default().min(MAX_RETRY_AFTER);
    DeliveryOutcome::Retry { at: now.plus(jittered(*pause, jitter).max(asked)) }.into()
}

fn jittered(pause: Duration, jitter: f64) -> Duration {
    let factor = 1.0 - JITTER + 2.0 * JITTER * jitter.clamp(0.0, 1.0);
    Duration::try_from_secs_f64(pause.as_secs_f64() * factor).unwrap_or(pause)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DAY: Duration = Duration::from_hours(24);
    const NOW: Millis = Millis(1_768_469_400_000);

    fn config() -> WebhookConfig {
        WebhookConfig {
            allow_http: false,
            allow_private_addresses: false,
            retry_schedule: [5, 30, 120].map(Duration::from_secs).to_vec(),
            request_timeout: Duration::from_secs(15),
            max_in_flight: 1,
            max_in_flight_per_endpoint: 1,
            disable_after: 5 * DAY,
        }
    }

    fn failing_since(since: Millis) -> EndpointHealth {
        EndpointHealth { failing_since: Some(since), closed: false }
    }

    fn answered(status: u16) -> AttemptOutcome {
        AttemptOutcome::Answered { status, retry_after: None }
    }

    fn after(outcome: &AttemptOutcome, attempts: i64) -> Decision {
        decide(outcome, attempts, failing_since(NOW), &config(), NOW, 0.5)
    }

    fn retry(at: Millis) -> Decision {
        DeliveryOutcome::Retry { at }.into()
    }

    const DELIVERED: Decision = Decision { delivery: DeliveryOutcome::Delivered, disable: None };
    const FAILED: Decision = Decision { delivery: DeliveryOutcome::Failed, disable: None };

    #[test]
    fn any_2xx_is_a_delivery_and_nothing_else_is() {
        for status in 200..300 {
            assert_eq!(after(&answered(status), 99), DELIVERED);
        }
        for status in [100, 199, 300, 301, 307, 400, 404, 500, 503] {
            assert_eq!(after(&answered(status), 0), retry(Millis(NOW.0 + 5000)));
        }
    }

    #[test]
    fn a_delivery_fails_when_the_schedule_is_used_up() {
        assert_eq!(after(&AttemptOutcome::TimedOut, 2), retry(Millis(NOW.0 + 120_000)));
        assert_eq!(after(&AttemptOutcome::TimedOut, 3), FAILED);
        assert_eq!(after(&AttemptOutcome::Withdrawn, 0), FAILED);
    }

    #[test]
    fn gone_disables_at_once_and_failure_for_long_disables_too() {
        assert_eq!(after(&answered(410), 0), Decision::disable(DisabledReason::Gone));
        let late =
            |since| decide(&AttemptOutcome::TimedOut, 0, failing_since(since), &config(), NOW, 0.5);
        assert_eq!(late(Millis(NOW.0 - 432_000_000)), Decision::disable(DisabledReason::Failing));
        assert_eq!(late(Millis(NOW.0 - 431_999_999)), retry(Millis(NOW.0 + 5000)));
    }

    #[test]
    fn an_endpoint_that_was_closed_meanwhile_is_neither_tried_nor_disabled_again() {
        let closed = EndpointHealth { closed: true, ..failing_since(Millis(0)) };
        for outcome in [answered(500), answered(410), AttemptOutcome::TimedOut] {
            assert_eq!(decide(&outcome, 0, closed, &config(), NOW, 0.5), FAILED);
        }
        assert_eq!(decide(&answered(200), 0, closed, &config(), NOW, 0.5), DELIVERED);
    }

    #[test]
    fn retry_after_is_honoured_up_to_a_day() {
        let asking = |status, seconds| {
            let retry_after = Some(Duration::from_secs(seconds));
            after(&AttemptOutcome::Answered { status, retry_after }, 0)
        };
        assert_eq!(asking(429, 60), retry(Millis(NOW.0 + 60_000)));
        assert_eq!(asking(503, 60), retry(Millis(NOW.0 + 60_000)));
        assert_eq!(asking(503, 1), retry(Millis(NOW.0 + 5000)), "never sooner than ours");
        assert_eq!(asking(500, 60), retry(Millis(NOW.0 + 5000)), "only 429 and 503 may ask");
        assert_eq!(asking(429, u64::MAX), retry(NOW.plus(DAY)));
    }

    proptest! {
        #[test]
        fn a_retry_is_within_a_fifth_of_its_pause(
            attempts in 0_i64..3, jitter in 0.0_f64..=1.0, status in 300_u16..409,
        ) {
            let config = config();
            let next = decide(&answered(status), attempts, failing_since(NOW), &config, NOW, jitter);
            let DeliveryOutcome::Retry { at } = next.delivery else { panic!("{next:?}") };
            let pause = config.retry_schedule[usize::try_from(attempts).unwrap()];
            prop_assert!(at.since(NOW) + Duration::from_millis(1) >= pause.mul_f64(0.8));
            prop_assert!(at.since(NOW) <= pause.mul_f64(1.2));
        }

        #[test]
        fn every_delivery_comes_to_an_end(status in 0_u16..600, start in 0_i64..4) {
            let outcome = answered(status);
            let ended = (start..).take(5).any(|attempts| {
                !matches!(after(&outcome, attempts).delivery, DeliveryOutcome::Retry { .. })
            });
            prop_assert!(ended);
        }
    }
}
