use proptest::prelude::*;

use super::*;
use crate::{
    chain::{BlockHash, BlockRef, Kind, Ordinal, TxId},
    id::Naming,
    model::{AssetNo, TenantNo, TransferNo, WalletNo},
};

const SETTLED: u64 = 30;

fn transfer(n: u64, block: u64, is_in: bool, orphaned: bool, amount: u64) -> Transfer {
    let time = Millis(i64::try_from(block / 2).unwrap() * 1000);
    Transfer {
        no: TransferNo(i64::try_from(n).unwrap()),
        id: Naming::new("test").field(&n.to_be_bytes()).at(time),
        wallet: WalletNo(1),
        tenant: TenantNo(1),
        tx: TxId::from([1; 32]),
        ordinal: Ordinal::Tx,
        direction: if is_in { Direction::In } else { Direction::Out },
        asset: AssetNo(1),
        kind: Kind::Transfer,
        status: match (orphaned, block > SETTLED) {
            (true, _) => Status::Orphaned,
            (_, true) => Status::Pending,
            (_, false) => Status::Settled,
        },
        amount: amount.into(),
        counterparty: None,
        counted: true,
        block: BlockRef { number: block, hash: BlockHash([9; 32]) },
        block_time: time,
        connection: 1,
        reason: None,
        memo: None,
        omitted: None,
        seen_at: time,
        settled_by: None,
        settled_at: None,
        orphaned_at: None,
    }
}

fn entries(row: &Transfer) -> Vec<(EntryKind, Millis)> {
    let kinds: &[EntryKind] = match row.status {
        Status::Orphaned => &[EntryKind::Connect, EntryKind::Disconnect],
        Status::Pending => &[EntryKind::Connect],
        Status::Settled if row.block.number.is_multiple_of(2) => &[EntryKind::ConnectSettled],
        Status::Settled => &[EntryKind::Connect, EntryKind::Settle],
    };
    kinds.iter().map(|kind| (*kind, row.block_time)).collect()
}

fn history() -> impl Strategy<Value = Vec<Transfer>> {
    let one = (0u64..40, any::<bool>(), 0u8..5, 1u64..1000);
    prop::collection::vec(one, 0..30).prop_map(|rows| {
        let rows = rows.into_iter().zip(1..);
        rows.map(|((block, is_in, state, amount), n)| transfer(n, block, is_in, state == 0, amount))
            .collect()
    })
}

/// One page; whether it is the last one.
fn page(rows: &[Transfer], mark: Bookmark, limit: usize) -> (Reader, bool) {
    let mut reader = Reader::new(mark, limit, Millis(i64::try_from(SETTLED / 2).unwrap() * 1000));
    let mut rows: Vec<Transfer> = rows.to_vec();
    rows.sort_by_key(Place::of);
    rows.retain(|row| reader.is_ahead(Place::of(row)));
    let is_end = rows.into_iter().all(|row| {
        let own = entries(&row);
        reader.take(row, &own)
    });
    (reader, is_end)
}

/// What the rows add up to, by their status alone.
fn total(rows: &[Transfer]) -> Sum {
    let mut sum = Sum::default();
    for row in rows.iter().filter(|row| row.status != Status::Orphaned) {
        match row.direction {
            Direction::In => sum.add(row.amount),
            Direction::Out => sum.subtract(row.amount),
        }
    }
    sum
}

proptest! {
    #[test]
    fn pages_of_any_size_show_each_transfer_once_and_add_up(
        mut rows in history(),
        later in prop::collection::vec((any::<bool>(), 0u64..5, any::<bool>(), 1u64..1000), 0..6),
        limit in 1usize..7,
    ) {
        let count = rows.len();
        let (mut mark, mut seen) = (Bookmark::default(), Vec::new());
        let mut later = later.into_iter();
        loop {
            let (reader, is_end) = page(&rows, mark, limit);
            prop_assert!(reader.lines.len() <= limit);
            seen.extend(reader.lines.iter().map(|line| line.transfer.no));
            mark = reader.mark();
            if is_end {
                prop_assert_eq!(reader.tally().total, total(&rows), "what was read is what stands");
                break;
            }
            // Meanwhile something vanishes, or something new comes.
            if let Some((vanishes, block, is_in, amount)) = later.next() {
                let pending = rows.iter_mut().find(|row| row.status == Status::Pending);
                if let Some(row) = pending.filter(|_| vanishes) {
                    row.status = Status::Orphaned;
                } else {
                    let n = u64::try_from(rows.len()).unwrap() + 1;
                    rows.push(transfer(n, 40 + block, is_in, false, amount));
                }
            }
        }
        let shown: Vec<_> = seen.iter().filter(|no| no.0 <= i64::try_from(count).unwrap()).collect();
        let mut once = shown.clone();
        once.sort_unstable();
        once.dedup();
        prop_assert_eq!((shown.len(), once.len()), (count, count));
    }
}

#[test]
fn a_sum_below_zero_is_none_and_comes_back_exactly() {
    let mut sum = Sum::default();
    sum.add(5.into());
    sum.subtract(8.into());
    assert_eq!(sum.amount(), None);
    sum.add(Amount::MAX);
    sum.add(4.into());
    assert_eq!(sum.amount(), None, "more than 256 bits");
    sum.subtract(Amount::MAX);
    assert_eq!(sum.amount(), Some(1.into()));
}
