//! How long the head waits for one endpoint before another one is asked beside it, and who is left for being slow.
//!
//! An endpoint that is overtaken by one that was asked later is slow: others are asked before it for a while that
//! grows. Then it gets the next question first again, and less time for it: whoever is quick again takes no harm, and
//! whoever is not costs the head a moment.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::retry::Backoff;

/// For so long an endpoint is waited for.
const PATIENCE: Duration = Duration::from_secs(2);
/// For so long where the others take as long: what is asked is much.
const LONGEST: Duration = Duration::from_secs(16);
/// For so long where the endpoint was slow the last time.
const PROBATION: Duration = Duration::from_millis(250);
/// How long others are asked before a slow endpoint, at first and at most.
const FIRST_REST: Duration = Duration::from_secs(2);
const LONGEST_REST: Duration = Duration::from_mins(1);

/// What is known of how quick one endpoint is.
pub(super) struct Patience(Mutex<State>);

struct State {
    patience: Duration,
    rests: Backoff,
    /// Until when others are asked before it; kept until it has shown that it is quick again.
    slow_until: Option<Instant>,
}

impl Patience {
    pub fn new() -> Self {
        let rests = Backoff::new(FIRST_REST, LONGEST_REST);
        Self(Mutex::new(State { patience: PATIENCE, rests, slow_until: None }))
    }

    /// Whether others are asked before it. Only the head tries whether it is quick again: it asks another one beside.
    pub fn is_slow(&self, for_head: bool, now: Instant) -> bool {
        let until = self.0.lock().slow_until;
        until.is_some_and(|until| !for_head || until > now)
    }

    /// How long it is waited for.
    pub fn left(&self) -> Duration {
        let state = self.0.lock();
        if state.slow_until.is_some() { PROBATION } else { state.patience }
    }

    /// Another one, asked later, has answered before it. Gives whether that is news.
    pub fn overtaken(&self, now: Instant) -> bool {
        let mut state = self.0.lock();
        let news = state.slow_until.is_none();
        state.patience = PATIENCE;
        let rest = state.rests.next_delay();
        state.slow_until = Some(now + rest);
        news
    }

    /// It has answered before all others, of which one was asked beside it or not. Gives whether it was slow before.
    pub fn answered(&self, took: Duration, beside: bool) -> bool {
        let mut state = self.0.lock();
        if took < PATIENCE {
            state.patience = PATIENCE;
        } else if beside {
            state.patience = state.patience.saturating_mul(2).min(LONGEST);
        }
        state.rests.reset();
        state.slow_until.take().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_endpoint_rests_for_longer_each_time_until_it_is_quick() {
        let (patience, mut now) = (Patience::new(), Instant::now());
        assert_eq!((patience.left(), patience.is_slow(true, now)), (PATIENCE, false));
        assert!(patience.overtaken(now), "it is told once");
        let mut rested = Duration::ZERO;
        for _ in 0..12 {
            assert!(patience.is_slow(true, now));
            let since = now;
            while patience.is_slow(true, now) {
                now += Duration::from_millis(100);
            }
            rested = now - since;
            assert!(patience.is_slow(false, now), "only the head finds out");
            assert_eq!(patience.left(), PROBATION);
            assert!(!patience.overtaken(now));
        }
        assert!(rested > LONGEST_REST / 3 && rested <= LONGEST_REST * 2, "{rested:?}");
        assert!(patience.answered(Duration::from_millis(20), false), "it is quick again");
        assert_eq!((patience.left(), patience.is_slow(false, now)), (PATIENCE, false));
        patience.overtaken(now);
        assert!(!patience.is_slow(true, now + FIRST_REST * 2), "the rests begin anew");
    }

    #[test]
    fn who_takes_long_because_much_is_asked_gets_the_time_and_no_other_is_asked_in_vain() {
        let patience = Patience::new();
        patience.answered(Duration::from_secs(3), false);
        assert_eq!(patience.left(), PATIENCE, "nobody was asked in vain");
        for expected in [4, 8, 16, 16] {
            patience.answered(Duration::from_secs(3), true);
            assert_eq!(patience.left(), Duration::from_secs(expected));
        }
        patience.answered(Duration::from_secs(3), false);
        assert_eq!(patience.left(), LONGEST, "it is not forgotten either");
        patience.answered(Duration::from_millis(20), false);
        assert_eq!(patience.left(), PATIENCE);
    }
}
