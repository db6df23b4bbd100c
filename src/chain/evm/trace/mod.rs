//! Native coin that moves inside transactions, as nodes that trace tell it.
//!
//! No receipt shows it. Of each block in which code ran, a node is asked whose balances its transactions changed;
//! that is little, and what the block's own movements explain is left out of it at once. Only where something is
//! left over for a watched address are the calls of that transaction asked for. What a trace says no root of the
//! block commits to: it is booked only if the chain's own balances before and after the block differ by just that.
//!
//! An endpoint that does not trace, or not now, is no fault of it: the comparison with the chain's balances finds
//! what nobody has traced.

mod ability;
mod beside;
mod diff;
mod frames;
mod resolve;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use ability::Abilities;
pub(in crate::chain) use ability::Ability;
use alloy::primitives::B256;
use diff::{Change, TracedTx};
use frames::FlatCall;
pub(super) use frames::Moved;
use serde_json::value::RawValue;
use tokio::sync::Semaphore;

use crate::{
    chain::{
        Block, BlockRef, ChainName, Priority, TraceAbility, Traced,
        rpc::{Answer, Call, Decoder, Endpoint, Failure, Pool},
    },
    config::EndpointConfig,
    metrics::Metrics,
};

/// Blocks that are traced by one request at most, and requests at a time: a node executes each block anew, and some go
/// on with it when nobody waits for it any more.
const MOST_AT_ONCE: usize = 8;
const REQUESTS: usize = 2;
/// The next request may ask for more blocks where one took less than this, and asks for one where it took longer.
const QUICK: Duration = Duration::from_millis(250);
/// How long a block waits for the calls of some of its transactions.
const CALLS: Duration = Duration::from_secs(3);

/// What a node tells of a block: for each transaction, whose balances it changed, or what moved inside it.
pub(super) enum Told {
    /// With the transaction's hash, where the node tells it.
    Changes(Vec<(Option<B256>, Vec<Change>)>),
    Moved(Vec<Vec<Moved>>),
}

/// Asks the endpoints of one chain that trace.
pub(super) struct Tracer {
    abilities: Abilities,
    /// Blocks that the next request asks for.
    at_once: AtomicUsize,
    requests: Semaphore,
    /// Those for old blocks, in the background: the newest ones never wait for them.
    background: Semaphore,
    decoder: Arc<Decoder>,
    chain: ChainName,
    metrics: Metrics,
}

impl Tracer {
    pub fn new(
        chain: &ChainName,
        endpoints: &[EndpointConfig],
        decoder: &Arc<Decoder>,
        metrics: &Metrics,
    ) -> Self {
        // That every trace fits is to be seen as well: an alert needs the first step.
        metrics.trace_mismatches_total.with_label_values(&[chain.as_str()]).inc_by(0);
        let pinned = endpoints.iter().map(|endpoint| (endpoint.name.clone(), endpoint.tracing));
        Self {
            abilities: Abilities::new(chain, pinned, metrics),
            at_once: AtomicUsize::new(1),
            requests: Semaphore::new(REQUESTS),
            background: Semaphore::new(REQUESTS),
            decoder: Arc::clone(decoder),
            chain: chain.clone(),
            metrics: metrics.clone(),
        }
    }

    /// Whether some endpoint can be asked for traces now.
    pub fn can(&self, pool: &Pool) -> bool {
        pool.well().iter().any(|endpoint| self.abilities.of(&endpoint.name).is_some())
    }

    /// What each endpoint traces with.
    pub fn abilities(&self) -> Vec<TraceAbility> {
        self.abilities.all()
    }

    /// Notes in each of the blocks that nobody has traced what a node tells of it, if it does within `patience` for
    /// each.
    pub async fn trace(&self, pool: &Pool, blocks: &mut [Block], patience: Duration) {
        let open: Vec<&mut Block> =
            blocks.iter_mut().filter(|block| block.traced == Traced::Not).collect();
        let mut open = open.into_iter();
        while open.len() > 0 {
            let requests = match Priority::current() {
                Priority::Background => &self.background,
                Priority::Head | Priority::Settlement => &self.requests,
            };
            let Ok(_one_of_few) = requests.acquire().await else { return };
            let at_once = self.at_once.load(Ordering::Relaxed);
            let some: Vec<&mut Block> = open.by_ref().take(at_once).collect();
            let places: Vec<BlockRef> = some.iter().map(|block| block.header.at).collect();
            let patience = patience * u32::try_from(places.len()).unwrap_or(1);
            let started = Instant::now();
            let told = self.told_of(pool, &places, patience).await;
            let quick = told.is_some() && started.elapsed() < QUICK;
            let next = if quick { (at_once * 2).min(MOST_AT_ONCE) } else { 1 };
            self.at_once.store(next, Ordering::Relaxed);
            let Some(told) = told else { return };
            for (block, told) in some.into_iter().zip(told) {
                self.note(block, &told);
            }
        }
    }

    /// Notes in a block what a node tells of it.
    fn note(&self, block: &mut Block, told: &Told) {
        let traced = match beside::of(block, told) {
            Some(beside) if beside.is_empty() => Traced::Whole,
            Some(beside) => Traced::Beside(beside),
            None => {
                return self.mismatch(block.header.at, "other transactions, or impossible amounts");
            }
        };
        block.traced = traced;
        self.metrics.traced_blocks_total.with_label_values(&[self.chain.as_str(), "traced"]).inc();
    }

