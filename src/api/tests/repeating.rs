use super::*;

#[tokio::test]
async fn a_repeated_post_gets_the_first_answer_and_is_done_once() {
    let world = World::new().await;
    let body = json!({ "address": ALICE, "chains": ["base"] });
    let send = async || world.repeat(&world.acme, "POST", "/v1/wallets", &body, "k:1").await;
    let first = send().await;
    assert!(!first.headers.contains_key("idempotency-replayed"));
    let second = send().await;
    assert_eq!(second.headers["idempotency-replayed"], "true");
    assert_eq!(first.ok(201), second.ok(201));
    assert_eq!(world.get("/v1/events").await.ok(200)["data"].as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn a_key_serves_one_request_of_one_tenant_for_a_day() {
    let world = World::new().await;
    let body = |address: &str| json!({ "address": address, "chains": ["base"] });
    let send = async |key: &str, path: &str, body: Value| {
        world.repeat(key, "POST", path, &body, "k").await
    };
    send(&world.acme, "/v1/wallets", body(ALICE)).await.ok(201);
    let reused = send(&world.acme, "/v1/wallets", body(BOB)).await;
    reused.is_problem(422, "idempotency_key_reused");
    let deployment = json!({ "chain": "base", "txHash": format!("0x{}", "ab".repeat(32)) });
    let reused = send(&world.acme, "/v1/safe-deployments", deployment).await;
    reused.is_problem(422, "idempotency_key_reused");
    send(&world.other, "/v1/wallets", body(BOB)).await.ok(201);
    world.api.clock.set(NOW.plus(Duration::from_secs(24 * 3600 + 1)));
    send(&world.acme, "/v1/wallets", body(BOB)).await.ok(201);
}

#[tokio::test]
async fn a_refused_request_does_not_use_up_its_key() {
    let world = World::new().await;
    let first = world.wallet(ALICE).await;
    let body = json!({ "address": ALICE, "chains": ["base"] });
    let send = async || world.repeat(&world.acme, "POST", "/v1/wallets", &body, "k").await;
    send().await.is_problem(409, "wallet_exists");
    let path = format!("/v1/wallets/{}", first["id"].as_str().expect("an id"));
    world.write_as(&world.acme, "DELETE", &path, &json!({})).await.ok(204);
    send().await.ok(201);
}

#[tokio::test]
async fn duplicates_sent_at_once_are_done_once_and_answered_alike() {
    let world = Arc::new(World::new().await);
    let tries: Vec<_> = (0..8)
        .map(|_| {
            let world = Arc::clone(&world);
            tokio::spawn(async move {
                let body = json!({ "address": ALICE, "chains": ["base"] });
                world.repeat(&world.acme, "POST", "/v1/wallets", &body, "k").await
            })
        })
        .collect();
    let mut answers = Vec::new();
    for one in tries {
        let reply = one.await.expect("no panic");
        if reply.status == 409 {
            reply.is_problem(409, "idempotency_in_progress");
        } else {
            answers.push(reply.ok(201));
        }
    }
    answers.dedup();
    assert_eq!(answers.len(), 1);
}

#[tokio::test]
async fn a_post_without_a_good_key_is_refused_before_anything_is_done() {
    let world = World::new().await;
    let body = json!({ "address": ALICE, "chains": ["base"] });
    let bare = World::request("POST", "/v1/wallets", &world.acme)
        .header("content-type", "application/json")
        .body(Body::from(body.to_string()))
        .expect("a request");
    world.send(bare).await.is_problem(400, "idempotency_key_required");
    for bad in ["", "a b", "ä", &"a".repeat(129)] {
        let reply = world.repeat(&world.acme, "POST", "/v1/wallets", &body, bad).await;
        reply.is_problem(400, "invalid_request");
        reply.field("Idempotency-Key");
    }
    assert_eq!(world.get("/v1/wallets").await.ok(200)["data"], json!([]));
}
