//! Between two blocks: watches open and close, assets begin to count, deployments are examined.

use std::{collections::HashMap, time::Instant};

use super::{
    Follower, Turn, TurnError,
    pace::{Pace, Patience},
};
use crate::{
    chain::{Address, AssetKey, BalanceQuery, BlockRef, Certainty, ChainBalance, SourceError},
    ledger::opening::{AssetPage, Opening, OpeningBalance},
    model::{Asset, AssetNo, Cursor, Listing, WalletNo, WalletRef, Watch, WatchStatus},
    store::{asset as asset_store, asset_opening, watch as watch_store},
};

/// Watches looked at in one go; with their assets, this bounds one round of reads.
const PAGE: i64 = 500;

/// How watches and assets are opened: in pages between two blocks, each at the head as it is then.
#[derive(Debug, Default)]
pub(super) struct Opener {
    pace: Pace,
    /// Watches whose balances no node tells; the others do not wait for them.
    waiting: Patience<WalletNo>,
    /// Whether assets are left that do not count for all wallets yet.
    assets_open: bool,
    /// The wallets behind which the next pages begin. PostgreSQL keeps the places of what was opened and closed for a
    /// while: to pass them all for each page would be quadratic. Who comes before has its turn in the next round.
    opened: WalletNo,
    closed: WalletNo,
}

impl Opener {
    #[cfg(test)]
    pub fn pages_of(&mut self, size: usize) {
        self.pace.set_size(size);
    }

    /// Nothing rests any more; what waits alone waits on, unless `all`.
    #[cfg(test)]
    pub fn at_once(&mut self, all: bool) {
        self.pace = Pace::default();
        if all {
            self.waiting = Patience::default();
        }
    }

    /// Assets and watches may have to be opened (again).
    pub fn look_again(&mut self) {
        self.assets_open = true;
        (self.opened, self.closed) = (WalletNo(0), WalletNo(0));
    }
}

/// What reading a page of openings came to.
enum Read {
    Openings(Vec<Opening>),
    /// The node does not have the head's state (yet, or any more): the next block's may be there.
    NoState,
    /// It failed, and was told.
    Failed,
}

impl Follower {
    /// Looks at the requests in the store. Called with the cursor that is in the store. [`Turn::More`] if there is
    /// more to do at once.
    pub(super) async fn registrations(&mut self, cursor: &Cursor) -> Result<Turn, TurnError> {
        let watches = self.open_watches(cursor).await?;
        let cursor = self.current()?;
        let assets = self.open_assets(&cursor).await?;
        let cursor = self.current()?;
        self.examine_deployments(&cursor).await?;
        Ok(if watches == Turn::More || assets == Turn::More { Turn::More } else { Turn::Idle })
    }

    /// Opens one page of watches and closes those that were asked to close.
    async fn open_watches(&mut self, cursor: &Cursor) -> Result<Turn, TurnError> {
        let (no, family) = (cursor.no, self.config.family);
        let mut session = self.committer.db.read().await?;
        let conn = &mut session.conn();
        let closed = self.opener.closed;
        let closing =
            watch_store::to_do(conn, no, family, WatchStatus::Closing, closed, PAGE).await?;
        let closing: Vec<Watch> = closing.into_iter().map(|(watch, _)| watch).collect();
        let now = Instant::now();
        let mut wanted = Vec::new();
        let mut left = false;
        let begun = self.opener.opened;
        let mut after = begun;
        while wanted.is_empty() && !self.opener.pace.rests(Instant::now()) {
            let requested = WatchStatus::Requested;
            let page = watch_store::to_do(conn, no, family, requested, after, PAGE).await?;
            let Some((last, _)) = page.last() else { break };
            after = last.wallet;
            let full = page.len() >= usize::try_from(PAGE).unwrap_or(usize::MAX);
            wanted.extend(
                page.into_iter()
                    .filter(|(watch, _)| !self.opener.waiting.waits(&watch.wallet, now)),
            );
            left = full || wanted.len() > self.opener.pace.size();
            wanted.truncate(self.opener.pace.size());
            if !full {
                break;
            }
        }
        drop(session);
        if wanted.is_empty() && closing.is_empty() {
            (self.opener.opened, self.opener.closed) = (WalletNo(0), WalletNo(0));
            return Ok(if begun.max(closed) > WalletNo(0) { Turn::More } else { Turn::Idle });
        }
        let assets = self.counting();
        let openings = match self.paced(cursor, &wanted, &assets).await? {
            Read::Openings(openings) => openings,
            Read::NoState => Vec::new(),
            Read::Failed => {
                if let [(watch, _)] = wanted.as_slice() {
                    self.opener.waiting.failed(watch.wallet, Instant::now());
                }
                left = true;
                Vec::new()
            }
        };
        if openings.is_empty() && closing.is_empty() {
            return Ok(if left && !self.opener.pace.rests(Instant::now()) {
                Turn::More
            } else {
                Turn::Idle
            });
        }
        self.expect(&openings, &closing);
        let committed = self.committer.open(cursor, &openings, &closing).await?;
        self.committed(&committed);
        // At the end it begins anew, with those that have come meanwhile.
        let again = begun > WalletNo(0) && !left;
        self.opener.opened = match openings.last() {
            Some(last) if left => last.watch.wallet,
            Some(_) => WalletNo(0),
            None => begun,
        };
        self.opener.closed = closing.last().map_or(WalletNo(0), |watch| watch.wallet);
        if !committed.opened.is_empty() {
            self.backfill.look_again();
        }
        if !committed.closed.is_empty() {
            self.backfill.reload();
        }
        self.forget().await?;
        if !openings.is_empty() {
            tracing::info!(
                chain = %self.config.name,
                watches = committed.opened.len(),
                block.number = cursor.head.at.number,
                "watches opened"
            );
        }
        let closing_left = i64::try_from(closing.len()).is_ok_and(|count| count >= PAGE);
        let more = closing_left || again || (left && !openings.is_empty());
        Ok(if more { Turn::More } else { Turn::Idle })
    }