    /// What the calls of those transactions moved, one answer each; `None` if no node tells, or not in time.
    pub async fn calls_of(&self, pool: &Pool, txs: &[B256]) -> Option<Vec<Vec<Moved>>> {
        self.ask(pool, CALLS, |endpoint, ability| async move {
            let method = match ability {
                Ability::Debug => "debug_traceTransaction",
                Ability::Trace => "trace_transaction",
            };
            let calls: Vec<Call> = txs
                .iter()
                .map(|tx| match ability {
                    Ability::Debug => {
                        Call::new(method, format!(r#"["{tx}",{{"tracer":"callTracer"}}]"#))
                    }
                    Ability::Trace => Call::new(method, format!(r#"["{tx}"]"#)),
                })
                .collect();
            let answers = all(endpoint.batch(&calls).await?, calls.len())?;
            let read = move |given: &[Answer]| {
                given.iter().map(|answer| moved_in(ability, answer)).collect()
            };
            self.decoder.run(method.to_owned(), answers, read).await
        })
        .await
    }

    /// A trace does not fit to the block that it is of: it counts for nothing.
    pub fn mismatch(&self, at: BlockRef, detail: &str) {
        self.metrics.trace_mismatches_total.with_label_values(&[self.chain.as_str()]).inc();
        tracing::warn!(
            chain = %self.chain,
            block.number = at.number,
            detail,
            "what a node has traced of a block does not fit to it: it is left out until the block settles"
        );
    }

    async fn told_of(
        &self,
        pool: &Pool,
        blocks: &[BlockRef],
        patience: Duration,
    ) -> Option<Vec<Told>> {
        self.ask(pool, patience, |endpoint, ability| async move {
            let method = match ability {
                Ability::Debug => "debug_traceBlockByHash",
                Ability::Trace => "trace_block",
            };
            let calls: Vec<Call> = blocks
                .iter()
                .map(|at| match ability {
                    Ability::Debug => {
                        let hash = B256::from(at.hash.0);
                        Call::new(
                            method,
                            format!(
                                r#"["{hash}",{{"tracer":"prestateTracer","tracerConfig":{{"diffMode":true,"disableCode":true,"disableStorage":true}}}}]"#
                            ),
                        )
                    }
                    Ability::Trace => Call::new(method, format!(r#"["{:#x}"]"#, at.number)),
                })
                .collect();
            let answers = all(endpoint.batch(&calls).await?, calls.len())?;
            let places = blocks.to_vec();
            let read = move |given: &[Answer]| {
                given.iter().zip(places).map(|(answer, at)| told(ability, at, answer)).collect()
            };
            self.decoder.run(method.to_owned(), answers, read).await
        })
        .await
    }

    /// Puts a question to one endpoint that traces after the other.
    async fn ask<'a, T, F, Fut>(&'a self, pool: &Pool, patience: Duration, question: F) -> Option<T>
    where
        F: Fn(Arc<Endpoint>, Ability) -> Fut,
        Fut: Future<Output = Result<T, Failure>> + 'a,
    {
        for endpoint in pool.well() {
            // What it can is learnt by asking: first what says most with least.
            while let Some(ability) = self.abilities.of(&endpoint.name) {
                let asked = pool.put(question(Arc::clone(&endpoint), ability));
                let answer = tokio::time::timeout(patience, asked).await;
                match answer.unwrap_or(Err(Failure::Timeout)) {
                    Ok(answer) => {
                        self.abilities.has(&endpoint.name, ability);
                        return Some(answer);
                    }
                    Err(failure) => self.abilities.failed(&endpoint.name, ability, &failure),
                }
            }
        }
        None
    }
}

/// The answers, if there is one for each call.
fn all(answers: Vec<Result<Answer, Failure>>, calls: usize) -> Result<Vec<Answer>, Failure> {
    let answers: Vec<Answer> = answers.into_iter().collect::<Result<_, _>>()?;
    if answers.len() == calls {
        return Ok(answers);
    }
    Err(Failure::TooLarge("what a node traces of some blocks takes too much memory".to_owned()))
}

fn told(ability: Ability, at: BlockRef, answer: &Answer) -> Result<Told, Failure> {
    let missing = || Failure::NotThere(format!("the trace of block {}", at.number));
    match ability {
        Ability::Debug => {
            let txs: Vec<TracedTx> = answer.parse::<Option<_>>()?.ok_or_else(missing)?;
            let of = |tx: TracedTx| Some((tx.tx_hash, tx.result?.changes().collect()));
            let txs: Option<Vec<(Option<B256>, Vec<Change>)>> = txs.into_iter().map(of).collect();
            txs.map(Told::Changes).ok_or_else(missing)
        }
        Ability::Trace => {
            let calls: Vec<FlatCall> = answer.parse::<Option<_>>()?.ok_or_else(missing)?;
            frames::by_transaction(calls, B256::from(at.hash.0)).map(Told::Moved)
        }
    }
}

fn moved_in(ability: Ability, answer: &Answer) -> Result<Vec<Moved>, Failure> {
    let missing = || Failure::NotThere("the trace of a transaction".to_owned());
    match ability {
        Ability::Debug => frames::nested(answer.parse::<Option<&RawValue>>()?.ok_or_else(missing)?),
        Ability::Trace => {
            let calls: Vec<FlatCall> = answer.parse::<Option<_>>()?.ok_or_else(missing)?;
            Ok(frames::flat(&calls))
        }
    }
}

/// For the tests of what nodes write.
#[cfg(test)]
pub(in crate::chain::evm) mod testing {
    pub(in crate::chain::evm) use super::frames::{Moved, nested};
    use super::{Failure, FlatCall, frames};

    pub fn flat(text: &str) -> Result<Vec<Moved>, Failure> {
        let calls: Vec<FlatCall> =
            serde_json::from_str(text).map_err(|error| Failure::Invalid(error.to_string()))?;
        Ok(frames::flat(&calls))
    }
}
