//! How much is asked for at once, and what waits because it cannot be answered.

use std::{
    collections::HashMap,
    hash::Hash,
    time::{Duration, Instant},
};

use crate::retry::Backoff;

/// What takes longer holds the next block up: less is asked for the next time.
const SLOW: Duration = Duration::from_millis(400);
/// What is quicker than this lets more be asked for.
const QUICK: Duration = Duration::from_millis(100);
const MOST: usize = 500;

/// The size of the next page: halved where it is slow or fails, doubled where it is quick.
#[derive(Debug)]
pub(super) struct Pace {
    size: usize,
    /// Rests after what could not be halved any more.
    rest: Option<Instant>,
    backoff: Backoff,
}

impl Default for Pace {
    fn default() -> Self {
        let backoff = Backoff::new(Duration::from_millis(250), Duration::from_secs(30));
        Self { size: MOST, rest: None, backoff }
    }
}

impl Pace {
    #[cfg(test)]
    pub fn set_size(&mut self, size: usize) {
        self.size = size;
    }

    pub fn size(&self) -> usize {
        self.size
    }

    pub fn rests(&self, now: Instant) -> bool {
        self.rest.is_some_and(|until| now < until)
    }

    /// A page was answered.
    pub fn took(&mut self, time: Duration) {
        self.rest = None;
        self.backoff.reset();
        if time > SLOW {
            self.size = (self.size / 2).max(1);
        } else if time < QUICK {
            self.size = (self.size * 2).min(MOST);
        }
    }

    /// A page of so many was not answered. Returns whether it was a single one; then all rest for a while, the
    /// longer the more of them fail one after the other.
    pub fn failed(&mut self, page: usize, now: Instant) -> bool {
        if page > 1 {
            self.size = page / 2;
            return false;
        }
        self.rest = Some(now + self.backoff.next_delay());
        true
    }
}

/// Things that could not be answered, each asked again after a growing pause.
#[derive(Debug)]
pub(super) struct Patience<K> {
    waiting: HashMap<K, (Instant, Backoff)>,
}

impl<K> Default for Patience<K> {
    fn default() -> Self {
        Self { waiting: HashMap::new() }
    }
}

impl<K: Eq + Hash> Patience<K> {
    /// Remembered at most; what is beyond is asked again with the others.
    const MOST: usize = 10_000;

    pub fn waits(&self, key: &K, now: Instant) -> bool {
        self.waiting.get(key).is_some_and(|(until, _)| now < *until)
    }

    pub fn failed(&mut self, key: K, now: Instant) {
        if self.waiting.len() >= Self::MOST {
            self.waiting.retain(|_, (until, _)| now < *until);
        }
        if self.waiting.len() >= Self::MOST && !self.waiting.contains_key(&key) {
            return;
        }
        let pauses = || Backoff::new(Duration::from_secs(5), Duration::from_mins(5));
        let (until, backoff) = self.waiting.entry(key).or_insert_with(|| (now, pauses()));
        *until = now + backoff.next_delay();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_halved_until_one_is_left_which_waits_alone() {
        let begun = Instant::now();
        let after = |seconds| begun + Duration::from_secs(seconds);
        let mut pace = Pace::default();
        while pace.size() > 1 {
            let size = pace.size();
            assert!(!pace.failed(size, begun));
            assert!(pace.size() < size);
        }
        assert!(pace.failed(1, begun));
        assert!(pace.rests(begun));
        let mut patience = Patience::default();
        patience.failed("wallet", begun);
        assert!(patience.waits(&"wallet", begun) && !patience.waits(&"other", begun));
        assert!(!pace.rests(after(1)), "the others go on");
        assert!(!patience.waits(&"wallet", after(30)), "it is tried again");
        pace.took(Duration::from_millis(10));
        assert_eq!(pace.size(), 2);
        pace.took(Duration::from_secs(1));
        assert_eq!(pace.size(), 1);
    }
}
