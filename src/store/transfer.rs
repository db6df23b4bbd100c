//! Transfers and entries: what the ledger's steps read and write, in sets.

use std::collections::BTreeMap;

use sqlx::{FromRow, QueryBuilder};

use super::{
    Conn, StoreError,
    chain::number,
    code, on,
    rows::Table,
    set::{Ints, runs, sets},
};
use crate::{
    amount::Amount,
    chain::{Address, BlockHash, BlockRef, TxId},
    clock::Millis,
    id::TransferId,
    ledger::changes::{AssetOpening, TransferUpdate},
    model::{
        AssetNo, ChainNo, Entry, EntryKind, Reason, Status, TenantNo, Transfer, TransferNo,
        WalletNo, ordinal_bytes, read_ordinal,
    },
};

#[derive(FromRow)]
pub(super) struct RawTransfer {
    no: i64,
    id: TransferId,
    wallet_no: i64,
    tenant_no: i64,
    asset_no: i64,
    status: i16,
    direction: i16,
    kind: i16,
    counted: bool,
    connection: i64,
    amount: Amount,
    counterparty: Option<Vec<u8>>,
    #[sqlx(try_from = "Vec<u8>")]
    tx: TxId,
    ordinal: Vec<u8>,
    #[sqlx(try_from = "i64")]
    block_number: u64,
    #[sqlx(try_from = "Vec<u8>")]
    block_hash: BlockHash,
    block_time: Millis,
    reason: Option<String>,
    memo: Option<String>,
    omitted: Option<i64>,
    seen_at: Millis,
    settled_by: Option<i64>,
    settled_at: Option<Millis>,
    orphaned_at: Option<Millis>,
}

impl TryFrom<RawTransfer> for Transfer {
    type Error = StoreError;

    fn try_from(row: RawTransfer) -> Result<Self, StoreError> {
        Ok(Self {
            no: TransferNo(row.no),
            id: row.id,
            wallet: WalletNo(row.wallet_no),
            tenant: TenantNo(row.tenant_no),
            tx: row.tx,
            ordinal: read_ordinal(&row.ordinal)
                .ok_or_else(|| StoreError::corrupt(format!("the ordinal of {}", row.id)))?,
            direction: code::read_direction(row.direction)?,
            asset: AssetNo(row.asset_no),
            kind: code::read_kind(row.kind)?,
            status: code::read_status(row.status)?,
            amount: row.amount,
            counterparty: row.counterparty.as_deref().and_then(Address::from_slice),
            counted: row.counted,
            block: BlockRef { number: row.block_number, hash: row.block_hash },
            block_time: row.block_time,
            connection: u32::try_from(row.connection).map_err(StoreError::corrupt)?,
            reason: code::read_reason(row.reason)?,
            memo: row.memo,
            omitted: row.omitted.map(u32::try_from).transpose().map_err(StoreError::corrupt)?,
            seen_at: row.seen_at,
            settled_by: row.settled_by.map(code::read_settled_by).transpose()?,
            settled_at: row.settled_at,
            orphaned_at: row.orphaned_at,
        })
    }
}

/// The start of every statement that reads [`RawTransfer`]s.
macro_rules! select_transfer {
    ($rest:literal) => {
        concat!(
            "SELECT no, id, wallet_no, tenant_no, asset_no, status, direction, kind, counted, connection,
                    amount, counterparty, tx, ordinal, block_number, block_hash, block_time, reason, memo,
                    omitted, seen_at, settled_by, settled_at, orphaned_at
             FROM transfer ",
            $rest
        )
    };
}
pub(super) use select_transfer;

pub(super) fn all(rows: Vec<RawTransfer>) -> Result<Vec<Transfer>, StoreError> {
    rows.into_iter().map(Transfer::try_from).collect()
}

/// Transfers that a block may hold again, by their marks.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn marked(conn: &mut Conn<'_>, marks: Vec<i64>) -> Result<Vec<Transfer>, StoreError> {
    let marks = Ints::of(marks);
    if marks.is_empty() {
        return Ok(Vec::new());
    }
    let sql = sets(conn, select_transfer!("WHERE mark IN ints($1) AND status IN (1, 2)"));
    all(on!(conn, c => sqlx::query_as(sql).bind(&marks).fetch_all(c).await)?)
}

