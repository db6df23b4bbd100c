//! Watches whose history is looked for.

use std::collections::HashMap;

use sqlx::FromRow;

use super::{
    Conn, StoreError, on,
    set::{Blobs, sets},
    watch::{RawWatch, watch_columns},
};
use crate::{
    chain::{Address, BlockHash, BlockRef},
    ledger::backfill::Participant,
    model::{ChainNo, ScanNo, WalletNo},
};

/// The addresses whose histories are looked for on a chain.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn addresses(conn: &mut Conn<'_>, chain: ChainNo) -> Result<Vec<Address>, StoreError> {
    let rows: Vec<Vec<u8>> = on!(conn, c => sqlx::query_scalar(
        "SELECT w.address FROM history_scan s JOIN watch w ON w.scan_no = s.no WHERE s.chain_no = $1",
    )
    .bind(chain.0)
    .fetch_all(c)
    .await)?;
    rows.into_iter().map(|bytes| bytes.try_into().map_err(StoreError::corrupt)).collect()
}

#[derive(FromRow)]
struct RawParticipant {
    #[sqlx(flatten)]
    watch: RawWatch,
    from_block: Option<i64>,
    #[sqlx(try_from = "i64")]
    opened_number: u64,
    #[sqlx(try_from = "Vec<u8>")]
    opened_hash: BlockHash,
    /// The scan, or how far down it went.
    seen: Option<i64>,
    scan_ahead: Option<i64>,
}

impl TryFrom<(RawParticipant, u64)> for Participant {
    type Error = StoreError;

    fn try_from((row, seen): (RawParticipant, u64)) -> Result<Self, StoreError> {
        let from = row.from_block.ok_or_else(|| StoreError::corrupt("a history from nowhere"))?;
        Ok(Self {
            watch: row.watch.into(),
            seen,
            opened: BlockRef { number: row.opened_number, hash: row.opened_hash },
            from_block: u64::try_from(from).map_err(StoreError::corrupt)?,
            openings: Vec::new(),
        })
    }
}

macro_rules! select_participant {
    ($seen:literal, $watches:literal, $rest:literal) => {
        concat!(
            "SELECT ",
            watch_columns!(),
            ", w.from_block, w.opened_number, w.opened_hash, w.scan_ahead, ",
            $seen,
            " AS seen FROM ",
            $watches,
            " w JOIN wallet v ON v.no = w.wallet_no ",
            $rest
        )
    };
}

/// The open watches of some addresses that take part in some scans, without their openings. `scans` says which
/// height each of them needs next.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn participants(
    conn: &mut Conn<'_>,
    chain: ChainNo,
    scans: &[(ScanNo, u64)],
    addresses: &[Address],
) -> Result<Vec<Participant>, StoreError> {
    let addresses = Blobs::of(addresses.iter().map(Address::as_slice));
    if scans.is_empty() || addresses.is_empty() {
        return Ok(Vec::new());
    }
    // Which scan a watch takes part in is judged here: in the statement, an engine could look all of the scan's
    // watches up by it.
    let sql = sets(
        conn,
        select_participant!(
            "w.scan_no",
            "watches($1, $2)",
            "WHERE w.status = 1 ORDER BY w.address, w.wallet_no"
        ),
    );
    let rows: Vec<RawParticipant> =
        on!(conn, c => sqlx::query_as(sql).bind(chain.0).bind(&addresses).fetch_all(c).await)?;
    let scans: HashMap<ScanNo, u64> = scans.iter().copied().collect();
    let participant = |row: RawParticipant| {
        let scan = *scans.get(&ScanNo(row.seen?))?;
        let ahead = row.scan_ahead.and_then(|ahead| u64::try_from(ahead).ok());
        Some((row, ahead.map_or(scan, |ahead| ahead.min(scan))))
    };
    rows.into_iter().filter_map(participant).map(Participant::try_from).collect()
}

/// Whose history a scan looks for, if it still does.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn whose(
    conn: &mut Conn<'_>,
    scan: ScanNo,
) -> Result<Option<(WalletNo, Address)>, StoreError> {
    let row: Option<(i64, Vec<u8>)> = on!(conn, c => sqlx::query_as(
        "SELECT wallet_no, address FROM watch WHERE scan_no = $1 AND status + 0 = 1 LIMIT 1",
    )
    .bind(scan.0)
    .fetch_optional(c)
    .await)?;
    let read = |(wallet, address): (i64, Vec<u8>)| {
        Ok((WalletNo(wallet), address.try_into().map_err(StoreError::corrupt)?))
    };
    row.map(read).transpose()
}

/// Histories whose scan is over, and whose end is to be compared with the chain's own figures, of wallets after
/// `after`, oldest first: `limit` of them at most, without their openings.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn unproven(
    conn: &mut Conn<'_>,
    chain: ChainNo,
    after: WalletNo,
    limit: i64,
) -> Result<Vec<Participant>, StoreError> {
    // Limited before wallets are looked up: joined first, PostgreSQL would walk all wallets before the first one.
    let rows: Vec<RawParticipant> = on!(conn, c => sqlx::query_as(select_participant!(
        "w.covered_from",
        "(SELECT * FROM watch WHERE chain_no = $1 AND history = 'wanted' AND scan_no IS NULL AND status = 1
            AND covered_from IS NOT NULL AND wallet_no > $2
          ORDER BY wallet_no LIMIT $3 + 0)",
        "ORDER BY w.wallet_no"
    ))
    .bind(chain.0)
    .bind(after.0)
    .bind(limit)
    .fetch_all(c)
    .await)?;
    let participant = |row: RawParticipant| {
        let seen = u64::try_from(row.seen.unwrap_or(0)).map_err(StoreError::corrupt)?;
        Participant::try_from((row, seen))
    };
    rows.into_iter().map(participant).collect()
}
