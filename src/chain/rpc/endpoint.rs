//! One node: its limits, batches, and whether it can be asked at all.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::time::Instant;

use super::{
    Answer, Answers, Call, Dialect, Failure, budget::Budget, http::Http, patience::Patience, slim,
    slim::Slim, split,
};
use crate::{
    chain::{ChainName, DailyUse, Priority},
    clock::Clock,
    config::{ChainConfig, EndpointConfig},
    metrics::Metrics,
    retry::Backoff,
};

/// The first pause after a failure.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// The longest pause between two attempts at a sick endpoint.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// What a node's own Retry-After can ask for at most.
const LONGEST_RETRY_AFTER: Duration = Duration::from_mins(5);
/// What a node that limits batches usually allows; tried before a batch is halved further.
const USUAL_BATCH: usize = 100;
/// For so long an endpoint is taken to serve the chain that it said it serves.
const CHECKED_FOR: Duration = Duration::from_mins(1);
/// How often one call halves its batch because an answer took too long: every attempt costs the whole timeout.
const MAX_TIMEOUT_HALVINGS: u32 = 2;
/// How long an endpoint that did not answer a batch in time has to answer the smallest question.
const SIGN_OF_LIFE: Duration = Duration::from_secs(1);

/// Why an endpoint's client could not be made; no URL in it.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    #[error("the chain {0} has no endpoint")]
    NoEndpoint(ChainName),
    #[error("endpoint {endpoint}: {detail}")]
    Endpoint { endpoint: String, detail: String },
}

/// Whether an endpoint is asked.
pub(super) enum Health {
    Good,
    /// It answers, but its last answer contradicted itself: others are asked before it.
    Doubtful,
    /// It is left alone for a while after this failure.
    Cooling {
        left: Duration,
        failure: Failure,
    },
}

