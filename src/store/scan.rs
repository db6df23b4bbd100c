//! Histories that are looked for, in scans: one row moves on however many need the same block next.

use std::collections::BTreeSet;

use sqlx::{FromRow, QueryBuilder};

use super::{
    Conn, StoreError,
    chain::number,
    on,
    rows::Table,
    set::{Ints, runs, sets},
};
use crate::{
    chain::{Address, BlockHash, BlockRef, HistoryMethod},
    clock::Millis,
    ledger::changes::{HistoryEnd, ScanChange, WatchChanges},
    model::{ChainNo, ScanNo, TenantNo, WalletNo},
};

/// Histories of one tenant that need the same block next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scan {
    pub no: ScanNo,
    pub tenant: TenantNo,
    pub method: HistoryMethod,
    pub next: BlockRef,
    /// The lowest block that one of them asks for.
    pub from: u64,
    /// Whose history it is, where each is looked up by itself.
    pub wallet: Option<WalletNo>,
}

#[derive(FromRow)]
struct RawRequest {
    wallet_no: i64,
    tenant_no: i64,
    #[sqlx(try_from = "Vec<u8>")]
    address: Address,
    opened_number: i64,
    opened_hash: Vec<u8>,
}

/// Whether there is an open watch whose history nobody looks for yet.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn is_one_missing(conn: &mut Conn<'_>, chain: ChainNo) -> Result<bool, StoreError> {
    let row: Option<i64> = on!(conn, c => sqlx::query_scalar(
        "SELECT wallet_no FROM watch
         WHERE chain_no = $1 AND wallet_no > 0 AND history = 'wanted' AND scan_no IS NULL
           AND covered_from IS NULL AND status = 1
         LIMIT 1",
    )
    .bind(chain.0)
    .fetch_optional(c)
    .await)?;
    Ok(row.is_some())
}

/// Histories that began to be looked for.
#[derive(Clone, Debug, Default)]
pub struct Enlisted {
    pub addresses: Vec<Address>,
    /// How many were complete at once: they ask for nothing below the block at which their watch opened.
    pub complete: u64,
}

static HISTORY_SCAN: Table = Table::upsert(
    "history_scan",
    &["chain_no", "tenant_no", "method", "next_number", "next_hash", "wallet_no"],
    "ON CONFLICT DO NOTHING",
);

/// Lets histories that nobody looks for yet take part in scans from the blocks at which their watches opened:
/// `limit` of them at most, oldest wallets first.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn enlist(
    conn: &mut Conn<'_>,
    chain: ChainNo,
    method: HistoryMethod,
    limit: i64,
    now: Millis,
) -> Result<Enlisted, StoreError> {
    let complete = on!(conn, c => sqlx::query(
        "UPDATE watch SET history = 'complete', history_method = $2, covered_from = opened_number + 1,
                          updated_at = $3
         WHERE chain_no = $1 AND wallet_no > 0 AND history = 'wanted' AND scan_no IS NULL
           AND covered_from IS NULL AND status = 1 AND (from_block > opened_number OR opened_number = 0)",
    )
    .bind(chain.0)
    .bind(method.as_str())
    .bind(now)
    .execute(c)
    .await
    .map(|done| done.rows_affected()))?;
    let requests: Vec<RawRequest> = on!(conn, c => sqlx::query_as(
        "SELECT wallet_no, tenant_no, address, opened_number, opened_hash FROM watch
         WHERE chain_no = $1 AND wallet_no > 0 AND history = 'wanted' AND scan_no IS NULL
           AND covered_from IS NULL AND status = 1
         ORDER BY wallet_no LIMIT $2 + 0",
    )
    .bind(chain.0)
    .bind(limit)
    .fetch_all(c)
    .await)?;
    let alone = method == HistoryMethod::Signatures;
    let scans: BTreeSet<(i64, i64, &[u8], i64)> = requests
        .iter()
        .map(|request| {
            let wallet = if alone { request.wallet_no } else { 0 };
            (request.tenant_no, request.opened_number, request.opened_hash.as_slice(), wallet)
        })
        .collect();
    let scans: Vec<_> = scans.into_iter().collect();
    HISTORY_SCAN
        .write(conn, &scans, |row, (tenant, number, hash, wallet)| {
            row.push(chain.0)?;
            row.push(*tenant)?;
            row.push(method.as_str())?;
            row.push(*number)?;
            row.push(*hash)?;
            row.push(*wallet)
        })
        .await?;
    let wallets = Ints::of(requests.iter().map(|request| request.wallet_no));
    let sql = sets(
        conn,
        "UPDATE watch SET history_method = $2, scan_ahead = NULL, updated_at = $3, scan_no = (
             SELECT s.no FROM history_scan s
             WHERE s.chain_no = watch.chain_no AND s.tenant_no = watch.tenant_no AND s.method = $2
               AND s.next_number = watch.opened_number AND s.next_hash = watch.opened_hash
               AND s.wallet_no = CASE WHEN $5 THEN watch.wallet_no ELSE 0 END)
         WHERE wallet_no IN ints($4) AND +chain_no = $1 AND history = 'wanted' AND status + 0 = 1
           AND scan_no IS NULL AND covered_from IS NULL",
    );
    if !wallets.is_empty() {
        on!(conn, c => sqlx::query(sql)
            .bind(chain.0)
            .bind(method.as_str())
            .bind(now)
            .bind(&wallets)
            .bind(alone)
            .execute(c)
            .await
            .map(|_| ()))?;
    }
    let addresses = requests.into_iter().map(|request| request.address).collect();
    Ok(Enlisted { addresses, complete })
}

