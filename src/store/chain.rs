//! Where each chain stands: cursor and recent blocks.

use std::{collections::BTreeMap, time::Duration};

use sqlx::FromRow;

use super::{
    Conn, StoreError,
    lease::{by_clock, millis},
    on,
    rows::Table,
    set::{Ints, sets},
};
use crate::{
    chain::{BlockHash, BlockRef, ChainName, Family, TraceAbility},
    clock::Millis,
    ledger::changes::NewBlock,
    model::{BlockPoint, ChainNo, Cursor, JournalHash, JournalHead},
};

#[derive(FromRow)]
struct CursorRow {
    chain_no: i64,
    #[sqlx(try_from = "String")]
    name: ChainName,
    #[sqlx(try_from = "String")]
    family: Family,
    caip2: String,
    #[sqlx(try_from = "i64")]
    head_number: u64,
    #[sqlx(try_from = "Vec<u8>")]
    head_hash: BlockHash,
    head_time: Millis,
    #[sqlx(try_from = "i64")]
    settled_number: u64,
    #[sqlx(try_from = "Vec<u8>")]
    settled_hash: BlockHash,
    settled_time: Millis,
    halted: Option<String>,
    fencing_epoch: i64,
    #[sqlx(try_from = "i64")]
    transfers: u64,
    #[sqlx(try_from = "i64")]
    assets: u64,
    #[sqlx(try_from = "i64")]
    commits: u64,
    #[sqlx(try_from = "Vec<u8>")]
    journal_hash: JournalHash,
}

impl From<CursorRow> for Cursor {
    fn from(row: CursorRow) -> Self {
        let at = |number, hash| BlockRef { number, hash };
        Self {
            no: ChainNo(row.chain_no),
            chain: row.name,
            family: row.family,
            caip2: row.caip2,
            head: BlockPoint { at: at(row.head_number, row.head_hash), time: row.head_time },
            settled: BlockPoint {
                at: at(row.settled_number, row.settled_hash),
                time: row.settled_time,
            },
            halted: row.halted,
            epoch: row.fencing_epoch,
            transfers: row.transfers,
            assets: row.assets,
            journal: JournalHead { commit: row.commits, hash: row.journal_hash },
        }
    }
}

/// A block number as the store holds it.
///
/// # Errors
/// [`StoreError::Corrupt`] past 2^63, which no chain reaches.
pub fn number(value: u64) -> Result<i64, StoreError> {
    i64::try_from(value).map_err(StoreError::corrupt)
}

/// The number of a chain, made if it has none.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn ensure(conn: &mut Conn<'_>, chain: &ChainName) -> Result<ChainNo, StoreError> {
    on!(conn, c => sqlx::query("INSERT INTO chain (name) VALUES ($1) ON CONFLICT (name) DO NOTHING")
        .bind(chain.as_str())
        .execute(c)
        .await
        .map(|_| ()))?;
    let no: Option<i64> = on!(conn, c => sqlx::query_scalar("SELECT no FROM chain WHERE name = $1")
        .bind(chain.as_str())
        .fetch_optional(c)
        .await)?;
    no.map(ChainNo).ok_or_else(|| StoreError::corrupt(format!("the chain {chain} vanished")))
}

macro_rules! select_cursor {
    ($rest:literal) => {
        concat!(
            "SELECT c.chain_no, n.name, c.family, c.caip2, c.head_number, c.head_hash, c.head_time,
                    c.settled_number, c.settled_hash, c.settled_time, c.halted, c.fencing_epoch, c.transfers,
                    c.assets, c.commits, c.journal_hash
             FROM chain_cursor c JOIN chain n ON n.no = c.chain_no ",
            $rest
        )
    };
}

/// # Errors
/// [`StoreError`] of the engine.
pub async fn cursor(conn: &mut Conn<'_>, chain: &ChainName) -> Result<Option<Cursor>, StoreError> {
    let row: Option<CursorRow> = on!(conn, c => sqlx::query_as(select_cursor!("WHERE n.name = $1"))
            .bind(chain.as_str())
            .fetch_optional(c)
            .await)?;
    Ok(row.map(Cursor::from))
}

