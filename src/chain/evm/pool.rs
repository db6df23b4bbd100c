//! Which endpoint is asked, and which one next.
//!
//! A question goes to one endpoint with all its requests, so that its answer is of one piece. The endpoint of
//! the greatest weight that is well stays the first choice; another is asked only when it fails.

use std::{sync::Arc, time::Duration};

use super::{
    endpoint::{Endpoint, Health, SetupError},
    rpc::Failure,
};
use crate::{chain::SourceError, config::ChainConfig, metrics::Metrics};

pub(super) struct Pool {
    /// By descending weight.
    endpoints: Vec<Arc<Endpoint>>,
}

impl Pool {
    pub fn new(config: &ChainConfig, metrics: &Metrics) -> Result<Self, SetupError> {
        if config.endpoints.is_empty() {
            return Err(SetupError::NoEndpoint(config.name.clone()));
        }
        let mut endpoints = config
            .endpoints
            .iter()
            .map(|endpoint| {
                Endpoint::new(endpoint, &config.name, config.chain_id, metrics.clone())
                    .map(Arc::new)
            })
            .collect::<Result<Vec<_>, _>>()?;
        endpoints.sort_by_key(|endpoint| std::cmp::Reverse(endpoint.weight));
        Ok(Self { endpoints })
    }

    /// Puts one question to one endpoint after the other until one answers it.
    pub async fn ask<T, F, Fut>(&self, question: F) -> Result<T, SourceError>
    where
        F: Fn(Arc<Endpoint>) -> Fut,
        Fut: Future<Output = Result<T, Failure>>,
    {
        let mut failures = Vec::new();
        let mut candidates = Vec::with_capacity(self.endpoints.len());
        let mut doubtful = Vec::new();
        for endpoint in &self.endpoints {
            match endpoint.health() {
                Health::Good => candidates.push(endpoint),
                Health::Doubtful => doubtful.push(endpoint),
                Health::Cooling { failure, .. } => failures.push((endpoint, failure)),
            }
        }
        candidates.append(&mut doubtful);
        for endpoint in candidates {
            match question(Arc::clone(endpoint)).await {
                Ok(answer) => {
                    endpoint.worked();
                    return Ok(answer);
                }
                Err(Failure::Moved(detail)) => {
                    return Err(SourceError::Unavailable { detail, retry_after: None });
                }
                Err(failure) => {
                    endpoint.failed(&failure);
                    failures.push((endpoint, failure));
                }
            }
        }
        Err(self.verdict(&failures))
    }

    /// What the failures of all endpoints come to. Only if every one of them contradicted itself or has the
    /// wrong chain is that the verdict: as long as one could still answer well, trying again may help.
    fn verdict(&self, failures: &[(&Arc<Endpoint>, Failure)]) -> SourceError {
        let detail = failures
            .iter()
            .map(|(endpoint, failure)| match failure {
                Failure::WrongChain(detail) => detail.clone(),
                failure => format!("{}: {}", endpoint.name, failure.detail()),
            })
            .collect::<Vec<_>>()
            .join("; ");
        let mut untrusted = false;
        let mut unavailable = false;
        for (_, failure) in failures {
            match failure {
                Failure::NotThere(_) => return SourceError::NotThere(detail),
                Failure::Untrusted { .. } => untrusted = true,
                Failure::WrongChain(_) => {}
                _ => unavailable = true,
            }
        }
        if unavailable {
            SourceError::Unavailable { detail, retry_after: self.soonest() }
        } else if untrusted {
            SourceError::Untrusted(detail)
        } else {
            SourceError::WrongChain(detail)
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
