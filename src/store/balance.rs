//! Balances: what the ledger's steps read and write in sets, and what a user reads of one wallet.

use std::cmp::Reverse;

use sqlx::{AssertSqlSafe, FromRow};

use super::{
    Conn, StoreError, on,
    rows::Table,
    set::{Ints, sets},
    wallet::{BY_CHOICE, MATCHES, WalletFilter, bind_filter},
};
use crate::{
    amount::Amount,
    chain::{Address, BlockHash, BlockRef, ChainName, Family},
    clock::Millis,
    id::{TenantId, WalletId},
    ledger::{
        changes::{BalanceChange, ProofChange},
        known::HashMap,
    },
    model::{AssetNo, Balance, BlockPoint, ChainNo, Position, TenantNo, WalletNo},
};

#[derive(FromRow)]
struct RawBalance {
    wallet_no: i64,
    asset_no: i64,
    settled: Amount,
    incoming: Amount,
    outgoing: Amount,
    early: Amount,
    held: Amount,
    frozen: Amount,
    version: i64,
}

/// All balances of some wallets on a chain.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn of_wallets(
    conn: &mut Conn<'_>,
    chain: ChainNo,
    wallets: &[WalletNo],
) -> Result<HashMap<(WalletNo, AssetNo), Balance>, StoreError> {
    let wallets = Ints::of(wallets.iter().map(|wallet| wallet.0));
    if wallets.is_empty() {
        return Ok(HashMap::default());
    }
    let (first, end) = AssetNo::of_chain(chain);
    let sql = sets(
        conn,
        "SELECT wallet_no, asset_no, settled, incoming, outgoing, early, held, frozen, version FROM balance
         WHERE wallet_no IN ints($1) AND asset_no >= $2 AND asset_no < $3",
    );
    let rows: Vec<RawBalance> = on!(conn, c => sqlx::query_as(sql)
        .bind(&wallets)
        .bind(first.0)
        .bind(end.0)
        .fetch_all(c)
        .await)?;
    let balance = |row: RawBalance| {
        let RawBalance { settled, incoming, outgoing, early, held, frozen, version, .. } = row;
        let position = Position { settled, incoming, outgoing, early };
        let key = (WalletNo(row.wallet_no), AssetNo(row.asset_no));
        (key, Balance { position, held, frozen, version })
    };
    Ok(rows.into_iter().map(balance).collect())
}

/// Balances behind `after`, in the order of the key, whatever chain they belong to: each look is at so many rows and no
/// more.
async fn behind(
    conn: &mut Conn<'_>,
    after: (WalletNo, AssetNo),
    limit: i64,
) -> Result<Vec<RawBalance>, StoreError> {
    Ok(on!(conn, c => sqlx::query_as(
        "SELECT wallet_no, asset_no, settled, incoming, outgoing, early, held, frozen, version FROM balance
         WHERE (wallet_no, asset_no) > ($1, $2) ORDER BY wallet_no, asset_no LIMIT $3 + 0",
    )
    .bind(after.0.0)
    .bind(after.1.0)
    .bind(limit)
    .fetch_all(c)
    .await)?)
}

/// The balances of all chains behind `after`, by wallet and asset, at most `limit`.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn all(
    conn: &mut Conn<'_>,
    after: (WalletNo, AssetNo),
    limit: i64,
) -> Result<Vec<(WalletNo, AssetNo, Position)>, StoreError> {
    let balance = |row: RawBalance| {
        let RawBalance { wallet_no, asset_no, settled, incoming, outgoing, early, .. } = row;
        (WalletNo(wallet_no), AssetNo(asset_no), Position { settled, incoming, outgoing, early })
    };
    Ok(behind(conn, after, limit).await?.into_iter().map(balance).collect())
}