/// All cursors, by the names of the chains.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn cursors(conn: &mut Conn<'_>) -> Result<Vec<Cursor>, StoreError> {
    let rows: Vec<CursorRow> =
        on!(conn, c => sqlx::query_as(select_cursor!("ORDER BY n.name")).fetch_all(c).await)?;
    Ok(rows.into_iter().map(Cursor::from).collect())
}

/// Begins a chain at `cursor`; `false` if another process has begun it already.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn insert_cursor(
    conn: &mut Conn<'_>,
    cursor: &Cursor,
    now: Millis,
) -> Result<bool, StoreError> {
    let changed = on!(conn, c => sqlx::query(
        "INSERT INTO chain_cursor (chain_no, family, caip2, head_number, head_hash, head_time,
                                   settled_number, settled_hash, settled_time, updated_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT (chain_no) DO NOTHING",
    )
    .bind(cursor.no.0)
    .bind(cursor.family.as_str())
    .bind(&cursor.caip2)
    .bind(number(cursor.head.at.number)?)
    .bind(&cursor.head.at.hash.0[..])
    .bind(cursor.head.time)
    .bind(number(cursor.settled.at.number)?)
    .bind(&cursor.settled.at.hash.0[..])
    .bind(cursor.settled.time)
    .bind(now)
    .execute(c)
    .await
    .map(|done| done.rows_affected()))?;
    Ok(changed == 1)
}

/// Moves a cursor to `next`, if it still is what `from` says, under the same epoch: what stops a second
/// writer, and against a commit whose outcome was not learned. `false` means that nothing was changed and the
/// caller must read the cursor again. The lease of the chain lasts for `lease` from then on.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn move_cursor(
    conn: &mut Conn<'_>,
    from: &Cursor,
    next: &Cursor,
    now: Millis,
    lease: Duration,
) -> Result<bool, StoreError> {
    let Cursor { head, settled, .. } = next;
    let sql = by_clock!(
        conn,
        "UPDATE chain_cursor
         SET head_number = $8, head_hash = $9, head_time = $10,
             settled_number = $11, settled_hash = $12, settled_time = $13, transfers = $14, assets = $15,
             halted = $16, updated_at = $17, commits = $20, journal_hash = $21, lease_until = CASE WHEN holder IS NULL THEN NULL ELSE $19 + ";
        " END
         WHERE chain_no = $1 AND head_number = $2 AND head_hash = $3
           AND settled_number = $4 AND settled_hash = $5 AND fencing_epoch = $6 AND transfers = $7
           AND journal_hash = $22
           AND (halted IS NULL) = (CAST($18 AS TEXT) IS NULL)"
    );
    let changed = on!(conn, c => sqlx::query(sql)
    .bind(from.no.0)
    .bind(number(from.head.at.number)?)
    .bind(&from.head.at.hash.0[..])
    .bind(number(from.settled.at.number)?)
    .bind(&from.settled.at.hash.0[..])
    .bind(from.epoch)
    .bind(number(from.transfers)?)
    .bind(number(head.at.number)?)
    .bind(&head.at.hash.0[..])
    .bind(head.time)
    .bind(number(settled.at.number)?)
    .bind(&settled.at.hash.0[..])
    .bind(settled.time)
    .bind(number(next.transfers)?)
    .bind(number(next.assets)?)
    .bind(&next.halted)
    .bind(now)
    .bind(&from.halted)
    .bind(millis(lease))
    .bind(number(next.journal.commit)?)
    .bind(&next.journal.hash.0[..])
    .bind(&from.journal.hash.0[..])
    .execute(c)
    .await
    .map(|done| done.rows_affected()))?;
    Ok(changed == 1)
}

