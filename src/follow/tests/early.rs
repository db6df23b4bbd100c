//! Small deposits are available before they settle, and only they.

use serde_json::Value;

use super::*;
use crate::{api::tests::reading::Reading, model::Buckets};

fn tier(asset: AssetKey, up_to: u64, confirmations: u64) -> Tier {
    Tier { asset, up_to: up_to.into(), confirmations }
}

/// A follower with tiers, and one wallet.
async fn tiered(store: &TestStore, tiers: &[Tier]) -> (Rig, TenantId, WalletId) {
    let mut rig = Rig::made(
        store,
        Arc::new(Scripted::new()),
        Settlement::Tag(SettlementTag::Finalized),
        tiers.to_vec(),
    );
    let (tenant, wallet) = one_wallet(store, &mut rig).await;
    (rig, tenant, wallet)
}

async fn buckets(store: &TestStore, wallet: WalletId, asset: AssetKey) -> Buckets {
    store.position(wallet, &chain_name(), asset).await.buckets(Amount::ZERO).unwrap()
}

async fn available(store: &TestStore, wallet: WalletId) -> Amount {
    buckets(store, wallet, AssetKey::Native).await.available
}

async fn empty_blocks(rig: &mut Rig, count: u64) {
    for _ in 0..count {
        rig.chain.mine(&[]);
        rig.follow().await.unwrap();
    }
}

fn rules(events: &[(String, Option<i64>, Value)]) -> Vec<(String, Value, Value)> {
    let deposits = events.iter().filter(|(kind, ..)| kind.starts_with("deposit."));
    let rule = |(kind, _, body): &(String, Option<i64>, Value)| {
        let transfer = &body["data"]["transfer"];
        (kind.clone(), transfer["status"].clone(), transfer["settledBy"].clone())
    };
    deposits.map(rule).collect()
}

fn rule(kind: &str, status: &str, by: Option<&str>) -> (String, Value, Value) {
    (kind.to_owned(), status.into(), by.into())
}

#[tokio::test]
async fn a_small_deposit_is_available_after_its_blocks_and_a_large_one_waits_for_settlement() {
    for store in TestStore::all().await {
        let (mut rig, tenant, wallet) = tiered(&store, &[tier(AssetKey::Native, 100, 3)]).await;
        rig.chain.mine(&[pay(1, None, who(9), 100)]);
        rig.chain.mine(&[pay(2, None, who(9), 101)]);
        rig.follow().await.unwrap();
        empty_blocks(&mut rig, 1).await;
        assert_eq!(available(&store, wallet).await, Amount::ZERO, "two blocks below the head");
        empty_blocks(&mut rig, 1).await;
        assert_eq!(available(&store, wallet).await, 100.into(), "three blocks below it");
        empty_blocks(&mut rig, 20).await;
        let now = buckets(&store, wallet, AssetKey::Native).await;
        assert_eq!((now.available, now.pending), (100.into(), 101.into()));
        let wallets = BTreeMap::from([(who(9), wallet)]);
        assert_exact(&store, &rig, &wallets).await;
        rig.chain.settle(2);
        rig.follow().await.unwrap();
        assert_eq!(available(&store, wallet).await, 201.into());
        assert_exact(&store, &rig, &wallets).await;
        assert_eq!(
            rules(&store.events(tenant).await),
            [
                rule("deposit.pending", "pending", None),
                rule("deposit.pending", "pending", None),
                rule("deposit.available", "pending", Some("tier:3")),
                rule("deposit.available", "settled", Some("finalized")),
            ],
            "each is told once to be available, and why"
        );
        store.close().await;
    }
}

