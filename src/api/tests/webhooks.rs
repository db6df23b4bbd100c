use super::*;

async fn endpoint(world: &World, events: &[&str]) -> (String, String) {
    let body = json!({ "url": "https://consumer.example/hook", "events": events });
    let made = world.post("/v1/webhook-endpoints", body).await.ok(201);
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    (format!("/v1/webhook-endpoints/{}", text(&made["id"])), text(&made["secret"]))
}

async fn delivered(world: &World, path: &str) -> Vec<String> {
    let page = world.get(&format!("{path}/deliveries")).await.ok(200);
    let data = page["data"].as_array().expect("data").clone();
    data.iter().map(|one| one["eventType"].as_str().expect("a type").to_owned()).collect()
}

#[tokio::test]
async fn an_endpoints_secret_is_shown_once() {
    let world = World::new().await;
    let (path, secret) = endpoint(&world, &["deposit.*"]).await;
    assert!(secret.starts_with("whsec_") && secret.len() == 50);
    let read = world.get(&path).await.ok(200);
    assert_eq!(read["secret"], Value::Null);
    assert_eq!(read["events"], json!(["deposit.*"]));
    assert_eq!(read["status"], "enabled");
    assert_eq!(world.all("/v1/webhook-endpoints?limit=1").await.len(), 1);
    let rotate = format!("{path}/rotate-secret");
    let new = world.post(&rotate, json!({ "overlapSeconds": 60 })).await.ok(200);
    assert_ne!(new["secret"], secret);
    assert_eq!(new["previousExpiresAt"], "2026-01-15T09:31:00.000Z");
    world.post(&rotate, json!({ "overlapSeconds": 9_999_999 })).await.field("overlapSeconds");
    world.post(&rotate, json!({ "overlapSeconds": -1 })).await.field("overlapSeconds");
    world.write_as(&world.acme, "DELETE", &path, &json!({})).await.ok(204);
    world.get(&path).await.is_problem(404, "webhook_endpoint_not_found");
}

#[tokio::test]
async fn a_bad_endpoint_is_refused_with_its_field() {
    let world = World::new().await;
    for (body, field) in [
        (json!({ "events": ["*"] }), "url"),
        (json!({ "url": "nonsense", "events": ["*"] }), "url"),
        (json!({ "url": "http://consumer.example", "events": ["*"] }), "url"),
        (json!({ "url": "https://10.0.0.1/hook", "events": ["*"] }), "url"),
        (json!({ "url": "https://a.example", "events": [] }), "events"),
        (json!({ "url": "https://a.example", "events": ["deposits.*"] }), "events"),
        (json!({ "url": "https://a.example", "events": ["*"], "secret": "x" }), "secret"),
    ] {
        let reply = world.post("/v1/webhook-endpoints", body).await;
        reply.is_problem(400, "invalid_request");
        reply.field(field);
    }
}

#[tokio::test]
async fn a_test_goes_to_its_endpoint_only() {
    let world = World::new().await;
    let (narrow, _) = endpoint(&world, &["deposit.*"]).await;
    let (wide, _) = endpoint(&world, &["*"]).await;
    let sent = world.post(&format!("{narrow}/test"), json!({})).await.ok(202);
    assert!(sent["deliveryId"].as_str().expect("an id").starts_with("whd_"));
    world.post(&format!("{wide}/test"), json!({})).await.ok(202);
    assert_eq!(delivered(&world, &narrow).await, ["test"]);
    assert_eq!(delivered(&world, &wide).await, ["test"]);
}

#[tokio::test]
async fn events_are_replayed_by_id_or_by_time() {
    let world = World::new().await;
    world.wallet(ALICE).await;
    world.wallet(BOB).await;
    let (path, _) = endpoint(&world, &["wallet.*"]).await;
    assert!(delivered(&world, &path).await.is_empty());
    let event = world.get("/v1/events").await.ok(200)["data"][0]["id"].clone();
    let replay = async |body: Value| world.post(&format!("{path}/replay"), body).await;
    assert_eq!(replay(json!({ "eventId": event })).await.ok(202)["deliveries"], 1);
    let from = "2026-01-15T09:00:00Z";
    assert_eq!(replay(json!({ "from": from })).await.ok(202)["deliveries"], 2);
    let none = json!({ "from": from, "events": ["deposit.*"] });
    assert_eq!(replay(none).await.ok(202)["deliveries"], 0);
    let before = json!({ "from": from, "to": "2026-01-15T09:30:00Z" });
    assert_eq!(replay(before).await.ok(202)["deliveries"], 0, "the end does not count");
    assert_eq!(delivered(&world, &path).await.len(), 3);
    assert_eq!(world.all(&format!("{path}/deliveries?limit=1&status=pending")).await.len(), 3);
    replay(json!({ "eventId": "evt_0000000000000000000000" }))
        .await
        .is_problem(404, "event_not_found");
    for (body, field) in [
        (json!({}), "from"),
        (json!({ "from": "yesterday" }), "from"),
        (json!({ "eventId": "x" }), "eventId"),
        (json!({ "eventId": event, "from": from }), "eventId"),
        (json!({ "from": from, "events": ["nothing"] }), "events"),
    ] {
        let refused = replay(body).await;
        refused.is_problem(400, "invalid_request");
        refused.field(field);
    }
}
