//! Assets, with the facts that events of earlier versions show.

use std::collections::BTreeMap;

use sqlx::FromRow;

use super::{
    Conn, StoreError, on,
    rows::Table,
    set::{Blobs, Ints, sets},
};
use crate::{
    chain::{AssetKey, ChainName},
    clock::Millis,
    ledger::changes::AssetChange,
    model::{Asset, AssetNo, ChainNo, Listing, Quarantine, QuarantineReason, WalletNo},
};

#[derive(FromRow)]
pub(super) struct RawAsset {
    no: i64,
    #[sqlx(try_from = "String")]
    chain: ChainName,
    #[sqlx(try_from = "Vec<u8>")]
    asset: AssetKey,
    caip19: String,
    symbol: Option<String>,
    name: Option<String>,
    decimals: Option<i64>,
    verified: bool,
    quarantined_at: Option<Millis>,
    quarantined_block: Option<i64>,
    quarantined_reason: Option<String>,
    version: i64,
    listed_below: Option<i64>,
    opened_to: Option<i64>,
}

impl RawAsset {
    fn quarantine(&self) -> Result<Option<Quarantine>, StoreError> {
        let reason = self.quarantined_reason.clone();
        let (Some(since), Some(block), Some(reason)) =
            (self.quarantined_at, self.quarantined_block, reason)
        else {
            return Ok(None);
        };
        let block = u64::try_from(block).map_err(StoreError::corrupt)?;
        let reason = QuarantineReason::try_from(reason).map_err(StoreError::corrupt)?;
        Ok(Some(Quarantine { since, block, reason }))
    }
}

impl TryFrom<RawAsset> for Asset {
    type Error = StoreError;

    fn try_from(row: RawAsset) -> Result<Self, StoreError> {
        Ok(Self {
            quarantine: row.quarantine()?,
            no: AssetNo(row.no),
            chain: row.chain,
            key: row.asset,
            caip19: row.caip19,
            symbol: row.symbol,
            name: row.name,
            decimals: row.decimals.and_then(|decimals| u8::try_from(decimals).ok()),
            verified: row.verified,
            version: row.version,
            listing: row.listed_below.zip(row.opened_to).map(|(below, opened_to)| Listing {
                below: WalletNo(below),
                opened_to: WalletNo(opened_to),
            }),
        })
    }
}

fn all(rows: Vec<RawAsset>) -> Result<Vec<Asset>, StoreError> {
    rows.into_iter().map(Asset::try_from).collect()
}

macro_rules! select_asset {
    ($rest:literal) => {
        concat!(
            "SELECT a.no, n.name AS chain, a.asset, a.caip19, a.symbol, a.name, a.decimals, a.verified,
                    a.quarantined_at, a.quarantined_block, a.quarantined_reason, a.version,
                    a.listed_below, a.opened_to
             FROM asset a JOIN chain n ON n.no = a.chain_no ",
            $rest
        )
    };
}

/// Assets of one chain by what they are there, and the native coin.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn by_keys(
    conn: &mut Conn<'_>,
    chain: ChainNo,
    keys: &[AssetKey],
) -> Result<Vec<Asset>, StoreError> {
    let native: &[u8] = AssetKey::Native.as_bytes();
    let keys = keys.iter().map(AssetKey::as_bytes).chain([native]);
    let keys = Blobs::of(keys);
    let sql = sets(conn, select_asset!("WHERE a.chain_no = $1 AND a.asset IN blobs($2)"));
    let rows: Vec<RawAsset> =
        on!(conn, c => sqlx::query_as(sql).bind(chain.0).bind(&keys).fetch_all(c).await)?;
    all(rows)
}

/// Assets by their numbers.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn by_numbers(
    conn: &mut Conn<'_>,
    numbers: &[AssetNo],
) -> Result<BTreeMap<AssetNo, Asset>, StoreError> {
    let numbers = Ints::of(numbers.iter().map(|no| no.0));
    if numbers.is_empty() {
        return Ok(BTreeMap::new());
    }
    let sql = sets(conn, select_asset!("WHERE a.no IN ints($1)"));
    let rows: Vec<RawAsset> =
        on!(conn, c => sqlx::query_as(sql).bind(&numbers).fetch_all(c).await)?;
    Ok(all(rows)?.into_iter().map(|asset| (asset.no, asset)).collect())
}

/// All verified and all quarantined assets, by chain and contract, the native coin first.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn listed(conn: &mut Conn<'_>) -> Result<Vec<Asset>, StoreError> {
    let rows: Vec<RawAsset> = on!(conn, c => sqlx::query_as(select_asset!(
        "WHERE a.verified OR a.quarantined_at IS NOT NULL ORDER BY n.name, a.asset"
    ))
    .fetch_all(c)
    .await)?;
    all(rows)
}

/// The verified and the quarantined assets of one chain.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn listed_on(conn: &mut Conn<'_>, chain: ChainNo) -> Result<Vec<Asset>, StoreError> {
    let rows: Vec<RawAsset> = on!(conn, c => sqlx::query_as(select_asset!(
        "WHERE a.chain_no = $1 AND (a.verified OR a.quarantined_at IS NOT NULL)"
    ))
    .bind(chain.0)
    .fetch_all(c)
    .await)?;
    all(rows)
}

