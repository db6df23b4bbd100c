//! Registering many wallets at once: what is there already, and what is new, in sets.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::QueryBuilder;

use super::{
    Conn, StoreError,
    chain::{self, number},
    code, on,
    rows::Table,
    safe::write_addresses,
    set::runs,
    watch_count,
};
use crate::{
    chain::{Address, ChainName, Family},
    clock::Millis,
    id::{AccountId, TenantId, WalletId},
    model::{
        AccountKey, ChainNo, HistoryStatus, LocatorKey, LocatorKind, NewWallet, NewWatch,
        Registrations, TenantNo, WalletNo, WatchKey, WatchStatus,
    },
};

/// The numbers of tenants; one that does not exist is left out.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn tenants(
    conn: &mut Conn<'_>,
    ids: &BTreeSet<TenantId>,
) -> Result<BTreeMap<TenantId, TenantNo>, StoreError> {
    let ids = Vec::from_iter(ids);
    let mut numbers = BTreeMap::new();
    for run in runs(&ids) {
        let rows: Vec<(TenantId, i64)> = on!(conn, c => {
            let mut query = QueryBuilder::new("WITH asked (id) AS (");
            query.push_values(run, |mut row, id| {
                row.push_bind(**id);
            });
            query.push(
                ") SELECT tenant.id, tenant.no FROM asked CROSS JOIN tenant WHERE tenant.id = asked.id",
            );
            query.build_query_as().fetch_all(c).await
        })?;
        numbers.extend(rows.into_iter().map(|(id, no)| (id, TenantNo(no))));
    }
    Ok(numbers)
}

/// The numbers of chains; those that have none get one.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn chains(
    conn: &mut Conn<'_>,
    names: &BTreeSet<ChainName>,
) -> Result<BTreeMap<ChainName, ChainNo>, StoreError> {
    let list = Vec::from_iter(names);
    let mut numbers = BTreeMap::new();
    for run in runs(&list) {
        let rows: Vec<(String, i64)> = on!(conn, c => {
            let mut query = QueryBuilder::new("WITH asked (name) AS (");
            query.push_values(run, |mut row, name| {
                row.push_bind(name.as_str());
            });
            query.push(
                ") SELECT chain.name, chain.no FROM asked CROSS JOIN chain WHERE chain.name = asked.name",
            );
            query.build_query_as().fetch_all(c).await
        })?;
        numbers.extend(rows.into_iter().map(|(name, no)| (ChainName::new(&name), ChainNo(no))));
    }
    for name in names {
        if !numbers.contains_key(name) {
            numbers.insert(name.clone(), chain::ensure(conn, name).await?);
        }
    }
    Ok(numbers)
}

/// Of these keys the ones that are watched, and by which wallet.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn watched(
    conn: &mut Conn<'_>,
    keys: &[WatchKey],
) -> Result<BTreeMap<WatchKey, WalletId>, StoreError> {
    let mut found = BTreeMap::new();
    for run in runs(keys) {
        // One look-up for each: joined, PostgreSQL reads all watches as long as it believes that they are few.
        let rows: Vec<(i64, i64, Vec<u8>, Option<WalletId>)> = on!(conn, c => {
            let mut query = QueryBuilder::new("WITH asked (tenant_no, chain_no, address) AS (");
            query.push_values(run, |mut row, (tenant, chain, address)| {
                row.push_bind(tenant.0).push_bind(chain.0).push_bind(address.as_slice());
            });
            query.push(
                ") SELECT tenant_no, chain_no, address,
                          (SELECT v.id FROM watch w JOIN wallet v ON v.no = w.wallet_no
                           WHERE w.tenant_no = asked.tenant_no AND w.chain_no = asked.chain_no
                             AND w.address = asked.address AND w.status & 2 = 0)
                   FROM asked",
            );
            query.build_query_as().fetch_all(c).await
        })?;
        for (tenant, chain, address, wallet) in rows {
            let Some(wallet) = wallet else { continue };
            let address = Address::from_slice(&address)
                .ok_or_else(|| StoreError::corrupt("a watch without an address"))?;
            found.insert((TenantNo(tenant), ChainNo(chain), address), wallet);
        }
    }
    Ok(found)
}

