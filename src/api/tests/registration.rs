use super::*;

#[tokio::test]
async fn a_registered_wallet_is_answered_in_full_and_told_as_an_event() {
    let world = World::new().await;
    world.begin_chain("base", 100, NOW).await;
    let body = json!({
        "address": ALICE.to_lowercase(), "chains": ["base", "ethereum"],
        "account": { "externalId": "player-1", "email": "A@b.c" },
        "clientReferenceId": "r-1", "nickname": "main",
    });
    let wallet = world.post("/v1/wallets", body).await.ok(201);
    assert_eq!(wallet["address"], ALICE);
    assert_eq!(wallet["family"], "evm");
    assert_eq!(wallet["kind"], "eoa");
    assert_eq!(wallet["status"], "pending");
    assert_eq!(
        wallet["chains"],
        json!([{ "chain": "base", "status": "pending", "fromBlock": null, "history": null,
                 "historyMethod": null, "coveredFrom": null, "internalFrom": null, "coveredTo": null },
               { "chain": "ethereum", "status": "pending", "fromBlock": null, "history": null,
                 "historyMethod": null, "coveredFrom": null, "internalFrom": null, "coveredTo": null }])
    );
    assert!(wallet["accountId"].as_str().expect("an account").starts_with("acc_"));
    assert_eq!(wallet["clientReferenceId"], "r-1");
    assert_eq!(wallet["isPrimary"], false);
    for null in ["safe", "rotatedAt", "replacedByWalletId"] {
        assert_eq!(wallet[null], Value::Null);
    }
    assert_eq!(wallet["createdAt"], "2026-01-15T09:30:00.000Z");
    let events = world.get("/v1/events").await.ok(200);
    assert_eq!(events["data"][0]["type"], "wallet.created");
    assert_eq!(events["data"][0]["sequence"], 1);
    assert_eq!(events["data"][0]["data"]["wallet"], wallet);
    let id = wallet["id"].as_str().expect("an id");
    for locator in [id, ALICE, "external:player-1", "email:a@B.c:evm"] {
        assert_eq!(world.get(&format!("/v1/wallets/{locator}")).await.ok(200), wallet);
    }
}

#[tokio::test]
async fn what_cannot_be_registered_is_refused_with_its_field() {
    let world = World::new().await;
    let refused = async |body: Value, code: &str, field: &str| {
        let reply = world.post("/v1/wallets", body).await;
        reply.is_problem(400, code);
        reply.field(field)
    };
    let with = |extra: Value| {
        let mut body = json!({ "address": ALICE, "chains": ["base"] });
        body.as_object_mut().expect("an object").extend(extra.as_object().cloned().expect("one"));
        body
    };
    let invalid = "invalid_request";
    refused(json!({ "chains": ["base"] }), invalid, "address").await;
    refused(json!({ "address": ALICE }), invalid, "chains").await;
    refused(json!({ "address": ALICE, "chains": ["base", "base"] }), invalid, "chains[1]").await;
    refused(json!({ "address": ALICE, "chains": ["base", "solana"] }), invalid, "chains[1]").await;
    refused(json!({ "address": ALICE, "chains": ["base", 1] }), invalid, "chains[1]").await;
    refused(json!([1]), invalid, "body").await;
    refused(with(json!({ "foo": 1 })), invalid, "foo").await;
    refused(with(json!({ "account": {} })), invalid, "account.externalId").await;
    refused(with(json!({ "account": { "externalId": "" } })), invalid, "account.externalId").await;
    let account = json!({ "account": { "externalId": "a", "foo": 1 } });
    refused(with(account), invalid, "account.foo").await;
    let account = json!({ "account": { "externalId": "a", "email": "nobody" } });
    refused(with(account), invalid, "account.email").await;
    refused(with(json!({ "nickname": "a\u{7}" })), invalid, "nickname").await;
    refused(with(json!({ "nickname": "a".repeat(129) })), invalid, "nickname").await;
    refused(with(json!({ "isPrimary": true })), invalid, "isPrimary").await;
    let says =
        refused(with(json!({ "fromBlock": { "ethereum": 1 } })), invalid, "fromBlock.ethereum");
    assert!(says.await.contains("not among the chains"));
    refused(with(json!({ "fromBlock": { "base": -1 } })), invalid, "fromBlock.base").await;
    refused(with(json!({ "fromBlock": { "base": u64::MAX } })), invalid, "fromBlock.base").await;
    refused(json!({ "chains": ["base"], "safe": {} }), invalid, "safe.version").await;
    refused(json!({ "deployment": {} }), invalid, "deployment.chain").await;
    let deployment = json!({ "chain": "base", "txHash": format!("0x{}", "ab".repeat(32)) });
    refused(with(json!({ "deployment": deployment })), invalid, "deployment").await;
    let says =
        refused(json!({ "address": ALICE, "chains": ["bas"] }), "unknown_chain", "chains[0]").await;
    assert!(says.contains("base, ethereum, solana"), "{says}");
    for bad in ["", "0x12", "0x0000000000000000000000000000000000000000", "vitalik.eth"] {
        refused(json!({ "address": bad, "chains": ["base"] }), "invalid_address", "address").await;
    }
    let wrong = ALICE.replace("742D35C", "742d35C");
    let says =
        refused(json!({ "address": wrong, "chains": ["base"] }), "invalid_address", "address")
            .await;
    assert!(says.contains(ALICE), "it names the right form: {says}");
    assert_eq!(world.get("/v1/events").await.ok(200)["data"], json!([]));
}

