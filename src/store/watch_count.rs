//! How many addresses each tenant watches on each chain, kept beside the watches.

use std::collections::BTreeMap;

use sqlx::FromRow;

use super::{
    Conn, StoreError, on,
    rows::Table,
    set::{Ints, sets},
};
use crate::{
    chain::ChainName,
    id::TenantId,
    model::{ChainNo, TenantNo},
};

static WATCH_COUNT: Table = Table::upsert(
    "watch_count",
    &["tenant_no", "chain_no", "addresses"],
    "ON CONFLICT (tenant_no, chain_no) DO UPDATE SET addresses = watch_count.addresses + excluded.addresses",
);

/// Counts new requests to watch an address. The rows are held until commit, so this comes last in a
/// transaction.
///
/// # Errors
/// [`StoreError`] of the engine.
pub(super) async fn add(
    conn: &mut Conn<'_>,
    requests: impl IntoIterator<Item = (TenantNo, ChainNo)>,
) -> Result<(), StoreError> {
    let mut counts: BTreeMap<(TenantNo, ChainNo), i64> = BTreeMap::new();
    for key in requests {
        *counts.entry(key).or_default() += 1;
    }
    // In the order in which everybody takes these rows.
    let counts: Vec<_> = counts.into_iter().collect();
    WATCH_COUNT
        .write(conn, &counts, |row, ((tenant, chain), count)| {
            row.push(tenant.0)?;
            row.push(chain.0)?;
            row.push(*count)
        })
        .await?;
    Ok(())
}

/// Counts the end of one watch on each of these chains.
///
/// # Errors
/// [`StoreError`] of the engine; [`StoreError::Corrupt`] for a chain on which nothing was counted.
pub(super) async fn withdraw(
    conn: &mut Conn<'_>,
    tenant: TenantNo,
    chains: &[ChainNo],
) -> Result<(), StoreError> {
    let chains = Ints::of(chains.iter().map(|chain| chain.0));
    if chains.is_empty() {
        return Ok(());
    }
    let sql = sets(
        conn,
        "UPDATE watch_count SET addresses = addresses - 1 WHERE tenant_no = $1 AND chain_no IN ints($2)",
    );
    let changed = on!(conn, c => sqlx::query(sql)
        .bind(tenant.0)
        .bind(&chains)
        .execute(c)
        .await
        .map(|done| done.rows_affected()))?;
    if usize::try_from(changed) == Ok(chains.0.len()) {
        return Ok(());
    }
    Err(StoreError::corrupt("a watch that was not counted"))
}

/// How many addresses the tenant watches or asked to watch on each chain.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn per_chain(
    conn: &mut Conn<'_>,
    tenant: TenantId,
) -> Result<BTreeMap<ChainName, i64>, StoreError> {
    let rows: Vec<(String, i64)> = on!(conn, c => sqlx::query_as(
        "SELECT n.name, w.addresses FROM watch_count w JOIN chain n ON n.no = w.chain_no
         WHERE w.tenant_no = (SELECT no FROM tenant WHERE id = $1)",
    )
    .bind(tenant)
    .fetch_all(c)
    .await)?;
    Ok(rows.into_iter().map(|(chain, count)| (ChainName::new(&chain), count)).collect())
}

/// A kept number that is not that of the watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromRow)]
pub struct Miscount {
    pub tenant: TenantId,
    pub kept: i64,
    pub watches: i64,
}

/// Counts the watches of a chain, open and requested, and gives the tenants whose kept number is another. Reads
/// them all: only for the audit.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn wrong(conn: &mut Conn<'_>, chain: &ChainName) -> Result<Vec<Miscount>, StoreError> {
    Ok(on!(conn, c => sqlx::query_as(
        "SELECT t.id AS tenant, CAST(SUM(b.kept) AS BIGINT) AS kept, CAST(SUM(b.watches) AS BIGINT) AS watches
         FROM (SELECT tenant_no, addresses AS kept, 0 AS watches FROM watch_count
               WHERE chain_no = (SELECT no FROM chain WHERE name = $1)
               UNION ALL
               SELECT tenant_no, 0, COUNT(*) FROM watch
               WHERE chain_no = (SELECT no FROM chain WHERE name = $1) AND status IN (0, 1)
               GROUP BY tenant_no) b
         JOIN tenant t ON t.no = b.tenant_no
         GROUP BY t.id HAVING SUM(b.kept) <> SUM(b.watches) ORDER BY t.id",
    )
    .bind(chain.as_str())
    .fetch_all(c)
    .await)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        chain::Address,
        clock::Millis,
        id::WalletId,
        store::{event, testing::TestStore, wallet},
    };

    /// What is counted, and what the watches say.
    async fn counted(store: &TestStore, tenant: TenantId) -> (BTreeMap<ChainName, i64>, i64) {
        let mut session = store.db.read().await.unwrap();
        let conn = &mut session.conn();
        let no = event::tenant_no(conn, tenant).await.unwrap();
        let watches: i64 = on!(conn, c => sqlx::query_scalar(
            "SELECT COUNT(*) FROM watch WHERE tenant_no = $1 AND status IN (0, 1)",
        )
        .bind(no.0)
        .fetch_one(c)
        .await)
        .unwrap();
        (per_chain(conn, tenant).await.unwrap(), watches)
    }

    async fn delete(store: &TestStore, tenant: TenantId, wallet: WalletId) -> bool {
        let mut tx = store.db.begin().await.unwrap();
        let deleted = wallet::delete(&mut tx.conn(), tenant, wallet, Millis(1)).await.unwrap();
        tx.commit().await.unwrap();
        deleted
    }

    #[tokio::test]
    async fn every_address_of_a_tenant_counts_from_its_request_until_its_wallet_is_deleted() {
        for store in TestStore::all().await {
            let (one, other) = (store.tenant().await, store.tenant().await);
            let (a, b) = (ChainName::new("a"), ChainName::new("b"));
            let first = store.register(one, &a, Address::from([1; 20])).await;
            let second = store.register(one, &a, Address::from([2; 20])).await;
            store.register(one, &b, Address::from([3; 20])).await;
            store.register(other, &b, Address::from([1; 20])).await;
            let of =
                |a_count, b_count| BTreeMap::from([(a.clone(), a_count), (b.clone(), b_count)]);
            assert_eq!(counted(&store, one).await, (of(2, 1), 3));
            let mut tx = store.db.begin().await.unwrap();
            wallet::open_for_test(&mut tx.conn(), second, &a).await;
            tx.commit().await.unwrap();
            assert_eq!(counted(&store, one).await, (of(2, 1), 3), "an open watch is the same one");
            assert!(delete(&store, one, first).await && delete(&store, one, second).await);
            assert!(!delete(&store, one, second).await, "it is gone");
            assert_eq!(counted(&store, one).await, (of(0, 1), 1));
            assert_eq!(counted(&store, other).await, (BTreeMap::from([(b.clone(), 1)]), 1));
            store.close().await;
        }
    }
}
