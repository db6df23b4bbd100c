//! What an endpoint's plan allows: so many calls in a second, and so many in a day (UTC).
//!
//! The calls in a batch count one by one, as providers count them. What is of a lower [`Priority`] gets what the
//! higher leave: it lets them go first within the second ([`Pace`]), and a part of the day is kept from it. Nobody
//! gets more than the day has, a restart included.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use parking_lot::Mutex;

use super::{Failure, pace::Pace};
use crate::{
    chain::{ChainName, Priority},
    clock::{Clock, Millis},
    config::EndpointConfig,
    metrics::Metrics,
};

/// Below the data folder.
const FOLDER: &str = "endpoint-budgets";
const SECONDS_OF_DAY: i64 = 86_400;
/// The part of a day's budget that is taken down in the file at once: calls of so many are lost by a crash.
const STEP: u64 = 100;

/// The budgets of one endpoint.
pub(super) struct Budget {
    chain: ChainName,
    endpoint: String,
    second: Option<Pace>,
    day: Option<Day>,
    clock: Clock,
    metrics: Metrics,
}

struct Day {
    calls: u64,
    /// What was used is kept here, if anywhere.
    file: OnceLock<PathBuf>,
    used: Mutex<Used>,
}

#[derive(Clone, Copy, Default)]
struct Used {
    /// Days since the Unix epoch.
    day: i64,
    calls: u64,
    /// What the file says.
    written: u64,
    /// What the others who share the budget were not told yet.
    untold: u64,
    /// Whether it was told that the file cannot be written.
    told: bool,
}

impl Budget {
    pub fn new(config: &EndpointConfig, chain: &ChainName, clock: Clock, metrics: Metrics) -> Self {
        let second = config.max_requests_per_second.filter(|calls| *calls > 0);
        let budget = Self {
            chain: chain.clone(),
            endpoint: config.name.clone(),
            second: second.map(Pace::new),
            day: config.max_requests_per_day.map(|calls| Day {
                calls,
                file: OnceLock::new(),
                used: Mutex::default(),
            }),
            clock,
            metrics,
        };
        if let Some(second) = &budget.second {
            budget.gauge("second", u64::from(second.calls), 0);
        }
        if let Some(day) = &budget.day {
            day.used.lock().day = day_of(budget.clock.now());
            budget.gauge("day", day.calls, 0);
        }
        budget
    }

    /// Remembers the day's use below the data folder from now on, and what was used today already.
    pub fn keep_in(&self, data: &Path) {
        let Some(day) = &self.day else { return };
        let file = data.join(FOLDER).join(self.chain.as_str()).join(&self.endpoint);
        let mut used = day.used.lock();
        if let Some((number, calls)) = fs::read_to_string(&file).ok().as_deref().and_then(parse)
            && number == used.day
        {
            used.calls = used.calls.saturating_add(calls);
            used.written = used.calls;
        }
        self.gauge("day", day.calls, used.calls);
        drop(used);
        // The first folder stays.
        let _ = day.file.set(file);
    }

    /// How many calls one request may have.
    pub fn at_once(&self) -> usize {
        self.second.as_ref().map_or(usize::MAX, Pace::at_once)
    }

    /// Whether a question would have to wait for the next second, or be refused for the day.
    pub fn is_spent(&self) -> bool {
        self.second.as_ref().is_some_and(Pace::is_spent)
            || self.day.as_ref().is_some_and(|day| {
                let used = &mut day.used.lock();
                self.refuses(day, used, 1).is_some()
            })
    }

    /// Takes so many calls, when their turn has come. Refused when the day has no more for them.
    pub async fn take(&self, calls: usize) -> Result<(), Failure> {
        if let Some(day) = &self.day {
            self.take_of_day(day, u64::try_from(calls).unwrap_or(u64::MAX))?;
        }
        if let Some(second) = &self.second {
            let calls = u32::try_from(calls).unwrap_or(u32::MAX);
            let used = second.turn(calls).await;
            self.gauge("second", u64::from(second.calls), u64::from(used));
        }
        Ok(())
    }

    fn take_of_day(&self, day: &Day, calls: u64) -> Result<(), Failure> {
        let mut used = day.used.lock();
        if let Some(refusal) = self.refuses(day, &mut used, calls) {
            return Err(refusal);
        }
        used.calls = used.calls.saturating_add(calls);
        used.untold = used.untold.saturating_add(calls);
        self.gauge("day", day.calls, used.calls);
        if used.calls > used.written
            && let Some(file) = day.file.get()
        {
            used.written = used.calls.saturating_add(day.calls / STEP).min(day.calls);
            let text = format!("{} {}\n", used.day, used.written);
            if let Err(error) = write(file, &text)
                && !std::mem::replace(&mut used.told, true)
            {
                tracing::warn!(
                    chain = %self.chain,
                    endpoint = self.endpoint,
                    %error,
                    "what is used of the endpoint's budget cannot be written down: a restart forgets it"
                );
            }
        }
        Ok(())
    }