/// Wallets with money on a chain, by number: those among the `limit` balances behind `after`, and the last of these;
/// the beginning once the end is reached.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn holders(
    conn: &mut Conn<'_>,
    chain: ChainNo,
    after: (WalletNo, AssetNo),
    limit: i64,
) -> Result<(Vec<WalletNo>, (WalletNo, AssetNo)), StoreError> {
    let rows = behind(conn, after, limit).await?;
    let full = i64::try_from(rows.len()) == Ok(limit);
    let last = rows.last().filter(|_| full);
    let last = last
        .map_or((WalletNo(0), AssetNo(0)), |row| (WalletNo(row.wallet_no), AssetNo(row.asset_no)));
    let holds = |row: &RawBalance| {
        let sums = [row.settled, row.incoming, row.outgoing];
        AssetNo(row.asset_no).chain() == chain && sums.iter().any(|sum| !sum.is_zero())
    };
    let mut wallets: Vec<WalletNo> =
        rows.iter().filter(|row| holds(row)).map(|row| WalletNo(row.wallet_no)).collect();
    wallets.dedup();
    Ok((wallets, last))
}

/// The tenants who hold some of an asset, or have some on its way. It reads all balances: only for a token that is
/// quarantined.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn tenants_holding(
    conn: &mut Conn<'_>,
    asset: AssetNo,
) -> Result<Vec<TenantNo>, StoreError> {
    let rows: Vec<i64> = on!(conn, c => sqlx::query_scalar(
        "SELECT DISTINCT t.no FROM balance b
         JOIN wallet w ON w.no = b.wallet_no
         JOIN tenant t ON t.id = w.tenant_id
         WHERE b.asset_no = $1 AND (b.settled <> $2 OR b.incoming <> $2)
         ORDER BY t.no",
    )
    .bind(asset.0)
    .bind(Amount::ZERO)
    .fetch_all(c)
    .await)?;
    Ok(rows.into_iter().map(TenantNo).collect())
}

static BALANCE: Table = Table::upsert(
    "balance",
    &[
        "wallet_no",
        "asset_no",
        "settled",
        "incoming",
        "outgoing",
        "early",
        "held",
        "frozen",
        "version",
        "block_number",
        "updated_at",
        "proven_block",
        "proven_figure",
        "proven_at",
    ],
    "ON CONFLICT (wallet_no, asset_no) DO UPDATE
     SET settled = excluded.settled, incoming = excluded.incoming, outgoing = excluded.outgoing,
         early = excluded.early, held = excluded.held, frozen = excluded.frozen, version = excluded.version,
         block_number = excluded.block_number, updated_at = excluded.updated_at,
         proven_block = CASE WHEN excluded.proven_block IS NULL THEN balance.proven_block
                             ELSE NULLIF(excluded.proven_block, -1) END,
         proven_figure = CASE WHEN excluded.proven_block IS NULL THEN balance.proven_figure
                              WHEN excluded.proven_block <> -1 THEN excluded.proven_figure END,
         proven_at = CASE WHEN excluded.proven_block IS NULL THEN balance.proven_at
                          WHEN excluded.proven_block <> -1 THEN excluded.proven_at END
     WHERE balance.version = excluded.version - 1",
);

/// Writes balances, each over the version that it was read with; their versions grow by one.
///
/// # Errors
/// [`StoreError::Stale`] if one of them has another version by now.
pub async fn write(
    conn: &mut Conn<'_>,
    changes: &[BalanceChange],
    now: Millis,
) -> Result<(), StoreError> {
    let written = BALANCE
        .write(conn, changes, |row, change| {
            let Balance { position, held, frozen, version } = change.balance;
            row.push(change.wallet.0)?;
            row.push(change.asset.0)?;
            row.push(position.settled)?;
            row.push(position.incoming)?;
            row.push(position.outgoing)?;
            row.push(position.early)?;
            row.push(held)?;
            row.push(frozen)?;
            row.push(version.saturating_add(1))?;
            row.push(change.block.cast_signed())?;
            row.push(now)?;
            // A row that is new has no proof that could go.
            let (block, figure) = match change.proof {
                ProofChange::Agreed { block, figure } => (Some(block.cast_signed()), Some(figure)),
                ProofChange::Gone if version > 0 => (Some(-1), Some(Amount::ZERO)),
                ProofChange::Gone | ProofChange::Kept => (None, None),
            };
            row.push(block)?;
            row.push(figure)?;
            row.push(block.map(|_| now))
        })
        .await?;
    if usize::try_from(written) != Ok(changes.len()) {
        return Err(StoreError::Stale("a balance changed meanwhile".to_owned()));
    }
    Ok(())
}