/// Transfers by their numbers, in no order.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn by_numbers(
    conn: &mut Conn<'_>,
    numbers: impl IntoIterator<Item = TransferNo>,
) -> Result<Vec<Transfer>, StoreError> {
    let numbers = Ints::of(numbers.into_iter().map(|no| no.0));
    if numbers.is_empty() {
        return Ok(Vec::new());
    }
    let sql = sets(conn, select_transfer!("WHERE no IN ints($1)"));
    all(on!(conn, c => sqlx::query_as(sql).bind(&numbers).fetch_all(c).await)?)
}

/// Whether a chain has transfers that a block may hold again. While catching up there are none, and nothing has
/// to be looked up.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn has_unsettled(conn: &mut Conn<'_>) -> Result<bool, StoreError> {
    let row: Option<i64> = on!(conn, c => sqlx::query_scalar(
        "SELECT mark FROM transfer WHERE mark >= $1 AND status IN (1, 2) ORDER BY mark LIMIT 1",
    )
    .bind(i64::MIN)
    .fetch_optional(c)
    .await)?;
    Ok(row.is_some())
}

/// The pending transfers of blocks up to `upto`, in chain order: what settles with that block.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn pending_up_to(
    conn: &mut Conn<'_>,
    chain: ChainNo,
    upto: u64,
) -> Result<Vec<Transfer>, StoreError> {
    all(on!(conn, c => sqlx::query_as(select_transfer!(
        "WHERE chain_no = $1 AND status = 1 AND block_number <= $2 ORDER BY block_number, no"
    ))
    .bind(chain.0)
    .bind(number(upto)?)
    .fetch_all(c)
    .await)?)
}

/// The pending transfers of blocks above `fork`, newest first: what a rollback takes back.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn pending_above(
    conn: &mut Conn<'_>,
    chain: ChainNo,
    fork: u64,
) -> Result<Vec<Transfer>, StoreError> {
    all(on!(conn, c => sqlx::query_as(select_transfer!(
        "WHERE chain_no = $1 AND status = 1 AND block_number > $2 ORDER BY block_number DESC, no DESC"
    ))
    .bind(chain.0)
    .bind(number(fork)?)
    .fetch_all(c)
    .await)?)
}

/// The settled transfers of blocks above `fork`, newest first: only for a rewind by hand, it reads all of
/// the chain's transfers.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn settled_above(
    conn: &mut Conn<'_>,
    chain: ChainNo,
    fork: u64,
) -> Result<Vec<Transfer>, StoreError> {
    all(on!(conn, c => sqlx::query_as(select_transfer!(
        "WHERE chain_no = $1 AND status = 0 AND block_number > $2 ORDER BY block_number DESC, no DESC"
    ))
    .bind(chain.0)
    .bind(number(fork)?)
    .fetch_all(c)
    .await)?)
}

/// What of some wallets has settled on a chain: for watches that begin anew.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn settled_of(
    conn: &mut Conn<'_>,
    chain: ChainNo,
    wallets: &[WalletNo],
) -> Result<Vec<Transfer>, StoreError> {
    let wallets = Ints::of(wallets.iter().map(|wallet| wallet.0));
    if wallets.is_empty() {
        return Ok(Vec::new());
    }
    let sql = sets(
        conn,
        select_transfer!(
            "WHERE wallet_no IN ints($1) AND chain_no = $2 AND status = 0 ORDER BY no DESC"
        ),
    );
    all(on!(conn, c => sqlx::query_as(sql).bind(&wallets).bind(chain.0).fetch_all(c).await)?)
}

/// The openings of some wallets on a chain that stand.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn openings(
    conn: &mut Conn<'_>,
    chain: ChainNo,
    wallets: &[WalletNo],
) -> Result<Vec<Transfer>, StoreError> {
    let wallets = Ints::of(wallets.iter().map(|wallet| wallet.0));
    if wallets.is_empty() {
        return Ok(Vec::new());
    }
    let sql = sets(
        conn,
        select_transfer!(
            "WHERE wallet_no IN ints($1) AND kind = 9 AND status IN (0, 1) AND chain_no = $2"
        ),
    );
    all(on!(conn, c => sqlx::query_as(sql).bind(&wallets).bind(chain.0).fetch_all(c).await)?)
}

/// The settled part of what an asset began with, above a block, for the wallets behind `from` up to `to`.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn settled_openings_above(
    conn: &mut Conn<'_>,
    chain: ChainNo,
    opening: &AssetOpening,
    block: u64,
) -> Result<Vec<Transfer>, StoreError> {
    all(on!(conn, c => sqlx::query_as(select_transfer!(
        "WHERE wallet_no > $1 AND wallet_no <= $2 AND kind = 9 AND status IN (0, 1) AND status + 0 = 0
           AND asset_no + 0 = $3 AND chain_no + 0 = $4 AND block_number + 0 > $5 ORDER BY no DESC"
    ))
    .bind(opening.from.0)
    .bind(opening.to.0)
    .bind(opening.asset.0)
    .bind(chain.0)
    .bind(number(block)?)
    .fetch_all(c)
    .await)?)
}

