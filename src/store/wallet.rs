//! Wallets with their watches, as a tenant sees and changes them. Opening and closing watches is the
//! follower's work. [`super::registration`] makes wallets.

mod filter;

use sqlx::{AssertSqlSafe, FromRow};

pub(in crate::store) use self::filter::bind_filter;
pub use self::filter::{AccountFilter, WalletFilter};
use super::{
    Conn, StoreError, code, on, safe_state,
    set::{Ints, sets},
    watch_count,
};
use crate::{
    chain::{Address, ChainName, Family, HistoryMethod},
    clock::Millis,
    id::{AccountId, TenantId, WalletId},
    model::{
        ChainNo, HistoryStatus, Owner, SafeFacts, TenantNo, Wallet, WalletChain, WalletKind,
        WalletNo,
    },
};

/// Whose a wallet is.
#[derive(Clone, Debug)]
pub struct Owned {
    pub owner: Owner,
    pub tenant: String,
}

#[derive(FromRow)]
struct RawOwned {
    no: i64,
    id: WalletId,
    #[sqlx(try_from = "Vec<u8>")]
    address: Address,
    tenant_no: i64,
    tenant: String,
}

/// Whose some wallets are, deleted ones included, in no order.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn owners(
    conn: &mut Conn<'_>,
    wallets: impl IntoIterator<Item = WalletNo>,
) -> Result<Vec<Owned>, StoreError> {
    let wallets = Ints::of(wallets.into_iter().map(|wallet| wallet.0));
    if wallets.is_empty() {
        return Ok(Vec::new());
    }
    let sql = sets(
        conn,
        "SELECT w.no, w.id, w.address, t.no AS tenant_no, t.name AS tenant
         FROM wallet w JOIN tenant t ON t.id = w.tenant_id WHERE w.no IN ints($1)",
    );
    let rows: Vec<RawOwned> =
        on!(conn, c => sqlx::query_as(sql).bind(&wallets).fetch_all(c).await)?;
    let owned = |row: RawOwned| {
        let RawOwned { no, id, address, tenant_no, tenant } = row;
        let owner =
            Owner { wallet: WalletNo(no), tenant: TenantNo(tenant_no), wallet_id: id, address };
        Owned { owner, tenant }
    };
    Ok(rows.into_iter().map(owned).collect())
}

#[derive(FromRow)]
struct RawWallet {
    no: i64,
    id: WalletId,
    tenant_id: TenantId,
    account_id: Option<AccountId>,
    #[sqlx(try_from = "String")]
    family: Family,
    #[sqlx(try_from = "Vec<u8>")]
    address: Address,
    #[sqlx(try_from = "String")]
    kind: WalletKind,
    client_reference_id: Option<String>,
    nickname: Option<String>,
    is_primary: bool,
    disabled_at: Option<Millis>,
    rotated_at: Option<Millis>,
    replaced_by: Option<WalletId>,
    safe_version: Option<String>,
    safe_singleton: Option<Vec<u8>>,
    safe_owners: Option<String>,
    safe_threshold: Option<i64>,
    found_by_owner: bool,
    created_at: Millis,
    updated_at: Millis,
    chain: Option<String>,
    status: Option<i16>,
    from_block: Option<i64>,
    history: Option<String>,
    history_method: Option<String>,
    opened_number: Option<i64>,
    opened_time: Option<Millis>,
    covered_from: Option<i64>,
    untraced: Option<i64>,
    head_number: Option<i64>,
    deployment: Option<String>,
}

impl RawWallet {
    fn chain(&self) -> Result<Option<WalletChain>, StoreError> {
        let (Some(chain), Some(status)) = (&self.chain, self.status) else { return Ok(None) };
        let height = |number: Option<i64>| {
            number.map(u64::try_from).transpose().map_err(StoreError::corrupt)
        };
        Ok(Some(WalletChain {
            chain: ChainName::new(chain),
            status: code::read_watch_status(status)?,
            from_block: height(self.from_block)?,
            history: self
                .history
                .clone()
                .map(HistoryStatus::try_from)
                .transpose()
                .map_err(StoreError::corrupt)?,
            history_method: self
                .history_method
                .clone()
                .map(HistoryMethod::try_from)
                .transpose()
                .map_err(StoreError::corrupt)?,
            opened: height(self.opened_number)?,
            opened_time: self.opened_time,
            covered_from: height(self.covered_from)?,
            untraced: height(self.untraced)?,
            head: height(self.head_number)?,
            deployment: self.deployment.clone(),
            safe: None,
        }))
    }