/// What the chain's own state said of a balance when it last agreed with the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Agreement {
    /// The settled block that was compared.
    pub block: u64,
    pub figure: Amount,
    pub at: Millis,
}

/// The newest comparison that a balance agreed with; `None` if there was none yet.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn agreement(
    conn: &mut Conn<'_>,
    wallet: WalletNo,
    asset: AssetNo,
) -> Result<Option<Agreement>, StoreError> {
    let row: Option<(Option<i64>, Option<Amount>, Option<Millis>)> = on!(conn, c => sqlx::query_as(
        "SELECT proven_block, proven_figure, proven_at FROM balance WHERE wallet_no = $1 AND asset_no = $2",
    )
    .bind(wallet.0)
    .bind(asset.0)
    .fetch_optional(c)
    .await)?;
    Ok(row.and_then(|(block, figure, at)| {
        Some(Agreement { block: u64::try_from(block?).ok()?, figure: figure?, at: at? })
    }))
}

/// What one wallet holds.
#[derive(Clone, Debug)]
pub struct Holdings {
    pub wallet_id: WalletId,
    pub family: Family,
    pub address: Address,
    pub is_primary: bool,
    /// Whether it is a Safe that was found by its owner.
    pub found_by_owner: bool,
    /// The chains whose watch has begun, by name.
    pub chains: Vec<ChainHoldings>,
}

/// What a wallet holds on one chain, and the blocks at which it does.
#[derive(Clone, Debug)]
pub struct ChainHoldings {
    pub chain: ChainName,
    pub head: BlockPoint,
    pub settled: BlockPoint,
    pub assets: Vec<AssetHolding>,
}

#[derive(Clone, Debug)]
pub struct AssetHolding {
    pub asset: AssetNo,
    pub position: Position,
    /// The sum of the open holds, and what the asset's issuer has frozen.
    pub locked: Amount,
    pub updated_at: Millis,
}

#[derive(FromRow)]
struct RawHolding {
    id: WalletId,
    #[sqlx(try_from = "String")]
    family: Family,
    #[sqlx(try_from = "Vec<u8>")]
    address: Address,
    is_primary: bool,
    found_by_owner: bool,
    chain: Option<String>,
    head_number: Option<i64>,
    head_hash: Option<Vec<u8>>,
    head_time: Option<Millis>,
    settled_number: Option<i64>,
    settled_hash: Option<Vec<u8>>,
    settled_time: Option<Millis>,
    asset_no: Option<i64>,
    settled: Option<Amount>,
    incoming: Option<Amount>,
    outgoing: Option<Amount>,
    early: Option<Amount>,
    held: Option<Amount>,
    frozen: Option<Amount>,
    updated_at: Option<Millis>,
}

fn point(
    number: Option<i64>,
    hash: Option<&Vec<u8>>,
    time: Option<Millis>,
) -> Result<Option<BlockPoint>, StoreError> {
    let (Some(number), Some(hash), Some(time)) = (number, hash, time) else { return Ok(None) };
    let number = u64::try_from(number).map_err(StoreError::corrupt)?;
    let hash = BlockHash::from_slice(hash).ok_or_else(|| StoreError::corrupt("a block hash"))?;
    Ok(Some(BlockPoint { at: BlockRef { number, hash }, time }))
}

impl RawHolding {
    fn chain(&self) -> Result<Option<ChainHoldings>, StoreError> {
        let head = point(self.head_number, self.head_hash.as_ref(), self.head_time)?;
        let settled = point(self.settled_number, self.settled_hash.as_ref(), self.settled_time)?;
        let (Some(chain), Some(head), Some(settled)) = (&self.chain, head, settled) else {
            return Ok(None);
        };
        Ok(Some(ChainHoldings { chain: ChainName::new(chain), head, settled, assets: Vec::new() }))
    }

