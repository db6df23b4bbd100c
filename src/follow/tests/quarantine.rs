//! What no balance can hold is the token's own trouble: it is set aside, and the chain goes on.

use super::*;
use crate::model::{QuarantineReason, Status};

const MAX: Amount = Amount::MAX;

/// The follower's next process, with the hostile tokens in its configuration, or without them.
fn configured(rig: &mut Rig, store: &TestStore, tokens: bool) {
    rig.restart(store);
    if tokens {
        let mut config = ChainConfig::clone(&rig.follower.config);
        config.tokens.extend(hostile_tokens());
        rig.follower.config = Arc::new(config);
    }
}

async fn asset(store: &TestStore, key: AssetKey) -> Asset {
    let mut session = store.db.read().await.unwrap();
    let conn = &mut session.conn();
    let cursor = crate::store::chain::cursor(conn, &chain_name()).await.unwrap().unwrap();
    let found = crate::store::asset::by_keys(conn, cursor.no, &[key]).await.unwrap();
    found.into_iter().find(|asset| asset.key == key).expect("the asset")
}

async fn native(store: &TestStore, wallet: WalletId) -> Amount {
    store.position(wallet, &chain_name(), AssetKey::Native).await.total().unwrap()
}

#[tokio::test]
async fn two_tokens_that_overflow_in_one_block_are_set_aside_and_the_rest_of_it_is_booked() {
    for store in TestStore::all().await {
        let mut rig = Rig::new(&store);
        let (tenant, wallet) = one_wallet(&store, &mut rig).await;
        configured(&mut rig, &store, true);
        rig.follow().await.unwrap();
        rig.chain.mine(&[pay(1, None, who(9), 50)]);
        for token in hostile() {
            rig.chain.log_in_last(token, &[(None, who(9), MAX), (None, who(9), MAX)]);
        }
        rig.follow().await.expect("the chain goes on");
        assert_eq!(native(&store, wallet).await, 50.into());
        for token in hostile() {
            let asset = asset(&store, token).await;
            let quarantine = asset.quarantine.expect("set aside");
            assert_eq!((quarantine.block, quarantine.reason), (1, QuarantineReason::Overflow));
            assert!(!asset.verified);
            let position = store.position(wallet, &chain_name(), token).await;
            assert_eq!(position, crate::model::Position::default(), "nothing was booked");
        }
        let events = store.events(tenant).await;
        assert_eq!(types(&events), ["wallet.activated", "deposit.pending"], "nobody held any");
        rig.chain.settle(1);
        rig.follow().await.unwrap();
        store.close().await;
    }
}

#[tokio::test]
async fn a_balance_stays_as_it_was_and_its_tenant_is_told_once() {
    for store in TestStore::all().await {
        let mut rig = Rig::new(&store);
        let (tenant, wallet) = one_wallet(&store, &mut rig).await;
        configured(&mut rig, &store, true);
        rig.follow().await.unwrap();
        let [evil, _] = hostile();
        rig.chain.mine(&[]);
        rig.chain.log_in_last(evil, &[(None, who(9), MAX)]);
        rig.follow().await.unwrap();
        for _ in 0..3 {
            rig.chain.mine(&[]);
            rig.chain.log_in_last(evil, &[(None, who(9), 1.into())]);
            rig.follow().await.unwrap();
        }
        let told = store.events(tenant).await;
        let told: Vec<_> = told.iter().filter(|(kind, ..)| kind == "asset.quarantined").collect();
        assert_eq!(told.len(), 1, "once");
        let data = &told[0].2["data"];
        assert_eq!(data["asset"]["quarantined"]["reason"], "overflow");
        assert_eq!(data["asset"]["quarantined"]["block"], 2);
        let settle_all = async |rig: &mut Rig| {
            rig.chain.settle(rig.chain.head().at.number);
            rig.follow().await.unwrap();
        };
        settle_all(&mut rig).await;
        // The chain says 0 of it.
        let position = store.position(wallet, &chain_name(), evil).await;
        assert_eq!(position, crate::model::Position::of(MAX));
        let since = store.transfers(wallet).await;
        let since = since.iter().filter(|row| row.asset == evil.as_bytes());
        assert_eq!(since.clone().filter(|row| row.counted).count(), 1);
        assert_eq!(since.filter(|row| row.status == Status::Settled).count(), 4);
        store.close().await;
    }
}