    fn wallet(self) -> Result<Wallet, StoreError> {
        let safe = match (self.kind, self.safe_owners) {
            (WalletKind::Safe, owners) => Some(SafeFacts {
                found_by_owner: self.found_by_owner,
                version: self.safe_version,
                singleton: self.safe_singleton.as_deref().and_then(Address::from_slice),
                owners: owners
                    .map_or(Ok(Vec::new()), |owners| super::safe::read_addresses(&owners))?,
                threshold: self.safe_threshold,
            }),
            (WalletKind::Eoa | WalletKind::Contract, _) => None,
        };
        Ok(Wallet {
            no: WalletNo(self.no),
            id: self.id,
            tenant_id: self.tenant_id,
            account_id: self.account_id,
            family: self.family,
            address: self.address,
            kind: self.kind,
            client_reference_id: self.client_reference_id,
            nickname: self.nickname,
            is_primary: self.is_primary,
            disabled_at: self.disabled_at,
            rotated_at: self.rotated_at,
            replaced_by: self.replaced_by,
            safe,
            created_at: self.created_at,
            updated_at: self.updated_at,
            chains: Vec::new(),
        })
    }
}

/// How many wallets that one locator names are read; a user who gets that many has to choose anyway.
pub const MATCHES: i64 = 20;

/// The order of the wallets that a locator names: what a tenant has registered comes before what was found, and of
/// that the first one. Whoever makes Safes for somebody else's owner changes nothing about which wallet is meant.
pub(in crate::store) const BY_CHOICE: &str = "w.is_primary DESC, w.found_by_owner, w.id";

/// The tenant's wallets, newest first, with their watches. One statement, so one state; what is known of Safes on
/// their chains is read by another.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn list(
    conn: &mut Conn<'_>,
    tenant: TenantId,
    filter: &WalletFilter,
    limit: i64,
) -> Result<Vec<Wallet>, StoreError> {
    let order = if filter.is_narrow() { "w.id DESC" } else { "w.tenant_id DESC, w.id DESC" };
    read(conn, tenant, filter, order, limit).await
}

/// The wallets that a locator names: at most [`MATCHES`] of them, a primary one among them; Safes that were found
/// by their owners only where there is room.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn matching(
    conn: &mut Conn<'_>,
    tenant: TenantId,
    filter: &WalletFilter,
) -> Result<Vec<Wallet>, StoreError> {
    read(conn, tenant, filter, BY_CHOICE, MATCHES).await
}

