use super::*;
use crate::{
    amount::Amount,
    chain::{Address, BlockHash, BlockRef, Ordinal, TxId},
    id::Naming,
    model::{Reason, TenantNo, TransferNo},
    store::{Db, testing::TestStore, transfer},
};

const WALLET: WalletNo = WalletNo(7);
const ROWS: u64 = 4_500;
const FIRST: Millis = Millis(1_768_469_400_000);
const CHAINS: [ChainNo; 2] = [ChainNo(1), ChainNo(2)];

/// Two assets are on the first chain, one on the second.
fn chain(asset: u64) -> ChainNo {
    CHAINS[usize::try_from(asset % 2).unwrap()]
}

fn asset(n: u64) -> AssetNo {
    AssetNo::nth(chain(n), n).unwrap()
}

/// Ten a second, the oldest first. A fee is rare, and the oldest of all.
fn past() -> Vec<Transfer> {
    let transfer = |n: u64| {
        let time = Millis(FIRST.0 + i64::try_from(n / 10).unwrap() * 1000);
        Transfer {
            no: TransferNo::nth(chain(n % 3), n + 1).unwrap(),
            id: Naming::new("test").field(&n.to_be_bytes()).at(time),
            wallet: WALLET,
            tenant: TenantNo(1),
            tx: TxId::from([1; 32]),
            ordinal: Ordinal::Log(u32::try_from(n).unwrap()),
            direction: if n.is_multiple_of(5) { Direction::Out } else { Direction::In },
            asset: asset(n % 3),
            kind: if n < 3 { Kind::Fee } else { Kind::Transfer },
            status: match n % 97 {
                0 => Status::Pending,
                1 => Status::Orphaned,
                _ => Status::Settled,
            },
            amount: Amount::from(n),
            counterparty: (!n.is_multiple_of(2)).then(|| Address::from([3; 20])),
            counted: !n.is_multiple_of(4),
            block: BlockRef { number: n / 10, hash: BlockHash([9; 32]) },
            block_time: time,
            connection: if n.is_multiple_of(11) { 2 } else { 1 },
            reason: n.is_multiple_of(13).then_some(Reason::UntracedDebit),
            memo: n.is_multiple_of(17).then(|| "for the coffee".to_owned()),
            omitted: n.is_multiple_of(16).then_some(7),
            seen_at: Millis(time.0 + 5),
            settled_by: None,
            settled_at: (n % 97 > 1).then_some(Millis(time.0 + 9)),
            orphaned_at: None,
        }
    };
    (0..ROWS).map(transfer).collect()
}

async fn write(db: &Db, transfers: &[Transfer]) {
    let mut tx = db.begin().await.unwrap();
    for chain in CHAINS {
        let own: Vec<Transfer> =
            transfers.iter().filter(|row| row.no.chain() == chain).cloned().collect();
        transfer::insert(&mut tx.conn(), chain, &own).await.unwrap();
    }
    tx.commit().await.unwrap();
}

/// All pages of a filter, each in a snapshot of its own as the API reads them.
async fn pages(db: &Db, filter: &TransferFilter, limit: i64) -> Vec<HistoryPage> {
    let mut filter = filter.clone();
    let mut pages = Vec::new();
    loop {
        let mut tx = db.snapshot().await.unwrap();
        let page = page(&mut tx.conn(), WALLET, &filter, limit).await.unwrap();
        filter.before = page.next;
        pages.push(page);
        if filter.before.is_none() {
            return pages;
        }
    }
}

type Takes = fn(&Transfer) -> bool;

