//! Which endpoint is asked, and which one next.
//!
//! A question goes to one endpoint with all its requests, so that its answer is of one piece. The endpoint of
//! the greatest weight that is well and quick stays the first choice; another is asked only when it fails, when its
//! budget is spent, or when it lets the head wait.

use std::{path::Path, sync::Arc, time::Duration};

use futures::{StreamExt as _, stream::FuturesUnordered};
use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until};

use super::{
    Decoder, Dialect, Failure, UNLINKED,
    endpoint::{Endpoint, Health, SetupError},
};
use crate::{
    chain::{DailyUse, Header, Priority, SourceError},
    config::ChainConfig,
    metrics::Metrics,
};

pub(in crate::chain) struct Pool {
    /// By descending weight.
    endpoints: Vec<Arc<Endpoint>>,
    /// The newest block shown so far, and when.
    seen: Mutex<(u64, Instant)>,
    standstill: Duration,
    decoder: Arc<Decoder>,
}

/// The endpoints that can be asked, how many of them are well and quick, and why the others are not asked.
type Candidates<'a> = (Vec<&'a Arc<Endpoint>>, usize, Vec<(&'a Arc<Endpoint>, Failure)>);

/// For how many polls the newest block may stay the same before other endpoints are asked for theirs.
const STANDSTILL_POLLS: u32 = 20;
/// An endpoint further behind another than this many blocks is left alone for a while.
const STALE_BLOCKS: u64 = 8;
/// Endpoints that are asked for the same figure at most.
const OPINIONS: usize = 3;

impl Pool {
    pub fn new(
        config: &ChainConfig,
        dialect: &'static Dialect,
        metrics: &Metrics,
    ) -> Result<Self, SetupError> {
        if config.endpoints.is_empty() {
            return Err(SetupError::NoEndpoint(config.name.clone()));
        }
        let mut endpoints = config
            .endpoints
            .iter()
            .map(|endpoint| Endpoint::new(endpoint, config, dialect, metrics.clone()).map(Arc::new))
            .collect::<Result<Vec<_>, _>>()?;
        endpoints.sort_by_key(|endpoint| std::cmp::Reverse(endpoint.weight));
        Ok(Self {
            endpoints,
            seen: Mutex::new((0, Instant::now())),
            standstill: config.poll_interval * STANDSTILL_POLLS,
            decoder: Arc::new(Decoder::new(config.name.clone(), metrics.clone())),
        })
    }

    /// Keeps from now on, below the data folder, what our own code fails to read, and what is used of budgets.
    pub fn keep_in(&self, data: &Path) {
        self.decoder.keep_in(data);
        for endpoint in &self.endpoints {
            endpoint.keep_in(data);
        }
    }

    /// The endpoints with a budget for a day.
    pub fn daily_use(&self) -> Vec<Arc<dyn DailyUse>> {
        let daily = self.endpoints.iter().filter(|endpoint| endpoint.is_daily());
        daily.map(|endpoint| Arc::clone(endpoint) as Arc<dyn DailyUse>).collect()
    }

    /// What takes the endpoints' answers apart.
    pub fn decoder(&self) -> &Arc<Decoder> {
        &self.decoder
    }

    /// Puts one question to one endpoint after the other until one answers it. Where the head has waited for one too
    /// long, and the next one is well and not slow itself, that one is asked beside it.
    pub async fn ask<T, F, Fut>(&self, question: F) -> Result<T, SourceError>
    where
        F: Fn(Arc<Endpoint>) -> Fut,
        Fut: Future<Output = Result<T, Failure>>,
    {
        let for_head = Priority::current() == Priority::Head;
        let (candidates, quick, mut failures) = self.candidates(for_head);
        let ask_next = |n: usize| {
            let answer = self.put(question(Arc::clone(candidates[n])));
            async move { (n, answer.await) }
        };
        let mut running = FuturesUnordered::new();
        // When each was asked, and whether it has failed.
        let mut asked: Vec<(Instant, bool)> = Vec::with_capacity(candidates.len());
        loop {
            let next = asked.len();
            if running.is_empty() {
                if next == candidates.len() {
                    return Err(self.verdict(&failures));
                }
                running.push(ask_next(next));
                asked.push((Instant::now(), false));
                continue;
            }
            let waited_for = asked.iter().position(|(_, failed)| !failed).unwrap_or_default();
            let may_ask = for_head && running.len() == 1 && next < quick;
            let until = asked[waited_for].0 + candidates[waited_for].patience();
            let (n, answer) = tokio::select! {
                Some(answered) = running.next() => answered,
                () = sleep_until(until), if may_ask => {
                    running.push(ask_next(next));
                    asked.push((Instant::now(), false));
                    continue;
                }
            };
            let endpoint = candidates[n];
            match answer {
                Ok(answer) => {
                    endpoint.worked();
                    if for_head {
                        let beside = asked[n + 1..].iter().any(|(_, failed)| !failed);
                        endpoint.came_first(asked[n].0.elapsed(), beside);
                    }
                    for (slow, _) in
                        candidates.iter().zip(&asked[..n]).filter(|(_, (_, failed))| !failed)
                    {
                        slow.overtaken();
                    }
                    return Ok(answer);
                }
                Err(Failure::Moved(detail)) => {
                    return Err(SourceError::Unavailable { detail, retry_after: None });
                }
                Err(failure) => {
                    endpoint.failed(&failure);
                    asked[n].1 = true;
                    failures.push((endpoint, failure));
                }
            }
        }
    }

    /// The endpoints that can be asked, in order, how many of them are well and quick, and why the others are not asked.
    fn candidates(&self, for_head: bool) -> Candidates<'_> {
        let mut failures = Vec::new();
        let mut quick = Vec::with_capacity(self.endpoints.len());
        let (mut slow, mut spent, mut doubtful) = (Vec::new(), Vec::new(), Vec::new());
        for endpoint in &self.endpoints {
            match endpoint.health() {
                Health::Good if endpoint.is_spent() => spent.push(endpoint),
                Health::Good if endpoint.is_slow(for_head) => slow.push(endpoint),
                Health::Good => quick.push(endpoint),
                Health::Doubtful => doubtful.push(endpoint),
                Health::Cooling { failure, .. } => failures.push((endpoint, failure)),
            }
        }
        let count = quick.len();
        ([quick, slow, spent, doubtful].concat(), count, failures)
    }

    /// Each endpoint says which chain it serves before it is asked anything else.
    pub fn ask_identity_again(&self) {
        for endpoint in &self.endpoints {
            endpoint.forget_chain();
        }
    }

    /// What an endpoint has said was believed, and is not true.
    pub fn refute(&self, endpoint: &str, failure: &Failure) {
        for endpoint in self.endpoints.iter().filter(|one| one.name == endpoint) {
            endpoint.failed(failure);
        }
    }

    /// Puts one question to several endpoints at once, those that are well first; gives every answer.
    ///
    /// # Errors
    /// As [`Pool::ask`], if none answers.
    pub async fn ask_several<T, F, Fut>(&self, question: F) -> Result<Vec<T>, SourceError>
    where
        F: Fn(Arc<Endpoint>) -> Fut,
        Fut: Future<Output = Result<T, Failure>>,
    {
        let rank = |endpoint: &&Arc<Endpoint>| match endpoint.health() {
            Health::Good if endpoint.is_spent() => 2,
            Health::Good if endpoint.is_slow(false) => 1,
            Health::Good => 0,
            Health::Doubtful => 3,
            Health::Cooling { .. } => 4,
        };
        let mut endpoints: Vec<&Arc<Endpoint>> = self.endpoints.iter().collect();
        endpoints.sort_by_cached_key(rank);
        let asked = endpoints.into_iter().take(OPINIONS).map(|endpoint| {
            let answer = self.put(question(Arc::clone(endpoint)));
            async move { (endpoint, answer.await) }
        });
        let mut answers = Vec::new();
        let mut failures = Vec::new();
        for (endpoint, answer) in futures::future::join_all(asked).await {
            match answer {
                Ok(answer) => {
                    endpoint.worked();
                    answers.push(answer);
                }
                Err(failure) => {
                    // What one lacks, another may have: that is no fault.
                    if !matches!(failure, Failure::NotThere(_) | Failure::Unsupported(_)) {
                        endpoint.failed(&failure);
                    }
                    failures.push((endpoint, failure));
                }
            }
        }
        if answers.is_empty() { Err(self.verdict(&failures)) } else { Ok(answers) }
    }

    /// The endpoints that answer, in the order in which they are asked: for questions that only some of them can
    /// answer, where a failure is none of theirs.
    pub fn well(&self) -> Vec<Arc<Endpoint>> {
        let (mut good, mut slow, mut spent) = (Vec::new(), Vec::new(), Vec::new());
        for endpoint in &self.endpoints {
            match endpoint.health() {
                Health::Good if endpoint.is_spent() => spent.push(Arc::clone(endpoint)),
                Health::Good if endpoint.is_slow(false) => slow.push(Arc::clone(endpoint)),
                Health::Good => good.push(Arc::clone(endpoint)),
                Health::Doubtful | Health::Cooling { .. } => {}
            }
        }
        [good, slow, spent].concat()
    }

    /// Runs a question that an endpoint answers. A panic of ours in it is told, and no fault of the endpoint.
    pub async fn put<T>(
        &self,
        question: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        self.decoder.guarded("an answer", question).await.unwrap_or_else(Err)
    }

    /// Asks for the newest block. Where the answer stands still, the other endpoints are asked too: a node
    /// that has fallen behind answers well, and would hold the chain back for ever.
    pub async fn newest<F, Fut>(&self, question: F) -> Result<Header, SourceError>
    where
        F: Fn(Arc<Endpoint>) -> Fut,
        Fut: Future<Output = Result<Header, Failure>>,
    {
        let header = self.ask(&question).await?;
        if self.endpoints.len() == 1 || !self.stands_still(header.at.number) {
            return Ok(header);
        }
        let asked = self.endpoints.iter().map(|endpoint| {
            let answer = self.put(question(Arc::clone(endpoint)));
            async move { (endpoint, answer.await) }
        });
        let answers = futures::future::join_all(asked).await;
        let mut newest = header;
        let mut heads = Vec::new();
        for (endpoint, answer) in answers {
            if let Ok(header) = answer {
                heads.push((endpoint, header.at.number));
                if header.at.number > newest.at.number {
                    newest = header;
                }
            }
        }
        for (endpoint, number) in heads {
            let behind = newest.at.number - number;
            if behind > STALE_BLOCKS {
                endpoint.failed(&Failure::Down(format!("it is {behind} blocks behind another")));
            }
        }
        self.stands_still(newest.at.number);
        Ok(newest)
    }

    /// Whether no newer block than that was seen for a while; the while begins anew when it is over.
    fn stands_still(&self, number: u64) -> bool {
        let mut seen = self.seen.lock();
        if number > seen.0 {
            *seen = (number, Instant::now());
            return false;
        }
        if seen.1.elapsed() < self.standstill {
            return false;
        }
        seen.1 = Instant::now();
        true
    }

    /// What the failures of all endpoints come to. Only if every one of them contradicted itself is that the verdict:
    /// as long as one could still answer well, trying again may help. That one serves another chain is told as soon as
    /// no other one answers: somebody has to know.
    pub fn verdict(&self, failures: &[(&Arc<Endpoint>, Failure)]) -> SourceError {
        let detail = failures
            .iter()
            .map(|(endpoint, failure)| match failure {
                Failure::WrongChain(detail) => detail.clone(),
                failure => format!("{}: {}", endpoint.name, failure.detail()),
            })
            .collect::<Vec<_>>()
            .join("; ");
        if failures.iter().any(|(_, failure)| matches!(failure, Failure::Bug(_))) {
            return SourceError::Bug(detail);
        }
        // Whoever else was asked does not have it: the one that does is to be heard of.
        if failures.iter().any(|(_, failure)| failure.is_size()) {
            return SourceError::TooLarge(detail);
        }
        let mut untrusted = false;
        let mut unlinked = true;
        let (mut unavailable, mut elsewhere, mut silent) = (false, false, true);
        for (_, failure) in failures {
            match failure {
                Failure::NotThere(_) => return SourceError::NotThere(detail),
                Failure::Untrusted { check, .. } => {
                    untrusted = true;
                    unlinked &= *check == UNLINKED;
                }
                Failure::WrongChain(_) => elsewhere = true,
                failure => {
                    unavailable = true;
                    silent &= matches!(failure, Failure::Down(_) | Failure::Timeout);
                }
            }
        }
        if elsewhere && silent && !untrusted {
            return SourceError::WrongChain(detail);
        }
        if unavailable {
            SourceError::Unavailable { detail, retry_after: self.soonest() }
        } else if untrusted && unlinked {
            SourceError::Unlinked(detail)
        } else {
            SourceError::Untrusted(detail)
        }
    }

    /// When the first endpoint that cools down may be asked again.
    fn soonest(&self) -> Option<Duration> {
        self.endpoints
            .iter()
            .filter_map(|endpoint| match endpoint.health() {
                Health::Cooling { left, .. } => Some(left),
                Health::Good | Health::Doubtful => None,
            })
            .min()
    }
}
