//! `GET /v1/wallets/{locator}/balances?at=`: what was held at a past block, from the transfers themselves.
//!
//! All of it is read in one snapshot. A history is walked from its nearer end, so what is close to the newest block or
//! to the beginning takes one index range of a few rows, and no request reads more than [`MOST`] from either.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    App,
    asset::AssetIndex,
    balance::{self, AsOfView, BalancesView, Choice, NotCoveredView, block_view},
    error::{Code, CoveredView, Problem},
    locator::Locator,
    request::Fields,
};
use crate::{
    amount::Amount,
    chain::{AssetKey, ChainName, Family, Kind},
    clock::Millis,
    id::TenantId,
    ledger::{
        changes::AssetOpening,
        past::{Coverage, Moment, Walk, Way, Weight},
    },
    model::{
        Asset, AssetNo, BlockPoint, Cursor, Position, Transfer, Wallet, WalletChain, WalletNo,
        WatchStatus,
    },
    store::{
        Conn, StoreError, asset_opening, balance as balance_store, chain, history::past, transfer,
    },
    view::PointView,
};

/// Transfers that a request reads from one end of a history.
#[cfg(not(test))]
pub(super) const MOST: i64 = 50_000;
#[cfg(test)]
pub(super) const MOST: i64 = 1_000;
/// Of them in the first part, and in one part: each is twice as large as the one before.
const FIRST_PART: i64 = 500;
const LARGEST_PART: i64 = 8_000;

/// What `at` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum At {
    Block(u64),
    Time(Millis),
}

impl At {
    /// # Errors
    /// 400 if it is neither.
    pub fn read(text: &str) -> Result<Self, Problem> {
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            let number = text.parse().ok().filter(|number| i64::try_from(*number).is_ok());
            return number.map(Self::Block).ok_or_else(|| {
                let message = "must be the number of a block that a chain can have";
                Problem::field(Code::InvalidRequest, "at", message)
            });
        }
        let time = Fields::default().time("at", Some(text)).map(Self::Time);
        time.ok_or_else(|| {
            let message = "must be the number of a block, or a time such as 2026-01-15T09:30:00Z";
            Problem::field(Code::InvalidRequest, "at", message)
        })
    }
}

/// A chain on which the wallet is watched, and from where on its balances are known.
pub(super) struct Watched {
    pub on: WalletChain,
    pub cursor: Cursor,
    tokens: Coverage,
    coin: Coverage,
}

impl Watched {
    /// The chains of a wallet whose watch has begun.
    pub fn of(wallet: &Wallet, cursors: &[Cursor]) -> Vec<Self> {
        let open = wallet.chains.iter().filter(|on| on.status == WatchStatus::Open);
        open.filter_map(|on| {
            Some(Self {
                on: on.clone(),
                cursor: cursors.iter().find(|cursor| cursor.chain == on.chain)?.clone(),
                tokens: Coverage::of_chain(on, false)?,
                coin: Coverage::of_chain(on, true)?,
            })
        })
        .collect()
    }

    /// From where on an asset's balance is known; `None` while it is not.
    pub fn coverage(
        &self,
        asset: &Asset,
        wallet: WalletNo,
        listed: &[AssetOpening],
    ) -> Option<Coverage> {
        let chain = if asset.key == AssetKey::Native { self.coin } else { self.tokens };
        chain.of_asset(asset, wallet, listed)
    }

    /// Where the time of its first block is not known, that of its first transfer will do.
    async fn look_for_time(
        &mut self,
        conn: &mut Conn<'_>,
        wallet: WalletNo,
        openings: &[Transfer],
    ) -> Result<(), StoreError> {
        let span = past::span(conn, wallet, Way::Up, None, FIRST_PART).await?;
        let weights = past::weights(conn, wallet, span).await?;
        let own = weights.iter().filter(|weight| {
            weight.asset.chain() == self.cursor.no && weight.block >= self.tokens.from
        });
        let openings = openings
            .iter()
            .filter(|row| row.no.chain() == self.cursor.no && row.block.number >= self.tokens.from);
        let times = own.map(|weight| weight.time).chain(openings.map(|row| row.block_time));
        if let Some(first) = times.min() {
            if self.coin.from == self.tokens.from {
                self.coin = self.coin.seen(first);
            }
            self.tokens = self.tokens.seen(first);
        }
        Ok(())
    }

    fn covered(&self, asset: Option<&Asset>, coverage: Option<Coverage>) -> CoveredView {
        CoveredView {
            chain: self.on.chain.to_string(),
            asset: asset.map(|asset| asset.caip19.clone()),
            from: coverage.map(from_view),
            to: point_view(self.cursor.family, &self.cursor.head),
        }
    }

    /// Whether the moment lies between where balances are known and the newest block. More blocks can share its time.
    fn holds(&self, moment: Moment) -> bool {
        let head = self.cursor.head;
        let is_ahead = match moment {
            Moment::Block(_, number) => number > head.at.number,
            Moment::Time(time) => time >= head.time,
        };
        !is_ahead && self.tokens.covers(moment)
    }
}