/// Stops a chain with a reason, if its epoch still is the one of whoever says so; `false` if not.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn halt(
    conn: &mut Conn<'_>,
    chain: ChainNo,
    epoch: i64,
    reason: &str,
    now: Millis,
) -> Result<bool, StoreError> {
    let changed = on!(conn, c => sqlx::query(
        "UPDATE chain_cursor SET halted = $3, updated_at = $4 WHERE chain_no = $1 AND fencing_epoch = $2",
    )
    .bind(chain.0)
    .bind(epoch)
    .bind(reason)
    .bind(now)
    .execute(c)
    .await
    .map(|done| done.rows_affected()))?;
    Ok(changed == 1)
}

/// Notes what the endpoints of a chain trace with, if its epoch still is the one of whoever says so.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn write_tracing(
    conn: &mut Conn<'_>,
    chain: ChainNo,
    epoch: i64,
    tracing: &[TraceAbility],
) -> Result<(), StoreError> {
    let words: Vec<&str> = tracing.iter().map(|ability| ability.as_str()).collect();
    on!(conn, c => sqlx::query(
        "UPDATE chain_cursor SET tracing = $3 WHERE chain_no = $1 AND fencing_epoch = $2",
    )
    .bind(chain.0)
    .bind(epoch)
    .bind(words.join(","))
    .execute(c)
    .await
    .map(|_| ()))?;
    Ok(())
}

#[derive(FromRow)]
struct TracingRow {
    chain_no: i64,
    tracing: Option<String>,
}

/// What the endpoints of each chain trace with, as [`write_tracing`] has noted it.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn tracing(
    conn: &mut Conn<'_>,
) -> Result<BTreeMap<ChainNo, Vec<TraceAbility>>, StoreError> {
    let rows: Vec<TracingRow> = on!(conn, c => sqlx::query_as(
        "SELECT chain_no, tracing FROM chain_cursor",
    )
    .fetch_all(c)
    .await)?;
    let read = |row: TracingRow| {
        let words = row.tracing.unwrap_or_default();
        let of =
            |word: &str| TraceAbility::ALL.iter().copied().find(|known| known.as_str() == word);
        (ChainNo(row.chain_no), words.split(',').filter_map(of).collect())
    };
    Ok(rows.into_iter().map(read).collect())
}

/// A person accepts more differences from the chain's own figures than are believed by themselves, until the next
/// block settles; `false` if there is no such chain.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn accept_differences(conn: &mut Conn<'_>, chain: ChainNo) -> Result<bool, StoreError> {
    let changed = on!(conn, c => sqlx::query(
        "UPDATE chain_cursor SET differences_accepted_at = settled_number WHERE chain_no = $1",
    )
    .bind(chain.0)
    .execute(c)
    .await
    .map(|done| done.rows_affected()))?;
    Ok(changed == 1)
}

/// Whether [`accept_differences`] was said, and nothing has settled since.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn differences_accepted(conn: &mut Conn<'_>, chain: ChainNo) -> Result<bool, StoreError> {
    let chain: Option<i64> = on!(conn, c => sqlx::query_scalar(
        "SELECT chain_no FROM chain_cursor WHERE chain_no = $1 AND differences_accepted_at = settled_number",
    )
    .bind(chain.0)
    .fetch_optional(c)
    .await)?;
    Ok(chain.is_some())
}

#[derive(FromRow)]
struct BlockRow {
    #[sqlx(try_from = "i64")]
    number: u64,
    #[sqlx(try_from = "Vec<u8>")]
    hash: BlockHash,
    time: Millis,
}

impl From<BlockRow> for BlockPoint {
    fn from(row: BlockRow) -> Self {
        Self { at: BlockRef { number: row.number, hash: row.hash }, time: row.time }
    }
}

static BLOCK: Table = Table::new(
    "block",
    &["chain_no", "number", "hash", "parent_number", "parent_hash", "time", "untraced"],
);