#[derive(FromRow)]
struct RawScan {
    no: i64,
    tenant_no: i64,
    #[sqlx(try_from = "String")]
    method: HistoryMethod,
    #[sqlx(try_from = "i64")]
    next_number: u64,
    #[sqlx(try_from = "Vec<u8>")]
    next_hash: BlockHash,
    wallet_no: i64,
    from_block: Option<i64>,
}

/// The scans of a chain in which somebody takes part.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn all(conn: &mut Conn<'_>, chain: ChainNo) -> Result<Vec<Scan>, StoreError> {
    let rows: Vec<RawScan> = on!(conn, c => sqlx::query_as(
        "SELECT s.no, s.tenant_no, s.method, s.next_number, s.next_hash, s.wallet_no,
                (SELECT w.from_block FROM watch w WHERE w.scan_no = s.no ORDER BY w.from_block LIMIT 1)
                    AS from_block
         FROM history_scan s WHERE s.chain_no = $1 ORDER BY s.no",
    )
    .bind(chain.0)
    .fetch_all(c)
    .await)?;
    let mut scans = Vec::with_capacity(rows.len());
    for row in rows {
        let Some(from) = row.from_block else { continue };
        scans.push(Scan {
            no: ScanNo(row.no),
            tenant: TenantNo(row.tenant_no),
            method: row.method,
            next: BlockRef { number: row.next_number, hash: row.next_hash },
            from: u64::try_from(from).map_err(StoreError::corrupt)?,
            wallet: (row.wallet_no != 0).then_some(WalletNo(row.wallet_no)),
        });
    }
    Ok(scans)
}

/// Deletes the scans of a chain in which nobody takes part any more.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn delete_empty(conn: &mut Conn<'_>, chain: ChainNo) -> Result<(), StoreError> {
    on!(conn, c => sqlx::query(
        "DELETE FROM history_scan WHERE chain_no = $1
           AND NOT EXISTS (SELECT 1 FROM watch w WHERE w.scan_no = history_scan.no)",
    )
    .bind(chain.0)
    .execute(c)
    .await
    .map(|_| ()))?;
    Ok(())
}

/// What became of histories and their scans.
#[derive(Clone, Debug, Default)]
pub struct Moved {
    /// How many histories are complete.
    pub complete: u64,
    /// Scans in which nobody takes part any more: they are deleted.
    pub over: Vec<ScanNo>,
}

