//! A wallet's history from one end to the other, in parts: for balances of the past, and for what makes up one.
//!
//! A part is all transfers in blocks of some times. Ids begin with the time of the block that held a transfer first;
//! one that came back in another block is read apart, by [`moved`].

use sqlx::{AssertSqlSafe, FromRow};

use super::{
    keep_order,
    row::{Listed, select_listed},
};
use crate::{
    amount::Amount,
    clock::Millis,
    id::TransferId,
    ledger::past::{Way, Weight},
    model::{AssetNo, EntryKind, Status, Transfer, TransferNo, WalletNo},
    store::{
        Conn, StoreError, code, on,
        set::{Ints, sets},
    },
};

/// The times of a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    pub first: Millis,
    pub last: Millis,
    /// Whether nothing lies further on the way.
    pub is_end: bool,
}

impl Span {
    /// The time with which the next part begins.
    #[must_use]
    pub fn next(self, way: Way) -> Millis {
        match way {
            Way::Up => Millis(self.last.0.saturating_add(1)),
            Way::Down => Millis(self.first.0.saturating_sub(1)),
        }
    }
}

/// All times.
const EVER: (Millis, Millis) = (Millis(0), Millis(i64::MAX));

/// The next part on the way from `from`, its time included: about so many transfers.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn span(
    conn: &mut Conn<'_>,
    wallet: WalletNo,
    way: Way,
    from: Option<Millis>,
    rows: i64,
) -> Result<Span, StoreError> {
    let (condition, order) = match way {
        Way::Up => (">=", "ASC"),
        Way::Down => ("<=", "DESC"),
    };
    keep_order(conn).await?;
    let from = from.unwrap_or(match way {
        Way::Up => EVER.0,
        Way::Down => EVER.1,
    });
    let (lowest, highest) = TransferId::range(from);
    let sql = format!(
        "SELECT id FROM transfer WHERE wallet_no = $1 AND id {condition} $2 ORDER BY id {order} LIMIT 1 OFFSET $3 - 1"
    );
    let edge: Option<TransferId> = on!(conn, c => sqlx::query_scalar(AssertSqlSafe(sql))
        .bind(wallet.0)
        .bind(match way {
            Way::Up => lowest,
            Way::Down => highest,
        })
        .bind(rows)
        .fetch_optional(c)
        .await)?;
    let end = TransferId::range(match way {
        Way::Up => EVER.1,
        Way::Down => EVER.0,
    });
    let is_end = edge.is_none_or(|edge| edge.time() == end.0.time());
    Ok(match way {
        Way::Up => Span { first: from, last: edge.map_or(EVER.1, TransferId::time), is_end },
        Way::Down => Span { first: edge.map_or(EVER.0, TransferId::time), last: from, is_end },
    })
}

#[derive(FromRow)]
struct RawWeight {
    /// Divided by spaces, see [`super::row`].
    numbers: String,
    amount: Amount,
}

impl RawWeight {
    fn weight(&self) -> Option<Weight> {
        let mut numbers = self.numbers.split(' ').map(|text| text.parse::<i64>().ok());
        let mut next = || numbers.next().flatten();
        let mut word = || next().and_then(|number| i16::try_from(number).ok());
        let direction = code::read_direction(word()?).ok()?;
        let status = code::read_status(word()?).ok()?;
        Some(Weight {
            asset: AssetNo(next()?),
            block: u64::try_from(next()?).ok()?,
            time: Millis(next()?),
            direction,
            status,
            early: next()? == 1 && status == Status::Pending,
            amount: self.amount,
        })
    }
}

/// What of a part stands in its first blocks and counts, but openings.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn weights(
    conn: &mut Conn<'_>,
    wallet: WalletNo,
    span: Span,
) -> Result<Vec<Weight>, StoreError> {
    let rows: Vec<RawWeight> = on!(conn, c => sqlx::query_as(
        "SELECT concat_ws(' ', direction, status, asset_no, block_number, block_time,
                          CASE WHEN settled_by IS NULL THEN 0 ELSE 1 END) AS numbers, amount
         FROM transfer WHERE wallet_no = $1 AND id >= $2 AND id <= $3 AND connection = 1 AND counted
           AND status + 0 < 2 AND kind + 0 <> 9",
    )
    .bind(wallet.0)
    .bind(TransferId::range(span.first).0)
    .bind(TransferId::range(span.last).1)
    .fetch_all(c)
    .await)?;
    let weight = |row: RawWeight| {
        row.weight().ok_or_else(|| StoreError::corrupt("the numbers of a transfer"))
    };
    rows.into_iter().map(weight).collect()
}

