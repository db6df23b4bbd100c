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

#[tokio::test]
async fn a_safe_is_registered_by_its_owners_before_it_is_deployed() {
    let world = World::new().await;
    let owners = [
        "0x70997970C51812dc3A010C7d01b50e0d17dc79C8",
        "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC",
        "0x90F79bf6EB2c4f870365E785982E1f101E93b906",
    ];
    let safe = json!({"version": "1.4.1", "owners": owners, "threshold": 2, "saltNonce": "7"});
    let body = json!({"chains": ["base", "ethereum"], "safe": safe});
    let made = world.post("/v1/wallets", body.clone()).await.ok(201);
    assert_eq!(made["address"], "0x73355b79C280dc2cC7d466199021F544dc47779F", "a known one");
    assert_eq!(made["kind"], "safe");
    let shown = &made["safe"];
    assert_eq!((&shown["owners"], &shown["threshold"]), (&json!(owners), &json!(2)));
    assert_eq!((&shown["deployed"], &shown["deployments"]), (&json!(false), &json!([])));
    let id = made["id"].as_str().expect("an id");
    assert_eq!(world.get(&format!("/v1/wallets/{id}")).await.ok(200)["safe"], *shown);
    let again = world.post("/v1/wallets", body).await;
    assert_eq!(again.is_problem(409, "wallet_exists")["existingId"], made["id"]);
    // In hexadecimal digits it is the same number, and so the same Safe.
    let in_hex = json!({"version": "1.4.1", "owners": owners, "threshold": 2, "saltNonce": "0x7"});
    let twin = world.post("/v1/wallets", json!({"chains": ["base"], "safe": in_hex})).await;
    twin.is_problem(409, "wallet_exists");
    let elsewhere = json!({"version": "1.4.1", "owners": owners, "threshold": 2, "saltNonce": "7"});
    let solana = world.post("/v1/wallets", json!({"chains": ["solana"], "safe": elsewhere})).await;
    solana.is_problem(400, "invalid_request");
    solana.field("chains");
}

#[tokio::test]
async fn a_safe_is_registered_by_the_transaction_that_deploys_it_in_either_place() {
    let world = World::new().await;
    let deployment = json!({"chain": "base", "txHash": format!("0x{}", "ab".repeat(32))});
    let first = world.post("/v1/safe-deployments", deployment.clone()).await.ok(202);
    let again = world.post("/v1/wallets", json!({"deployment": deployment})).await.ok(202);
    assert_eq!(first, again);
}