    fn asset(&self) -> Option<AssetHolding> {
        Some(AssetHolding {
            asset: AssetNo(self.asset_no?),
            position: Position {
                settled: self.settled?,
                incoming: self.incoming?,
                outgoing: self.outgoing?,
                early: self.early?,
            },
            locked: self.held?.saturating_add(self.frozen?),
            updated_at: self.updated_at?,
        })
    }
}

/// The statement up to its conditions. `+ 0`: PostgreSQL would read the index of all open watches for one wallet's.
macro_rules! select {
    ($few:literal, $wallets:literal, $rest:literal) => {
        concat!(
            $few, "SELECT w.id, w.family, w.address, w.is_primary, w.found_by_owner, n.name AS chain, c.head_number, c.head_hash,
                    c.head_time, c.settled_number, c.settled_hash, c.settled_time, b.asset_no, b.settled,
                    b.incoming, b.outgoing, b.early, b.held, b.frozen, b.updated_at
             FROM ", $wallets, " w
             LEFT JOIN watch t ON t.wallet_no = w.no AND t.status + 0 = 1
             LEFT JOIN chain n ON n.no = t.chain_no
             LEFT JOIN chain_cursor c ON c.chain_no = t.chain_no
             LEFT JOIN balance b ON b.wallet_no = w.no AND b.asset_no >= (t.chain_no << 32)
                                AND b.asset_no < ((t.chain_no + 1) << 32) ",
            $rest
        )
    };
}

/// What the wallets hold that a locator names: at most [`MATCHES`] of them, a primary one among them.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn holdings(
    conn: &mut Conn<'_>,
    tenant: TenantId,
    filter: &WalletFilter,
) -> Result<Vec<Holdings>, StoreError> {
    let mut rows: Vec<RawHolding> = if let Some(id) = filter.id {
        // The common case has a text of its own, which needs no building.
        on!(conn, c => sqlx::query_as(select!(
            "",
            "wallet",
            "WHERE w.id = $1 AND CASE WHEN w.deleted_at IS NULL THEN w.tenant_id END = $2"
        ))
        .bind(id)
        .bind(tenant)
        .fetch_all(c)
        .await)?
    } else {
        let sql = format!(
            select!(
                "WITH few AS MATERIALIZED (SELECT * FROM wallet w WHERE {}) ",
                "(SELECT * FROM few w ORDER BY {} LIMIT {})",
                ""
            ),
            filter.conditions(),
            BY_CHOICE,
            MATCHES
        );
        on!(conn, c => {
            bind_filter!(sqlx::query_as(AssertSqlSafe(sql)), tenant, filter).fetch_all(c).await
        })?
    };
    // A handful: sorted here, the engines need no sorter.
    rows.sort_unstable_by(|a, b| {
        (Reverse(a.id), &a.chain, a.asset_no).cmp(&(Reverse(b.id), &b.chain, b.asset_no))
    });
    fold(&rows)
}

fn fold(rows: &[RawHolding]) -> Result<Vec<Holdings>, StoreError> {
    let mut wallets: Vec<Holdings> = Vec::new();
    for row in rows {
        if wallets.last().is_none_or(|last| last.wallet_id != row.id) {
            wallets.push(Holdings {
                wallet_id: row.id,
                family: row.family,
                address: row.address,
                is_primary: row.is_primary,
                found_by_owner: row.found_by_owner,
                chains: Vec::new(),
            });
        }
        let Some(wallet) = wallets.last_mut() else { continue };
        let Some(name) = &row.chain else { continue };
        if wallet.chains.last().is_none_or(|last| last.chain.as_str() != name)
            && let Some(chain) = row.chain()?
        {
            wallet.chains.push(chain);
        }
        if let (Some(chain), Some(asset)) = (wallet.chains.last_mut(), row.asset()) {
            chain.assets.push(asset);
        }
    }
    Ok(wallets)
}
