//! How each endpoint traces, learnt by asking it, and when it is asked again after it could not.

use std::{collections::HashMap, time::Duration};

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::{
    chain::{ChainName, Priority, TraceAbility, rpc::Failure},
    config::Tracing,
    metrics::Metrics,
    retry::Backoff,
    string_enum::string_enum,
};

/// After this an endpoint that cannot trace is asked again: behind its URL another node may answer by then.
const LOOK_AGAIN: Duration = Duration::from_mins(10);
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_mins(5);
/// After an answer that nobody waited for: the node works on it all the same, and is not to be given more.
const AFTER_TIMEOUT: Duration = Duration::from_secs(30);

string_enum! {
    /// What a node traces with.
    Ability {
        /// `debug_traceBlockByHash` with `prestateTracer`, and `callTracer`.
        Debug = "debug",
        /// `trace_block` and `trace_transaction`, as `OpenEthereum` had them.
        Trace = "trace",
    }
}

struct Standing {
    /// What it may be asked, the one that says most with least first.
    allowed: Vec<Ability>,
    /// What it does not know.
    unknown: Vec<Ability>,
    /// What it has answered with lately.
    has: TraceAbility,
    until: Option<Instant>,
    backoff: Backoff,
}

impl Standing {
    fn new(pinned: Tracing) -> Self {
        let allowed = match pinned {
            Tracing::Auto => Ability::ALL.to_vec(),
            Tracing::Debug => vec![Ability::Debug],
            Tracing::Trace => vec![Ability::Trace],
            Tracing::None => Vec::new(),
        };
        Self {
            allowed,
            unknown: Vec::new(),
            has: if pinned == Tracing::None { TraceAbility::None } else { TraceAbility::Unknown },
            until: None,
            backoff: Backoff::new(FIRST_PAUSE, LONGEST_PAUSE),
        }
    }

    fn pause(&mut self, pause: Duration) {
        self.until = Some(Instant::now() + pause);
    }
}

/// How the endpoints of a chain trace. Work in the background, which asks for old blocks, is told apart from the
/// rest: many a node traces the newest blocks only.
pub(super) struct Abilities {
    chain: ChainName,
    names: Vec<String>,
    standings: Mutex<HashMap<(String, bool), Standing>>,
    metrics: Metrics,
}

impl Abilities {
    pub fn new(
        chain: &ChainName,
        endpoints: impl Iterator<Item = (String, Tracing)>,
        metrics: &Metrics,
    ) -> Self {
        let both = |(name, pinned): (String, Tracing)| {
            [false, true].map(|background| ((name.clone(), background), Standing::new(pinned)))
        };
        let endpoints: Vec<(String, Tracing)> = endpoints.collect();
        Self {
            chain: chain.clone(),
            names: endpoints.iter().map(|(name, _)| name.clone()).collect(),
            standings: Mutex::new(endpoints.into_iter().flat_map(both).collect()),
            metrics: metrics.clone(),
        }
    }

    /// What the endpoint is asked next; `None` while it is asked nothing.
    pub fn of(&self, endpoint: &str) -> Option<Ability> {
        self.with(endpoint, |standing| {
            if standing.until.is_some_and(|until| until > Instant::now()) {
                return None;
            }
            standing.allowed.iter().copied().find(|ability| !standing.unknown.contains(ability))
        })?
    }

    /// What each endpoint has answered with, in the order of the configuration.
    pub fn all(&self) -> Vec<TraceAbility> {
        let standings = self.standings.lock();
        let of = |name: &String| standings.get(&(name.clone(), false)).map(|standing| standing.has);
        self.names.iter().filter_map(of).collect()
    }

    /// It has answered.
    pub fn has(&self, endpoint: &str, ability: Ability) {
        self.with(endpoint, |standing| {
            standing.until = None;
            standing.backoff.reset();
            standing.has = match ability {
                Ability::Debug => TraceAbility::Debug,
                Ability::Trace => TraceAbility::Trace,
            };
        });
        self.show(endpoint, Some(ability));
    }

    /// It has not: it is asked in another way, or left alone for a while.
    pub fn failed(&self, endpoint: &str, ability: Ability, failure: &Failure) {
        let lost = self.with(endpoint, |standing| match failure {
            Failure::Unsupported(_)
            | Failure::Invalid(_)
            | Failure::Refused(_)
            | Failure::Reverted => {
                standing.unknown.push(ability);
                let lost = standing.allowed.iter().all(|known| standing.unknown.contains(known));
                if lost {
                    standing.unknown.clear();
                    standing.has = TraceAbility::None;
                    standing.pause(LOOK_AGAIN);
                }
                lost
            }
            failure => {
                let least = match failure {
                    Failure::Timeout => AFTER_TIMEOUT,
                    _ => Duration::ZERO,
                };
                let pause = standing.backoff.next_delay().max(least);
                standing.pause(pause);
                false
            }
        });
        if lost == Some(true) {
            tracing::info!(
                chain = %self.chain,
                endpoint,
                error = failure.detail(),
                "the endpoint does not trace"
            );
            self.show(endpoint, None);
        }
    }

    fn with<T>(&self, endpoint: &str, then: impl FnOnce(&mut Standing) -> T) -> Option<T> {
        let background = Priority::current() == Priority::Background;
        self.standings.lock().get_mut(&(endpoint.to_owned(), background)).map(then)
    }

    /// The metrics show how it traces the newest blocks.
    fn show(&self, endpoint: &str, has: Option<Ability>) {
        if Priority::current() == Priority::Background {
            return;
        }
        for ability in Ability::ALL {
            self.metrics
                .rpc_endpoint_tracing
                .with_label_values(&[self.chain.as_str(), endpoint, ability.as_str()])
                .set(i64::from(has == Some(*ability)));
        }
    }
}