    pub fn is_daily(&self) -> bool {
        self.day.is_some()
    }

    /// See [`crate::chain::DailyUse`].
    pub fn untold(&self) -> (i64, u64) {
        let Some(day) = &self.day else { return (0, 0) };
        let mut used = day.used.lock();
        (used.day, std::mem::take(&mut used.untold))
    }

    /// See [`crate::chain::DailyUse`].
    pub fn put_back(&self, number: i64, calls: u64) {
        let Some(day) = &self.day else { return };
        let mut used = day.used.lock();
        if used.day == number {
            used.untold = used.untold.saturating_add(calls);
        }
    }

    /// See [`crate::chain::DailyUse`].
    pub fn told(&self, number: i64, calls: u64) {
        let Some(day) = &self.day else { return };
        let mut used = day.used.lock();
        if used.day == number {
            used.calls = used.calls.max(calls.saturating_add(used.untold));
            self.gauge("day", day.calls, used.calls);
        }
    }

    /// Why so many calls more cannot be had today.
    fn refuses(&self, day: &Day, used: &mut Used, calls: u64) -> Option<Failure> {
        let now = self.clock.now();
        // A clock that is set back begins no new day.
        if day_of(now) > used.day {
            *used = Used { day: day_of(now), told: used.told, ..Used::default() };
        }
        let left = day.calls.saturating_sub(used.calls);
        let kept = kept(day.calls, Priority::current(), now);
        if calls.saturating_add(kept) <= left {
            return None;
        }
        let all = day.calls;
        Some(Failure::Spent(if calls > left {
            format!("its budget of {all} calls is used up for today (UTC): {left} left")
        } else {
            format!(
                "of its budget of {all} calls, the {left} that are left today (UTC) are kept for the head"
            )
        }))
    }

    fn gauge(&self, per: &str, budget: u64, used: u64) {
        let labels = [self.chain.as_str(), &self.endpoint, per];
        let gauge = |calls: u64| i64::try_from(calls).unwrap_or(i64::MAX);
        let metrics = &self.metrics;
        metrics.rpc_endpoint_budget_used.with_label_values(&labels).set(gauge(used));
        let left = gauge(budget.saturating_sub(used));
        metrics.rpc_endpoint_budget_left.with_label_values(&labels).set(left);
    }
}

/// What is kept of a day's budget for those who go first: a tenth from settlements, half from what can wait; the less,
/// the less of the day is left.
fn kept(budget: u64, from: Priority, now: Millis) -> u64 {
    let part = match from {
        Priority::Head => return 0,
        Priority::Settlement => 10,
        Priority::Background => 2,
    };
    let left = SECONDS_OF_DAY - now.seconds().rem_euclid(SECONDS_OF_DAY);
    let kept = u128::from(budget) / part * u128::from(left.unsigned_abs())
        / u128::from(SECONDS_OF_DAY.unsigned_abs());
    u64::try_from(kept).unwrap_or(u64::MAX)
}

fn day_of(now: Millis) -> i64 {
    now.seconds().div_euclid(SECONDS_OF_DAY)
}

/// The day, and the calls that were used in it.
fn parse(text: &str) -> Option<(i64, u64)> {
    let (day, calls) = text.trim().split_once(' ')?;
    Some((day.parse().ok()?, calls.parse().ok()?))
}