#[tokio::test]
async fn catching_up_goes_on_after_a_token_in_the_middle_of_a_batch() {
    for store in TestStore::all().await {
        let mut rig = Rig::new(&store);
        let (_, wallet) = one_wallet(&store, &mut rig).await;
        configured(&mut rig, &store, true);
        rig.follow().await.unwrap();
        for number in 1..=60 {
            rig.chain.mine(&[pay(number, None, who(9), 1)]);
            if number % 10 == 0 {
                let token = hostile()[usize::from(number > 30)];
                rig.chain.log_in_last(token, &[(Some(who(9)), who(9), MAX), (None, who(9), MAX)]);
            }
        }
        rig.chain.settle(40);
        rig.follow().await.unwrap();
        assert_eq!(native(&store, wallet).await, 60.into());
        for token in hostile() {
            assert!(asset(&store, token).await.quarantine.is_some());
        }
        store.close().await;
    }
}

#[tokio::test]
async fn a_reorg_over_the_block_of_a_quarantine_takes_back_what_was_booked_and_no_more() {
    for store in TestStore::all().await {
        let mut rig = Rig::new(&store);
        let (_, wallet) = one_wallet(&store, &mut rig).await;
        configured(&mut rig, &store, true);
        rig.follow().await.unwrap();
        let [evil, _] = hostile();
        rig.chain.mine(&[pay(1, None, who(9), 5)]);
        rig.chain.log_in_last(evil, &[(None, who(9), MAX)]);
        rig.follow().await.unwrap();
        rig.chain.mine(&[pay(2, None, who(9), 6)]);
        rig.chain.log_in_last(evil, &[(None, who(9), MAX)]);
        rig.follow().await.unwrap();
        rig.chain.cut(0);
        rig.chain.mine(&[pay(1, None, who(9), 5)]);
        rig.chain.log_in_last(evil, &[(None, who(9), 9.into())]);
        rig.chain.mine(&[]);
        rig.chain.mine(&[]);
        rig.follow().await.unwrap();
        assert_eq!(native(&store, wallet).await, 5.into());
        assert_eq!(
            store.position(wallet, &chain_name(), evil).await.total(),
            Ok(Amount::ZERO),
            "it is still set aside"
        );
        store.close().await;
    }
}

#[tokio::test]
async fn an_old_block_that_no_balance_can_hold_sets_its_token_aside_and_the_history_is_found() {
    for store in TestStore::all().await {
        let mut rig = Rig::new(&store);
        let (tenant, _) = one_wallet(&store, &mut rig).await;
        configured(&mut rig, &store, true);
        rig.follow().await.unwrap();
        let [evil, _] = hostile();
        rig.chain.mine(&[pay(1, None, who(8), 5)]);
        rig.chain.log_in_last(evil, &[(None, who(8), MAX), (None, who(8), MAX)]);
        rig.chain.mine(&[pay(2, None, who(8), 6)]);
        rig.chain.settle(2);
        rig.follow().await.unwrap();
        let wallet = store.register_since(tenant, &chain_name(), who(8), Some(0)).await;
        history::until_decided(&store, &mut rig).await;
        assert_eq!(native(&store, wallet).await, 11.into());
        assert!(asset(&store, evil).await.quarantine.is_some());
        history::assert_complete(&store, &rig, tenant, wallet, who(8)).await;
        store.close().await;
    }
}

#[tokio::test]
async fn a_token_that_is_released_counts_again_without_a_new_process() {
    for store in TestStore::all().await {
        let mut rig = Rig::new(&store);
        let (_, wallet) = one_wallet(&store, &mut rig).await;
        configured(&mut rig, &store, true);
        rig.follow().await.unwrap();
        let [evil, _] = hostile();
        rig.chain.mine(&[]);
        rig.chain.log_in_last(evil, &[(None, who(9), MAX), (None, who(9), MAX)]);
        rig.follow().await.unwrap();
        let released = rig.follower.committer.release(evil).await.unwrap().expect("released");
        assert!(!released.verified && released.quarantine.is_none());
        assert!(rig.follower.committer.release(evil).await.unwrap().is_none(), "once");
        rig.follow().await.unwrap();
        rig.follow().await.unwrap();
        rig.chain.mine(&[]);
        rig.chain.log_in_last(evil, &[(None, who(9), 7.into())]);
        rig.follow().await.unwrap();
        assert!(asset(&store, evil).await.verified);
        let position = store.position(wallet, &chain_name(), evil).await;
        assert_eq!(position.total(), Ok(7.into()));
        store.close().await;
    }
}