/// Moves histories on, and ends those that have all they asked for. Those that were found by logs are still to
/// be proven.
///
/// # Errors
/// [`StoreError::Stale`] if a scan is not as it was read.
pub async fn write(
    conn: &mut Conn<'_>,
    chain: ChainNo,
    changes: &WatchChanges,
    now: Millis,
) -> Result<Moved, StoreError> {
    end(conn, chain, &changes.ended, now).await?;
    if let Some((next, wallets)) = &changes.ahead {
        get_ahead(conn, chain, *next, wallets, now).await?;
    }
    for (number, scans) in &changes.untraced {
        note_untraced(conn, scans, *number, now).await?;
    }
    let Some((next, scans)) = &changes.scans else { return Ok(Moved::default()) };
    absorb(conn, scans, now).await?;
    go_on(conn, scans, *next).await?;
    let numbers = Ints::of(scans.iter().map(|scan| scan.no.0));
    let complete = finish(conn, &numbers, *next, now).await?;
    let sql = sets(
        conn,
        "DELETE FROM history_scan WHERE no IN ints($1)
           AND NOT EXISTS (SELECT 1 FROM watch w WHERE w.scan_no = history_scan.no) RETURNING no",
    );
    let over: Vec<i64> = on!(conn, c => sqlx::query_scalar(sql).bind(&numbers).fetch_all(c).await)?;
    Ok(Moved { complete, over: over.into_iter().map(ScanNo).collect() })
}

/// Moves the histories of some wallets on, ahead of their scans.
async fn get_ahead(
    conn: &mut Conn<'_>,
    chain: ChainNo,
    next: u64,
    wallets: &[WalletNo],
    now: Millis,
) -> Result<(), StoreError> {
    let wallets = Ints::of(wallets.iter().map(|wallet| wallet.0));
    let sql = sets(
        conn,
        "UPDATE watch SET scan_ahead = $3, updated_at = $4 WHERE +chain_no = $1 AND wallet_no IN ints($2)",
    );
    on!(conn, c => sqlx::query(sql)
        .bind(chain.0)
        .bind(&wallets)
        .bind(number(next)?)
        .bind(now)
        .execute(c)
        .await
        .map(|_| ()))?;
    Ok(())
}

/// Notes the first block that nobody traced in the histories of some scans that have none: once for each.
async fn note_untraced(
    conn: &mut Conn<'_>,
    scans: &[ScanNo],
    block: u64,
    now: Millis,
) -> Result<(), StoreError> {
    let scans = Ints::of(scans.iter().map(|scan| scan.0));
    let sql = sets(
        conn,
        "UPDATE watch SET untraced = $2, updated_at = $3 WHERE scan_no IN ints($1) AND untraced IS NULL",
    );
    on!(conn, c => {
        sqlx::query(sql).bind(&scans).bind(number(block)?).bind(now).execute(c).await.map(|_| ())
    })?;
    Ok(())
}

/// Lets all who took part in scans take part in those that take them up.
async fn absorb(conn: &mut Conn<'_>, scans: &[ScanChange], now: Millis) -> Result<(), StoreError> {
    let absorbed: Vec<(i64, i64)> = scans
        .iter()
        .flat_map(|scan| scan.absorbs.iter().map(|absorbed| (absorbed.0, scan.no.0)))
        .collect();
    for run in runs(&absorbed) {
        on!(conn, c => {
            let mut query = QueryBuilder::new("WITH step (absorbed, by_no) AS (");
            query.push_values(run, |mut row, (absorbed, by)| {
                row.push_bind(*absorbed).push_bind(*by);
            });
            query.push(
                ") UPDATE watch
                   SET scan_no = (SELECT by_no FROM step WHERE step.absorbed = watch.scan_no), updated_at = ",
            );
            query.push_bind(now);
            query.push(" WHERE scan_no IN (SELECT absorbed FROM step)");
            query.build().execute(c).await.map(|_| ())
        })?;
    }
    let gone = Ints::of(absorbed.into_iter().map(|(absorbed, _)| absorbed));
    if !gone.is_empty() {
        let sql = sets(conn, "DELETE FROM history_scan WHERE no IN ints($1)");
        on!(conn, c => sqlx::query(sql).bind(&gone).execute(c).await.map(|_| ()))?;
    }
    Ok(())
}