static TRANSFER: Table = Table::new(
    "transfer",
    &[
        "no",
        "id",
        "mark",
        "wallet_no",
        "tenant_no",
        "chain_no",
        "asset_no",
        "status",
        "direction",
        "kind",
        "counted",
        "connection",
        "amount",
        "counterparty",
        "tx",
        "ordinal",
        "block_number",
        "block_hash",
        "block_time",
        "reason",
        "memo",
        "omitted",
        "seen_at",
        "settled_by",
        "settled_at",
    ],
);

static ENTRY: Table =
    Table::new("entry", &["transfer_no", "kind", "amount", "created_at", "commit_no"]);

/// Writes new transfers.
///
/// # Errors
/// [`StoreError::Constraint`] if a number is taken: somebody else has moved the cursor.
pub async fn insert(
    conn: &mut Conn<'_>,
    chain: ChainNo,
    transfers: &[Transfer],
) -> Result<(), StoreError> {
    TRANSFER
        .write(conn, transfers, |row, transfer| {
            let unsettled = transfer.status != Status::Settled;
            row.push(transfer.no.0)?;
            row.push(transfer.id)?;
            row.push(unsettled.then(|| transfer.id.mark()))?;
            row.push(transfer.wallet.0)?;
            row.push(transfer.tenant.0)?;
            row.push(chain.0)?;
            row.push(transfer.asset.0)?;
            row.push(code::status(transfer.status))?;
            row.push(code::direction(transfer.direction))?;
            row.push(code::kind(transfer.kind))?;
            row.push(transfer.counted)?;
            row.push(i64::from(transfer.connection))?;
            row.push(transfer.amount)?;
            row.push(transfer.counterparty.as_ref().map(Address::as_slice))?;
            row.push(transfer.tx.as_slice())?;
            row.push(ordinal_bytes(&transfer.ordinal))?;
            row.push(transfer.block.number.cast_signed())?;
            row.push(&transfer.block.hash.0[..])?;
            row.push(transfer.block_time)?;
            row.push(transfer.reason.map(Reason::as_str))?;
            row.push(transfer.memo.as_deref())?;
            row.push(transfer.omitted.map(i64::from))?;
            row.push(transfer.seen_at)?;
            row.push(transfer.settled_by.map(code::settled_by))?;
            row.push(transfer.settled_at)
        })
        .await?;
    Ok(())
}

/// Numbers of transfers, by the rule under which they became available.
type ByRule = BTreeMap<i64, Vec<i64>>;