/// What of a part is of one asset and counts, or did until it was taken back.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn transfers(
    conn: &mut Conn<'_>,
    wallet: WalletNo,
    asset: AssetNo,
    span: Span,
) -> Result<Vec<Transfer>, StoreError> {
    let rows: Vec<Listed> = on!(conn, c => sqlx::query_as(select_listed!(
        "WHERE wallet_no = $1 AND id >= $2 AND id <= $3 AND connection = 1 AND counted AND asset_no + 0 = $4"
    ))
    .bind(wallet.0)
    .bind(TransferId::range(span.first).0)
    .bind(TransferId::range(span.last).1)
    .bind(asset.0)
    .fetch_all(c)
    .await)?;
    rows.into_iter().map(|row| row.transfer(wallet)).collect()
}

#[derive(FromRow)]
struct RawMoved {
    no: i64,
    connection: i64,
    last: Option<i64>,
}

/// The transfers of a wallet that came back in another block, as they stand there: of so many replaced ones at most,
/// else `None`.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn moved(
    conn: &mut Conn<'_>,
    wallet: WalletNo,
    most: i64,
) -> Result<Option<Vec<Transfer>>, StoreError> {
    // What was replaced is among the few transfers that are not settled, and has the id of what replaced it.
    let rows: Vec<RawMoved> = on!(conn, c => sqlx::query_as(
        "SELECT r.no, r.connection,
                (SELECT MAX(t.no) FROM transfer t
                 WHERE t.wallet_no = r.wallet_no AND t.id = r.id AND t.connection > 1 AND t.status + 0 <> 3) AS last
         FROM transfer r WHERE r.wallet_no = $1 AND r.status <> 0 AND r.status + 0 = 3 LIMIT $2 + 0",
    )
    .bind(wallet.0)
    .bind(most)
    .fetch_all(c)
    .await)?;
    if i64::try_from(rows.len()) == Ok(most) {
        return Ok(None);
    }
    let numbers = rows.iter().flat_map(|row| {
        let own = (row.connection > 1).then_some(row.no);
        own.into_iter().chain(row.last)
    });
    let numbers = Ints::of(numbers);
    if numbers.is_empty() {
        return Ok(Some(Vec::new()));
    }
    let sql = sets(conn, select_listed!("WHERE no IN ints($1) AND counted"));
    let rows: Vec<Listed> = on!(conn, c => sqlx::query_as(sql).bind(&numbers).fetch_all(c).await)?;
    let moved: Result<Vec<Transfer>, StoreError> =
        rows.into_iter().map(|row| row.transfer(wallet)).collect();
    moved.map(Some)
}

/// An entry of a transfer, and when it was booked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Booked {
    pub transfer: TransferNo,
    pub kind: EntryKind,
    pub amount: Amount,
    pub at: Millis,
}

#[derive(FromRow)]
struct RawBooked {
    transfer_no: i64,
    kind: i16,
    amount: Amount,
    created_at: Millis,
}

/// The entries of some transfers, by transfer and in the order in which they happened.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn entries(
    conn: &mut Conn<'_>,
    transfers: &[Transfer],
) -> Result<Vec<Booked>, StoreError> {
    let numbers = Ints::of(transfers.iter().map(|row| row.no.0));
    if numbers.is_empty() {
        return Ok(Vec::new());
    }
    let sql = sets(
        conn,
        "SELECT transfer_no, kind, amount, created_at FROM entry WHERE transfer_no IN ints($1)",
    );
    let rows: Vec<RawBooked> =
        on!(conn, c => sqlx::query_as(sql).bind(&numbers).fetch_all(c).await)?;
    let booked = |row: RawBooked| {
        let unknown = || StoreError::corrupt(format!("the entry kind {}", row.kind));
        Ok(Booked {
            transfer: TransferNo(row.transfer_no),
            kind: EntryKind::from_code(row.kind).ok_or_else(unknown)?,
            amount: row.amount,
            at: row.created_at,
        })
    };
    let mut entries: Vec<Booked> =
        rows.into_iter().map(booked).collect::<Result<_, StoreError>>()?;
    entries.sort_unstable_by_key(|entry| (entry.transfer, entry.kind.place()));
    Ok(entries)
}
