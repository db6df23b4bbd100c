//! What nodes are to be asked about Safes, and when: transactions that tenants track, tenant by tenant, and Safes
//! that were made in blocks. Each question is a row with its time, so that many of them cost a turn nothing.

use sqlx::FromRow;
use uuid::Uuid;

use super::{
    Conn, StoreError,
    chain::number,
    on,
    rows::Table,
    safe::{self, Raw, read_addresses, select_deployment, write_addresses},
};
use crate::{
    chain::{Address, BlockHash, BlockRef, ChainName, SafeCandidate, TxId},
    clock::Millis,
    id::{SafeDeploymentId, TenantId},
    ledger::changes::LookChanges,
    model::{BlockPoint, ChainNo, Deployment, WaitingSafe},
};

/// A transaction that somebody waits for.
#[derive(Clone, Copy, Debug)]
pub struct Pending {
    pub created_at: Millis,
    pub id: SafeDeploymentId,
    pub tx: TxId,
}

#[derive(FromRow)]
struct RawPending {
    created_at: Millis,
    id: SafeDeploymentId,
    #[sqlx(try_from = "Vec<u8>")]
    tx: TxId,
}

/// Deployments whose transaction is in no block yet, by the time since when they are tracked: those after
/// `after`.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn pending(
    conn: &mut Conn<'_>,
    chain: ChainNo,
    after: (Millis, SafeDeploymentId),
    limit: i64,
) -> Result<Vec<Pending>, StoreError> {
    let rows: Vec<RawPending> = on!(conn, c => sqlx::query_as(
        "SELECT created_at, id, tx FROM safe_deployment
         WHERE chain_no = $1 AND status = 'pending' AND (created_at, id) > ($2, $3)
         ORDER BY chain_no, created_at, id LIMIT $4 + 0",
    )
    .bind(chain.0)
    .bind(after.0)
    .bind(after.1)
    .bind(limit)
    .fetch_all(c)
    .await)?;
    let pending = |RawPending { created_at, id, tx }| Pending { created_at, id, tx };
    Ok(rows.into_iter().map(pending).collect())
}

/// The first tenant behind `after` that has deployments which are not decided, and when one of them is to be
/// looked at.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn next_tenant(
    conn: &mut Conn<'_>,
    chain: ChainNo,
    after: Option<TenantId>,
) -> Result<Option<(TenantId, Millis)>, StoreError> {
    Ok(on!(conn, c => sqlx::query_as(
        "SELECT tenant_id, look_at FROM safe_deployment
         WHERE chain_no = $1 AND status IN ('pending', 'processing') AND tenant_id > $2
         ORDER BY chain_no, tenant_id, look_at LIMIT 1",
    )
    .bind(chain.0)
    .bind(after.unwrap_or(TenantId(Uuid::nil())))
    .fetch_optional(c)
    .await)?)
}

/// A tenant's deployments that are to be looked at by now, the longest due first.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn due_deployments(
    conn: &mut Conn<'_>,
    chain: ChainNo,
    tenant: TenantId,
    now: Millis,
    limit: i64,
) -> Result<Vec<Deployment>, StoreError> {
    let rows: Vec<Raw> = on!(conn, c => sqlx::query_as(select_deployment!(
        "WHERE d.chain_no = $1 AND d.tenant_id = $2 AND d.status IN ('pending', 'processing')
           AND d.look_at <= $3
         ORDER BY d.chain_no, d.tenant_id, d.look_at LIMIT $4 + 0"
    ))
    .bind(chain.0)
    .bind(tenant)
    .bind(now)
    .bind(limit)
    .fetch_all(c)
    .await)?;
    safe::all(rows)
}

/// How many of the transactions that a tenant tracks on a chain are not decided; not counted beyond `most`. Safes that
/// were found by their owners are not among them: strangers make those.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn undecided(
    conn: &mut Conn<'_>,
    tenant: TenantId,
    chain: &ChainName,
    most: i64,
) -> Result<i64, StoreError> {
    Ok(on!(conn, c => sqlx::query_scalar(
        "SELECT COUNT(*) FROM (
             SELECT 1 FROM safe_deployment
             WHERE chain_no = (SELECT no FROM chain WHERE name = $1) AND tenant_id = $2
               AND status IN ('pending', 'processing') AND found_by = 'hash' LIMIT $3 + 0) AS few",
    )
    .bind(chain.as_str())
    .bind(tenant)
    .bind(most)
    .fetch_one(c)
    .await)?)
}

/// Deployments in blocks up to `settled` are to be looked at now.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn look_at_settled(
    conn: &mut Conn<'_>,
    chain: ChainNo,
    settled: u64,
    now: Millis,
) -> Result<(), StoreError> {
    on!(conn, c => sqlx::query(
        "UPDATE safe_deployment SET look_at = $3
         WHERE chain_no = $1 AND status = 'processing' AND block_number <= $2 AND look_at = $4",
    )
    .bind(chain.0)
    .bind(number(settled)?)
    .bind(now)
    .bind(Deployment::WHEN_SETTLED)
    .execute(c)
    .await
    .map(|_| ()))?;
    Ok(())
}

#[derive(FromRow)]
struct RawWaiting {
    #[sqlx(try_from = "i64")]
    block_number: u64,
    place: i64,
    #[sqlx(try_from = "Vec<u8>")]
    block_hash: BlockHash,
    block_time: Millis,
    #[sqlx(try_from = "Vec<u8>")]
    tx: TxId,
    #[sqlx(try_from = "Vec<u8>")]
    address: Address,
    #[sqlx(try_from = "Vec<u8>")]
    factory: Address,
    owners: String,
    plain: bool,
    look_at: Millis,
    looks: i64,
}

