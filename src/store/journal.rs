//! The journal: its commits, and the entries by the commits that booked them.

use sqlx::FromRow;

use super::{Conn, StoreError, chain::number, on, rows::Table};
use crate::{
    amount::Amount,
    chain::{BlockHash, BlockRef},
    clock::Millis,
    model::{
        BookedEntry, ChainNo, CommitKind, Entry, EntryKind, JournalCommit, JournalHash, Rewind,
        RewindOrder, TransferNo,
    },
};

static JOURNAL: Table = Table::new(
    "journal",
    &[
        "chain_no",
        "commit_no",
        "kind",
        "head_number",
        "head_hash",
        "settled_number",
        "settled_hash",
        "transfers",
        "entries",
        "hash",
        "rewound_from",
        "rewound_by",
        "reason",
        "created_at",
    ],
);

/// Adds commits to the journal of a chain: none or one.
///
/// # Errors
/// [`StoreError::Constraint`] if its number is taken: somebody else has moved the cursor.
pub async fn insert(
    conn: &mut Conn<'_>,
    chain: ChainNo,
    commits: &[JournalCommit],
) -> Result<(), StoreError> {
    JOURNAL
        .write(conn, commits, |row, commit| {
            let rewind = commit.rewind.as_ref();
            row.push(chain.0)?;
            row.push(commit.number.cast_signed())?;
            row.push(commit.kind.code())?;
            row.push(commit.head.number.cast_signed())?;
            row.push(&commit.head.hash.0[..])?;
            row.push(commit.settled.number.cast_signed())?;
            row.push(&commit.settled.hash.0[..])?;
            row.push(commit.transfers.cast_signed())?;
            row.push(commit.entries.cast_signed())?;
            row.push(&commit.hash.0[..])?;
            row.push(rewind.map(|rewind| rewind.from.cast_signed()))?;
            row.push(rewind.and_then(|rewind| rewind.order.by.as_deref()))?;
            row.push(rewind.map(|rewind| rewind.order.reason.as_str()))?;
            row.push(commit.time)
        })
        .await?;
    Ok(())
}

#[derive(FromRow)]
struct RawCommit {
    #[sqlx(try_from = "i64")]
    commit_no: u64,
    kind: i16,
    #[sqlx(try_from = "i64")]
    head_number: u64,
    #[sqlx(try_from = "Vec<u8>")]
    head_hash: BlockHash,
    #[sqlx(try_from = "i64")]
    settled_number: u64,
    #[sqlx(try_from = "Vec<u8>")]
    settled_hash: BlockHash,
    #[sqlx(try_from = "i64")]
    transfers: u64,
    #[sqlx(try_from = "i64")]
    entries: u64,
    #[sqlx(try_from = "Vec<u8>")]
    hash: JournalHash,
    rewound_from: Option<i64>,
    rewound_by: Option<String>,
    reason: Option<String>,
    created_at: Millis,
}

impl TryFrom<RawCommit> for JournalCommit {
    type Error = StoreError;

    fn try_from(row: RawCommit) -> Result<Self, StoreError> {
        let unknown =
            || StoreError::corrupt(format!("the kind {} of commit {}", row.kind, row.commit_no));
        let from = row.rewound_from.map(u64::try_from).transpose().map_err(StoreError::corrupt)?;
        let order = row.reason.map(|reason| RewindOrder { by: row.rewound_by, reason });
        Ok(Self {
            number: row.commit_no,
            kind: CommitKind::from_code(row.kind).ok_or_else(unknown)?,
            head: BlockRef { number: row.head_number, hash: row.head_hash },
            settled: BlockRef { number: row.settled_number, hash: row.settled_hash },
            transfers: row.transfers,
            entries: row.entries,
            time: row.created_at,
            rewind: from.zip(order).map(|(from, order)| Rewind { from, order }),
            hash: row.hash,
        })
    }
}

/// The commits behind `after`, by number, at most `limit`.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn commits(
    conn: &mut Conn<'_>,
    chain: ChainNo,
    after: u64,
    limit: i64,
) -> Result<Vec<JournalCommit>, StoreError> {
    let rows: Vec<RawCommit> = on!(conn, c => sqlx::query_as(
        "SELECT commit_no, kind, head_number, head_hash, settled_number, settled_hash, transfers, entries, hash,
                rewound_from, rewound_by, reason, created_at
         FROM journal WHERE chain_no = $1 AND commit_no > $2 ORDER BY commit_no LIMIT $3 + 0",
    )
    .bind(chain.0)
    .bind(number(after)?)
    .bind(limit)
    .fetch_all(c)
    .await)?;
    rows.into_iter().map(JournalCommit::try_from).collect()
}

#[derive(FromRow)]
struct RawBooked {
    transfer_no: i64,
    kind: i16,
    amount: Amount,
    created_at: Millis,
    #[sqlx(try_from = "i64")]
    commit_no: u64,
}

fn booked(rows: Vec<RawBooked>) -> Result<Vec<BookedEntry>, StoreError> {
    let entry = |row: RawBooked| {
        let unknown = || StoreError::corrupt(format!("the entry kind {}", row.kind));
        let kind = EntryKind::from_code(row.kind).ok_or_else(unknown)?;
        let entry = Entry { transfer: TransferNo(row.transfer_no), kind, amount: row.amount };
        Ok(BookedEntry { entry, commit: row.commit_no, time: row.created_at })
    };
    rows.into_iter().map(entry).collect()
}

/// A place among the entries of all chains: behind that one.
pub type Place = (TransferNo, i16);

/// The entries behind `after` of transfers before `end`, by their transfers and kinds, at most `limit`.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn entries(
    conn: &mut Conn<'_>,
    after: Place,
    end: TransferNo,
    limit: i64,
) -> Result<Vec<BookedEntry>, StoreError> {
    booked(on!(conn, c => sqlx::query_as(
        "SELECT transfer_no, kind, amount, created_at, commit_no FROM entry
         WHERE (transfer_no, kind) > ($1, $2) AND transfer_no < $3
         ORDER BY transfer_no, kind LIMIT $4 + 0",
    )
    .bind(after.0.0)
    .bind(after.1)
    .bind(end.0)
    .bind(limit)
    .fetch_all(c)
    .await)?)
}

/// What the commits from `first` to `last` have settled or taken back, in no order.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn later_entries(
    conn: &mut Conn<'_>,
    chain: ChainNo,
    first: u64,
    last: u64,
) -> Result<Vec<BookedEntry>, StoreError> {
    booked(on!(conn, c => sqlx::query_as(
        "SELECT transfer_no, kind, amount, created_at, commit_no FROM entry
         WHERE transfer_no >> 44 = $1 AND commit_no >= $2 AND commit_no <= $3
           AND kind IN (2, 4, 5, 6, 7) AND commit_no > 0",
    )
    .bind(chain.0)
    .bind(number(first)?)
    .bind(number(last)?)
    .fetch_all(c)
    .await)?)
}