/// Never half of it: a file that is read has all of it, or what it had before.
fn write(file: &Path, text: &str) -> std::io::Result<()> {
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder)?;
    }
    let new = file.with_extension("new");
    fs::write(&new, text)?;
    fs::rename(new, file)
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use super::*;
    use crate::config::testing::endpoint;

    const DAY_MS: i64 = SECONDS_OF_DAY * 1000;
    /// The beginning of a day.
    const MIDNIGHT: Millis = Millis(20_000 * DAY_MS);

    fn budget(second: Option<u32>, day: Option<u64>, clock: &Clock) -> Budget {
        let mut config = endpoint("one", "http://127.0.0.1:9", 1);
        config.max_requests_per_second = second;
        config.max_requests_per_day = day;
        Budget::new(&config, &ChainName::new("anvil"), clock.clone(), Metrics::new())
    }

    fn midnight() -> Clock {
        Clock::manual(MIDNIGHT)
    }

    fn figures(budget: &Budget, per: &str) -> (i64, i64) {
        let labels = ["anvil", "one", per];
        let metrics = &budget.metrics;
        (
            metrics.rpc_endpoint_budget_used.with_label_values(&labels).get(),
            metrics.rpc_endpoint_budget_left.with_label_values(&labels).get(),
        )
    }

    #[tokio::test]
    async fn what_went_in_this_second_is_shown() {
        let budget = budget(Some(1000), None, &Clock::System);
        assert_eq!(figures(&budget, "second"), (0, 1000));
        budget.take(7).await.expect("no limit for the day");
        assert_eq!(figures(&budget, "second"), (7, 993));
    }

    #[tokio::test]
    async fn the_day_is_never_exceeded_and_its_last_part_is_the_heads() {
        let clock = midnight();
        let budget = Arc::new(budget(None, Some(1000), &clock));
        let at = |hour: u64| clock.set(MIDNIGHT.plus(Duration::from_secs(hour * 3600)));
        let all = |priority: Priority, calls| {
            let budget = Arc::clone(&budget);
            priority.scope(async move {
                let mut went = 0;
                loop {
                    match budget.take(calls).await {
                        Ok(()) => went += calls,
                        Err(Failure::Spent(why)) => return (went, why),
                        Err(other) => panic!("{other:?}"),
                    }
                }
            })
        };
        let (went, why) = all(Priority::Background, 7).await;
        assert_eq!(went, 497, "half of the day is kept from it");
        assert!(why.contains("1000 calls") && why.contains("kept for the head"), "{why}");
        let (went, _) = all(Priority::Settlement, 3).await;
        assert_eq!(went, 402, "a tenth is kept from it");
        assert_eq!(figures(&budget, "day"), (899, 101));
        // The later in the day, the less is kept.
        at(12);
        assert_eq!(all(Priority::Background, 1).await.0, 0);
        at(22);
        assert_eq!(all(Priority::Background, 1).await.0, 60);
        let (went, why) = all(Priority::Head, 5).await;
        assert_eq!(went, 40);
        assert!(why.contains("used up") && why.contains("1 left"), "{why}");
        assert_eq!(all(Priority::Head, 1).await.0, 1);
        assert_eq!(figures(&budget, "day"), (1000, 0));
        assert!(budget.is_spent());
        // The next day is a new one; a clock that is set back brings the last one no second time.
        at(24);
        assert!(!budget.is_spent());
        assert_eq!(all(Priority::Head, 10).await.0, 1000);
        at(23);
        assert_eq!(all(Priority::Head, 10).await.0, 0);
    }

    #[tokio::test]
    async fn daemons_that_share_a_day_do_not_exceed_it_together() {
        let clock = midnight();
        let [one, other] = [(); 2].map(|()| budget(None, Some(100), &clock));
        let mut all = 0;
        for _ in 0..60 {
            one.take(1).await.expect("there is enough");
        }
        for daemon in [&one, &other, &one] {
            let (day, calls) = daemon.untold();
            // What the store did not take is told later.
            daemon.put_back(day, calls);
            let (day, calls) = daemon.untold();
            all += calls;
            daemon.told(day, all);
        }
        assert_eq!(figures(&other, "day"), (60, 40));
        let mut went = 0;
        while other.take(1).await.is_ok() {
            went += 1;
        }
        assert_eq!(went, 40);
        // What is told of another day counts for nothing.
        clock.set(MIDNIGHT.plus(Duration::from_hours(24)));
        assert!(!one.is_spent());
        one.told(20_000, 100);
        assert!(!one.is_spent());
    }

    #[tokio::test]
    async fn a_restart_does_not_begin_the_day_anew() {
        let data = tempfile::tempdir().expect("a folder");
        let clock = midnight();
        let begin = || {
            let budget = budget(None, Some(1000), &clock);
            budget.keep_in(data.path());
            budget
        };
        let first = begin();
        for _ in 0..300 {
            first.take(2).await.expect("there is enough");
        }
        let second = begin();
        let (used, left) = figures(&second, "day");
        assert!((600..=615).contains(&used) && used + left == 1000, "{used} used, {left} left");
        while second.take(1).await.is_ok() {}
        assert!(begin().is_spent());
        clock.set(MIDNIGHT.plus(Duration::from_hours(24)));
        assert!(!begin().is_spent());
    }
}
