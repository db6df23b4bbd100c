//! Between two blocks: watches open and close, assets begin to count, deployments are examined.

use std::collections::HashMap;

use super::{Follower, TurnError};
use crate::{
    chain::{Address, AssetKey, BalanceQuery, BlockRef, ChainBalance, SourceError},
    ledger::opening::{Opening, OpeningBalance},
    model::{Asset, AssetNo, Cursor, WalletRef, Watch, WatchStatus},
    store::{asset as asset_store, watch as watch_store},
};

/// Watches opened by one commit; with their assets, this bounds one round of reads.
const OPEN_AT_ONCE: i64 = 500;

impl Follower {
    /// Looks at every request in the store. Called with the cursor that is in the store.
    pub(super) async fn registrations(&mut self, cursor: &Cursor) -> Result<(), TurnError> {
        let cursor = self.open_watches(cursor).await?;
        self.examine_deployments(&cursor).await
    }

    async fn open_watches(&mut self, cursor: &Cursor) -> Result<Cursor, TurnError> {
        let mut cursor = cursor.clone();
        loop {
            let (no, family) = (cursor.no, self.config.family);
            let mut session = self.committer.db.read().await?;
            let conn = &mut session.conn();
            let (requested, closing) = (WatchStatus::Requested, WatchStatus::Closing);
            let wanted = watch_store::to_do(conn, no, family, requested, OPEN_AT_ONCE).await?;
            let closing = watch_store::to_do(conn, no, family, closing, OPEN_AT_ONCE).await?;
            let closing: Vec<Watch> = closing.into_iter().map(|(watch, _)| watch).collect();
            drop(session);
            if wanted.is_empty() && closing.is_empty() {
                return Ok(cursor);
            }
            let openings = match self.openings(&cursor, &wanted, &self.config.assets()).await? {
                Some(openings) => openings,
                None if closing.is_empty() => return Ok(cursor),
                None => Vec::new(),
            };
            let committed = self.committer.open(&cursor, &openings, &closing).await?;
            self.committed(&committed);
            cursor = committed.cursor.clone();
            if !committed.opened.is_empty() {
                self.backfill.look_again();
            }
            if !committed.closed.is_empty() {
                self.backfill.reload();
            }
            self.forget(&committed).await?;
            if !openings.is_empty() {
                tracing::info!(
                    chain = %self.config.name,
                    watches = committed.opened.len(),
                    block.number = cursor.head.at.number,
                    "watches opened"
                );
            }
            let full = |count: usize| i64::try_from(count).is_ok_and(|count| count >= OPEN_AT_ONCE);
            if !full(openings.len()) && !full(closing.len()) {
                return Ok(cursor);
            }
        }
    }

    /// The balances with which watches begin at the cursor's head; `None` if the node no longer (or not
    /// yet) has the state after that block: they wait for a later one.
    async fn openings(
        &self,
        cursor: &Cursor,
        watches: &[(Watch, WalletRef)],
        assets: &[AssetKey],
    ) -> Result<Option<Vec<Opening>>, TurnError> {
        let mut addresses: Vec<Address> = watches.iter().map(|(watch, _)| watch.address).collect();
        addresses.sort_unstable();
        addresses.dedup();
        let queries: Vec<BalanceQuery> = addresses
            .iter()
            .flat_map(|&address| assets.iter().map(move |&asset| BalanceQuery { address, asset }))
            .collect();
        let Some(totals) = self.state(cursor.head.at, &queries).await? else {
            tracing::debug!(
                chain = %self.config.name,
                block.number = cursor.head.at.number,
                "the node has no state for this block: registrations wait"
            );
            return Ok(None);
        };
        // What was there at the settled block already cannot vanish with a reorg.
        let held: Vec<(BalanceQuery, ChainBalance)> = queries
            .into_iter()
            .zip(totals)
            .filter(|(_, holding)| !holding.total.is_zero())
            .collect();
        let held_queries: Vec<BalanceQuery> = held.iter().map(|(query, _)| *query).collect();
        let settled = if cursor.settled.at == cursor.head.at {
            Some(held.iter().map(|(_, holding)| *holding).collect())
        } else {
            self.state(cursor.settled.at, &held_queries).await?
        };
        let settled = settled.unwrap_or_else(|| vec![ChainBalance::default(); held.len()]);
        let mut balances: HashMap<Address, Vec<OpeningBalance>> = HashMap::new();
        for ((query, ChainBalance { total, frozen, .. }), settled) in held.into_iter().zip(settled)
        {
            let balance =
                OpeningBalance { asset: query.asset, total, frozen, settled: settled.total };
            balances.entry(query.address).or_default().push(balance);
        }
        let opening = |(watch, shown): &(Watch, WalletRef)| Opening {
            watch: watch.clone(),
            shown: shown.clone(),
            balances: balances.get(&watch.address).cloned().unwrap_or_default(),
        };
        Ok(Some(watches.iter().map(opening).collect()))
    }

