//! Any number of transfers that are no money, beside those that are: a few rows, and the money is exact.

use super::*;
use crate::chain::TxId;
use crate::{
    clock::Millis,
    model::{Status, Transfer},
    retention::Retention,
    store::history::{self as pages, TransferFilter},
};

/// As many as fit in a block of an L2 for less than a dollar.
const MANY: usize = 32_000;

fn unlisted(n: u8) -> AssetKey {
    AssetKey::Token(Address::from([n; 20]))
}

fn spam(to: Address, count: usize) -> Vec<(Option<Address>, Address, Amount)> {
    vec![(Some(who(0x77)), to, 5.into()); count]
}

/// All that is recorded of a wallet and is no money, by the order of the chain.
async fn recorded(store: &TestStore, wallet: WalletId) -> Vec<Transfer> {
    let wallet = store.wallet_no(wallet).await;
    let mut session = store.db.read().await.unwrap();
    let filter = TransferFilter { uncounted: true, ..TransferFilter::default() };
    let page = pages::page(&mut session.conn(), wallet, &filter, 1_000).await.unwrap();
    assert!(page.next.is_none(), "one page");
    let mut rows = page.transfers;
    rows.retain(|row| !row.counted);
    rows.sort_by_key(|row| (row.block.number, row.ordinal.clone()));
    rows
}

#[tokio::test]
async fn a_block_full_of_worthless_transfers_is_ten_rows_and_a_count() {
    for store in TestStore::all().await {
        let mut rig = Rig::new(&store);
        let (_, wallet) = one_wallet(&store, &mut rig).await;
        let listed = |tx| Payment { tx, from: None, to: Some(who(9)), asset: token(), amount: 3 };
        let mut money: Vec<Payment> = (1..=30).map(listed).collect();
        money.push(pay(31, None, who(9), 50));
        rig.chain.mine(&money);
        rig.chain.log_in_last(unlisted(0xbb), &spam(who(9), MANY));
        rig.follow().await.unwrap();
        let rows = recorded(&store, wallet).await;
        let said: Vec<Option<u32>> = rows.iter().map(|row| row.omitted).collect();
        let left = u32::try_from(MANY - 10).unwrap();
        assert_eq!(said, [&[None; 9][..], &[Some(left)]].concat(), "the first ten, and a count");
        assert_eq!(store.rows("transfer").await, 41);
        assert_eq!(store.rows("entry").await, 31);
        assert_exact(&store, &rig, &BTreeMap::from([(who(9), wallet)])).await;
        store.close().await;
    }
}

#[tokio::test]
async fn each_wallet_and_transaction_has_its_own_and_strangers_make_no_more_assets_than_rows() {
    for store in TestStore::all().await {
        let mut rig = Rig::new(&store);
        let (tenant, first) = one_wallet(&store, &mut rig).await;
        let second = store.register(tenant, &chain_name(), who(8)).await;
        rig.follow().await.unwrap();
        rig.chain.mine(&[]);
        for n in 0x80..0xd0 {
            rig.chain.log_in_last(unlisted(n), &spam(who(9), 1));
            rig.chain.log_in_last(unlisted(n), &spam(who(8), 2));
        }
        let other = TxId::from([7; 32]);
        let nothing = [(None, who(9), Amount::ZERO); 12];
        rig.chain.log_in_last_by(other, token(), &nothing);
        // What moves money is none of this.
        rig.chain.log_in_last_by(other, token(), &[(None, who(9), 4.into()); 40]);
        rig.follow().await.unwrap();
        let said =
            |rows: &[Transfer]| -> Vec<u32> { rows.iter().filter_map(|row| row.omitted).collect() };
        let rows = recorded(&store, first).await;
        assert_eq!((rows.len(), said(&rows)), (20, vec![70, 2]));
        let rows = recorded(&store, second).await;
        assert_eq!((rows.len(), said(&rows)), (10, vec![150]));
        assert!(store.rows("asset").await <= 2 + 15, "only those of what is recorded");
        let held = store.position(first, &chain_name(), token()).await;
        assert_eq!(held.total(), Ok(160.into()));
        store.close().await;
    }
}

#[tokio::test]
async fn the_count_is_the_same_in_a_batch_after_a_reorg_and_in_another_block() {
    for store in TestStore::all().await {
        let mut rig = Rig::new(&store);
        let (_, wallet) = one_wallet(&store, &mut rig).await;
        let tx = TxId::from([7; 32]);
        let same = |rows: &[Transfer], block: u64| {
            let standing: Vec<&Transfer> =
                rows.iter().filter(|row| row.status != Status::Orphaned).collect();
            assert_eq!(standing.len(), 10);
            assert!(standing.iter().all(|row| row.block.number == block));
            assert_eq!(standing[9].omitted, Some(990));
            assert_eq!(standing.iter().filter(|row| row.omitted.is_some()).count(), 1);
        };
        rig.chain.mine(&[]);
        rig.chain.log_in_last_by(tx, unlisted(0xbb), &spam(who(9), 1000));
        rig.follow().await.unwrap();
        let first = recorded(&store, wallet).await;
        same(&first, 1);
        rig.chain.cut(0);
        rig.chain.mine(&[]);
        rig.chain.mine(&[pay(1, None, who(9), 5)]);
        rig.chain.log_in_last_by(tx, unlisted(0xbb), &spam(who(9), 1000));
        for _ in 0..20 {
            rig.chain.mine(&[]);
        }
        rig.chain.settle(10);
        rig.follow().await.unwrap();
        let rows = recorded(&store, wallet).await;
        same(&rows, 2);
        let ids = |rows: &[Transfer]| rows.iter().map(|row| row.id).collect::<Vec<_>>();
        assert_eq!(ids(&rows), ids(&first), "the same transfers");
        assert!(rows.iter().all(|row| row.connection == 2 && row.status == Status::Settled));
        assert_exact(&store, &rig, &BTreeMap::from([(who(9), wallet)])).await;
        store.close().await;
    }
}

