//! The chain's own balances, asked for what the ledger has.

use std::collections::{HashMap, HashSet};

use crate::{
    chain::{BalanceQuery, BlockRef, Certainty, ChainBalance, Source, SourceError},
    ledger::reconcile::{Belief, Comparison, Drift, Figure, compare},
    model::BalanceRef,
};

/// Balances asked for in one call of a source, which makes of it as many requests as its node needs.
const ASKED_AT_ONCE: usize = 500;

/// What one node says of a balance.
#[derive(Clone, Copy, Debug)]
pub struct Told {
    pub balance: BalanceRef,
    pub holding: ChainBalance,
}

impl Told {
    /// As the ledger takes it before anybody has confirmed it.
    #[must_use]
    pub const fn unconfirmed(&self) -> Figure {
        let Self { balance, holding } = *self;
        Figure { balance, holding, belief: Belief::Unconfirmed }
    }
}

/// What is sure of balances, by what was asked for.
pub(super) type Sure = HashMap<BalanceQuery, (ChainBalance, Certainty)>;

/// Reads what the chain has of each balance after exactly the block `at`; balances of one address share a
/// question. Figures that the chain cannot tell are left out. `None` if the node has no such state.
///
/// # Errors
/// As [`Source::balances_at`].
pub async fn read(
    source: &dyn Source,
    at: BlockRef,
    balances: &[BalanceRef],
) -> Result<Option<Vec<Told>>, SourceError> {
    let mut asked = HashSet::new();
    let queries: Vec<BalanceQuery> =
        balances.iter().map(BalanceRef::query).filter(|query| asked.insert(*query)).collect();
    let mut told: HashMap<BalanceQuery, ChainBalance> = HashMap::with_capacity(queries.len());
    for chunk in queries.chunks(ASKED_AT_ONCE) {
        let figures = match source.balances_at(at, chunk).await {
            Ok(figures) if figures.len() == chunk.len() => figures,
            Ok(_) => return Err(SourceError::Untrusted("the node left out balances".to_owned())),
            Err(SourceError::NotThere(_)) => return Ok(None),
            Err(error) => return Err(error),
        };
        told.extend(chunk.iter().copied().zip(figures));
    }
    let figure = |balance: &BalanceRef| {
        let holding = *told.get(&balance.query()).filter(|figure| !figure.unreadable)?;
        Some(Told { balance: *balance, holding })
    };
    Ok(Some(balances.iter().filter_map(figure).collect()))
}

/// Reads again, as surely as the nodes can tell it, what the chain has of some balances after exactly the block
/// `at`. Those that no node tells are left out.
pub(super) async fn for_sure(source: &dyn Source, at: BlockRef, balances: &[BalanceRef]) -> Sure {
    let queries: HashSet<BalanceQuery> = balances.iter().map(BalanceRef::query).collect();
    let queries: Vec<BalanceQuery> = queries.into_iter().collect();
    let mut sure = HashMap::with_capacity(queries.len());
    for chunk in queries.chunks(ASKED_AT_ONCE) {
        match source.balances_for_sure(at, chunk).await {
            Ok(figures) if figures.len() == chunk.len() => {
                sure.extend(chunk.iter().copied().zip(figures));
            }
            Ok(_) => {}
            Err(error) => {
                tracing::debug!(block.number = at.number, error = %error, "figures stay unconfirmed");
            }
        }
    }
    sure
}

/// What is known of a balance after all nodes were asked, and how it compares.
#[derive(Clone, Copy, Debug)]
pub(super) struct Weighed {
    pub told: Told,
    /// `None` where the ledger agreed from the start.
    pub difference: Option<(Comparison, Certainty)>,
}

/// Puts what is sure in the place of one node's word.
pub(super) fn weighed(told: Vec<Told>, drifts: &[Drift], sure: &Sure) -> Vec<Weighed> {
    let drifts: HashMap<_, _> = drifts
        .iter()
        .map(|drift| ((drift.balance.wallet, drift.balance.asset), drift.position))
        .collect();
    let weigh = |mut told: Told| {
        let Some(position) = drifts.get(&(told.balance.wallet, told.balance.asset)) else {
            return Weighed { told, difference: None };
        };
        let certainty = match sure.get(&told.balance.query()) {
            Some((figure, certainty)) if !figure.unreadable => {
                let same = figure.total == told.holding.total;
                if *certainty >= Certainty::Agreed {
                    told.holding = *figure;
                }
                // One node that says now this, now that has said nothing.
                if *certainty == Certainty::Told && !same {
                    Certainty::Disputed
                } else {
                    *certainty
                }
            }
            _ => Certainty::Disputed,
        };
        let comparison = compare(*position, told.holding.total);
        Weighed { told, difference: Some((comparison, certainty)) }
    };
    told.into_iter().map(weigh).collect()
}