/// Assets as they were in earlier versions, of all that were ever changed among `numbers`.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn past(
    conn: &mut Conn<'_>,
    numbers: &[AssetNo],
) -> Result<BTreeMap<(AssetNo, i64), Asset>, StoreError> {
    let numbers = Ints::of(numbers.iter().map(|no| no.0));
    if numbers.is_empty() {
        return Ok(BTreeMap::new());
    }
    let sql = sets(
        conn,
        "SELECT a.no, n.name AS chain, a.asset, p.caip19, p.symbol, p.name, p.decimals, p.verified,
                p.quarantined_at, p.quarantined_block, p.quarantined_reason, p.version,
                NULL AS listed_below, NULL AS opened_to
         FROM asset_past p JOIN asset a ON a.no = p.asset_no JOIN chain n ON n.no = a.chain_no
         WHERE p.asset_no IN ints($1)",
    );
    let rows: Vec<RawAsset> =
        on!(conn, c => sqlx::query_as(sql).bind(&numbers).fetch_all(c).await)?;
    Ok(all(rows)?.into_iter().map(|asset| ((asset.no, asset.version), asset)).collect())
}

static ASSET: Table = Table::new(
    "asset",
    &[
        "no",
        "chain_no",
        "asset",
        "caip19",
        "symbol",
        "name",
        "decimals",
        "verified",
        "version",
        "listed_below",
        "opened_to",
        "created_at",
        "updated_at",
    ],
);

/// Writes new assets, and what changed of known ones; what they were is kept for old events.
///
/// # Errors
/// [`StoreError::Constraint`] if an asset that is new to the caller is known.
pub async fn write(
    conn: &mut Conn<'_>,
    chain: ChainNo,
    changes: &[AssetChange],
    now: Millis,
) -> Result<(), StoreError> {
    let new: Vec<&Asset> = changes
        .iter()
        .filter_map(|change| match change {
            AssetChange::New(asset) => Some(asset),
            AssetChange::Changed { .. } | AssetChange::Opened(_) => None,
        })
        .collect();
    ASSET
        .write(conn, &new, |row, asset| {
            row.push(asset.no.0)?;
            row.push(chain.0)?;
            row.push(asset.key.as_bytes())?;
            row.push(&asset.caip19)?;
            row.push(&asset.symbol)?;
            row.push(&asset.name)?;
            row.push(asset.decimals.map(i64::from))?;
            row.push(asset.verified)?;
            row.push(asset.version)?;
            row.push(asset.listing.map(|at| at.below.0))?;
            row.push(asset.listing.map(|at| at.opened_to.0))?;
            row.push(now)?;
            row.push(now)
        })
        .await?;
    for change in changes {
        match change {
            AssetChange::New(_) => {}
            AssetChange::Changed { before, after } => {
                change_one(conn, before, after, now).await?;
                set_listing(conn, after).await?;
            }
            AssetChange::Opened(after) => set_listing(conn, after).await?,
        }
    }
    Ok(())
}

async fn set_listing(conn: &mut Conn<'_>, asset: &Asset) -> Result<(), StoreError> {
    on!(conn, c => sqlx::query("UPDATE asset SET listed_below = $2, opened_to = $3 WHERE no = $1")
        .bind(asset.no.0)
        .bind(asset.listing.map(|at| at.below.0))
        .bind(asset.listing.map(|at| at.opened_to.0))
        .execute(c)
        .await
        .map(|_| ()))?;
    Ok(())
}

async fn change_one(
    conn: &mut Conn<'_>,
    before: &Asset,
    after: &Asset,
    now: Millis,
) -> Result<(), StoreError> {
    on!(conn, c => sqlx::query(
        "INSERT INTO asset_past (asset_no, version, caip19, symbol, name, decimals, verified,
                                 quarantined_at, quarantined_block, quarantined_reason)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
    )
    .bind(before.no.0)
    .bind(before.version)
    .bind(&before.caip19)
    .bind(&before.symbol)
    .bind(&before.name)
    .bind(before.decimals.map(i64::from))
    .bind(before.verified)
    .bind(before.quarantine.map(|quarantine| quarantine.since))
    .bind(before.quarantine.map(|quarantine| quarantine.block.cast_signed()))
    .bind(before.quarantine.map(|quarantine| quarantine.reason.as_str()))
    .execute(c)
    .await
    .map(|_| ()))?;
    let changed = on!(conn, c => sqlx::query(
        "UPDATE asset SET caip19 = $2, symbol = $3, name = $4, decimals = $5, verified = $6, version = $7,
                          updated_at = $8, quarantined_at = $10, quarantined_block = $11,
                          quarantined_reason = $12
         WHERE no = $1 AND version = $9",
    )
    .bind(after.no.0)
    .bind(&after.caip19)
    .bind(&after.symbol)
    .bind(&after.name)
    .bind(after.decimals.map(i64::from))
    .bind(after.verified)
    .bind(after.version)
    .bind(now)
    .bind(before.version)
    .bind(after.quarantine.map(|quarantine| quarantine.since))
    .bind(after.quarantine.map(|quarantine| quarantine.block.cast_signed()))
    .bind(after.quarantine.map(|quarantine| quarantine.reason.as_str()))
    .execute(c)
    .await
    .map(|done| done.rows_affected()))?;
    if changed == 1 {
        Ok(())
    } else {
        Err(StoreError::Stale(format!("the asset {} changed meanwhile", after.caip19)))
    }
}
