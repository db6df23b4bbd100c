//! An audit finds what the daemon could have wrong, and changes nothing.

use super::*;
use crate::{
    cli::{
        audit::{Audit, Difference, Summary, finding},
        exit_code,
    },
    store::watch_count::Miscount,
};

/// What an audit of the rig's chain says: its sums, its differences, and the exit code.
async fn audited(
    store: &TestStore,
    rig: &Rig,
    limit: Option<u64>,
) -> (Summary, Vec<Difference>, u8) {
    let config = config(rig.settlement);
    let audit = Audit { db: &store.db, source: rig.chain.as_ref(), chain: &config, limit };
    let mut found = Vec::new();
    let mut last = Summary::default();
    let mut tell = |so_far: &Summary, differences: &[Difference]| {
        last = *so_far;
        found.extend_from_slice(differences);
    };
    let summary = audit.run(&mut tell).await.unwrap();
    assert_eq!(summary, last, "the progress ends with the sums");
    let code = finding(&summary).err().map_or(0, |error| exit_code(&error));
    (summary, found, code)
}

/// Changes a balance row behind the ledger's back.
async fn tamper(store: &TestStore, wallet: WalletId, asset: AssetKey, settled: u64) {
    let mut balance = store.balance(wallet, &chain_name(), asset).await;
    balance.position.settled = settled.into();
    store.set_balance(wallet, &chain_name(), asset, balance).await;
}

/// Two wallets, deposits of both assets that have settled, and one of each that has not.
async fn lived(store: &TestStore, rig: &mut Rig) -> (TenantId, WalletId, WalletId) {
    let (tenant, first) = one_wallet(store, rig).await;
    let second = store.register(tenant, &chain_name(), who(8)).await;
    rig.follow().await.unwrap();
    rig.chain
        .mine(&[pay(1, None, who(9), 100), Payment { asset: token(), ..pay(2, None, who(8), 7) }]);
    rig.chain.mine(&[pay(3, Some(who(9)), who(8), 30)]);
    rig.chain.mine(&[pay(4, None, who(9), 5)]);
    rig.chain.settle(2);
    rig.follow().await.unwrap();
    (tenant, first, second)
}

#[tokio::test]
async fn an_audit_of_an_honest_ledger_finds_nothing_and_exits_with_0() {
    for store in TestStore::all().await {
        let mut rig = Rig::new(&store);
        rig.follow().await.unwrap();
        lived(&store, &mut rig).await;
        let (summary, found, code) = audited(&store, &rig, None).await;
        assert_eq!((found, code), (Vec::new(), 0));
        let expected = Summary { wallets: 2, balances: 3, compared: 4, ..Summary::default() };
        assert_eq!(summary, expected);
        let (limited, ..) = audited(&store, &rig, Some(1)).await;
        assert_eq!(limited.wallets, 1);
        store.close().await;
    }
}

#[tokio::test]
async fn an_audit_of_a_chain_that_was_never_followed_finds_nothing() {
    for store in TestStore::all().await {
        let rig = Rig::new(&store);
        let (summary, found, code) = audited(&store, &rig, None).await;
        assert_eq!((summary, found, code), (Summary::default(), Vec::new(), 0));
        store.close().await;
    }
}

#[tokio::test]
async fn an_audit_finds_a_balance_that_is_not_the_sum_of_its_entries_and_exits_with_1() {
    for store in TestStore::all().await {
        let mut rig = Rig::new(&store);
        let (_, first, second) = lived(&store, &mut rig).await;
        tamper(&store, second, token(), 8).await;
        // A balance that nothing was ever booked to.
        tamper(&store, first, token(), 2).await;
        let (summary, found, code) = audited(&store, &rig, None).await;
        assert_eq!((summary.differences, code), (4, 1));
        let entries: Vec<_> = found
            .iter()
            .filter_map(|difference| match difference {
                Difference::Entries { wallet, asset, balance, entries } => {
                    Some((wallet.wallet_id, asset.key, balance.settled, entries.settled))
                }
                _ => None,
            })
            .collect();
        assert_eq!(
            entries,
            [(second, token(), 8.into(), 7.into()), (first, token(), 2.into(), Amount::ZERO),]
        );
        store.close().await;
    }
}