fn point_view(family: Family, point: &BlockPoint) -> PointView {
    PointView {
        number: Some(point.at.number),
        hash: Some(family.format_block_hash(&point.at.hash)),
        time: Some(point.time),
    }
}

pub(super) fn from_view(coverage: Coverage) -> PointView {
    PointView { number: Some(coverage.from), hash: None, time: coverage.since }
}

/// 409: a balance is asked for where it is not known.
pub(super) fn not_covered(covered: Vec<CoveredView>) -> Problem {
    let says = |view: &CoveredView| {
        let point = |point: &PointView| {
            let number = point.number.unwrap_or_default();
            match point.time {
                Some(time) => format!("block {number} ({time})"),
                None => format!("block {number} (whose time is not known: ask for a block)"),
            }
        };
        let what = view.asset.as_ref().unwrap_or(&view.chain);
        match &view.from {
            Some(from) => format!("{what}: from {} to {}", point(from), point(&view.to)),
            None => format!("{what}: not yet"),
        }
    };
    let texts: Vec<String> = covered.iter().map(says).collect();
    let detail = if texts.is_empty() {
        "No watch of the wallet has begun there yet: wait until its status is active.".to_owned()
    } else {
        format!(
            "The balances are not known there. They are for {}. Ask for a block or a time in between, or leave \
             'at' out for the newest block.",
            texts.join("; ")
        )
    };
    Problem { covered, ..Problem::new(Code::NotCovered, detail) }
}

pub(super) fn too_long() -> Problem {
    Problem::new(
        Code::HistoryTooLong,
        format!(
            "More than {MOST} transfers lie between this block and each end of the wallet's history. Ask for a \
             block nearer to one of them, or add up the pages of …/balances/{{asset}}/explain."
        ),
    )
}

/// A request for past balances.
pub(super) struct Query<'a> {
    pub app: &'a App,
    pub locator: Locator,
    pub index: &'a AssetIndex,
    pub choice: Choice<'a>,
    pub at: At,
}

/// What a snapshot says of a wallet's past.
struct Past {
    wallet: Wallet,
    watched: Vec<Watched>,
    moment: Moment,
    /// Where assets began to count later.
    listed: Vec<AssetOpening>,
    positions: BTreeMap<AssetNo, Position>,
    /// The block that is asked for, where it is remembered.
    block: Option<BlockPoint>,
}