/// Remembers applied blocks, so that a reorg finds the way back.
///
/// # Errors
/// [`StoreError::Constraint`] if a height is taken: the caller skipped a rollback.
pub async fn insert_blocks(
    conn: &mut Conn<'_>,
    chain: ChainNo,
    blocks: &[NewBlock],
) -> Result<(), StoreError> {
    BLOCK
        .write(conn, blocks, |row, NewBlock { header, untraced }| {
            row.push(chain.0)?;
            row.push(header.at.number.cast_signed())?;
            row.push(&header.at.hash.0[..])?;
            row.push(header.parent.number.cast_signed())?;
            row.push(&header.parent.hash.0[..])?;
            row.push(Millis::from_seconds(header.time))?;
            row.push(*untraced)
        })
        .await?;
    Ok(())
}

/// The newest remembered block at or below `at`.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn block_at_or_below(
    conn: &mut Conn<'_>,
    chain: ChainNo,
    at: u64,
) -> Result<Option<BlockPoint>, StoreError> {
    let row: Option<BlockRow> = on!(conn, c => sqlx::query_as(
        "SELECT number, hash, time FROM block WHERE chain_no = $1 AND number <= $2
         ORDER BY number DESC LIMIT 1",
    )
    .bind(chain.0)
    .bind(number(at)?)
    .fetch_optional(c)
    .await)?;
    Ok(row.map(BlockPoint::from))
}

/// The remembered blocks from `from` up, ascending.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn blocks_from(
    conn: &mut Conn<'_>,
    chain: ChainNo,
    from: u64,
) -> Result<Vec<BlockPoint>, StoreError> {
    let rows: Vec<BlockRow> = on!(conn, c => sqlx::query_as(
        "SELECT number, hash, time FROM block WHERE chain_no = $1 AND number >= $2 ORDER BY number",
    )
    .bind(chain.0)
    .bind(number(from)?)
    .fetch_all(c)
    .await)?;
    Ok(rows.into_iter().map(BlockPoint::from).collect())
}

/// The blocks above `settled` of which nobody has told yet what moved inside their transactions, ascending.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn untraced_blocks(
    conn: &mut Conn<'_>,
    chain: ChainNo,
    settled: u64,
) -> Result<Vec<BlockRef>, StoreError> {
    let rows: Vec<BlockRow> = on!(conn, c => sqlx::query_as(
        "SELECT number, hash, time FROM block WHERE chain_no = $1 AND number > $2 AND untraced ORDER BY number",
    )
    .bind(chain.0)
    .bind(number(settled)?)
    .fetch_all(c)
    .await)?;
    Ok(rows.into_iter().map(|row| BlockPoint::from(row).at).collect())
}

/// What moved inside the transactions of these blocks is known.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn mark_traced(
    conn: &mut Conn<'_>,
    chain: ChainNo,
    blocks: &[BlockRef],
) -> Result<(), StoreError> {
    let numbers = Ints::of(blocks.iter().map(|block| block.number.cast_signed()));
    if numbers.is_empty() {
        return Ok(());
    }
    let sql =
        sets(conn, "UPDATE block SET untraced = FALSE WHERE chain_no = $2 AND number IN ints($1)");
    on!(conn, c => sqlx::query(sql).bind(&numbers).bind(chain.0).execute(c).await.map(|_| ()))?;
    Ok(())
}

/// Forgets the blocks above `fork` (a rollback).
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn delete_blocks_above(
    conn: &mut Conn<'_>,
    chain: ChainNo,
    fork: u64,
) -> Result<(), StoreError> {
    on!(conn, c => sqlx::query("DELETE FROM block WHERE chain_no = $1 AND number > $2")
        .bind(chain.0)
        .bind(number(fork)?)
        .execute(c)
        .await
        .map(|_| ()))?;
    Ok(())
}

/// Forgets the blocks from `first` to `last`: those that no reorg can reach, or that may not be the chain's own.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn delete_blocks(
    conn: &mut Conn<'_>,
    chain: ChainNo,
    first: u64,
    last: u64,
) -> Result<(), StoreError> {
    on!(conn, c => sqlx::query(
        "DELETE FROM block WHERE chain_no = $1 AND number >= $2 AND number <= $3",
    )
    .bind(chain.0)
    .bind(number(first)?)
    .bind(number(last)?)
    .execute(c)
    .await
    .map(|_| ()))?;
    Ok(())
}