#[tokio::test]
async fn an_audit_finds_a_drift_from_the_chain_books_nothing_and_exits_with_1() {
    for store in TestStore::all().await {
        let mut rig = Rig::new(&store);
        let (_, _, second) = lived(&store, &mut rig).await;
        rig.chain.mine(&[Payment { asset: token(), ..pay(5, None, who(8), 3) }]);
        rig.chain.hide_last();
        rig.chain.settle(4);
        rig.follow().await.unwrap();
        let before = store.transfers(second).await;
        for _ in 0..2 {
            let (summary, found, code) = audited(&store, &rig, None).await;
            assert_eq!((summary.compared, summary.differences, code), (4, 1, 1));
            match &found[..] {
                [Difference::Chain { wallet, asset, at, ledger, chain }] => {
                    assert_eq!((wallet.wallet_id, asset.key, at.number), (second, token(), 4));
                    assert_eq!((*ledger, *chain), (7.into(), 10.into()));
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(store.transfers(second).await, before);
        store.close().await;
    }
}

#[tokio::test]
async fn an_audit_finds_a_tenant_whose_addresses_are_miscounted_and_exits_with_1() {
    for store in TestStore::all().await {
        let mut rig = Rig::new(&store);
        let (tenant, ..) = lived(&store, &mut rig).await;
        let (other, _) = one_wallet(&store, &mut rig).await;
        for (of, by, kept, watches) in [(tenant, 1, 3, 2), (other, -1, 0, 1)] {
            store.miscount(of, by).await;
            let (summary, found, code) = audited(&store, &rig, None).await;
            assert_eq!(found, [Difference::Miscounted(Miscount { tenant: of, kept, watches })]);
            assert_eq!((summary.differences, code), (1, 1));
            store.miscount(of, -by).await;
            assert_eq!(audited(&store, &rig, None).await.2, 0);
        }
        store.close().await;
    }
}

#[tokio::test]
async fn an_audit_that_cannot_compare_exits_with_3_unless_it_finds_a_difference() {
    for store in TestStore::all().await {
        let mut rig = Rig::new(&store);
        let (_, first, _) = lived(&store, &mut rig).await;
        rig.chain.unreadable(token());
        let (summary, found, code) = audited(&store, &rig, None).await;
        assert_eq!((summary.compared, summary.unproven, found.len(), code), (2, 2, 0, 3));
        rig.chain.prune(true);
        let (summary, found, code) = audited(&store, &rig, None).await;
        assert_eq!((summary.compared, summary.unproven, found.len(), code), (0, 4, 0, 3));
        tamper(&store, first, AssetKey::Native, 71).await;
        let (summary, found, code) = audited(&store, &rig, None).await;
        assert_eq!((summary.differences, found.len(), code), (1, 1, 1));
        store.close().await;
    }
}

#[tokio::test]
async fn what_begins_or_is_corrected_above_the_settled_block_is_no_drift() {
    for store in TestStore::all().await {
        let mut rig = Rig::new(&store);
        let (tenant, ..) = lived(&store, &mut rig).await;
        // Spent before it was explained; and a wallet that begins at the head.
        rig.chain.mine(&[pay(5, None, who(8), 50)]);
        rig.chain.hide_last();
        rig.chain.mine(&[pay(6, Some(who(8)), who(7), 60)]);
        rig.chain.mine(&[]);
        rig.follow().await.unwrap();
        store.register(tenant, &chain_name(), who(7)).await;
        rig.follow().await.unwrap();
        rig.chain.settle(4);
        rig.follow().await.unwrap();
        let (summary, found, code) = audited(&store, &rig, None).await;
        assert_eq!((found, code), (Vec::new(), 0));
        assert_eq!((summary.wallets, summary.compared, summary.unfinished), (3, 3, 2));
        store.close().await;
    }
}

#[tokio::test]
async fn an_audit_goes_through_all_pages_and_asks_for_a_shared_address_once() {
    for store in TestStore::all().await {
        let mut rig = Rig::new(&store);
        rig.follow().await.unwrap();
        let tenant = store.tenant().await;
        for number in 0..205u64 {
            let mut bytes = [0x55; 20];
            bytes[..8].copy_from_slice(&number.to_be_bytes());
            store.register(tenant, &chain_name(), Address::from(bytes)).await;
        }
        let other = store.tenant().await;
        store.register(other, &chain_name(), Address::from([0x55; 20])).await;
        let last = store.register(tenant, &chain_name(), Address::from([0x55; 20])).await;
        rig.follow().await.unwrap();
        rig.chain.mine(&[pay(1, None, Address::from([0x55; 20]), 9)]);
        rig.chain.hide_last();
        rig.chain.settle(1);
        rig.follow().await.unwrap();
        rig.chain.asked();
        let (summary, found, _) = audited(&store, &rig, None).await;
        assert_eq!((summary.wallets, summary.compared), (207, 414));
        let asked: Vec<usize> = rig.chain.asked().iter().map(Vec::len).collect();
        assert_eq!(asked, [200, 200, 12]);
        assert_eq!(found.len(), 2, "each wallet of the address differs");
        assert!(matches!(&found[1], Difference::Chain { wallet, .. } if wallet.wallet_id == last));
        store.close().await;
    }
}