#[tokio::test]
async fn what_is_no_money_is_recorded_nowhere_where_the_configuration_says_so() {
    for store in TestStore::all().await {
        let mut rig = Rig::new(&store);
        let (_, wallet) = one_wallet(&store, &mut rig).await;
        let config =
            ChainConfig { worthless_transfers: 0, ..ChainConfig::clone(&rig.follower.config) };
        rig.follower.config = Arc::new(config);
        rig.chain.mine(&[pay(1, None, who(9), 5)]);
        rig.chain.log_in_last(unlisted(0xbb), &spam(who(9), 50));
        rig.chain.log_in_last(token(), &[(None, who(9), Amount::ZERO)]);
        rig.follow().await.unwrap();
        assert!(recorded(&store, wallet).await.is_empty());
        assert_exact(&store, &rig, &BTreeMap::from([(who(9), wallet)])).await;
        store.close().await;
    }
}

#[tokio::test]
async fn what_is_no_money_is_deleted_in_time_and_what_is_stays() {
    for store in TestStore::all().await {
        let mut rig = Rig::new(&store);
        let (_, wallet) = one_wallet(&store, &mut rig).await;
        rig.chain.mine(&[pay(1, None, who(9), 5)]);
        rig.chain.log_in_last(unlisted(0xbb), &spam(who(9), 50));
        rig.chain.settle(1);
        rig.follow().await.unwrap();
        rig.chain.mine(&[pay(2, None, who(9), 5)]);
        rig.chain.log_in_last(unlisted(0xbb), &spam(who(9), 3));
        rig.follow().await.unwrap();
        let day = Duration::from_hours(24);
        let delete_after = async |days: u32| {
            let clock = Clock::manual(Millis(Clock::System.now().0).plus(days * day));
            let config = crate::config::RetentionConfig {
                worthless_transfers: Some(90 * day),
                ..crate::config::RetentionConfig::for_ever(day)
            };
            Retention::new(store.db.clone(), clock, Metrics::new(), config)
                .run_once()
                .await
                .unwrap();
        };
        delete_after(89).await;
        assert_eq!(recorded(&store, wallet).await.len(), 13);
        delete_after(91).await;
        let rows = recorded(&store, wallet).await;
        assert_eq!(rows.len(), 3, "what is pending stays");
        assert!(rows.iter().all(|row| row.status == Status::Pending));
        assert_eq!(store.rows("transfer").await, 5);
        assert_exact(&store, &rig, &BTreeMap::from([(who(9), wallet)])).await;
        // What a reorg takes back is all there.
        rig.chain.cut(1);
        for _ in 0..3 {
            rig.chain.mine(&[]);
        }
        rig.follow().await.unwrap();
        assert_exact(&store, &rig, &BTreeMap::from([(who(9), wallet)])).await;
        store.close().await;
    }
}

#[tokio::test]
async fn a_transfer_of_nothing_and_one_that_another_contract_made_up_move_no_money_and_tell_nobody()
{
    for store in TestStore::all().await {
        let mut rig = Rig::new(&store);
        let (tenant, wallet) = one_wallet(&store, &mut rig).await;
        rig.chain.mine(&[Payment { asset: token(), ..pay(1, None, who(9), 50) }]);
        rig.follow().await.unwrap();
        let told = store.events(tenant).await.len();
        // As poisoners of address books do it: of the real token nothing, in its owner's name and to a look-alike of
        // whom it has paid; of their own token all that it has.
        rig.chain.mine(&[]);
        rig.chain.log_in_last(token(), &[(Some(who(9)), who(8), 0.into())]);
        rig.chain.log_in_last(unlisted(1), &[(Some(who(9)), who(8), 50.into())]);
        rig.chain.log_in_last(unlisted(1), &[(None, who(9), 1_000_000.into())]);
        rig.chain.settle(2);
        rig.follow().await.unwrap();
        assert_exact(&store, &rig, &BTreeMap::from([(who(9), wallet)])).await;
        let settled = store.events(tenant).await.split_off(told);
        assert_eq!(types(&settled), ["deposit.available"], "of what is money");
        assert_eq!(recorded(&store, wallet).await.len(), 3);
        store.close().await;
    }
}
