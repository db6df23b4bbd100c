//! The ledger against the chain's own state: what the node is asked, and what a difference means.
//!
//! The settled part of a balance is compared with what the chain's state says at exactly the settled block.
//! Whoever compares decides what follows: `apply` books an adjustment, `audit` only tells.

use std::collections::{HashMap, HashSet};

use crate::{
    amount::Amount,
    chain::{BalanceQuery, BlockRef, Holding, Source, SourceError},
    ledger::Position,
    store::proof::Claim,
};

/// Balances asked for in one call of a source, which makes of it as many requests as its node needs.
const ASKED_AT_ONCE: usize = 500;

/// What a comparison says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Equal,
    /// The chain has more by this: something came in that no movement showed.
    Credit(Amount),
    /// The chain has less by this: something left, or was taken, that no movement showed.
    Debit(Amount),
    /// The chain has another figure, and the ledger cannot take it over yet.
    Unbookable,
}

/// Compares a balance with the chain's own figure at the settled block.
#[must_use]
pub fn judge(position: Position, chain: Amount) -> Verdict {
    let settled = position.settled;
    if let Some(less) = settled.checked_sub(chain).filter(|less| !less.is_zero()) {
        // What is on its way out must be covered by what is left, whichever incoming block vanishes: else a
        // later settlement or reorg would find a balance below zero.
        return if position.outgoing <= chain { Verdict::Debit(less) } else { Verdict::Unbookable };
    }
    let more = chain.saturating_sub(settled);
    if more.is_zero() {
        return Verdict::Equal;
    }
    let fits = chain.checked_add(position.incoming).is_some()
        && position.incoming.checked_add(more).is_some();
    if fits { Verdict::Credit(more) } else { Verdict::Unbookable }
}

/// Reads what the chain has for each claim after exactly the block `at`; claims of one address share a
/// question. Figures that the chain cannot tell are left out. `None` if the node has no such state.
///
/// # Errors
/// As [`Source::balances_at`].
pub async fn read(
    source: &dyn Source,
    at: BlockRef,
    claims: &[Claim],
) -> Result<Option<Vec<(Claim, Holding)>>, SourceError> {
    let query = |claim: &Claim| BalanceQuery { address: claim.address, asset: claim.asset };
    let mut asked = HashSet::new();
    let queries: Vec<BalanceQuery> =
        claims.iter().map(query).filter(|query| asked.insert(*query)).collect();
    let mut held: HashMap<BalanceQuery, Holding> = HashMap::with_capacity(queries.len());
    for chunk in queries.chunks(ASKED_AT_ONCE) {
        let holdings = match source.balances_at(at, chunk).await {
            Ok(holdings) if holdings.len() == chunk.len() => holdings,
            Ok(_) => return Err(SourceError::Untrusted("the node left out balances".to_owned())),
            Err(SourceError::NotThere(_)) => return Ok(None),
            Err(error) => return Err(error),
        };
        held.extend(chunk.iter().copied().zip(holdings));
    }
    let figure = |claim: &Claim| {
        let holding = held.get(&query(claim)).filter(|holding| !holding.unreadable)?;
        Some((*claim, *holding))
    };
    Ok(Some(claims.iter().filter_map(figure).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn position(settled: u64, incoming: u64, outgoing: u64) -> Position {
        Position { settled: settled.into(), incoming: incoming.into(), outgoing: outgoing.into() }
    }

    #[test]
    fn the_settled_part_is_what_is_compared() {
        assert_eq!(judge(position(50, 7, 3), 50.into()), Verdict::Equal);
        assert_eq!(judge(position(50, 7, 3), 54.into()), Verdict::Credit(4.into()));
        assert_eq!(judge(position(50, 7, 3), 48.into()), Verdict::Debit(2.into()));
        assert_eq!(judge(position(0, 0, 0), Amount::ZERO), Verdict::Equal);
    }

    #[test]
    fn what_would_break_the_ledger_later_is_not_booked_now() {
        // The incoming 90 may still vanish, and then 20 would leave of 10.
        assert_eq!(judge(position(50, 90, 20), 10.into()), Verdict::Unbookable);
        assert_eq!(judge(position(50, 90, 20), 20.into()), Verdict::Debit(30.into()));
        assert_eq!(judge(position(1, 1, 0), Amount::MAX), Verdict::Unbookable);
        assert_eq!(
            judge(position(1, 0, 0), Amount::MAX),
            Verdict::Credit(Amount::MAX.saturating_sub(1.into()))
        );
    }
}