/// What is kept of an answer.
#[derive(Clone, Copy)]
pub(in crate::chain) enum Keep<'a> {
    All,
    /// All of it; or, where that is too large, what is read of it.
    AllOrRead(&'a Arc<Slim>),
    /// What is read of it.
    Read(&'a Arc<Slim>),
}

struct State {
    backoff: Backoff,
    cooling: Option<(Instant, Failure)>,
}

pub(in crate::chain) struct Endpoint {
    pub name: String,
    pub weight: u32,
    chain: ChainName,
    /// The chain that it must serve.
    caip2: String,
    dialect: &'static Dialect,
    http: Http,
    budget: Budget,
    patience: Patience,
    /// Learnt: made smaller when the node calls a batch too large.
    max_batch: AtomicUsize,
    state: Mutex<State>,
    /// When the chain id was right; `None` after a failure.
    chain_checked: Mutex<Option<Instant>>,
    checking: tokio::sync::Mutex<Option<(Instant, Failure)>>,
    /// Learnt: what this node can do less than others of its family, as the family's source understands it.
    /// Forgotten when it fails: behind the same URL another node may answer next.
    pub limited: AtomicBool,
    metrics: Metrics,
}

impl Endpoint {
    pub fn new(
        config: &EndpointConfig,
        chain: &ChainConfig,
        dialect: &'static Dialect,
        metrics: Metrics,
    ) -> Result<Self, SetupError> {
        let http = Http::new(config, dialect)
            .map_err(|detail| SetupError::Endpoint { endpoint: config.name.clone(), detail })?;
        let labels = [chain.name.as_str(), &config.name];
        // That nothing was too large is to be seen as well.
        metrics.oversized_answers_total.with_label_values(&labels).inc_by(0);
        metrics.oversized_answer_bytes.with_label_values(&labels).set(0);
        metrics.rpc_endpoint_slow.with_label_values(&labels).set(0);
        Ok(Self {
            name: config.name.clone(),
            weight: config.weight,
            chain: chain.name.clone(),
            caip2: chain.caip2.clone(),
            dialect,
            http,
            budget: Budget::new(config, &chain.name, Clock::System, metrics.clone()),
            patience: Patience::new(),
            max_batch: AtomicUsize::new(config.max_batch.max(1)),
            state: Mutex::new(State {
                backoff: Backoff::new(FIRST_PAUSE, LONGEST_PAUSE),
                cooling: None,
            }),
            chain_checked: Mutex::new(None),
            checking: tokio::sync::Mutex::default(),
            limited: AtomicBool::new(false),
            metrics,
        })
    }

    pub(super) fn health(&self) -> Health {
        match &self.state.lock().cooling {
            None => Health::Good,
            Some((until, failure)) => {
                let left = until.saturating_duration_since(Instant::now());
                match failure {
                    _ if left.is_zero() => Health::Good,
                    Failure::Untrusted { .. } => Health::Doubtful,
                    failure => Health::Cooling { left, failure: failure.clone() },
                }
            }
        }
    }

    /// Remembers the use of its budgets below the data folder.
    pub(super) fn keep_in(&self, data: &Path) {
        self.budget.keep_in(data);
    }

    /// Whether it has a budget for a day.
    pub(super) fn is_daily(&self) -> bool {
        self.budget.is_daily()
    }

    /// Whether its budgets have nothing for such questions right now.
    pub(super) fn is_spent(&self) -> bool {
        self.budget.is_spent()
    }

    /// After an answer that was believed.
    pub fn worked(&self) {
        let mut state = self.state.lock();
        state.backoff.reset();
        if state.cooling.take().is_some() {
            tracing::info!(chain = %self.chain, endpoint = self.name, "the endpoint answers again");
        }
        self.healthy(1);
    }

    /// Whether quicker ones are asked before it.
    pub(super) fn is_slow(&self, for_head: bool) -> bool {
        self.patience.is_slow(for_head, Instant::now())
    }

    /// How long the head waits for it alone.
    pub(super) fn patience(&self) -> Duration {
        self.patience.left()
    }

    /// After another endpoint, asked later, has answered before it.
    pub(super) fn overtaken(&self) {
        if self.patience.overtaken(Instant::now()) {
            self.gauge_slow(1);
            tracing::warn!(
                chain = %self.chain,
                endpoint = self.name,
                "the endpoint is slow; quicker ones are asked first"
            );
        }
    }

    /// After an answer that came first; another endpoint was asked beside it, or not.
    pub(super) fn came_first(&self, took: Duration, beside: bool) {
        if self.patience.answered(took, beside) {
            self.gauge_slow(0);
            tracing::info!(chain = %self.chain, endpoint = self.name, "the endpoint is quick again");
        }
    }

    /// After an answer that was not: leaves the endpoint alone for a while if the failure is its own.
    pub fn failed(&self, failure: &Failure) {
        let asked = match failure {
            Failure::Down(_)
            | Failure::Timeout
            | Failure::Invalid(_)
            | Failure::WrongChain(_)
            | Failure::Untrusted { .. } => Duration::ZERO,
            Failure::Limited { retry_after, .. } => retry_after.unwrap_or_default(),
            Failure::TooLarge(_) => return self.too_large(0),
            Failure::Oversized { bytes, .. } => return self.too_large(*bytes),
            // What one call asked for is the matter, not the endpoint.
            _ => return,
        };
        let mut state = self.state.lock();
        let now = Instant::now();
        if state.cooling.as_ref().is_some_and(|(until, _)| *until > now) {
            // Another question, asked at the same time, has failed first.
            return;
        }
        let pause = state.backoff.next_delay().max(asked.min(LONGEST_RETRY_AFTER));
        if state.cooling.is_none() {
            tracing::warn!(
                chain = %self.chain,
                endpoint = self.name,
                error = failure.detail(),
                pause_seconds = pause.as_secs_f64(),
                "the endpoint failed; others are asked first"
            );
        }
        state.cooling = Some((now + pause, failure.clone()));
        self.healthy(0);
        self.forget_chain();
        self.limited.store(false, Ordering::Relaxed);
    }

    /// Which chain it serves is asked before anything else.
    pub(super) fn forget_chain(&self) {
        *self.chain_checked.lock() = None;
    }

    /// What a block's receipts are that are too large together, with so many bytes of them read.
    pub fn oversized(&self, bytes: usize) -> Failure {
        Failure::oversized(u64::try_from(bytes).unwrap_or(u64::MAX), self.http.max_response_bytes)
    }

    /// Counts an answer that could not be had for its size alone; the endpoint is well.
    fn too_large(&self, bytes: u64) {
        let labels = [self.chain.as_str(), &self.name];
        self.metrics.oversized_answers_total.with_label_values(&labels).inc();
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        self.metrics.oversized_answer_bytes.with_label_values(&labels).set(bytes);
    }

    fn gauge_slow(&self, value: i64) {
        let labels = [self.chain.as_str(), &self.name];
        self.metrics.rpc_endpoint_slow.with_label_values(&labels).set(value);
    }

    fn healthy(&self, value: i64) {
        self.metrics
            .rpc_endpoint_healthy
            .with_label_values(&[self.chain.as_str(), &self.name])
            .set(value);
    }

    /// One call's answer.
    pub async fn call(&self, call: Call) -> Result<Answer, Failure> {
        let mut answers = self.batch(&[call]).await?;
        answers.pop().unwrap_or_else(|| Err(Failure::Invalid("no answer".to_owned())))
    }

    /// The answers to all calls, in order, in as few requests as the endpoint's limits allow.
    pub async fn batch(&self, calls: &[Call]) -> Result<Answers, Failure> {
        self.batch_keeping(calls, Keep::All).await
    }

    /// The same for answers that anybody can make large. Fewer answers than calls, but one, when those that there
    /// are take much memory already. What is too large even alone fails alone.
    pub async fn batch_keeping(&self, calls: &[Call], keep: Keep<'_>) -> Result<Answers, Failure> {
        self.check_chain().await?;
        let mut answers = Vec::with_capacity(calls.len());
        let mut rest = calls;
        let mut size = usize::MAX;
        let mut timeouts = 0;
        let mut room = match keep {
            Keep::All => usize::MAX,
            Keep::AllOrRead(_) | Keep::Read(_) => {
                self.http.max_response_bytes.saturating_mul(slim::KEPT)
            }
        };
        while !rest.is_empty() && room > 0 {
            let limit = self.max_batch.load(Ordering::Relaxed).min(self.budget.at_once());
            let limit = size.min(limit).clamp(1, rest.len());
            let (chunk, later) = rest.split_at(limit);
            let half = chunk.len() / 2;
            match self.request_keeping(chunk, keep).await {
                Ok(some) => {
                    if let Some(limited) = some.iter().find_map(|answer| match answer {
                        Err(failure @ Failure::Limited { .. }) => Some(failure.clone()),
                        _ => None,
                    }) {
                        return Err(limited);
                    }
                    let too_large = |answer: &Result<_, Failure>| {
                        answer.as_ref().is_err_and(|failure| {
                            failure.is_size() || matches!(failure, Failure::BatchTooLarge(_))
                        })
                    };
                    if half > 0 && some.iter().any(too_large) {
                        size = half;
                        continue;
                    }
                    let taken = some.iter().flatten().map(|answer| answer.as_bytes().len()).sum();
                    room = room.saturating_sub(taken);
                    answers.extend(some);
                    rest = later;
                    if timeouts == 0 {
                        // One large answer is no reason to ask for all others singly.
                        size = size.saturating_mul(2);
                    }
                }
                Err(Failure::BatchTooLarge(_)) if half > 0 => {
                    let fewer = if chunk.len() > USUAL_BATCH { USUAL_BATCH } else { half };
                    self.max_batch.fetch_min(fewer, Ordering::Relaxed);
                }
                Err(failure) if failure.is_size() && half > 0 => size = half,
                Err(failure) if failure.is_size() => {
                    answers.push(Err(failure));
                    rest = later;
                }
                Err(Failure::BatchTooLarge(detail)) => {
                    answers.push(Err(Failure::TooLarge(detail)));
                    rest = later;
                }
                Err(Failure::Timeout)
                    if half > 0 && timeouts < MAX_TIMEOUT_HALVINGS && self.is_alive().await =>
                {
                    timeouts += 1;
                    size = half;
                }
                Err(failure) => return Err(failure),
            }
        }
        Ok(answers)
    }

    async fn request_keeping(&self, calls: &[Call], keep: Keep<'_>) -> Result<Answers, Failure> {
        let (whole, slim) = match keep {
            Keep::All => (true, None),
            Keep::AllOrRead(slim) => (true, Some(slim)),
            Keep::Read(slim) => (false, Some(slim)),
        };
        if whole {
            let answers = self.request(calls, None).await;
            let alone = calls.len() == 1 && slim.is_some();
            if !alone || !matches!(answers, Err(Failure::Oversized { .. })) {
                return answers;
            }
        }
        self.request(calls, slim).await
    }

    /// Asks which chain it is, after each failure and once a minute: behind a URL the node can change.
    async fn check_chain(&self) -> Result<(), Failure> {
        let is_fresh = || {
            let checked = self.chain_checked.lock();
            checked.is_some_and(|at| still_holds(at.elapsed(), Priority::current()))
        };
        if is_fresh() {
            return Ok(());
        }
        let asked = Instant::now();
        let mut failed = self.checking.lock().await;
        if is_fresh() {
            return Ok(());
        }
        // Whoever waited for a question that failed does not ask it again.
        if let Some((_, failure)) = failed.as_ref().filter(|(at, _)| *at > asked) {
            return Err(failure.clone());
        }
        if let Err(failure) = self.ask_chain().await {
            *failed = Some((Instant::now(), failure.clone()));
            return Err(failure);
        }
        *self.chain_checked.lock() = Some(Instant::now());
        Ok(())
    }

    async fn ask_chain(&self) -> Result<(), Failure> {
        let answer = self
            .request(&[self.identity()], None)
            .await?
            .pop()
            .unwrap_or_else(|| Err(Failure::Invalid("no answer".to_owned())))?;
        let found = (self.dialect.caip2)(&answer)?;
        if found == self.caip2 {
            return Ok(());
        }
        Err(Failure::WrongChain(wrong_chain(&self.name, &found, &self.caip2)))
    }

    fn identity(&self) -> Call {
        Call::new(self.dialect.identity, "[]".to_owned())
    }

    /// Whether it answers at all: who does not is gone, and no smaller batch helps.
    async fn is_alive(&self) -> bool {
        if self.budget.take(1).await.is_err() {
            return false;
        }
        let identity = [self.identity()];
        let answered = tokio::time::timeout(SIGN_OF_LIFE, self.send(&identity, None)).await;
        answered.is_ok_and(|answered| answered.is_ok())
    }

    /// One HTTP request, counted and timed. With `slim` only what is read of its answer is kept.
    async fn request(&self, calls: &[Call], slim: Option<&Arc<Slim>>) -> Result<Answers, Failure> {
        self.budget.take(calls.len()).await?;
        self.send(calls, slim).await
    }

    /// As [`Self::request`], for calls that the budget has room for.
    async fn send(&self, calls: &[Call], slim: Option<&Arc<Slim>>) -> Result<Answers, Failure> {
        let started = Instant::now();
        let result = match self.http.exchange(calls, slim).await {
            Ok(body) => split(self.dialect, &body, calls.len()),
            Err(failure) => Err(failure),
        };
        let first = calls.first().map_or("", |call| call.method);
        let chain = self.chain.as_str();
        self.metrics
            .rpc_request_duration_seconds
            .with_label_values(&[chain, first])
            .observe(started.elapsed().as_secs_f64());
        for (index, call) in calls.iter().enumerate() {
            let outcome = match &result {
                Ok(answers) => match answers.get(index) {
                    Some(Err(failure)) => failure.outcome(),
                    _ => "ok",
                },
                Err(failure) => failure.outcome(),
            };
            self.metrics
                .rpc_requests_total
                .with_label_values(&[chain, &self.name, call.method, outcome])
                .inc();
        }
        result
    }
}

/// Whether a chain id that was right so long ago counts still. What can wait looks again a bit sooner, so that the
/// head seldom waits for it.
fn still_holds(ago: Duration, priority: Priority) -> bool {
    let longest = if priority == Priority::Head { CHECKED_FOR } else { CHECKED_FOR * 3 / 4 };
    ago < longest
}

/// What is said of an endpoint with another chain behind it.
pub(in crate::chain) fn wrong_chain(endpoint: &str, found: &str, expected: &str) -> String {
    format!("endpoint {endpoint} serves the chain {found}, the configuration says {expected}")
}
impl DailyUse for Endpoint {
    fn endpoint(&self) -> &str {
        &self.name
    }

    fn untold(&self) -> (i64, u64) {
        self.budget.untold()
    }

    fn put_back(&self, day: i64, calls: u64) {
        self.budget.put_back(day, calls);
    }

    fn told(&self, day: i64, calls: u64) {
        self.budget.told(day, calls);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chain_id_is_asked_again_within_a_minute_first_by_what_can_wait() {
        let after = |seconds| Duration::from_secs(seconds);
        assert!(still_holds(after(44), Priority::Background));
        assert!(!still_holds(after(45), Priority::Settlement));
        assert!(still_holds(after(59), Priority::Head));
        assert!(!still_holds(after(60), Priority::Head));
    }
}