    /// What is held after that block; `None` if the node does not have that state.
    pub(super) async fn state(
        &self,
        at: BlockRef,
        queries: &[BalanceQuery],
    ) -> Result<Option<Vec<ChainBalance>>, TurnError> {
        if queries.is_empty() {
            return Ok(Some(Vec::new()));
        }
        match self.source.balances_at(at, queries).await {
            Ok(balances) if balances.len() == queries.len() => Ok(Some(balances)),
            Ok(_) => Err(TurnError::Retry("the node left out balances".into())),
            Err(SourceError::NotThere(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Compares what the configuration says of tokens with what the chain says, where it says something.
    async fn check_tokens(&self) -> Result<(), TurnError> {
        let Some(source) = self.source.tokens() else { return Ok(()) };
        for token in &self.config.tokens {
            let Some(facts) = source.token_facts(token.contract).await? else { continue };
            if facts.decimals != token.decimals {
                return Err(TurnError::Retry(format!(
                    "the configuration gives {} {} decimals, the chain says {}: correct it and start again",
                    token.symbol, token.decimals, facts.decimals
                )));
            }
        }
        Ok(())
    }

    /// Makes the configured assets money in the store. One that is new to a chain with open watches begins
    /// with its opening balances, at the cursor's head, like a watch does.
    pub(super) async fn ready_assets(&mut self, cursor: &Cursor) -> Result<Cursor, TurnError> {
        let rows = self.configured_assets();
        self.check_tokens().await?;
        let mut session = self.committer.db.read().await?;
        let conn = &mut session.conn();
        let keys: Vec<AssetKey> = rows.iter().map(|row| row.key).collect();
        let known: HashMap<AssetKey, Asset> = asset_store::by_keys(conn, cursor.no, &keys)
            .await?
            .into_iter()
            .map(|asset| (asset.key, asset))
            .collect();
        let mut news = Vec::new();
        let mut changed = Vec::new();
        for row in rows {
            match known.get(&row.key) {
                Some(known) if known.same_facts(&row) => {}
                Some(known) if known.verified => changed.push(row),
                Some(_) | None => news.push(row),
            }
        }
        let watches = if news.is_empty() {
            Vec::new()
        } else {
            watch_store::all_open(conn, cursor.no, self.config.family).await?
        };
        drop(session);
        let keys: Vec<AssetKey> = news.iter().map(|row| row.key).collect();
        let openings = if watches.is_empty() {
            Vec::new()
        } else {
            self.openings(cursor, &watches, &keys).await?.ok_or_else(|| {
                TurnError::Retry(format!(
                    "new assets are configured, and the node has no state for block {} to begin them \
                     with: use an archive node until the chain has moved on",
                    cursor.head.at.number
                ))
            })?
        };
        news.extend(changed);
        Ok(self.committer.verify_assets(cursor, &news, &openings).await?)
    }

    /// What the configuration says of the chain's assets. They have no numbers yet.
    fn configured_assets(&self) -> Vec<Asset> {
        let info = self.committer.chain();
        let asset = |key: AssetKey, symbol: &str, name: &str, decimals: u8| Asset {
            no: AssetNo::default(),
            chain: info.name.clone(),
            key,
            caip19: info.caip19(&key),
            symbol: Some(symbol.to_owned()),
            name: Some(name.to_owned()),
            decimals: Some(decimals),
            verified: true,
            version: 0,
        };
        let native = &self.config.native;
        let native = asset(AssetKey::Native, &native.symbol, &native.name, native.decimals);
        let tokens = self.config.tokens.iter().map(|token| {
            asset(AssetKey::Token(token.contract), &token.symbol, &token.name, token.decimals)
        });
        std::iter::once(native).chain(tokens).collect()
    }
}