/// Of these external ids the ones that name an account.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn accounts(
    conn: &mut Conn<'_>,
    keys: &BTreeSet<AccountKey>,
) -> Result<BTreeMap<AccountKey, AccountId>, StoreError> {
    let keys = Vec::from_iter(keys);
    let mut found = BTreeMap::new();
    for run in runs(&keys) {
        let rows: Vec<(TenantId, String, AccountId)> = on!(conn, c => {
            let mut query = QueryBuilder::new("WITH asked (tenant_id, external_id) AS (");
            query.push_values(run, |mut row, (tenant, external_id)| {
                row.push_bind(*tenant).push_bind(external_id);
            });
            query.push(
                ") SELECT a.tenant_id, a.external_id, a.id FROM asked CROSS JOIN account a
                   WHERE a.tenant_id = asked.tenant_id AND a.external_id = asked.external_id",
            );
            query.build_query_as().fetch_all(c).await
        })?;
        found.extend(rows.into_iter().map(|(tenant, name, id)| ((tenant, name), id)));
    }
    Ok(found)
}

/// Of these locators the ones that name an account.
///
/// # Errors
/// [`StoreError`] of the engine; [`StoreError::Corrupt`] for a kind that is none.
pub async fn locators(
    conn: &mut Conn<'_>,
    keys: &BTreeSet<LocatorKey>,
) -> Result<BTreeMap<LocatorKey, AccountId>, StoreError> {
    let keys = Vec::from_iter(keys);
    let mut found = BTreeMap::new();
    for run in runs(&keys) {
        let rows: Vec<(TenantId, String, String, AccountId)> = on!(conn, c => {
            let mut query = QueryBuilder::new("WITH asked (tenant_id, kind, value) AS (");
            query.push_values(run, |mut row, (tenant, kind, value)| {
                row.push_bind(*tenant).push_bind(kind.as_str()).push_bind(value);
            });
            query.push(
                ") SELECT l.tenant_id, l.kind, l.value, l.account_id
                   FROM asked CROSS JOIN account_locator l
                   WHERE l.tenant_id = asked.tenant_id AND l.kind = asked.kind AND l.value = asked.value",
            );
            query.build_query_as().fetch_all(c).await
        })?;
        for (tenant, kind, value, account) in rows {
            let kind = LocatorKind::parse(&kind)
                .ok_or_else(|| StoreError::corrupt("a locator of no kind"))?;
            found.insert((tenant, kind, value), account);
        }
    }
    Ok(found)
}

/// Writes what registrations add; gives the numbers of the new wallets.
///
/// # Errors
/// [`StoreError::Collision`] if one of the keys came into being since it was looked for.
pub async fn insert(
    conn: &mut Conn<'_>,
    new: &Registrations,
    now: Millis,
) -> Result<BTreeMap<WalletId, WalletNo>, StoreError> {
    let added = insert_accounts(conn, &new.accounts, now).await?
        && insert_locators(conn, &new.locators).await?;
    demote(conn, &new.primaries, now).await?;
    let numbers = insert_wallets(conn, &new.wallets, now).await?;
    if added && insert_watches(conn, &new.watches, &numbers, now).await? {
        return Ok(numbers);
    }
    Err(StoreError::Collision("somebody else registered one of these meanwhile".to_owned()))
}

static ACCOUNT: Table = Table::upsert(
    "account",
    &["id", "tenant_id", "external_id", "created_at", "updated_at"],
    "ON CONFLICT DO NOTHING",
);

async fn insert_accounts(
    conn: &mut Conn<'_>,
    rows: &[(AccountKey, AccountId)],
    now: Millis,
) -> Result<bool, StoreError> {
    let added = ACCOUNT
        .write(conn, rows, |row, ((tenant, external_id), id)| {
            row.push(*id)?;
            row.push(*tenant)?;
            row.push(external_id)?;
            row.push(now)?;
            row.push(now)
        })
        .await?;
    Ok(usize::try_from(added) == Ok(rows.len()))
}

static ACCOUNT_LOCATOR: Table = Table::upsert(
    "account_locator",
    &["tenant_id", "kind", "value", "account_id"],
    "ON CONFLICT DO NOTHING",
);

async fn insert_locators(
    conn: &mut Conn<'_>,
    rows: &[(LocatorKey, AccountId)],
) -> Result<bool, StoreError> {
    let added = ACCOUNT_LOCATOR
        .write(conn, rows, |row, ((tenant, kind, value), account)| {
            row.push(*tenant)?;
            row.push(kind.as_str())?;
            row.push(value)?;
            row.push(*account)
        })
        .await?;
    Ok(usize::try_from(added) == Ok(rows.len()))
}