#[tokio::test]
async fn a_reorg_below_the_tier_takes_the_money_back_tells_it_and_explains_it() {
    for store in TestStore::all().await {
        let (mut rig, tenant, wallet) = tiered(&store, &[tier(AssetKey::Native, 100, 2)]).await;
        let wallets = BTreeMap::from([(who(9), wallet)]);
        rig.chain.mine(&[pay(1, None, who(9), 60)]);
        rig.follow().await.unwrap();
        empty_blocks(&mut rig, 3).await;
        // What was available was spent, too.
        rig.chain.mine(&[pay(2, Some(who(9)), who(8), 20)]);
        rig.follow().await.unwrap();
        assert_eq!(available(&store, wallet).await, 40.into());
        rig.chain.cut(0);
        for _ in 0..6 {
            rig.chain.mine(&[]);
        }
        rig.follow().await.unwrap();
        let now = buckets(&store, wallet, AssetKey::Native).await;
        assert_eq!(now, Buckets::default(), "nothing is left of it");
        assert_exact(&store, &rig, &wallets).await;
        let reading: Reading = past::reading(&store, &rig, tenant).await;
        let account = past::Account { reading: &reading, rig: &rig, wallet, address: who(9) };
        let entries = account.assert_explained("eth", 50).await;
        let effects: Vec<_> = entries
            .iter()
            .filter(|entry| entry["direction"] == "in")
            .map(|entry| entry["effect"].as_str().unwrap())
            .collect();
        assert_eq!(effects, ["connect", "early", "early_over", "disconnect"]);
        // It comes again: the same deposit, available once more.
        rig.chain.mine(&[pay(1, None, who(9), 60)]);
        rig.follow().await.unwrap();
        empty_blocks(&mut rig, 2).await;
        assert_eq!(available(&store, wallet).await, 60.into());
        assert_eq!(
            rules(&store.events(tenant).await),
            [
                rule("deposit.pending", "pending", None),
                rule("deposit.available", "pending", Some("tier:2")),
                rule("deposit.orphaned", "orphaned", Some("tier:2")),
                rule("deposit.pending", "pending", None),
                rule("deposit.available", "pending", Some("tier:2")),
            ]
        );
        let account = past::Account { reading: &reading, rig: &rig, wallet, address: who(9) };
        account.assert_past(2).await;
        assert_exact(&store, &rig, &wallets).await;
        store.close().await;
    }
}

#[tokio::test]
async fn many_small_deposits_are_together_no_more_than_the_tier() {
    for store in TestStore::all().await {
        let (mut rig, _, wallet) = tiered(&store, &[tier(AssetKey::Native, 100, 1)]).await;
        let many: Vec<Payment> = (1..=30).map(|tx| pay(tx, None, who(9), 9)).collect();
        rig.chain.mine(&many[..20]);
        rig.chain.mine(&many[20..]);
        rig.follow().await.unwrap();
        empty_blocks(&mut rig, 5).await;
        assert_eq!(available(&store, wallet).await, 99.into());
        // Neither a restart nor more of them moves that.
        rig.restart(&store);
        rig.chain.mine(&[pay(40, None, who(9), 2)]);
        rig.follow().await.unwrap();
        empty_blocks(&mut rig, 3).await;
        assert_eq!(available(&store, wallet).await, 99.into());
        rig.chain.settle(2);
        rig.follow().await.unwrap();
        assert_eq!(available(&store, wallet).await, (30 * 9).into());
        rig.chain.mine(&[pay(41, None, who(9), 50)]);
        rig.follow().await.unwrap();
        empty_blocks(&mut rig, 1).await;
        assert_eq!(available(&store, wallet).await, (30 * 9 + 50).into(), "what settled is firm");
        assert_exact(&store, &rig, &BTreeMap::from([(who(9), wallet)])).await;
        store.close().await;
    }
}

#[tokio::test]
async fn a_token_that_logs_more_than_it_moves_is_not_available_early() {
    for store in TestStore::all().await {
        let (mut rig, _, wallet) = tiered(&store, &[tier(token(), 1_000, 1)]).await;
        // It takes a fee: five of a hundred never come.
        rig.chain.mine(&[Payment { asset: token(), ..pay(1, None, who(9), 95) }]);
        rig.chain.log_in_last(token(), &[(None, who(9), 5.into())]);
        rig.follow().await.unwrap();
        empty_blocks(&mut rig, 3).await;
        let now = buckets(&store, wallet, token()).await;
        assert_eq!((now.available, now.total), (Amount::ZERO, 100.into()));
        rig.chain.settle(1);
        rig.follow().await.unwrap();
        let now = buckets(&store, wallet, token()).await;
        assert_eq!((now.available, now.total), (95.into(), 95.into()), "settlement knows better");
        store.close().await;
    }
}

