//! So many calls in a second, evenly, and whose go first.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until};

use crate::chain::Priority;

const SECOND: Duration = Duration::from_secs(1);
/// A timer that comes late by less than this does not slow the pace down.
const LATE: Duration = Duration::from_millis(10);
/// Requests of a lower priority have at most the calls of this part of a second: the head waits no longer for them.
const SHARE: u32 = 10;

pub(super) struct Pace {
    /// Calls in a second.
    pub calls: u32,
    interval: Duration,
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    /// When the next call may go.
    next: Option<Instant>,
    /// How many requests of each priority wait for it.
    waiting: [usize; 3],
    /// Since when, and how many calls went: for the metrics.
    counted: Option<(Instant, u32)>,
}

impl Pace {
    pub fn new(calls: u32) -> Self {
        let calls = calls.max(1);
        Self { calls, interval: SECOND / calls, queue: Mutex::default() }
    }

    /// How many calls one request may have.
    pub fn at_once(&self) -> usize {
        if Priority::current() == Priority::Head {
            return usize::MAX;
        }
        usize::try_from(self.calls / SHARE).unwrap_or(usize::MAX).max(1)
    }

    /// Whether this second's calls, and more, are taken.
    pub fn is_spent(&self) -> bool {
        self.queue.lock().next.is_some_and(|next| next > Instant::now() + SECOND)
    }

    /// Waits until so many calls may go. Gives how many went within this second.
    pub async fn turn(&self, calls: u32) -> u32 {
        let priority = Priority::current();
        let _waiting = Waiting::new(&self.queue, priority);
        loop {
            let asked = self.queue.lock().ask(self.interval, Instant::now(), priority, calls);
            match asked {
                Ok(went) => return went,
                Err(again) => sleep_until(again).await,
            }
        }
    }
}

impl Queue {
    /// Whether so many calls may go now: how many went within this second, or when to ask again.
    fn ask(
        &mut self,
        interval: Duration,
        now: Instant,
        priority: Priority,
        calls: u32,
    ) -> Result<u32, Instant> {
        let free = self.next.filter(|next| *next + LATE > now).unwrap_or(now);
        if free > now {
            return Err(free);
        }
        if self.waiting[..priority as usize].iter().any(|waiting| *waiting > 0) {
            return Err(now + interval);
        }
        self.next = Some(free + interval.saturating_mul(calls));
        let counted = self.counted.filter(|(since, _)| now < *since + SECOND);
        let (since, went) = counted.unwrap_or((now, 0));
        let went = went.saturating_add(calls);
        self.counted = Some((since, went));
        Ok(went)
    }
}

/// Counts a request that waits, however its waiting ends.
struct Waiting<'a>(&'a Mutex<Queue>, Priority);

impl<'a> Waiting<'a> {
    fn new(queue: &'a Mutex<Queue>, priority: Priority) -> Self {
        queue.lock().waiting[priority as usize] += 1;
        Self(queue, priority)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.lock().waiting[self.1 as usize] -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Somebody who asks again as soon as a request has gone.
    struct Asker {
        priority: Priority,
        calls: u32,
        /// Requests that went, and those that are still to go.
        went: u32,
        left: u32,
        asks_at: Instant,
        /// The longest that a request has waited.
        waited: Duration,
        since: Instant,
    }

    /// A queue and those who ask, in a time that passes only here.
    struct Crowd {
        queue: Queue,
        interval: Duration,
        now: Instant,
        askers: Vec<Asker>,
    }

    impl Crowd {
        fn new(per_second: u32) -> Self {
            let interval = SECOND / per_second;
            Self { queue: Queue::default(), interval, now: Instant::now(), askers: Vec::new() }
        }

        fn join(&mut self, priority: Priority, calls: u32, left: u32) -> usize {
            self.queue.waiting[priority as usize] += 1;
            let (asks_at, since) = (self.now, self.now);
            let waited = Duration::ZERO;
            self.askers.push(Asker { priority, calls, went: 0, left, asks_at, waited, since });
            self.askers.len() - 1
        }

        fn pass(&mut self, time: Duration) {
            let end = self.now + time;
            loop {
                let waiting = self.askers.iter_mut().filter(|asker| asker.left > 0);
                let Some(asker) = waiting.min_by_key(|asker| asker.asks_at) else { break };
                if asker.asks_at > end {
                    break;
                }
                self.now = asker.asks_at;
                match self.queue.ask(self.interval, self.now, asker.priority, asker.calls) {
                    Ok(_) => {
                        asker.went += 1;
                        asker.left -= 1;
                        asker.waited = asker.waited.max(self.now - asker.since);
                        asker.since = self.now;
                        if asker.left == 0 {
                            self.queue.waiting[asker.priority as usize] -= 1;
                        }
                    }
                    Err(again) => {
                        assert!(again > self.now, "it asks again and again");
                        asker.asks_at = again;
                    }
                }
            }
            self.now = end;
        }
    }

    #[test]
    fn the_head_is_served_while_histories_starve_and_what_it_leaves_is_theirs() {
        let mut crowd = Crowd::new(50);
        let history = crowd.join(Priority::Background, 1, u32::MAX);
        let settlement = crowd.join(Priority::Settlement, 1, 50);
        crowd.pass(Duration::from_secs(1));
        assert!(crowd.askers[settlement].went >= 49, "{}", crowd.askers[settlement].went);
        let head = crowd.join(Priority::Head, 1, 100);
        crowd.pass(Duration::from_secs(2));
        assert!(crowd.askers[head].went >= 99, "{}", crowd.askers[head].went);
        let starved = crowd.askers[history].went;
        assert!(starved <= 2, "{starved}");
        crowd.pass(Duration::from_secs(2));
        let went = crowd.askers[history].went - starved;
        assert!((95..=101).contains(&went), "{went}");
    }

    #[test]
    fn the_pace_is_kept_whoever_asks_and_batches_count_each_call() {
        let mut crowd = Crowd::new(100);
        for (priority, calls) in
            [(Priority::Background, 7), (Priority::Settlement, 3), (Priority::Head, 1)]
        {
            crowd.join(priority, calls, if priority == Priority::Head { 200 } else { u32::MAX });
        }
        crowd.pass(Duration::from_secs(10));
        let calls: u32 = crowd.askers.iter().map(|asker| asker.went * asker.calls).sum();
        assert!((990..=1007).contains(&calls), "{calls} calls in ten seconds");
    }

    #[tokio::test]
    async fn what_can_wait_leaves_the_second_to_the_head_within_a_tenth() {
        let pace = Pace::new(100);
        let at_once = Priority::Background.scope(async { pace.at_once() }).await;
        assert_eq!((at_once, pace.at_once()), (10, usize::MAX));
        let mut crowd = Crowd::new(100);
        let history = crowd.join(Priority::Background, 10, u32::MAX);
        for _ in 0..20 {
            crowd.pass(Duration::from_millis(333));
            let head = crowd.join(Priority::Head, 1, 1);
            crowd.pass(Duration::from_millis(111));
            let head = &crowd.askers[head];
            assert!(
                head.went == 1 && head.waited <= Duration::from_millis(100),
                "{:?}",
                head.waited
            );
        }
        assert!(crowd.askers[history].went > 80, "it has the rest");
    }
}