/// Moves scans on to the block that they need next.
async fn go_on(
    conn: &mut Conn<'_>,
    scans: &[ScanChange],
    next: BlockRef,
) -> Result<(), StoreError> {
    for run in runs(scans) {
        let moved = on!(conn, c => {
            let mut query = QueryBuilder::new("WITH step (no, seen_number, seen_hash) AS (");
            query.push_values(run, |mut row, scan| {
                row.push_bind(scan.no.0)
                    .push_bind(scan.seen.number.cast_signed())
                    .push_bind(&scan.seen.hash.0[..]);
            });
            query.push(") UPDATE history_scan SET next_number = ");
            query.push_bind(next.number.cast_signed());
            query.push(", next_hash = ").push_bind(&next.hash.0[..]);
            query.push(
                " FROM step WHERE history_scan.no IN (SELECT no FROM step) AND history_scan.no = step.no
                    AND history_scan.next_number = step.seen_number AND history_scan.next_hash = step.seen_hash",
            );
            query.build().execute(c).await.map(|done| done.rows_affected())
        })?;
        if usize::try_from(moved) != Ok(run.len()) {
            let why = format!("{moved} of {} scans are as they were read", run.len());
            return Err(StoreError::Stale(why));
        }
    }
    Ok(())
}

/// Ends the histories of scans that ask for nothing at `next` or below; gives how many are complete.
async fn finish(
    conn: &mut Conn<'_>,
    scans: &Ints,
    next: BlockRef,
    now: Millis,
) -> Result<u64, StoreError> {
    // What a chain began with is nobody's movement: block 0 is never looked at.
    let done = if next.number == 0 { 0 } else { number(next.number)? + 1 };
    let sql = sets(
        conn,
        "UPDATE watch SET history = 'complete', scan_no = NULL, covered_from = from_block, updated_at = $3
         WHERE scan_no IN ints($1) AND from_block >= $2 AND history_method <> 'logs'",
    );
    let complete = on!(conn, c => sqlx::query(sql)
        .bind(scans)
        .bind(done)
        .bind(now)
        .execute(c)
        .await
        .map(|done| done.rows_affected()))?;
    let sql = sets(
        conn,
        "UPDATE watch SET scan_no = NULL, covered_from = from_block, updated_at = $3
         WHERE scan_no IN ints($1) AND from_block >= $2 AND history_method = 'logs'",
    );
    on!(conn, c => {
        sqlx::query(sql).bind(scans).bind(done).bind(now).execute(c).await.map(|_| ())
    })?;
    Ok(complete)
}

/// Ends histories by their wallets.
async fn end(
    conn: &mut Conn<'_>,
    chain: ChainNo,
    ended: &[HistoryEnd],
    now: Millis,
) -> Result<(), StoreError> {
    for run in runs(ended) {
        on!(conn, c => {
            let mut query =
                QueryBuilder::new("WITH ended (address, wallet_no, history, covered_from) AS (");
            query.push_values(run, |mut row, end| {
                row.push_bind(end.address.as_slice())
                    .push_bind(end.wallet.0)
                    .push_bind(end.status.as_str())
                    .push_bind(end.covered_from.map(u64::cast_signed));
            });
            query.push(
                ") UPDATE watch SET history = ended.history, scan_no = NULL,
                                    covered_from = COALESCE(ended.covered_from, watch.covered_from),
                                    updated_at = ",
            );
            query.push_bind(now);
            query.push(" FROM ended WHERE watch.history = 'wanted' AND watch.chain_no = ");
            query.push_bind(chain.0);
            query.push(
                " AND (watch.address, watch.wallet_no) IN (SELECT address, wallet_no FROM ended)
                  AND watch.address = ended.address AND watch.wallet_no = ended.wallet_no",
            );
            query.build().execute(c).await.map(|_| ())
        })?;
    }
    Ok(())
}