async fn read(
    conn: &mut Conn<'_>,
    tenant: TenantId,
    filter: &WalletFilter,
    order: &'static str,
    limit: i64,
) -> Result<Vec<Wallet>, StoreError> {
    let conditions = filter.conditions();
    // Few wallets are read before they are put in order: PostgreSQL might walk all of them in that order instead.
    let (few, wallets) = if filter.is_narrow() {
        let few = format!("WITH few AS MATERIALIZED (SELECT * FROM wallet w WHERE {conditions})");
        (few, "few w".to_owned())
    } else {
        (String::new(), format!("wallet w WHERE {conditions}"))
    };
    let sql = format!(
        "{few} SELECT w.no, w.id, w.tenant_id, w.account_id, w.family, w.address, w.kind, w.client_reference_id,
                w.nickname, w.is_primary, w.disabled_at, w.rotated_at, w.replaced_by, w.safe_version,
                w.safe_singleton, w.safe_owners, w.safe_threshold, w.found_by_owner, w.created_at, w.updated_at,
                n.name AS chain, t.status, t.from_block, t.history, t.history_method, t.opened_number,
                t.opened_time,
                COALESCE(t.covered_from,
                         CASE WHEN t.scan_ahead < s.next_number THEN t.scan_ahead ELSE s.next_number END + 1,
                         t.opened_number + 1) AS covered_from, t.untraced, c.head_number,
                CASE WHEN w.kind = 'safe' THEN (
                    SELECT d.status FROM safe_deployment d
                    WHERE d.wallet_id = w.id AND d.chain_no + 0 = t.chain_no
                    ORDER BY CASE d.status WHEN 'completed' THEN 0 WHEN 'processing' THEN 1 ELSE 2 END, d.id DESC
                    LIMIT 1) END AS deployment
         FROM (SELECT * FROM {wallets} ORDER BY {order} LIMIT $12 + 0) w
         LEFT JOIN watch t ON t.wallet_no = w.no
         LEFT JOIN chain n ON n.no = t.chain_no
         LEFT JOIN chain_cursor c ON c.chain_no = t.chain_no
         LEFT JOIN history_scan s ON s.no = t.scan_no
         ORDER BY w.id DESC, n.name"
    );
    let rows: Vec<RawWallet> = on!(conn, c => {
        bind_filter!(sqlx::query_as(AssertSqlSafe(sql)), tenant, filter)
            .bind(limit)
            .fetch_all(c)
            .await
    })?;
    let mut wallets: Vec<Wallet> = Vec::new();
    for row in rows {
        let chain = row.chain()?;
        if wallets.last().is_none_or(|last| last.id != row.id) {
            wallets.push(row.wallet()?);
        }
        if let (Some(wallet), Some(chain)) = (wallets.last_mut(), chain) {
            wallet.chains.push(chain);
        }
    }
    let is_safe = |wallet: &Wallet| wallet.kind == WalletKind::Safe;
    let safes: Vec<Address> =
        wallets.iter().filter(|wallet| is_safe(wallet)).map(|wallet| wallet.address).collect();
    let states = safe_state::everywhere(conn, &safes).await?;
    for wallet in wallets.iter_mut().filter(|wallet| is_safe(wallet)) {
        for on in &mut wallet.chains {
            on.safe = states.get(&(on.chain.clone(), wallet.address)).cloned();
        }
    }
    Ok(wallets)
}

/// # Errors
/// [`StoreError`] of the engine.
pub async fn by_id(
    conn: &mut Conn<'_>,
    tenant: TenantId,
    id: WalletId,
) -> Result<Option<Wallet>, StoreError> {
    let filter = WalletFilter { id: Some(id), ..WalletFilter::default() };
    Ok(list(conn, tenant, &filter, 1).await?.pop())
}

/// How far the history of a wallet on a chain is; `None` where none was asked for.
///
/// # Errors
/// [`StoreError`] of the engine.
#[cfg(test)]
pub async fn history_of(
    conn: &mut Conn<'_>,
    wallet: WalletId,
    chain: &ChainName,
) -> Result<Option<HistoryStatus>, StoreError> {
    let word: Option<String> = on!(conn, c => sqlx::query_scalar(
        "SELECT history FROM watch
         WHERE wallet_no = (SELECT no FROM wallet WHERE id = $1)
           AND chain_no = (SELECT no FROM chain WHERE name = $2)",
    )
    .bind(wallet)
    .bind(chain.as_str())
    .fetch_one(c)
    .await)?;
    word.map(HistoryStatus::try_from).transpose().map_err(StoreError::corrupt)
}

/// Makes `primary` the only primary wallet of its account and family, which are to have its id already.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn demote_others(
    conn: &mut Conn<'_>,
    tenant: TenantId,
    account: AccountId,
    family: Family,
    primary: WalletId,
    now: Millis,
) -> Result<(), StoreError> {
    on!(conn, c => sqlx::query(
        "UPDATE wallet SET is_primary = $5, updated_at = $6
         WHERE account_id = $2 AND CASE WHEN is_primary THEN tenant_id END = $1 AND family = $3 AND id <> $4",
    )
    .bind(tenant)
    .bind(account)
    .bind(family.as_str())
    .bind(primary)
    .bind(false)
    .bind(now)
    .execute(c)
    .await
    .map(|_| ()))?;
    Ok(())
}

/// What a tenant changes of a wallet; what is `None` stays.
#[derive(Clone, Debug, Default)]
pub struct WalletChanges {
    pub nickname: Option<Option<String>>,
    pub client_reference_id: Option<Option<String>>,
    pub is_primary: Option<bool>,
}

