//! Who may send next: a fair share for every endpoint, and at most half of all sends for failing ones.

/// An endpoint with something to claim.
#[derive(Clone, Copy, Debug)]
pub struct Candidate {
    /// Its attempts have failed since its last success.
    pub failing: bool,
    pub in_flight: usize,
}

#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub total: usize,
    pub per_endpoint: usize,
}

impl Limits {
    /// How many sends to failing endpoints may be in flight, so that there is always room for healthy ones.
    fn failing(self) -> usize {
        (self.total / 2).max(1)
    }
}

/// How many deliveries each candidate may claim, given `in_flight` sends in all, `failing_in_flight` of them
/// to failing endpoints. Hands out one at a time in turn; a failing endpoint has one send in flight at most.
#[must_use]
pub fn shares(
    candidates: &[Candidate],
    in_flight: usize,
    failing_in_flight: usize,
    limits: Limits,
) -> Vec<usize> {
    let mut shares = vec![0; candidates.len()];
    let mut free = limits.total.saturating_sub(in_flight);
    let mut failing_free = limits.failing().saturating_sub(failing_in_flight);
    loop {
        let before = free;
        for (candidate, share) in candidates.iter().zip(&mut shares) {
            let limit = if candidate.failing { 1 } else { limits.per_endpoint };
            if free == 0 {
                return shares;
            }
            if candidate.in_flight + *share >= limit || (candidate.failing && failing_free == 0) {
                continue;
            }
            *share += 1;
            free -= 1;
            failing_free -= usize::from(candidate.failing);
        }
        if free == before {
            return shares;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: Limits = Limits { total: 10, per_endpoint: 4 };

    fn candidate(failing: bool, in_flight: usize) -> Candidate {
        Candidate { failing, in_flight }
    }

    #[test]
    fn what_is_free_is_shared_in_turn() {
        let two = [candidate(false, 0), candidate(false, 0)];
        assert_eq!(shares(&two, 0, 0, LIMITS), [4, 4]);
        assert_eq!(shares(&two, 7, 0, LIMITS), [2, 1]);
        assert_eq!(shares(&[candidate(false, 3), candidate(false, 4)], 7, 0, LIMITS), [1, 0]);
        assert_eq!(shares(&two, 10, 0, LIMITS), [0, 0]);
    }

    #[test]
    fn failing_endpoints_try_one_at_a_time_and_leave_room() {
        let one = [candidate(true, 0), candidate(false, 0)];
        assert_eq!(shares(&one, 0, 0, LIMITS), [1, 4]);
        let mut many = vec![candidate(true, 0); 20];
        many.push(candidate(false, 0));
        let given = shares(&many, 0, 0, LIMITS);
        assert_eq!(given[..20].iter().sum::<usize>(), 5);
        assert_eq!(given[20], 4);
    }

    proptest! {
        #[test]
        fn no_limit_is_ever_passed(
            endpoints in proptest::collection::vec((any::<bool>(), 0_usize..6), 0..30),
            total in 0_usize..40, per_endpoint in 0_usize..8,
        ) {
            let limits = Limits { total, per_endpoint };
            let candidates: Vec<Candidate> =
                endpoints.iter().map(|&(failing, in_flight)| candidate(failing, in_flight)).collect();
            let in_flight: usize = endpoints.iter().map(|&(_, in_flight)| in_flight).sum();
            let given = shares(&candidates, in_flight, 0, limits);
            prop_assert!(given.iter().sum::<usize>() <= total.saturating_sub(in_flight));
            for (candidate, share) in candidates.iter().zip(&given) {
                let limit = if candidate.failing { 1 } else { per_endpoint };
                prop_assert!(*share <= limit.saturating_sub(candidate.in_flight));
            }
        }
    }
}