impl Query<'_> {
    /// # Errors
    /// 400 or 409 that says what can be asked for.
    pub async fn answer(&self, tenant: TenantId) -> Result<BalancesView, Problem> {
        let reads = &self.app.reads;
        let past = reads.snapshot(|mut tx| async move { self.past(&mut tx.conn(), tenant).await });
        self.view(&past.await?)
    }

    /// The chains that are asked for.
    fn watched(&self, wallet: &Wallet, cursors: &[Cursor]) -> Vec<Watched> {
        let mut watched = Watched::of(wallet, cursors);
        let named = self.choice.assets.as_ref();
        watched.retain(|Watched { on, .. }| {
            let has_named = |named: &BTreeSet<(&ChainName, AssetKey)>| {
                named.iter().any(|(chain, _)| **chain == on.chain)
            };
            self.choice.has_chain(&on.chain) && named.is_none_or(has_named)
        });
        watched
    }

    fn moment(&self, watched: &[Watched]) -> Result<Moment, Problem> {
        match (self.at, watched) {
            (At::Time(time), _) => Ok(Moment::Time(time)),
            (At::Block(number), [one]) => Ok(Moment::Block(one.cursor.no, number)),
            (At::Block(_), []) => Err(not_covered(Vec::new())),
            (At::Block(_), several) => {
                let names: Vec<&str> = several.iter().map(|one| one.on.chain.as_str()).collect();
                let message = format!(
                    "is the number of a block, and the wallet is watched on {}: name one of them with 'chains'",
                    names.join(", ")
                );
                Err(Problem::field(Code::InvalidRequest, "at", message))
            }
        }
    }

    async fn past(&self, conn: &mut Conn<'_>, tenant: TenantId) -> Result<Past, Problem> {
        let wallet = self.locator.resolve(conn, tenant).await?;
        let cursors = chain::cursors(conn).await?;
        let mut watched = self.watched(&wallet, &cursors);
        let moment = self.moment(&watched)?;
        let mut openings = Vec::new();
        for one in &watched {
            openings.extend(transfer::openings(conn, one.cursor.no, &[wallet.no]).await?);
        }
        for one in &mut watched {
            if matches!(moment, Moment::Time(_)) && !one.tokens.covers(moment) {
                one.look_for_time(conn, wallet.no, &openings).await?;
            }
        }
        let outside = watched.iter().filter(|one| !one.holds(moment));
        let outside: Vec<CoveredView> =
            outside.map(|one| one.covered(None, Some(one.tokens))).collect();
        if !outside.is_empty() {
            return Err(not_covered(outside));
        }
        let positions = positions(conn, wallet.no, moment, &watched, &openings).await?;
        let listed = asset_opening::of_wallet(conn, wallet.no).await?;
        let block = match moment {
            Moment::Block(chain, number) => chain::block_at_or_below(conn, chain, number)
                .await?
                .filter(|block| block.at.number == number),
            Moment::Time(_) => None,
        };
        Ok(Past { wallet, watched, moment, listed, positions, block })
    }

    fn view(&self, past: &Past) -> Result<BalancesView, Problem> {
        let Past { wallet, watched, .. } = past;
        let (mut balances, mut as_of, mut unknown) = (Vec::new(), Vec::new(), Vec::new());
        let mut refused = Vec::new();
        for one in watched {
            for (asset, is_named) in self.assets(past, one) {
                let coverage = one.coverage(asset, wallet.no, &past.listed);
                let position = past.positions.get(&asset.no).copied().unwrap_or_default();
                if coverage.is_some_and(|coverage| coverage.covers(past.moment)) {
                    if is_named || position != Position::default() {
                        balances.push(balance::view(asset, position, Amount::ZERO, None)?);
                    }
                } else if is_named {
                    refused.push(one.covered(Some(asset), coverage));
                } else {
                    unknown.push(NotCoveredView {
                        chain: asset.chain.to_string(),
                        asset: asset.into(),
                        from: coverage.map(from_view),
                    });
                }
            }
            as_of.push(self.as_of(one, past));
        }
        if !refused.is_empty() {
            return Err(not_covered(refused));
        }
        Ok(BalancesView {
            wallet_id: wallet.id,
            address: wallet.family.format_address(&wallet.address),
            balances,
            total_usd: None,
            as_of,
            not_covered: unknown,
        })
    }

    /// The assets of a chain that are asked for, by contract; whether each was named.
    fn assets<'q>(&'q self, past: &Past, one: &Watched) -> Vec<(&'q Asset, bool)> {
        let chain = &one.on.chain;
        if let Some(named) = &self.choice.assets {
            let own = named.iter().filter(|(of, _)| *of == chain);
            return own.filter_map(|(_, key)| Some((self.index.get(chain, key)?, true))).collect();
        }
        let held =
            self.index.of_chain(chain).filter(|asset| past.positions.contains_key(&asset.no));
        held.map(|asset| (asset, false)).collect()
    }

    fn as_of(&self, one: &Watched, past: &Past) -> AsOfView {
        let Cursor { family, head, settled, .. } = &one.cursor;
        let at = match (past.moment, &past.block) {
            (Moment::Block(..), Some(block)) => point_view(*family, block),
            (Moment::Block(_, number), None) => {
                PointView { number: Some(number), ..PointView::default() }
            }
            (Moment::Time(time), _) => PointView { time: Some(time), ..PointView::default() },
        };
        AsOfView {
            chain: one.on.chain.to_string(),
            head: block_view(*family, head),
            settled: block_view(*family, settled),
            lag_seconds: self.app.lag_seconds(head.time),
            at: Some(at),
        }
    }
}

/// What a wallet held of each asset that it holds now, or did then.
async fn positions(
    conn: &mut Conn<'_>,
    wallet: WalletNo,
    moment: Moment,
    watched: &[Watched],
    openings: &[Transfer],
) -> Result<BTreeMap<AssetNo, Position>, Problem> {
    let moved = past::moved(conn, wallet, MOST).await?.ok_or_else(too_long)?;
    let moved = moved.iter().filter(|row| row.counted && row.kind != Kind::Opening);
    let moved: Vec<Weight> = moved.map(Weight::from).collect();
    let mut now = Vec::new();
    for one in watched {
        let held = balance_store::of_wallets(conn, one.cursor.no, &[wallet]).await?;
        now.extend(held.into_iter().map(|((_, asset), held)| (asset, held.position)));
    }
    for walk in [Walk::down(moment, now), Walk::up(moment, openings)] {
        if let Some(positions) = walked(conn, wallet, walk, &moved).await? {
            return Ok(positions);
        }
    }
    Err(too_long())
}

/// Walks until the moment is reached; `None` if that is too far.
async fn walked(
    conn: &mut Conn<'_>,
    wallet: WalletNo,
    mut walk: Walk,
    moved: &[Weight],
) -> Result<Option<BTreeMap<AssetNo, Position>>, StoreError> {
    for weight in moved {
        walk.weigh(weight);
    }
    let (mut from, mut rows, mut read) = (None, FIRST_PART, 0);
    while read < MOST {
        let span = past::span(conn, wallet, walk.way(), from, rows).await?;
        walk.pass(&past::weights(conn, wallet, span).await?);
        if walk.is_over() || span.is_end {
            return Ok(Some(walk.positions()));
        }
        from = Some(span.next(walk.way()));
        read += rows;
        rows = (2 * rows).min(LARGEST_PART);
    }
    Ok(None)
}
