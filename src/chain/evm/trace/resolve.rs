//! What a trace says of watched addresses, made into movements that the chain's own balances bear out.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use alloy::primitives::B256;

use super::{Moved, beside};
use crate::{
    amount::Amount,
    chain::{
        Address, AssetKey, BalanceQuery, Beside, Block, BlockRef, Certainty, Kind, Movement,
        Ordinal, Source as _, Traced, Watching,
        evm::{EvmSource, decode::address},
    },
};

/// How long a block waits for it. What is not known by then is found when it settles.
const PATIENCE: Duration = Duration::from_secs(10);

impl EvmSource {
    /// Adds to a block what moved inside its transactions from and to watched addresses. What does not fit together
    /// is left out, as if nobody had traced it.
    pub(in crate::chain::evm) async fn resolve(&self, block: &mut Block, watched: Watching<'_>) {
        if let Traced::Beside(beside) = &block.traced {
            let found = self.movements(block, beside, watched);
            match tokio::time::timeout(PATIENCE, found).await {
                Ok(Some(found)) => {
                    insert(block, found);
                    block.traced = Traced::Whole;
                }
                _ => block.traced = Traced::Not,
            }
        }
    }

    /// The movements, each with the place of its transaction.
    async fn movements(
        &self,
        block: &Block,
        beside: &[Beside],
        watched: Watching<'_>,
    ) -> Option<Vec<(u32, Movement)>> {
        let places: BTreeSet<u32> = beside.iter().map(|beside| beside.tx).collect();
        let mut hashes = Vec::with_capacity(places.len());
        for &place in &places {
            let fact = block.transactions.get(usize::try_from(place).ok()?)?;
            hashes.push((place, fact.tx, B256::try_from(fact.tx.as_slice()).ok()?));
        }
        let asked: Vec<B256> = hashes.iter().map(|(_, _, hash)| *hash).collect();
        let told: Vec<Vec<Moved>> = self.tracer.calls_of(&self.pool, &asked).await?;
        let producer = beside::producer(block);
        let mut found = Vec::new();
        for ((place, tx, _), moved) in hashes.into_iter().zip(told) {
            let of_one: Vec<&Beside> = beside.iter().filter(|one| one.tx == place).collect();
            if !beside::fits(&moved, &of_one, producer) {
                self.tracer.mismatch(block.header.at, "the calls are not what the balances say");
                return None;
            }
            for Moved { path, from, to, wei } in moved {
                let movement = Movement {
                    tx,
                    ordinal: Ordinal::Trace(path),
                    kind: Kind::Internal,
                    asset: AssetKey::Native,
                    from: Some(address(from)),
                    to: Some(address(to)),
                    amount: Amount::new(wei),
                    memo: None,
                };
                if movement.concerns(watched) {
                    found.push((place, movement));
                }
            }
        }
        self.borne_out(block, &found, watched).await.then_some(found)
    }

    /// Whether the chain's balances before and after the block differ by what its movements say, those found
    /// included, for every watched address that these concern.
    async fn borne_out(
        &self,
        block: &Block,
        found: &[(u32, Movement)],
        watched: Watching<'_>,
    ) -> bool {
        let sides = |movement: &Movement| [movement.from, movement.to].into_iter().flatten();
        let addresses: BTreeSet<Address> =
            found.iter().flat_map(|(_, movement)| sides(movement)).filter(watched).collect();
        let queries: Vec<BalanceQuery> = addresses
            .iter()
            .map(|&address| BalanceQuery { address, asset: AssetKey::Native })
            .collect();
        let (after, before) = tokio::join!(
            self.held(block.header.at, &queries),
            self.held(block.header.parent, &queries)
        );
        let (Some(after), Some(before)) = (after, before) else { return false };
        let all = block.movements.iter().chain(found.iter().map(|(_, movement)| movement));
        let mut sums: BTreeMap<Address, (Amount, Amount)> = addresses
            .iter()
            .zip(before.into_iter().zip(after))
            .map(|(&address, (before, after))| (address, (before, after)))
            .collect();
        for movement in all.filter(|movement| movement.asset == AssetKey::Native) {
            for (side, gains) in [(movement.to, true), (movement.from, false)] {
                let Some((before, after)) = side.and_then(|who| sums.get_mut(&who)) else {
                    continue;
                };
                let sum = if gains { before } else { after };
                let Some(more) = sum.checked_add(movement.amount) else { return false };
                *sum = more;
            }
        }
        let fits = sums.values().all(|(before, after)| before == after);
        if !fits {
            self.tracer.mismatch(block.header.at, "the chain's balances say something else");
        }
        fits
    }

    async fn held(&self, at: BlockRef, queries: &[BalanceQuery]) -> Option<Vec<Amount>> {
        let held = self.balances_for_sure(at, queries).await.ok()?;
        let sure = held.len() == queries.len()
            && held.iter().all(|(_, certainty)| *certainty > Certainty::Disputed);
        sure.then(|| held.into_iter().map(|(balance, _)| balance.total).collect())
    }
}

/// Puts movements behind those of their transactions.
fn insert(block: &mut Block, found: Vec<(u32, Movement)>) {
    let places: BTreeMap<_, u32> =
        (0u32..).zip(&block.transactions).map(|(place, fact)| (fact.tx, place)).collect();
    let own = std::mem::take(&mut block.movements).into_iter().map(|movement| {
        // What belongs to no transaction comes last.
        (places.get(&movement.tx).copied().unwrap_or(u32::MAX), movement)
    });
    let mut all: Vec<(u32, Movement)> = own.chain(found).collect();
    all.sort_by_key(|(place, _)| *place);
    block.movements = all.into_iter().map(|(_, movement)| movement).collect();
}