#[tokio::test]
async fn nothing_waits_for_a_node_that_tells_no_balances() {
    for store in TestStore::all().await {
        let (mut rig, _, wallet) = tiered(&store, &[tier(AssetKey::Native, 100, 1)]).await;
        for why in 0..3 {
            match why {
                0 => rig.chain.mute(true),
                1 => rig.chain.prune(true),
                _ => rig.chain.unreadable(AssetKey::Native),
            }
            let before = available(&store, wallet).await;
            rig.chain.mine(&[pay(10 + why, None, who(9), 10)]);
            rig.follow().await.unwrap();
            empty_blocks(&mut rig, 3).await;
            assert_eq!(rig.follower.cursor.as_ref().unwrap().head.at, rig.chain.head().at);
            assert_eq!(available(&store, wallet).await, before, "not without a figure");
            rig.chain.mute(false);
            rig.chain.prune(false);
            if why < 2 {
                empty_blocks(&mut rig, 1).await;
                let after = before.checked_add(10.into()).unwrap();
                assert_eq!(available(&store, wallet).await, after, "once a node tells it");
            }
        }
        rig.chain.settle(rig.chain.head().at.number);
        rig.follow().await.unwrap();
        assert_eq!(available(&store, wallet).await, 30.into());
        store.close().await;
    }
}

#[tokio::test]
async fn openings_and_what_no_block_shows_are_never_early() {
    for store in TestStore::all().await {
        let mut rig = Rig::made(
            &store,
            Arc::new(Scripted::new()),
            Settlement::Tag(SettlementTag::Finalized),
            vec![tier(AssetKey::Native, 1_000, 1)],
        );
        rig.follow().await.unwrap();
        rig.chain.mine(&[pay(1, None, who(9), 40)]);
        rig.follow().await.unwrap();
        let tenant = store.tenant().await;
        let wallet = store.register(tenant, &chain_name(), who(9)).await;
        rig.follow().await.unwrap();
        // What comes in unseen, and is spent: the ledger books an adjustment.
        rig.chain.mine(&[pay(2, None, who(9), 30)]);
        rig.chain.hide_last();
        rig.chain.mine(&[pay(3, Some(who(9)), who(8), 60)]);
        rig.follow().await.unwrap();
        empty_blocks(&mut rig, 5).await;
        let position = store.position(wallet, &chain_name(), AssetKey::Native).await;
        assert_eq!(position.early, Amount::ZERO, "{position:?}");
        assert_exact(&store, &rig, &BTreeMap::from([(who(9), wallet)])).await;
        store.close().await;
    }
}

#[tokio::test]
async fn a_restart_keeps_early_money_and_one_that_was_raised_by_hand_is_found() {
    for store in TestStore::all().await {
        let (mut rig, tenant, wallet) = tiered(&store, &[tier(AssetKey::Native, 100, 1)]).await;
        rig.chain.mine(&[pay(1, None, who(9), 60)]);
        rig.follow().await.unwrap();
        empty_blocks(&mut rig, 2).await;
        for _ in 0..3 {
            rig.restart(&store);
            rig.follow().await.unwrap();
            assert_eq!(available(&store, wallet).await, 60.into());
        }
        assert_eq!(store.events(tenant).await.len(), 3, "activated, pending, available");
        // Somebody raises what is available, and the entries do not say so.
        let raised = "UPDATE balance SET early = incoming WHERE early <> incoming";
        assert_eq!(store.execute(raised).await.unwrap(), 0);
        rig.chain.mine(&[pay(2, None, who(9), 500)]);
        rig.follow().await.unwrap();
        journal::assert_sound(&store).await;
        assert_eq!(store.execute(raised).await.unwrap(), 1);
        let found = journal::tampered(&store).await;
        assert!(found.to_string().contains("another balance"), "{found}");
        store.close().await;
    }
}
