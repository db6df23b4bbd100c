//! Watched Safes whose state changes: read after the block, told once, and doubted after a reorg.

use serde_json::{Value, json};

use super::{
    safes::{claim, until, wallets},
    *,
};
use crate::chain::{SafePlugs, SafeRejection, SafeState};

/// The Safe of the tests, and somebody who joins its owners.
const SAFE: u8 = 0x5a;
const OTHER: u8 = 8;

fn safe_of(owners: &[Address]) -> SafeState {
    SafeState {
        version: "1.4.1",
        singleton: Address::from([2; 20]),
        owners: owners.to_vec(),
        threshold: 1,
        plugs: SafePlugs::default(),
        plain: true,
    }
}

/// A wallet of an owner, and one of the Safe that it led to, which is followed.
async fn with_safe(store: &TestStore, rig: &mut Rig) -> (TenantId, WalletId) {
    let (tenant, _) = one_wallet(store, rig).await;
    rig.chain.mine_safe(&[], &claim(SAFE, &[who(9)]));
    until(rig, "the Safe", async || wallets(store, tenant).await.len() == 2).await;
    until(rig, "its watch", async || active(store, tenant).await).await;
    let safe = wallets(store, tenant).await.remove(0);
    (tenant, safe.id)
}

async fn active(store: &TestStore, tenant: TenantId) -> bool {
    types(&store.events(tenant).await).iter().filter(|kind| **kind == "wallet.activated").count()
        == 2
}

/// The data of the events of a kind, in their order.
async fn told(store: &TestStore, tenant: TenantId, kind: &str) -> Vec<Value> {
    let events = store.events(tenant).await;
    events.into_iter().filter(|(told, ..)| told == kind).map(|(_, _, body)| body).collect()
}

