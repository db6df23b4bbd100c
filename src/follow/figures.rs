//! The chain's own balances, asked for what the ledger has.

use std::collections::{HashMap, HashSet};

use crate::{
    chain::{BalanceQuery, BlockRef, ChainBalance, Source, SourceError},
    model::BalanceRef,
};

/// Balances asked for in one call of a source, which makes of it as many requests as its node needs.
const ASKED_AT_ONCE: usize = 500;

/// Reads what the chain has of each balance after exactly the block `at`; balances of one address share a
/// question. Figures that the chain cannot tell are left out. `None` if the node has no such state.
///
/// # Errors
/// As [`Source::balances_at`].
pub async fn read(
    source: &dyn Source,
    at: BlockRef,
    balances: &[BalanceRef],
) -> Result<Option<Vec<(BalanceRef, ChainBalance)>>, SourceError> {
    let query =
        |balance: &BalanceRef| BalanceQuery { address: balance.address, asset: balance.key };
    let mut asked = HashSet::new();
    let queries: Vec<BalanceQuery> =
        balances.iter().map(query).filter(|query| asked.insert(*query)).collect();
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
        let figure = told.get(&query(balance)).filter(|figure| !figure.unreadable)?;
        Some((*balance, *figure))
    };
    Ok(Some(balances.iter().filter_map(figure).collect()))
}