impl TryFrom<RawWaiting> for WaitingSafe {
    type Error = StoreError;

    fn try_from(row: RawWaiting) -> Result<Self, StoreError> {
        let at = BlockRef { number: row.block_number, hash: row.block_hash };
        Ok(Self {
            block: BlockPoint { at, time: row.block_time },
            place: u32::try_from(row.place).map_err(StoreError::corrupt)?,
            claim: SafeCandidate {
                tx: row.tx,
                address: row.address,
                factory: Some(row.factory),
                owners: read_addresses(&row.owners)?,
                plain: row.plain,
            },
            look_at: row.look_at,
            looks: u32::try_from(row.looks).unwrap_or(u32::MAX),
        })
    }
}

/// Safes that are to be judged by now, the longest due first.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn due_safes(
    conn: &mut Conn<'_>,
    chain: ChainNo,
    now: Millis,
    limit: i64,
) -> Result<Vec<WaitingSafe>, StoreError> {
    let rows: Vec<RawWaiting> = on!(conn, c => sqlx::query_as(
        "SELECT block_number, place, block_hash, block_time, tx, address, factory, owners, plain, look_at, looks
         FROM safe_candidate WHERE chain_no = $1 AND look_at <= $2
         ORDER BY chain_no, look_at LIMIT $3 + 0",
    )
    .bind(chain.0)
    .bind(now)
    .bind(limit)
    .fetch_all(c)
    .await)?;
    rows.into_iter().map(WaitingSafe::try_from).collect()
}

/// Whether a Safe waits still: neither judged nor taken back with its block.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn waits(
    conn: &mut Conn<'_>,
    chain: ChainNo,
    safe: &WaitingSafe,
) -> Result<bool, StoreError> {
    let found: Option<i64> = on!(conn, c => sqlx::query_scalar(
        "SELECT place FROM safe_candidate
         WHERE chain_no = $1 AND block_number = $2 AND place = $3 AND block_hash = $4",
    )
    .bind(chain.0)
    .bind(number(safe.block.at.number)?)
    .bind(i64::from(safe.place))
    .bind(&safe.block.at.hash.0[..])
    .fetch_optional(c)
    .await)?;
    Ok(found.is_some())
}

static SAFE_CANDIDATE: Table = Table::new(
    "safe_candidate",
    &[
        "chain_no",
        "block_number",
        "place",
        "block_hash",
        "block_time",
        "tx",
        "address",
        "factory",
        "owners",
        "plain",
        "look_at",
        "looks",
    ],
);

/// Writes what nodes are to be asked for, and takes away what they were asked for.
///
/// # Errors
/// [`StoreError::Stale`] if a Safe that was judged does not wait any more.
pub async fn write(
    conn: &mut Conn<'_>,
    chain: ChainNo,
    changes: &LookChanges,
) -> Result<(), StoreError> {
    let LookChanges { waiting, judged, put_off, deployments } = changes;
    if !waiting.is_empty() {
        SAFE_CANDIDATE
            .write(conn, waiting, |row, safe| {
                let WaitingSafe { block, place, claim, looks, look_at } = safe;
                row.push(chain.0)?;
                row.push(block.at.number.cast_signed())?;
                row.push(i64::from(*place))?;
                row.push(&block.at.hash.0[..])?;
                row.push(block.time)?;
                row.push(claim.tx.as_slice())?;
                row.push(claim.address.as_slice())?;
                row.push(claim.factory.as_ref().map_or(&[][..], Address::as_slice))?;
                row.push(write_addresses(&claim.owners))?;
                row.push(claim.plain)?;
                row.push(*look_at)?;
                row.push(i64::from(*looks))
            })
            .await?;
    }
    for safe in judged {
        let deleted = on!(conn, c => sqlx::query(
            "DELETE FROM safe_candidate
             WHERE chain_no = $1 AND block_number = $2 AND place = $3 AND block_hash = $4",
        )
        .bind(chain.0)
        .bind(number(safe.block.at.number)?)
        .bind(i64::from(safe.place))
        .bind(&safe.block.at.hash.0[..])
        .execute(c)
        .await
        .map(|done| done.rows_affected()))?;
        if deleted != 1 {
            return Err(StoreError::Stale("a judged Safe was taken back meanwhile".to_owned()));
        }
    }
    for safe in put_off {
        on!(conn, c => sqlx::query(
            "UPDATE safe_candidate SET look_at = $5, looks = $6
             WHERE chain_no = $1 AND block_number = $2 AND place = $3 AND block_hash = $4",
        )
        .bind(chain.0)
        .bind(number(safe.block.at.number)?)
        .bind(i64::from(safe.place))
        .bind(&safe.block.at.hash.0[..])
        .bind(safe.look_at)
        .bind(i64::from(safe.looks))
        .execute(c)
        .await
        .map(|_| ()))?;
    }
    for (id, revision, look_at, looks) in deployments {
        on!(conn, c => sqlx::query(
            "UPDATE safe_deployment SET look_at = $3, looks = $4 WHERE id = $1 AND revision = $2",
        )
        .bind(id)
        .bind(revision)
        .bind(look_at)
        .bind(i64::from(*looks))
        .execute(c)
        .await
        .map(|_| ()))?;
    }
    Ok(())
}

/// Forgets the Safes of blocks above a fork.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn delete_above(
    conn: &mut Conn<'_>,
    chain: ChainNo,
    fork: u64,
) -> Result<(), StoreError> {
    on!(conn, c => sqlx::query("DELETE FROM safe_candidate WHERE chain_no = $1 AND block_number > $2")
        .bind(chain.0)
        .bind(number(fork)?)
        .execute(c)
        .await
        .map(|_| ()))?;
    Ok(())
}