/// Every Safe that is to be read was.
async fn at_rest(store: &TestStore, rig: &mut Rig) {
    let cursor = store.cursor(&chain_name()).await.unwrap();
    for _ in 0..1_000 {
        rig.follow().await.unwrap();
        let mut session = store.db.read().await.unwrap();
        let now = crate::clock::Clock::System.now();
        let due = crate::store::safe_state::due(&mut session.conn(), cursor.no, now, 9).await;
        if rig.follower.looking.task.is_none() && due.unwrap().is_empty() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("Safes are read without end");
}

fn address(number: u8) -> Value {
    json!(crate::chain::Family::Evm.format_address(&who(number)))
}

#[tokio::test]
async fn a_safe_that_runs_is_read_again_and_what_has_changed_is_told_once() {
    for store in TestStore::all().await {
        let mut rig = Rig::new(&store);
        let (tenant, id) = with_safe(&store, &mut rig).await;
        let mut state = safe_of(&[who(9), who(OTHER)]);
        state.plugs.guard = Some(who(0x77));
        rig.chain.safes.becomes(who(SAFE), Ok(state));
        for _ in 0..2 {
            let at = rig.chain.mine(&[]);
            rig.chain.safes.run(at, &[who(SAFE), who(0x99)]);
            let changed = async || !told(&store, tenant, "safe.changed").await.is_empty();
            until(&mut rig, "the change", changed).await;
            at_rest(&store, &mut rig).await;
        }
        let [owners] = &told(&store, tenant, "safe.owners_changed").await[..] else {
            panic!("one")
        };
        let data = &owners["data"];
        assert_eq!(data["before"]["owners"], json!([address(9)]));
        assert_eq!(data["safe"]["owners"], json!([address(9), address(OTHER)]));
        assert_eq!(data["wallet"]["safe"]["owners"], json!([address(9), address(OTHER)]));
        let [changed] = &told(&store, tenant, "safe.changed").await[..] else { panic!("one") };
        assert_eq!(changed["data"]["safe"]["guard"], address(0x77));
        assert_eq!(changed["data"]["before"]["guard"], Value::Null);
        let sequences: Vec<Option<i64>> = [owners, changed].map(|e| e["sequence"].as_i64()).into();
        assert_eq!(sequences[0].map(|first| first + 1), sequences[1], "of one wallet, in order");
        let wallet = wallets(&store, tenant).await.into_iter().find(|wallet| wallet.id == id);
        let wallet = wallet.unwrap();
        assert_eq!(wallet.safe.unwrap().owners, [who(9), who(OTHER)]);
        let known = wallet.chains[0].safe.clone().unwrap();
        assert_eq!((known.plugs.guard, known.trusted), (Some(who(0x77)), true));
        store.close().await;
    }
}

/// As at Bybit in 2025: the singleton was replaced by a delegate call, without any log.
#[tokio::test]
async fn a_safe_that_was_taken_over_without_a_word_is_told_of_when_its_money_leaves() {
    for store in TestStore::all().await {
        let mut rig = Rig::new(&store);
        let (tenant, id) = with_safe(&store, &mut rig).await;
        rig.chain.mine(&[pay(1, None, who(SAFE), 50)]);
        rig.follow().await.unwrap();
        rig.chain.safes.becomes(who(SAFE), Err(SafeRejection::UnknownSingleton));
        rig.chain.mine(&[pay(2, Some(who(SAFE)), who(0x66), 20)]);
        let changed = async || !told(&store, tenant, "safe.changed").await.is_empty();
        until(&mut rig, "the alarm", changed).await;
        let event = told(&store, tenant, "safe.changed").await.remove(0);
        assert_eq!(event["data"]["safe"]["trusted"], false);
        assert_eq!(event["data"]["safe"]["singleton"], address(0xbb));
        assert_eq!(event["data"]["safe"]["owners"], json!([address(9)]), "as last proven");
        assert_eq!(event["data"]["before"]["trusted"], true);
        let metric = &rig.follower.metrics.safe_changes_total;
        assert_eq!(metric.with_label_values(&["scripted", "untrusted"]).get(), 1);
        let position = store.position(id, &chain_name(), AssetKey::Native).await;
        assert_eq!(position.total(), Ok(30.into()), "its money counts by the chain all the same");
        store.close().await;
    }
}

#[tokio::test]
async fn what_was_read_after_a_block_that_is_gone_counts_for_nothing() {
    for store in TestStore::all().await {
        let mut rig = Rig::new(&store);
        let (tenant, _) = with_safe(&store, &mut rig).await;
        rig.chain.mine(&[]);
        rig.follow().await.unwrap();
        rig.chain.safes.hold(true);
        let at = rig.chain.mine(&[]);
        rig.chain.safes.run(at, &[who(SAFE)]);
        rig.follow().await.unwrap();
        assert!(rig.follower.looking.task.is_some(), "it is being read");
        // The answer on its way was true of the branch that vanishes.
        rig.chain.safes.becomes(who(SAFE), Ok(safe_of(&[who(OTHER)])));
        rig.chain.cut(at.number - 1);
        rig.chain.mine(&[]);
        rig.chain.mine(&[]);
        rig.follow().await.unwrap();
        rig.chain.safes.hold(false);
        let mut turns = 0;
        while rig.follower.looking.task.as_ref().is_some_and(|task| !task.is_finished()) {
            tokio::time::sleep(Duration::from_millis(5)).await;
            turns += 1;
            assert!(turns < 1_000, "the answer comes");
        }
        rig.chain.safes.becomes(who(SAFE), Ok(safe_of(&[who(9)])));
        // It is taken in as no answer: the Safe is read again after a pause.
        rig.follow().await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        at_rest(&store, &mut rig).await;
        assert_eq!(told(&store, tenant, "safe.owners_changed").await, Vec::<Value>::new());
        store.close().await;
    }
}

#[tokio::test]
async fn a_reorg_has_what_was_read_above_it_read_again() {
    for store in TestStore::all().await {
        let mut rig = Rig::new(&store);
        let (tenant, _) = with_safe(&store, &mut rig).await;
        rig.chain.mine(&[]);
        rig.follow().await.unwrap();
        rig.chain.safes.becomes(who(SAFE), Ok(safe_of(&[who(9), who(OTHER)])));
        let at = rig.chain.mine(&[]);
        rig.chain.safes.run(at, &[who(SAFE)]);
        let times = |count: usize| {
            let store = &store;
            async move || told(store, tenant, "safe.owners_changed").await.len() == count
        };
        until(&mut rig, "the change", times(1)).await;
        rig.chain.safes.becomes(who(SAFE), Ok(safe_of(&[who(9)])));
        rig.chain.cut(at.number - 1);
        rig.chain.mine(&[]);
        rig.chain.mine(&[]);
        until(&mut rig, "the change back", times(2)).await;
        let back = told(&store, tenant, "safe.owners_changed").await.remove(1);
        assert_eq!(back["data"]["safe"]["owners"], json!([address(9)]));
        store.close().await;
    }
}

#[tokio::test]
async fn a_contract_that_only_logs_like_a_safe_is_none() {
    for store in TestStore::all().await {
        let mut rig = Rig::new(&store);
        let (tenant, _) = one_wallet(&store, &mut rig).await;
        rig.chain.safes.becomes(who(9), Err(SafeRejection::NotASafe));
        let at = rig.chain.mine(&[]);
        rig.chain.safes.run(at, &[who(9)]);
        let cursor = store.cursor(&chain_name()).await.unwrap();
        let none = async || {
            let mut session = store.db.read().await.unwrap();
            let conn = &mut session.conn();
            let all =
                crate::store::safe_state::due(conn, cursor.no, crate::clock::Millis(i64::MAX), 9);
            all.await.unwrap().is_empty()
        };
        rig.follow().await.unwrap();
        until(&mut rig, "nothing to be read", none).await;
        assert_eq!(wallets(&store, tenant).await[0].kind, crate::model::WalletKind::Eoa);
        // A wallet that was registered by its address and turns out to be a Safe.
        rig.chain.safes.becomes(who(9), Ok(safe_of(&[who(OTHER)])));
        let at = rig.chain.mine(&[]);
        rig.chain.safes.run(at, &[who(9)]);
        let is_safe =
            async || wallets(&store, tenant).await[0].kind == crate::model::WalletKind::Safe;
        until(&mut rig, "the Safe", is_safe).await;
        assert_eq!(told(&store, tenant, "safe.owners_changed").await, Vec::<Value>::new());
        store.close().await;
    }
}