#[tokio::test]
async fn the_same_address_on_the_same_chain_is_refused_with_the_wallet_that_has_it() {
    let world = World::new().await;
    let first = world.wallet(ALICE).await;
    let body = json!({ "address": ALICE, "chains": ["ethereum", "base"] });
    let reply = world.post("/v1/wallets", body).await;
    let problem = reply.is_problem(409, "wallet_exists");
    assert_eq!(problem["existingId"], first["id"]);
    let id = first["id"].as_str().expect("an id");
    assert!(problem["detail"].as_str().expect("text").contains(id));
    let body = json!({ "address": ALICE, "chains": ["ethereum"] });
    let second = world.post("/v1/wallets", body).await.ok(201);
    let reply = world.get(&format!("/v1/wallets/{ALICE}")).await;
    let detail = reply.is_problem(409, "invalid_request")["detail"].to_string();
    assert!(detail.contains(id) && detail.contains(second["id"].as_str().expect("an id")));
}

#[tokio::test]
async fn an_address_registered_many_times_at_once_is_registered_once() {
    let world = Arc::new(World::new().await);
    let tries: Vec<_> = (0..8)
        .map(|_| {
            let world = Arc::clone(&world);
            tokio::spawn(async move {
                let body = json!({ "address": ALICE, "chains": ["base", "ethereum"],
                                   "account": { "externalId": "a" } });
                world.post("/v1/wallets", body).await
            })
        })
        .collect();
    let mut made = 0;
    for one in tries {
        let reply = one.await.expect("no panic");
        if reply.status == 201 {
            made += 1;
        } else {
            assert!(reply.is_problem(409, "wallet_exists")["existingId"].is_string());
        }
    }
    assert_eq!(made, 1);
    assert_eq!(world.get("/v1/events").await.ok(200)["data"].as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn an_account_has_one_primary_wallet_which_cannot_be_deleted() {
    let world = World::new().await;
    let register = async |address: &str, primary: bool| {
        let body = json!({ "address": address, "chains": ["base"], "isPrimary": primary,
                           "account": { "externalId": "p" } });
        let wallet = world.post("/v1/wallets", body).await.ok(201);
        wallet["id"].as_str().expect("an id").to_owned()
    };
    let (first, second) = (register(ALICE, false).await, register(BOB, false).await);
    world.get("/v1/wallets/external:p").await.is_problem(409, "invalid_request");
    let patch = async |id: &str, body: Value| {
        world.write_as(&world.acme, "PATCH", &format!("/v1/wallets/{id}"), &body).await
    };
    patch(&first, json!({ "isPrimary": true })).await.ok(200);
    assert_eq!(world.get("/v1/wallets/external:p").await.ok(200)["id"], *first);
    patch(&second, json!({ "isPrimary": true, "nickname": "two" })).await.ok(200);
    let named = world.get("/v1/wallets/external:p").await.ok(200);
    assert_eq!((&named["id"], &named["nickname"]), (&json!(second), &json!("two")));
    assert_eq!(patch(&second, json!({ "nickname": null })).await.ok(200)["nickname"], Value::Null);
    patch(&second, json!({ "address": ALICE })).await.is_problem(400, "invalid_request");
    let kept = format!("/v1/wallets/{second}");
    world
        .write_as(&world.acme, "DELETE", &kept, &json!({}))
        .await
        .is_problem(409, "primary_wallet");
    let gone = format!("/v1/wallets/{first}");
    world.write_as(&world.acme, "DELETE", &gone, &json!({})).await.ok(204);
    world.get(&gone).await.is_problem(404, "wallet_not_found");
    world
        .write_as(&world.acme, "DELETE", &gone, &json!({}))
        .await
        .is_problem(404, "wallet_not_found");
    let events = world.get("/v1/events?type=wallet.disabled").await.ok(200);
    assert_eq!(events["data"][0]["data"]["wallet"]["id"], *first);
    assert_eq!(events["data"][0]["data"]["wallet"]["status"], "disabled");
    world.wallet(ALICE).await;
}

#[tokio::test]
async fn a_locator_names_one_account_only() {
    let world = World::new().await;
    let body = |address: &str, external: &str| {
        json!({ "address": address, "chains": ["base"],
                "account": { "externalId": external, "userId": "7" } })
    };
    world.post("/v1/wallets", body(ALICE, "a")).await.ok(201);
    let reply = world.post("/v1/wallets", body(BOB, "b")).await;
    reply.is_problem(409, "external_id_exists");
    reply.field("account.userId");
    world.post("/v1/wallets", body(BOB, "a")).await.ok(201);
}

#[tokio::test]
async fn every_wallet_is_on_one_page_while_others_come() {
    let world = World::new().await;
    let mut made = Vec::new();
    for n in 1..=25 {
        made.push(world.wallet(&address(n)).await["id"].as_str().expect("an id").to_owned());
    }
    made.reverse();
    assert_eq!(world.all("/v1/wallets?limit=7").await, made);
    let first = world.get("/v1/wallets?limit=7").await.ok(200);
    let cursor = first["nextCursor"].as_str().expect("more");
    world.wallet(&address(26)).await;
    let second = world.get(&format!("/v1/wallets?limit=7&cursor={cursor}")).await.ok(200);
    assert_eq!(second["data"][0]["id"], *made[7]);
}

#[tokio::test]
async fn a_list_is_filtered_and_a_bad_filter_is_refused() {
    let world = World::new().await;
    world.begin_chain("base", 100, NOW).await;
    let alice = world.wallet(ALICE).await;
    let body = json!({ "address": BOB, "chains": ["ethereum"], "clientReferenceId": "r",
                       "account": { "externalId": "a" } });
    let bob = world.post("/v1/wallets", body).await.ok(201);
    let ids = async |query: &str| world.all(&format!("/v1/wallets?{query}&limit=1")).await;
    let (alice, bob) = (vec![alice["id"].as_str().expect("id").to_owned()], bob);
    let account = bob["accountId"].as_str().expect("id").to_owned();
    let bob = vec![bob["id"].as_str().expect("id").to_owned()];
    assert_eq!(ids("chain=base").await, alice);
    assert_eq!(ids("chain=ethereum").await, bob);
    assert_eq!(ids("account=a").await, bob);
    assert_eq!(ids(&format!("account={account}")).await, bob);
    assert_eq!(ids("clientReferenceId=r").await, bob);
    assert_eq!(ids(&format!("address={ALICE}")).await, alice);
    assert_eq!(ids("status=active").await, Vec::<String>::new());
    assert_eq!(ids("status=pending&kind=eoa").await.len(), 2);
    for (query, field) in [
        ("limit=0", "limit"),
        ("limit=201", "limit"),
        ("limit=x", "limit"),
        ("cursor=zzz", "cursor"),
        ("kind=x", "kind"),
        ("status=x", "status"),
        ("foo=1", "foo"),
    ] {
        let reply = world.get(&format!("/v1/wallets?{query}")).await;
        reply.is_problem(400, "invalid_request");
        reply.field(field);
    }
    world.get("/v1/wallets?chain=x").await.is_problem(400, "unknown_chain");
    world.get("/v1/wallets?address=0x1").await.is_problem(400, "invalid_address");
}

#[tokio::test]
async fn a_locator_that_names_nothing_says_what_would() {
    let world = World::new().await;
    for locator in ["wlt_x", "external:nobody", "nothing", BOB, "email:a@b.c:evm:safe"] {
        let reply = world.get(&format!("/v1/wallets/{locator}")).await;
        let detail = reply.is_problem(404, "wallet_not_found")["detail"].to_string();
        assert!(detail.contains("GET /v1/wallets"));
    }
    world.get("/v1/wallets/0x12").await.is_problem(400, "invalid_address");
    world.get("/v1/wallets/email:a@b.c").await.is_problem(400, "invalid_request");
    world.get("/v1/wallets/%ff").await.is_problem(400, "invalid_request");
}

#[tokio::test]
async fn a_safe_deployment_is_tracked_once_per_transaction() {
    let world = World::new().await;
    let hash = format!("0x{}", "ab".repeat(32));
    let body = json!({ "chain": "base", "txHash": hash });
    let first = world.post("/v1/safe-deployments", body.clone()).await.ok(202);
    assert_eq!(first["status"], "pending");
    assert_eq!(first["owners"], json!([]));
    assert_eq!(first["block"], Value::Null);
    let again = world.post("/v1/safe-deployments", body).await.ok(202);
    assert_eq!(first, again);
    let id = first["id"].as_str().expect("an id");
    assert_eq!(world.get(&format!("/v1/safe-deployments/{id}")).await.ok(200), first);
    assert_eq!(world.all("/v1/safe-deployments?chain=base&status=pending").await, [id]);
    assert!(world.all("/v1/safe-deployments?status=failed").await.is_empty());
    world.get("/v1/safe-deployments/sfd_1").await.is_problem(404, "safe_deployment_not_found");
    let refused = async |body: Value| world.post("/v1/safe-deployments", body).await;
    refused(json!({ "chain": "base", "txHash": "0x1" })).await.field("txHash");
    refused(json!({ "chain": "solana", "txHash": hash })).await.field("chain");
    refused(json!({ "chain": "x", "txHash": hash })).await.is_problem(400, "unknown_chain");
    refused(json!({ "chain": "base" })).await.field("txHash");
}