fn filters() -> Vec<(TransferFilter, Takes)> {
    let all = TransferFilter { uncounted: true, ..TransferFilter::default() };
    let (from, to) = (Millis(FIRST.0 + 100_000), Millis(FIRST.0 + 120_000));
    vec![
        (all.clone(), |_| true),
        (TransferFilter::default(), |row| row.counted),
        (TransferFilter { status: Some(Status::Pending), ..all.clone() }, |row| {
            row.status == Status::Pending
        }),
        (TransferFilter { status: Some(Status::Orphaned), ..all.clone() }, |row| {
            row.status == Status::Orphaned
        }),
        (TransferFilter { status: Some(Status::Settled), ..all.clone() }, |row| {
            row.status == Status::Settled
        }),
        (TransferFilter { direction: Some(Direction::Out), ..all.clone() }, |row| {
            row.direction == Direction::Out
        }),
        (TransferFilter { kind: Some(Kind::Fee), ..all.clone() }, |row| row.kind == Kind::Fee),
        (TransferFilter { kind: Some(Kind::Burn), ..all.clone() }, |_| false),
        (TransferFilter { chain: Some(CHAINS[1]), ..all.clone() }, |row| {
            row.no.chain() == CHAINS[1]
        }),
        (TransferFilter { assets: Some(vec![asset(0), asset(1)]), ..all.clone() }, |row| {
            [asset(0), asset(1)].contains(&row.asset)
        }),
        (TransferFilter { assets: Some(Vec::new()), ..all.clone() }, |_| false),
        (TransferFilter { from: Some(from), to: Some(to), ..all.clone() }, |row| {
            (100..120).contains(&row.block.number)
        }),
        (
            TransferFilter {
                status: Some(Status::Pending),
                direction: Some(Direction::In),
                ..TransferFilter::default()
            },
            |row| row.status == Status::Pending && row.direction == Direction::In && row.counted,
        ),
    ]
}

#[tokio::test]
async fn the_pages_of_any_filter_hold_just_what_it_takes_the_newest_first() {
    let past = past();
    let mut newest_first = past.clone();
    newest_first.sort_unstable_by_key(|row| std::cmp::Reverse(row.id));
    for store in TestStore::all().await {
        write(&store.db, &past).await;
        for (filter, takes) in filters() {
            let expected: Vec<&Transfer> = newest_first.iter().filter(|row| takes(row)).collect();
            for limit in [7, 200] {
                let pages = pages(&store.db, &filter, limit).await;
                let listed: Vec<&Transfer> =
                    pages.iter().flat_map(|page| &page.transfers).collect();
                assert!(listed == expected, "{filter:?}, {limit} a page");
                // No more pages than are full, and one for each part that was looked at.
                let limit = usize::try_from(limit).unwrap();
                assert!(pages.iter().all(|page| page.transfers.len() <= limit), "{filter:?}");
                assert!(pages.len() <= expected.len() / limit + 5, "{filter:?}: {}", pages.len());
            }
        }
        store.close().await;
    }
}

#[tokio::test]
async fn a_page_whose_filter_few_pass_ends_early_and_says_where_it_goes_on() {
    let past = past();
    for store in TestStore::all().await {
        write(&store.db, &past).await;
        let rare =
            TransferFilter { kind: Some(Kind::Fee), uncounted: true, ..TransferFilter::default() };
        let pages = pages(&store.db, &rare, 200).await;
        let listed: Vec<usize> = pages.iter().map(|page| page.transfers.len()).collect();
        // 1,000 rows are looked at for each page.
        assert_eq!(listed, [0, 0, 0, 0, 3]);
        store.close().await;
    }
}

#[tokio::test]
async fn a_connection_that_another_one_replaced_is_in_no_history() {
    let past = past();
    for store in TestStore::all().await {
        write(&store.db, &past).await;
        let mut tx = store.db.begin().await.unwrap();
        on!(&mut tx.conn(), c => sqlx::query("UPDATE transfer SET status = 3 WHERE block_number < 440")
            .execute(c)
            .await
            .map(|_| ()))
        .unwrap();
        tx.commit().await.unwrap();
        let all = TransferFilter { uncounted: true, ..TransferFilter::default() };
        let orphaned = TransferFilter { status: Some(Status::Orphaned), ..all.clone() };
        for (filter, expected) in [(all, 100), (orphaned, 1)] {
            let pages = pages(&store.db, &filter, 200).await;
            let listed: usize = pages.iter().map(|page| page.transfers.len()).sum();
            assert_eq!(listed, expected, "{filter:?}");
        }
        store.close().await;
    }
}
