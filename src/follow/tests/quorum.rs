//! With a quorum, nothing settles before two endpoints agree, and everything else goes on.

use super::{scripted::Second, *};

/// A follower that needs a second opinion, and a wallet with a deposit that could settle.
async fn wanting(store: &TestStore, second: Option<Second>) -> (Rig, WalletId) {
    let mut rig = Rig::new(store);
    let quorum = ChainConfig { quorum: 2, ..ChainConfig::clone(&rig.follower.config) };
    rig.follower.config = Arc::new(quorum);
    let (_, wallet) = one_wallet(store, &mut rig).await;
    rig.chain.second(second);
    rig.chain.certainty(Certainty::Agreed);
    rig.chain.mine(&[pay(1, None, who(9), 50)]);
    rig.chain.mine(&[]);
    rig.chain.settle(2);
    rig.follow().await.unwrap();
    (rig, wallet)
}

async fn settled(store: &TestStore, wallet: WalletId) -> Amount {
    store.position(wallet, &chain_name(), AssetKey::Native).await.settled
}

/// Why settlement waits, as the metrics tell it.
fn why(rig: &Rig) -> Vec<&'static str> {
    let (gauge, name) = (&rig.follower.metrics.settlement_unagreed, chain_name());
    let is_set = |why: &&str| gauge.with_label_values(&[name.as_str(), why]).get() == 1;
    ["block", "figure", "silence"].into_iter().filter(is_set).collect()
}

/// Blocks are followed and deposits seen, and nothing settles, for the reason that the metrics tell.
async fn waits(store: &TestStore, rig: &mut Rig, wallet: WalletId, reason: &str) {
    let before = rig.chain.balance(who(9), AssetKey::Native);
    for tx in 1..=3 {
        let tx = tx + 100 * rig.chain.head().at.number;
        rig.chain.mine(&[pay(tx, None, who(9), 1)]);
        rig.follower.quorum.try_now();
        rig.follow().await.unwrap();
    }
    let position = store.position(wallet, &chain_name(), AssetKey::Native).await;
    assert_eq!(
        (position.settled, position.incoming),
        (Amount::ZERO, before.saturating_add(3.into())),
        "{reason}"
    );
    let cursor = store.cursor(&chain_name()).await.unwrap();
    assert_eq!((cursor.settled.at.number, cursor.halted), (0, None), "{reason}");
    assert_eq!(cursor.head.at, rig.chain.head().at, "following goes on");
    assert_eq!(why(rig), [reason]);
}

/// It settles once they agree.
async fn settles(store: &TestStore, rig: &mut Rig, wallet: WalletId) {
    rig.follower.quorum.try_now();
    rig.follow().await.unwrap();
    assert_eq!(settled(store, wallet).await, 50.into());
    assert!(why(rig).is_empty(), "{:?}", why(rig));
    assert_exact(store, rig, &BTreeMap::from([(who(9), wallet)])).await;
}

#[tokio::test]
async fn what_two_endpoints_agree_upon_settles() {
    for store in TestStore::all().await {
        let (mut rig, wallet) = wanting(&store, Some(Second::Same)).await;
        settles(&store, &mut rig, wallet).await;
        // A proof counts for two.
        rig.chain.certainty(Certainty::Proven);
        rig.chain.mine(&[pay(2, None, who(9), 5)]);
        rig.chain.settle(3);
        rig.follow().await.unwrap();
        assert_eq!(settled(&store, wallet).await, 55.into());
        store.close().await;
    }
}

#[tokio::test]
async fn endpoints_with_different_blocks_settle_nothing_until_they_agree() {
    for store in TestStore::all().await {
        let (mut rig, wallet) = wanting(&store, Some(Second::OtherBranch)).await;
        waits(&store, &mut rig, wallet, "block").await;
        rig.chain.second(Some(Second::Same));
        settles(&store, &mut rig, wallet).await;
        store.close().await;
    }
}

#[tokio::test]
async fn endpoints_that_tell_differently_of_a_balance_settle_nothing_until_they_agree() {
    for store in TestStore::all().await {
        let (mut rig, wallet) = wanting(&store, None).await;
        rig.chain.second(Some(Second::Same));
        rig.chain.certainty(Certainty::Disputed);
        waits(&store, &mut rig, wallet, "figure").await;
        rig.chain.certainty(Certainty::Agreed);
        settles(&store, &mut rig, wallet).await;
        store.close().await;
    }
}

#[tokio::test]
async fn one_endpoint_alone_settles_nothing_and_the_metric_says_so() {
    for store in TestStore::all().await {
        let (mut rig, wallet) = wanting(&store, None).await;
        waits(&store, &mut rig, wallet, "silence").await;
        // It has the block, but not its state.
        rig.chain.second(Some(Second::Same));
        rig.chain.certainty(Certainty::Told);
        waits(&store, &mut rig, wallet, "silence").await;
        rig.chain.certainty(Certainty::Agreed);
        settles(&store, &mut rig, wallet).await;
        store.close().await;
    }
}

#[tokio::test]
async fn no_more_settles_than_two_endpoints_call_settled() {
    for store in TestStore::all().await {
        let (mut rig, wallet) = wanting(&store, Some(Second::Behind(2))).await;
        assert_eq!(settled(&store, wallet).await, Amount::ZERO);
        rig.chain.second(Some(Second::Behind(1)));
        rig.follow().await.unwrap();
        assert_eq!(store.cursor(&chain_name()).await.unwrap().settled.at.number, 1);
        store.close().await;
    }
}

#[tokio::test]
async fn catching_up_settles_nothing_that_two_endpoints_have_not_agreed_upon() {
    for store in TestStore::all().await {
        let (mut rig, wallet) = wanting(&store, None).await;
        for tx in 20..60 {
            rig.chain.mine(&[pay(tx, None, who(9), 1)]);
        }
        rig.chain.settle(35);
        rig.follower.quorum.try_now();
        rig.follow().await.unwrap();
        assert_eq!(settled(&store, wallet).await, Amount::ZERO);
        rig.chain.second(Some(Second::Same));
        rig.follower.quorum.try_now();
        rig.follow().await.unwrap();
        assert_eq!(settled(&store, wallet).await, (50 + 33).into(), "in pieces, to the end");
        assert_exact(&store, &rig, &BTreeMap::from([(who(9), wallet)])).await;
        store.close().await;
    }
}