/// Takes what makes wallets primary from them. Holds the accounts' rows until commit, so that no account
/// gets two.
async fn demote(
    conn: &mut Conn<'_>,
    rows: &[(AccountId, Family)],
    now: Millis,
) -> Result<(), StoreError> {
    for run in runs(rows) {
        on!(conn, c => {
            let mut query = QueryBuilder::new("WITH asked (id) AS (");
            query.push_values(run, |mut row, (account, _)| {
                row.push_bind(*account);
            });
            query.push(") UPDATE account SET updated_at = ").push_bind(now);
            query.push(" FROM asked WHERE account.id = asked.id");
            query.build().execute(c).await.map(|_| ())
        })?;
        on!(conn, c => {
            let mut query = QueryBuilder::new("WITH asked (account_id, family) AS (");
            query.push_values(run, |mut row, (account, family)| {
                row.push_bind(*account).push_bind(family.as_str());
            });
            query.push(") UPDATE wallet SET is_primary = ").push_bind(false);
            query.push(", updated_at = ").push_bind(now);
            query.push(
                " FROM asked WHERE wallet.account_id = asked.account_id
                    AND wallet.family = asked.family AND wallet.is_primary",
            );
            query.build().execute(c).await.map(|_| ())
        })?;
    }
    Ok(())
}

static WALLET: Table = Table::upsert(
    "wallet",
    &[
        "id",
        "tenant_id",
        "account_id",
        "family",
        "address",
        "kind",
        "safe_version",
        "safe_singleton",
        "safe_owners",
        "safe_threshold",
        "client_reference_id",
        "nickname",
        "is_primary",
        "created_at",
        "updated_at",
    ],
    "RETURNING id, no",
);

/// Writes new wallets; gives their numbers.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn insert_wallets(
    conn: &mut Conn<'_>,
    wallets: &[NewWallet],
    now: Millis,
) -> Result<BTreeMap<WalletId, WalletNo>, StoreError> {
    let rows: Vec<(WalletId, i64)> = WALLET
        .write_returning(conn, wallets, |row, wallet| {
            row.push(wallet.id)?;
            row.push(wallet.tenant_id)?;
            row.push(wallet.account_id)?;
            row.push(wallet.family.as_str())?;
            row.push(wallet.address.as_slice())?;
            row.push(wallet.kind.as_str())?;
            let safe = wallet.safe.as_ref();
            row.push(safe.and_then(|safe| safe.version.as_deref()))?;
            row.push(safe.and_then(|safe| safe.singleton.as_ref()).map(Address::as_slice))?;
            row.push(safe.map(|safe| write_addresses(&safe.owners)))?;
            row.push(safe.and_then(|safe| safe.threshold))?;
            row.push(&wallet.client_reference_id)?;
            row.push(&wallet.nickname)?;
            row.push(wallet.is_primary)?;
            row.push(now)?;
            row.push(now)
        })
        .await?;
    Ok(rows.into_iter().map(|(id, no)| (id, WalletNo(no))).collect())
}

static WATCH: Table = Table::upsert(
    "watch",
    &[
        "chain_no",
        "address",
        "wallet_no",
        "tenant_no",
        "status",
        "from_block",
        "history",
        "created_at",
        "updated_at",
    ],
    "ON CONFLICT DO NOTHING",
);

/// Asks for watches of wallets with these numbers; `false` if one of them is there already, and then the
/// transaction is to be undone.
///
/// # Errors
/// [`StoreError`] of the engine; [`StoreError::Corrupt`] for a wallet without a number.
pub async fn insert_watches(
    conn: &mut Conn<'_>,
    watches: &[NewWatch],
    numbers: &BTreeMap<WalletId, WalletNo>,
    now: Millis,
) -> Result<bool, StoreError> {
    let mut rows = Vec::with_capacity(watches.len());
    for watch in watches {
        let no = numbers.get(&watch.wallet);
        let no = no.ok_or_else(|| StoreError::corrupt("a watch of a wallet that is not there"))?;
        rows.push((watch.key, *no, watch.from_block.map(number).transpose()?));
    }
    let added = WATCH
        .write(conn, &rows, |row, ((tenant, chain, address), wallet, from_block)| {
            row.push(chain.0)?;
            row.push(address.as_slice())?;
            row.push(wallet.0)?;
            row.push(tenant.0)?;
            row.push(code::watch_status(WatchStatus::Requested))?;
            row.push(*from_block)?;
            row.push(from_block.map(|_| HistoryStatus::Wanted.as_str()))?;
            row.push(now)?;
            row.push(now)
        })
        .await?;
    if usize::try_from(added) != Ok(watches.len()) {
        return Ok(false);
    }
    let counted = watches.iter().map(|NewWatch { key: (tenant, chain, _), .. }| (*tenant, *chain));
    watch_count::add(conn, counted).await?;
    Ok(true)
}

#[cfg(test)]
mod tests;