/// Writes what a tenant changes; `false` if the wallet is gone. Events that were told before go on to say what
/// they said: the caller holds the tenant's row.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn update(
    conn: &mut Conn<'_>,
    tenant: TenantId,
    id: WalletId,
    changes: &WalletChanges,
    now: Millis,
) -> Result<bool, StoreError> {
    if changes.client_reference_id.is_some() {
        on!(conn, c => sqlx::query(
            "INSERT INTO wallet_past (wallet_no, until_position, account_id, client_reference_id, safe_owners,
                                      safe_threshold)
             SELECT w.no, t.feed_position, w.account_id, w.client_reference_id, w.safe_owners, w.safe_threshold
             FROM wallet w JOIN tenant t ON t.id = w.tenant_id
             WHERE w.id = $1 AND CASE WHEN w.deleted_at IS NULL THEN w.tenant_id END = $2
             ON CONFLICT (wallet_no, until_position) DO NOTHING",
        )
        .bind(id)
        .bind(tenant)
        .execute(c)
        .await
        .map(|_| ()))?;
    }
    let rows = on!(conn, c => sqlx::query(
        "UPDATE wallet
         SET nickname = CASE WHEN $3 THEN $4 ELSE nickname END,
             client_reference_id = CASE WHEN $5 THEN $6 ELSE client_reference_id END,
             is_primary = COALESCE($7, is_primary), updated_at = $8
         WHERE id = $1 AND CASE WHEN deleted_at IS NULL THEN tenant_id END = $2",
    )
    .bind(id)
    .bind(tenant)
    .bind(changes.nickname.is_some())
    .bind(changes.nickname.as_ref().and_then(Option::as_ref))
    .bind(changes.client_reference_id.is_some())
    .bind(changes.client_reference_id.as_ref().and_then(Option::as_ref))
    .bind(changes.is_primary)
    .bind(now)
    .execute(c)
    .await
    .map(|done| done.rows_affected()))?;
    Ok(rows == 1)
}

/// Deletes a wallet, and asks for its watches to be closed; `false` if it is gone, or primary.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn delete(
    conn: &mut Conn<'_>,
    tenant: TenantId,
    id: WalletId,
    now: Millis,
) -> Result<bool, StoreError> {
    let changed = on!(conn, c => sqlx::query(
        "UPDATE wallet SET deleted_at = $3, updated_at = $3
         WHERE id = $1 AND CASE WHEN deleted_at IS NULL THEN tenant_id END = $2 AND NOT is_primary",
    )
    .bind(id)
    .bind(tenant)
    .bind(now)
    .execute(c)
    .await
    .map(|done| done.rows_affected()))?;
    if changed != 1 {
        return Ok(false);
    }
    let ended: Vec<(i64, i64)> = on!(conn, c => sqlx::query_as(
        "UPDATE watch
         SET status = CASE status WHEN 1 THEN 2 ELSE 3 END, updated_at = $2
         WHERE wallet_no = (SELECT no FROM wallet WHERE id = $1) AND status + 0 IN (0, 1)
         RETURNING tenant_no, chain_no",
    )
    .bind(id)
    .bind(now)
    .fetch_all(c)
    .await)?;
    if let Some((tenant, _)) = ended.first() {
        let chains: Vec<ChainNo> = ended.iter().map(|(_, chain)| ChainNo(*chain)).collect();
        watch_count::withdraw(conn, TenantNo(*tenant), &chains).await?;
    }
    Ok(true)
}

/// What the chain's follower does when it opens a watch, as far as the API can see it.
#[cfg(test)]
pub async fn open_for_test(conn: &mut Conn<'_>, wallet: WalletId, chain: &ChainName) {
    let changed = on!(conn, c => sqlx::query(
        "UPDATE watch SET status = 1, opened_number = 1, opened_hash = $3
         WHERE wallet_no = (SELECT no FROM wallet WHERE id = $1)
           AND chain_no = (SELECT no FROM chain WHERE name = $2)",
    )
    .bind(wallet)
    .bind(chain.as_str())
    .bind(&[1u8; 32][..])
    .execute(c)
    .await
    .map(|done| done.rows_affected()));
    assert_eq!(changed.expect("an update"), 1);
}