    /// Lets assets that were listed on a running chain count for one more page of wallets.
    async fn open_assets(&mut self, cursor: &Cursor) -> Result<Turn, TurnError> {
        if !self.opener.assets_open || self.opener.pace.rests(Instant::now()) {
            return Ok(Turn::Idle);
        }
        let mut session = self.committer.db.read().await?;
        let conn = &mut session.conn();
        let unopened: Vec<AssetNo> = asset_opening::unopened(conn, cursor.no).await?;
        let mut assets: Vec<Asset> =
            asset_store::by_numbers(conn, &unopened).await?.into_values().collect();
        // Those that are opened least far go first, together.
        let Some(listing) =
            assets.iter().filter_map(|asset| asset.listing).min_by_key(|on| on.opened_to)
        else {
            self.opener.assets_open = false;
            return Ok(Turn::Idle);
        };
        assets.retain(|asset| asset.listing == Some(listing));
        let limit = i64::try_from(self.opener.pace.size()).unwrap_or(PAGE);
        let Listing { below, opened_to } = listing;
        let family = self.config.family;
        let watches =
            watch_store::open_between(conn, cursor.no, family, opened_to, below, limit).await?;
        drop(session);
        let full = i64::try_from(watches.len()).is_ok_and(|count| count >= limit);
        let to = match watches.last() {
            Some((last, _)) if full => last.wallet,
            _ => below,
        };
        let keys: Vec<AssetKey> = assets.iter().map(|asset| asset.key).collect();
        let openings = match self.paced(cursor, &watches, &keys).await? {
            Read::Openings(openings) => openings,
            Read::NoState => return Ok(Turn::Idle),
            Read::Failed if watches.len() > 1 => return Ok(Turn::More),
            // One wallet must not hold the others: what it has is found by the comparison later. But a node that
            // answers for nobody is waited for.
            Read::Failed => {
                let alone = watches.first().map_or(opened_to, |(watch, _)| watch.wallet);
                if !self.answers_for_another(cursor, alone, below, &keys).await? {
                    return Ok(Turn::Idle);
                }
                Vec::new()
            }
        };
        let page = AssetPage { assets: &assets, to, openings: &openings };
        let committed = self.committer.open_assets(cursor, page).await?;
        self.committed(&committed);
        if to == below {
            let listed = assets.iter().filter_map(|asset| asset.symbol.as_deref());
            tracing::info!(
                chain = %self.config.name,
                assets = listed.collect::<Vec<_>>().join(", "),
                "counts for all wallets from now on"
            );
        }
        Ok(Turn::More)
    }