/// Writes how transfers stand now.
///
/// # Errors
/// [`StoreError::Corrupt`] if one of them is not there.
pub async fn update(
    conn: &mut Conn<'_>,
    updates: &[TransferUpdate],
    now: Millis,
) -> Result<(), StoreError> {
    let (mut settled, mut early) = (ByRule::new(), ByRule::new());
    let mut replaced = Vec::new();
    for update in updates {
        let (rows, no, by) = match update {
            TransferUpdate::Settled(no, by) => (&mut settled, no, by),
            TransferUpdate::Early(no, by) => (&mut early, no, by),
            TransferUpdate::Replaced(no) => {
                replaced.push(no.0);
                continue;
            }
            TransferUpdate::Orphaned { .. } => continue,
        };
        rows.entry(code::settled_by(*by)).or_default().push(no.0);
    }
    for (by, numbers) in settled {
        let sql = sets(
            conn,
            "UPDATE transfer SET status = 0, settled_at = $2, settled_by = $3
             WHERE no IN ints($1) AND status + 0 = 1",
        );
        let list = Ints::of(numbers.iter().copied());
        let changed = on!(conn, c => sqlx::query(sql)
            .bind(&list)
            .bind(now)
            .bind(by)
            .execute(c)
            .await
            .map(|done| done.rows_affected()))?;
        all_changed(changed, numbers.len())?;
    }
    for (by, numbers) in early {
        let sql = sets(
            conn,
            "UPDATE transfer SET settled_by = $2
             WHERE no IN ints($1) AND status + 0 = 1 AND settled_by IS NULL",
        );
        let list = Ints::of(numbers.iter().copied());
        let changed = on!(conn, c => sqlx::query(sql)
            .bind(&list)
            .bind(by)
            .execute(c)
            .await
            .map(|done| done.rows_affected()))?;
        all_changed(changed, numbers.len())?;
    }
    let orphaned: Vec<_> = updates
        .iter()
        .filter_map(|update| match update {
            TransferUpdate::Orphaned { no, mark, reason } => Some((no.0, *mark, *reason)),
            _ => None,
        })
        .collect();
    for run in runs(&orphaned) {
        let changed = on!(conn, c => {
            let mut query = QueryBuilder::new("WITH gone (no, mark, reason) AS (");
            query.push_values(run, |mut row, (no, mark, reason)| {
                row.push_bind(*no).push_bind(*mark).push_bind(reason.map(Reason::as_str));
            });
            query.push(
                ") UPDATE transfer
                 SET status = 2, mark = gone.mark, settled_at = NULL, orphaned_at = ",
            );
            query.push_bind(now);
            query.push(
                ", reason = COALESCE(gone.reason, transfer.reason)
                 FROM gone WHERE transfer.no IN (SELECT no FROM gone) AND transfer.no = gone.no
                   AND transfer.status IN (0, 1)",
            );
            query.build().execute(c).await.map(|done| done.rows_affected())
        })?;
        all_changed(changed, run.len())?;
    }
    // Behind those that were taken back: the same commit can do both.
    if !replaced.is_empty() {
        let sql = sets(conn, "UPDATE transfer SET status = 3, mark = NULL WHERE no IN ints($1)");
        let list = Ints::of(replaced.iter().copied());
        let changed = on!(conn, c => sqlx::query(sql)
            .bind(&list)
            .execute(c)
            .await
            .map(|done| done.rows_affected()))?;
        all_changed(changed, replaced.len())?;
    }
    Ok(())
}

fn all_changed(changed: u64, expected: usize) -> Result<(), StoreError> {
    if usize::try_from(changed) == Ok(expected) {
        return Ok(());
    }
    Err(StoreError::corrupt(format!("{changed} of {expected} transfers stand as they were read")))
}

/// Adds the entries of a commit to the ledger, `added` being the transfers that were inserted with them. What a new transfer's
/// entry says stands in its row already, so these are made of the rows.
///
/// # Errors
/// [`StoreError::Constraint`] if one of them is booked already; [`StoreError::Corrupt`] if the rows of the
/// new transfers say otherwise.
pub async fn insert_entries(
    conn: &mut Conn<'_>,
    entries: &[Entry],
    added: &[Transfer],
    commit: u64,
    now: Millis,
) -> Result<(), StoreError> {
    let numbers = || added.iter().map(|transfer| transfer.no);
    let (first, last) = (numbers().min(), numbers().max());
    let is_new = |entry: &&Entry| {
        let connects = matches!(entry.kind, EntryKind::Connect | EntryKind::ConnectSettled);
        connects && Some(entry.transfer) >= first && Some(entry.transfer) <= last
    };
    let (new, old): (Vec<&Entry>, Vec<&Entry>) = match first {
        Some(_) => entries.iter().partition(is_new),
        None => (Vec::new(), entries.iter().collect()),
    };
    for (kind, status) in
        [(EntryKind::ConnectSettled, Status::Settled), (EntryKind::Connect, Status::Pending)]
    {
        let expected = new.iter().filter(|entry| entry.kind == kind).count();
        if expected == 0 {
            continue;
        }
        let made = on!(conn, c => sqlx::query(
            "INSERT INTO entry (transfer_no, kind, amount, created_at, commit_no)
             SELECT no, $3, amount, $4, $6 FROM transfer
             WHERE no >= $1 AND no <= $2 AND counted AND status = $5",
        )
        .bind(first.map(|no| no.0))
        .bind(last.map(|no| no.0))
        .bind(kind.code())
        .bind(now)
        .bind(code::status(status))
        .bind(number(commit)?)
        .execute(c)
        .await
        .map(|done| done.rows_affected()))?;
        if usize::try_from(made) != Ok(expected) {
            return Err(StoreError::corrupt(format!(
                "{made} {kind} entries of {expected} transfers"
            )));
        }
    }
    ENTRY
        .write(conn, &old, |row, entry| {
            row.push(entry.transfer.0)?;
            row.push(entry.kind.code())?;
            row.push(entry.amount)?;
            row.push(now)?;
            row.push(commit.cast_signed())
        })
        .await?;
    Ok(())
}
