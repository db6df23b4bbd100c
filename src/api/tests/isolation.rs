use super::*;

#[tokio::test]
async fn two_tenants_see_nothing_of_each_other() {
    let world = World::new().await;
    world.begin_chain("base", 100, NOW).await;
    let body = json!({ "address": ALICE, "chains": ["base"],
                       "account": { "externalId": "a", "email": "a@b.c" } });
    let wallet = world.post("/v1/wallets", body.clone()).await.ok(201);
    let hash = format!("0x{}", "ab".repeat(32));
    let deployment = json!({ "chain": "base", "txHash": hash });
    let safe = world.post("/v1/safe-deployments", deployment).await.ok(202);
    let hook = json!({ "url": "https://consumer.example/h", "events": ["*"] });
    let hook = world.post("/v1/webhook-endpoints", hook).await.ok(201);
    let event = world.get("/v1/events").await.ok(200)["data"][0]["id"].clone();
    let text = |value: &Value| value.as_str().expect("an id").to_owned();
    let (id, safe, hook) = (text(&wallet["id"]), text(&safe["id"]), text(&hook["id"]));

    let empty = ["/v1/wallets", "/v1/safe-deployments", "/v1/webhook-endpoints", "/v1/events"];
    for path in empty {
        assert_eq!(world.get_as(&world.other, path).await.ok(200)["data"], json!([]), "{path}");
    }
    for locator in [&id, ALICE, "external:a", "email:a@b.c:evm"] {
        for rest in [
            "",
            "/balances",
            "/balances?at=50",
            "/balances/usdc/explain",
            "/proof?asset=usdc",
            "/transfers",
        ] {
            let reply = world.get_as(&world.other, &format!("/v1/wallets/{locator}{rest}")).await;
            reply.is_problem(404, "wallet_not_found");
        }
        for method in ["PATCH", "DELETE"] {
            let path = format!("/v1/wallets/{locator}");
            let reply = world.write_as(&world.other, method, &path, &json!({})).await;
            reply.is_problem(404, "wallet_not_found");
        }
    }
    let path = format!("/v1/safe-deployments/{safe}");
    world.get_as(&world.other, &path).await.is_problem(404, "safe_deployment_not_found");
    let hook = format!("/v1/webhook-endpoints/{hook}");
    let missing = "webhook_endpoint_not_found";
    world.get_as(&world.other, &hook).await.is_problem(404, missing);
    world.get_as(&world.other, &format!("{hook}/deliveries")).await.is_problem(404, missing);
    let event_body = json!({ "eventId": event });
    for (method, rest, body) in [
        ("DELETE", "", json!({})),
        ("POST", "/test", json!({})),
        ("POST", "/rotate-secret", json!({})),
        ("POST", "/replay", event_body.clone()),
    ] {
        let reply = world.write_as(&world.other, method, &format!("{hook}{rest}"), &body).await;
        reply.is_problem(404, missing);
    }
    let own = json!({ "url": "https://other.example/h", "events": ["*"] });
    let own = world.write_as(&world.other, "POST", "/v1/webhook-endpoints", &own).await.ok(201);
    let own = format!("/v1/webhook-endpoints/{}/replay", text(&own["id"]));
    let reply = world.write_as(&world.other, "POST", &own, &event_body).await;
    reply.is_problem(404, "event_not_found");
    // Newer than all that their feed has, as after a restore: no other than an event that nobody has.
    let nobodys = world.api.ids.next::<crate::id::EventId>().to_string();
    for event in [text(&event), nobodys] {
        let path = format!("/v1/events?after={event}");
        world.get_as(&world.other, &path).await.is_problem(410, "feed_restarted");
    }
    let account = text(&wallet["accountId"]);
    let path = format!("/v1/wallets?account={account}");
    assert_eq!(world.get_as(&world.other, &path).await.ok(200)["data"], json!([]));

    // The same address, account and locators are theirs to use.
    let theirs = world.write_as(&world.other, "POST", "/v1/wallets", &body).await.ok(201);
    assert_ne!(theirs["id"], wallet["id"]);
    assert_ne!(theirs["accountId"], wallet["accountId"]);
    let chains = world.get_as(&world.other, "/v1/chains").await.ok(200);
    assert_eq!(chains["data"][0]["registeredAddresses"], 1);
}

#[tokio::test]
async fn a_key_allows_what_its_scopes_say_and_nothing_once_it_is_revoked() {
    let world = World::new().await;
    let (db, ids) = (&world.api.db, &world.api.ids);
    let (id, key) = key::create(db, ids, &Random::System, NOW, "acme", &[Scope::WalletsRead])
        .await
        .expect("a key");
    world.get_as(&key, "/v1/wallets").await.ok(200);
    for (path, scope) in
        [("/v1/wallets", "wallets:write"), ("/v1/webhook-endpoints", "webhooks:write")]
    {
        let reply = world.write_as(&key, "POST", path, &json!({})).await;
        let detail = reply.is_problem(403, "forbidden")["detail"].to_string();
        assert!(detail.contains(scope), "{detail}");
    }
    let bearer = async |value: &str| {
        let request = Request::builder().uri("/v1/wallets").header("authorization", value);
        world.send(request.body(Body::empty()).expect("a request")).await
    };
    bearer(&format!("Bearer {key}")).await.ok(200);
    for bad in ["Bearer tmk_wrong", "Basic x", "Bearer", ""] {
        bearer(bad).await.is_problem(401, "unauthorized");
    }
    let mut tx = db.begin().await.expect("a transaction");
    assert!(crate::store::key::revoke_key(&mut tx.conn(), id, NOW).await.expect("revoked"));
    tx.commit().await.expect("a commit");
    world.api.clock.set(NOW.plus(super::super::KEY_LIFETIME));
    world.get_as(&key, "/v1/wallets").await.is_problem(401, "unauthorized");
}

#[tokio::test]
async fn the_feed_is_complete_in_order_and_goes_on_after_an_event() {
    let world = World::new().await;
    for n in 1..=12 {
        world.wallet(&address(n)).await;
    }
    let ids = world.all("/v1/events?limit=5").await;
    assert_eq!(ids.len(), 12);
    let all = world.get("/v1/events?limit=200").await.ok(200);
    for (n, event) in (1..).zip(all["data"].as_array().expect("events")) {
        let shown = event["data"]["wallet"]["address"].as_str().expect("an address");
        assert_eq!(shown.to_lowercase(), address(n), "in the order of the commits");
        assert_eq!(event["id"], ids[n as usize - 1]);
    }
    let page = world.get(&format!("/v1/events?after={}&limit=200", ids[9])).await.ok(200);
    assert_eq!(page["data"].as_array().map(Vec::len), Some(2));
    assert_eq!(page["nextCursor"], Value::Null);
    assert_eq!(world.all("/v1/events?type=wallet.*,deposit.*&limit=5").await, ids);
    assert!(world.all("/v1/events?type=deposit.*&limit=5").await.is_empty());
    for (query, field) in
        [("after=evt_x", "after"), ("type=deposits.*", "type"), ("limit=999", "limit")]
    {
        let reply = world.get(&format!("/v1/events?{query}")).await;
        reply.is_problem(400, "invalid_request");
        reply.field(field);
    }
}
