use super::*;
use crate::{chain::TxId, store::safe};

#[tokio::test]
async fn a_tenant_chooses_which_safes_join_an_account() {
    let world = World::new().await;
    let settings = async |key: &str| world.get_as(key, "/v1/settings").await.ok(200);
    assert_eq!(settings(&world.acme).await, json!({"adoptSafes": "sole_owner"}));
    let change =
        async |body: Value| world.write_as(&world.acme, "PATCH", "/v1/settings", &body).await;
    assert_eq!(change(json!({"adoptSafes": "any"})).await.ok(200), json!({"adoptSafes": "any"}));
    assert_eq!(change(json!({})).await.ok(200), json!({"adoptSafes": "any"}), "left out, it stays");
    let wrong = change(json!({"adoptSafes": "all"})).await;
    wrong.is_problem(400, "invalid_request");
    assert!(wrong.field("adoptSafes").contains("never, sole_owner, any"));
    change(json!({"adoptSafe": "any"})).await.is_problem(400, "invalid_request");
    assert_eq!(settings(&world.other).await, json!({"adoptSafes": "sole_owner"}));
}

#[tokio::test]
async fn a_tenant_cannot_track_more_transactions_than_a_chain_may_look_for() {
    let world = World::new().await;
    let track = async |key: &str, chain: &str, number: u64| {
        let tx = format!("0x{number:064x}");
        let body = json!({"chain": chain, "txHash": tx});
        world.write_as(key, "POST", "/v1/safe-deployments", &body).await
    };
    track(&world.acme, "base", 0).await.ok(202);
    let mut tx = world.api.db.begin().await.expect("a transaction");
    let tenant = crate::store::key::valid_key(&mut tx.conn(), &key::hash(&world.acme)).await;
    let tenant = tenant.expect("an answer").expect("a key").tenant_id;
    for number in 1..10_000_u64 {
        let mut hash = [0; 32];
        hash[24..].copy_from_slice(&number.to_be_bytes());
        let (conn, id) = (&mut tx.conn(), world.api.ids.next());
        let base = ChainName::new("base");
        safe::insert_by_hash(conn, id, tenant, &base, &TxId::from(hash), NOW).await.expect("a row");
    }
    tx.commit().await.expect("a commit");
    let refused = track(&world.acme, "base", 10_000).await;
    let detail = refused.is_problem(429, "limit_reached")["detail"].to_string();
    assert!(detail.contains("10000 deployments on 'base'"), "{detail}");
    track(&world.acme, "base", 9_999).await.ok(202);
    track(&world.acme, "ethereum", 10_000).await.ok(202);
    track(&world.other, "base", 10_000).await.ok(202);
}