    /// Whether the nodes tell what a wallet other than `than` has of assets, of those up to `upto`.
    async fn answers_for_another(
        &self,
        cursor: &Cursor,
        than: WalletNo,
        upto: WalletNo,
        assets: &[AssetKey],
    ) -> Result<bool, TurnError> {
        let (no, family) = (cursor.no, self.config.family);
        let mut session = self.committer.db.read().await?;
        let conn = &mut session.conn();
        let mut others = watch_store::open_between(conn, no, family, than, upto, 1).await?;
        others.extend(watch_store::open_between(conn, no, family, WalletNo(0), upto, 3).await?);
        drop(session);
        others.retain(|(watch, _)| watch.wallet != than);
        for other in others {
            match self.openings(cursor, &[other], assets).await {
                Ok(Some(_)) => return Ok(true),
                Ok(None) | Err(TurnError::Source(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    }

    /// Reads a page of openings, and finds out how large the next one may be.
    async fn paced(
        &mut self,
        cursor: &Cursor,
        watches: &[(Watch, WalletRef)],
        assets: &[AssetKey],
    ) -> Result<Read, TurnError> {
        if watches.is_empty() {
            return Ok(Read::Openings(Vec::new()));
        }
        let started = Instant::now();
        match self.openings(cursor, watches, assets).await {
            Ok(Some(openings)) => {
                self.opener.pace.took(started.elapsed());
                Ok(Read::Openings(openings))
            }
            Ok(None) => Ok(Read::NoState),
            Err(TurnError::Source(error)) => {
                // A page is halved until the one is found that the node does not answer for.
                if self.opener.pace.failed(watches.len(), Instant::now()) {
                    tracing::warn!(
                        chain = %self.config.name,
                        error = %error,
                        wallet = %watches[0].0.wallet_id,
                        "the balances of a wallet cannot be read: it waits, and the others do not"
                    );
                }
                Ok(Read::Failed)
            }
            Err(error) => Err(error),
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
        let mut held: Vec<(BalanceQuery, ChainBalance)> = queries
            .into_iter()
            .zip(totals)
            .filter(|(_, holding)| !holding.total.is_zero())
            .collect();
        self.make_sure(cursor.head.at, &mut held).await?;
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

    /// Asks for certainty about what addresses hold: an opening is money that no block shows. One node's word
    /// counts where there is no other.
    async fn make_sure(
        &self,
        at: BlockRef,
        held: &mut Vec<(BalanceQuery, ChainBalance)>,
    ) -> Result<(), TurnError> {
        if held.is_empty() {
            return Ok(());
        }
        let queries: Vec<BalanceQuery> = held.iter().map(|(query, _)| *query).collect();
        let sure = match self.source.balances_for_sure(at, &queries).await {
            Ok(sure) if sure.len() == queries.len() => sure,
            Ok(_) | Err(SourceError::NotThere(_)) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        for ((_, told), (figure, certainty)) in held.iter_mut().zip(sure) {
            if certainty == Certainty::Disputed {
                let detail = "the endpoints tell differently of what an address holds".to_owned();
                return Err(SourceError::Unavailable { detail, retry_after: None }.into());
            }
            if certainty >= Certainty::Agreed {
                *told = figure;
            }
        }
        held.retain(|(_, holding)| !holding.total.is_zero());
        Ok(())
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

    /// Makes the configured assets money in the store. One that is new to a chain with open watches begins to count
    /// for them in pages, each with opening balances, like watches do.
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
        let below = asset_opening::newest_wallet(conn).await?;
        // What the configuration no longer has is money no longer; what was booked of it stays.
        let listed = asset_store::listed_on(conn, cursor.no).await?.into_iter();
        let removed = listed.filter(|asset| asset.verified && !keys.contains(&asset.key));
        let removed = removed.map(|asset| Asset { verified: false, listing: None, ..asset });
        let removed: Vec<Asset> = removed.collect();
        drop(session);
        let listing =
            (!self.watchlist.is_empty()).then_some(Listing { below, opened_to: WalletNo(0) });
        let news = |row: Asset| match known.get(&row.key) {
            Some(known) if known.quarantine.is_some() || known.same_facts(&row) => None,
            Some(known) if known.verified => Some(Asset { listing: known.listing, ..row }),
            Some(_) | None => Some(Asset { listing, ..row }),
        };
        let news: Vec<Asset> = rows.into_iter().filter_map(news).chain(removed).collect();
        if news.is_empty() {
            return Ok(cursor.clone());
        }
        Ok(self.committer.list_assets(cursor, &news).await?.cursor)
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
            quarantine: None,
            version: 0,
            listing: None,
        };
        let native = &self.config.native;
        let native = asset(AssetKey::Native, &native.symbol, &native.name, native.decimals);
        let tokens = self.config.tokens.iter().map(|token| {
            asset(AssetKey::Token(token.contract), &token.symbol, &token.name, token.decimals)
        });
        std::iter::once(native).chain(tokens).collect()
    }
}