#[tokio::test]
async fn a_token_that_is_no_longer_configured_no_longer_counts() {
    for store in TestStore::all().await {
        let mut rig = Rig::new(&store);
        let (_, wallet) = one_wallet(&store, &mut rig).await;
        configured(&mut rig, &store, true);
        rig.follow().await.unwrap();
        let [evil, _] = hostile();
        rig.chain.mine(&[]);
        rig.chain.log_in_last(evil, &[(None, who(9), 7.into())]);
        rig.follow().await.unwrap();
        assert!(asset(&store, evil).await.verified);
        configured(&mut rig, &store, false);
        rig.chain.mine(&[]);
        rig.chain.log_in_last(evil, &[(None, who(9), MAX), (None, who(9), MAX)]);
        rig.chain.settle(1);
        rig.follow().await.unwrap();
        let asset = asset(&store, evil).await;
        assert!(!asset.verified && asset.quarantine.is_none());
        let position = store.position(wallet, &chain_name(), evil).await;
        assert_eq!(position.total(), Ok(7.into()), "it stays as it was");
        store.close().await;
    }
}

#[tokio::test]
async fn a_token_that_an_operator_sets_aside_stops_counting_with_the_next_commit_and_comes_back_in_full()
 {
    for store in TestStore::all().await {
        let mut rig = Rig::new(&store);
        let (tenant, wallet) = one_wallet(&store, &mut rig).await;
        let usd = |tx, amount| Payment { asset: token(), ..pay(tx, None, who(9), amount) };
        rig.chain.mine(&[usd(1, 30)]);
        rig.follow().await.unwrap();
        // Somebody else's hand, beside a follower that knows nothing of it.
        let operator = Rig::with(&store, Arc::clone(&rig.chain), rig.settlement).follower.committer;
        let aside = operator.set_aside(token()).await.unwrap().expect("it counts");
        assert_eq!(aside.quarantine.expect("set aside").reason, QuarantineReason::Operator);
        assert!(operator.set_aside(token()).await.unwrap().is_none(), "once");
        assert!(operator.set_aside(AssetKey::Native).await.unwrap().is_none(), "never the coin");
        rig.chain.mine(&[usd(2, 12), pay(3, None, who(9), 5)]);
        rig.follow().await.unwrap();
        let held = async || store.position(wallet, &chain_name(), token()).await.total().unwrap();
        assert_eq!((held().await, native(&store, wallet).await), (30.into(), 5.into()));
        let gauge = rig.follower.gauge_quarantined(&asset(&store, token()).await);
        assert_eq!(gauge.get(), 1);
        let events = store.events(tenant).await;
        let (_, _, data) = events.iter().find(|(kind, ..)| kind == "asset.quarantined").unwrap();
        assert_eq!(data["data"]["asset"]["quarantined"]["reason"], "operator");
        // A reorg takes back what was booked, and nothing else.
        rig.chain.cut(1);
        rig.chain.mine(&[usd(2, 12), usd(4, 1)]);
        rig.chain.mine(&[pay(3, None, who(9), 6)]);
        rig.follow().await.unwrap();
        assert_eq!((held().await, native(&store, wallet).await), (30.into(), 6.into()));

        operator.release(token()).await.unwrap().expect("released");
        rig.follow().await.unwrap();
        rig.follow().await.unwrap();
        assert_exact(&store, &rig, &BTreeMap::from([(who(9), wallet)])).await;
        assert_eq!((held().await, gauge.get()), (43.into(), 0));
        // There and back while nobody looks.
        operator.set_aside(token()).await.unwrap().expect("it counts");
        operator.release(token()).await.unwrap().expect("released");
        rig.chain.mine(&[usd(5, 7)]);
        rig.follow().await.unwrap();
        assert_exact(&store, &rig, &BTreeMap::from([(who(9), wallet)])).await;
        store.close().await;
    }
}
