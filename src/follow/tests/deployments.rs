//! Transactions that never are in a block: which of them are given up, and why.

use super::{safes::until, *};
use crate::{
    chain::TxId,
    clock::Millis,
    ledger::changes::LookChanges,
    model::Deployment,
    store::{safe, safe_look},
};

fn tx() -> TxId {
    TxId::from([0x77; 32])
}

async fn tracked(store: &TestStore, tenant: TenantId) -> Deployment {
    let mut session = store.db.read().await.unwrap();
    let rows = safe::by_tx(&mut session.conn(), tenant, &chain_name(), &tx()).await;
    rows.unwrap().remove(0)
}

/// A transaction that a node has in its pool, tracked and seen there.
async fn waiting(store: &TestStore, rig: &mut Rig) -> TenantId {
    let (tenant, _) = one_wallet(store, rig).await;
    rig.chain.safes.pool.lock().insert(tx(), 4);
    *rig.chain.safes.next_nonce.lock() = 4;
    let mut write = store.db.begin().await.unwrap();
    let (id, now) = (store.ids.next(), Clock::System.now());
    safe::insert_by_hash(&mut write.conn(), id, tenant, &chain_name(), &tx(), now).await.unwrap();
    write.commit().await.unwrap();
    let seen = async || tracked(store, tenant).await.nonce == Some(4);
    until(rig, "the transaction in the pool", seen).await;
    tenant
}

/// The node is asked again now, and not after the pause.
async fn look_now(store: &TestStore, tenant: TenantId) {
    let row = tracked(store, tenant).await;
    let cursor = store.cursor(&chain_name()).await.unwrap();
    let due = (row.id, row.revision, Millis(1), row.looks);
    let looks = LookChanges { deployments: vec![due], ..LookChanges::default() };
    let mut write = store.db.begin().await.unwrap();
    safe_look::write(&mut write.conn(), cursor.no, &looks).await.unwrap();
    write.commit().await.unwrap();
}

async fn no_node_has_it(store: &TestStore, rig: &mut Rig, tenant: TenantId) {
    rig.chain.safes.pool.lock().clear();
    look_now(store, tenant).await;
    let missed = async || tracked(store, tenant).await.missing_since.is_some();
    until(rig, "that it is missing", missed).await;
    look_now(store, tenant).await;
}

#[tokio::test]
async fn a_transaction_whose_nonce_another_one_has_used_was_replaced() {
    for store in TestStore::all().await {
        let mut rig = Rig::new(&store);
        let tenant = waiting(&store, &mut rig).await;
        *rig.chain.safes.next_nonce.lock() = 5;
        no_node_has_it(&store, &mut rig, tenant).await;
        let failed = async || tracked(&store, tenant).await.is_decided();
        until(&mut rig, "the end", failed).await;
        assert_eq!(tracked(&store, tenant).await.reason.as_deref(), Some("replaced"));
        assert!(types(&store.events(tenant).await).contains(&"safe_deployment.failed"));
        store.close().await;
    }
}

#[tokio::test]
async fn a_transaction_that_no_node_has_is_given_up_after_a_while_and_not_before() {
    for store in TestStore::all().await {
        let mut rig = Rig::new(&store);
        let tenant = waiting(&store, &mut rig).await;
        no_node_has_it(&store, &mut rig, tenant).await;
        let looked = async || tracked(&store, tenant).await.look_at > Millis(1);
        until(&mut rig, "a look", looked).await;
        assert!(
            !tracked(&store, tenant).await.is_decided(),
            "its nonce is free: it can come still"
        );
        rig.follower.config =
            Arc::new(ChainConfig { dropped_after: Duration::ZERO, ..config(rig.settlement) });
        look_now(&store, tenant).await;
        let failed = async || tracked(&store, tenant).await.is_decided();
        until(&mut rig, "the end", failed).await;
        assert_eq!(tracked(&store, tenant).await.reason.as_deref(), Some("dropped"));
        store.close().await;
    }
}
