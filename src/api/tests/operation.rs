use axum::http::Method;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;

#[tokio::test]
async fn what_http_itself_gets_wrong_is_a_problem_too() {
    let world = World::new().await;
    world.get("/v1/nothing").await.is_problem(404, "not_found");
    let reply = world.write_as(&world.acme, "PUT", "/v1/wallets", &json!({})).await;
    reply.is_problem(405, "method_not_allowed");
    assert!(reply.headers["allow"].to_str().expect("text").contains("POST"));
    let raw = async |content_type: Option<&str>, body: Vec<u8>| {
        let mut request =
            World::request("POST", "/v1/wallets", &world.acme).header("idempotency-key", "k");
        if let Some(value) = content_type {
            request = request.header("content-type", value);
        }
        world.send(request.body(Body::from(body)).expect("a request")).await
    };
    let json = Some("application/json; charset=utf-8");
    raw(json, b"{\"a\":".to_vec()).await.is_problem(400, "invalid_request");
    raw(json, b"".to_vec()).await.is_problem(400, "invalid_request");
    raw(json, vec![0xff, 0xfe]).await.is_problem(400, "invalid_request");
    raw(json, b"[".repeat(10_000)).await.is_problem(400, "invalid_request");
    raw(json, vec![b' '; 2 * 1024 * 1024 + 1]).await.is_problem(413, "payload_too_large");
    raw(None, b"{}".to_vec()).await.is_problem(415, "unsupported_media_type");
    raw(Some("text/plain"), b"{}".to_vec()).await.is_problem(415, "unsupported_media_type");
    world.get("/v1/wallets?limit=%ff").await.is_problem(400, "invalid_request");
}

#[tokio::test]
async fn a_request_keeps_its_id() {
    let world = World::new().await;
    let send = async |id: &str| {
        let request = Request::builder().uri("/healthz").header("x-request-id", id);
        world.send(request.body(Body::empty()).expect("a request")).await.headers["x-request-id"]
            .clone()
    };
    assert_eq!(send("trace-1").await, "trace-1");
    assert!(send("<script>").await.to_str().expect("text").starts_with("req_"));
}

#[tokio::test]
async fn a_panic_and_a_slow_handler_are_answered() {
    let mut config = config();
    config.server.request_timeout = Duration::from_millis(50);
    let world = World::with(config).await;
    let (app, _worker) = world.api.clone().app();
    let router = Router::new()
        .route("/panic", axum::routing::get(async || -> &'static str { panic!("at the disco") }))
        .route("/slow", axum::routing::get(async || std::future::pending::<&'static str>().await))
        .layer(axum::middleware::from_fn_with_state(app, super::super::layer::around));
    let world = World { router, ..world };
    let reply = world.get("/panic").await;
    let detail = reply.is_problem(500, "internal")["detail"].to_string();
    assert!(!detail.contains("disco"), "the cause stays inside");
    world.get("/slow").await.is_problem(503, "timeout");
}

#[tokio::test]
async fn readiness_names_the_chain_that_lags_and_why() {
    let world = World::new().await;
    assert_eq!(world.get("/healthz").await.ok(200), json!({ "status": "ok" }));
    world.begin_chain("base", 100, NOW).await;
    world.begin_chain("ethereum", 100, Millis(NOW.0 - 61_000)).await;
    let report = world.get("/readyz").await.ok(503);
    assert_eq!(report["status"], "not_ready");
    assert_eq!(report["chains"][0], json!({ "chain": "base", "ready": true, "reason": null }));
    assert!(report["chains"][1]["reason"].as_str().expect("a reason").contains("61 s old"));
    assert!(report["chains"][2]["reason"].as_str().expect("a reason").contains("no block"));
    world.begin_chain("solana", 100, NOW).await;
    world.api.clock.set(Millis(NOW.0 - 2000));
    assert_eq!(world.get("/readyz").await.ok(200)["status"], "ready");
    let base = ChainName::new("base");
    world.api.obstacles.found(&base, "wrong chain".to_owned());
    let report = world.get("/readyz").await.ok(503);
    assert_eq!(report["chains"][0]["reason"], "wrong chain");
    world.api.obstacles.gone(&base);
    world.get("/readyz").await.ok(200);
    let mut tx = world.api.db.begin().await.expect("a transaction");
    let mut conn = tx.conn();
    let cursor = crate::store::chain::cursor(&mut conn, &base).await.expect("a read");
    let cursor = cursor.expect("a cursor");
    let halted =
        crate::store::chain::halt(&mut conn, cursor.no, cursor.epoch + 1, "by a stale one", NOW);
    assert!(!halted.await.expect("an update"), "only who follows the chain can halt it");
    let halted = crate::store::chain::halt(&mut conn, cursor.no, cursor.epoch, "deep reorg", NOW);
    assert!(halted.await.expect("an update"));
    tx.commit().await.expect("a commit");
    let report = world.get("/readyz").await.ok(503);
    assert_eq!(report["chains"][0]["reason"], "halted: deep reorg");
    let chains = world.get("/v1/chains").await.ok(200);
    assert_eq!(chains["data"][0]["halted"], "deep reorg");
    assert!(chains["data"][0]["journal"].is_null(), "nothing was booked");
    assert_eq!(chains["data"][0]["settlement"], "finalized");
    assert_eq!(chains["data"][0]["head"]["number"], 100);
}

#[tokio::test]
async fn requests_are_counted_by_route_and_never_by_address() {
    let world = World::new().await;
    world.get(&format!("/v1/wallets/{ALICE}")).await;
    world.get("/nothing/at/all").await;
    let text = world.get("/metrics").await.ok(200);
    let text = text.as_str().expect("a text");
    assert!(
        text.contains(
            "tidemark_api_requests_total{route=\"/v1/wallets/{locator}\",status=\"404\"} 1"
        )
    );
    assert!(text.contains("tidemark_api_requests_total{route=\"none\",status=\"404\"} 1"));
    assert!(!text.contains(ALICE));
}

#[tokio::test]
async fn the_document_has_every_method_of_every_path_and_nothing_else() {
    let world = World::new().await;
    let document = world.get("/openapi.json").await.ok(200);
    let paths = document["paths"].as_object().expect("paths");
    assert_eq!(paths.len(), 25);
    for (path, documented) in paths {
        for method in [Method::GET, Method::POST, Method::PATCH, Method::PUT, Method::DELETE] {
            let request = Request::builder().method(&method).uri(path.replace(['{', '}'], ""));
            let reply = world.send(request.body(Body::empty()).expect("a request")).await;
            let has = documented.get(method.as_str().to_lowercase()).is_some();
            assert_eq!(reply.status != 405, has, "{method} {path}");
            let guarded = path.starts_with("/v1/");
            assert_eq!(reply.status == 401, has && guarded, "{method} {path}");
        }
    }
    let schemes = &document["components"]["securitySchemes"];
    assert_eq!(schemes["apiKey"]["name"], "X-API-Key");
    assert_eq!(schemes["bearer"]["scheme"], "bearer");
    let text = document.to_string();
    for name in ["Problem", "Wallet", "BalancesView", "TransferView", "SafeDeployment", "Event"] {
        assert!(document["components"]["schemas"].get(name).is_some(), "{name}");
    }
    let refs = text.split("\"#/components/schemas/").skip(1);
    for name in refs.filter_map(|rest| rest.split('"').next()) {
        assert!(document["components"]["schemas"].get(name).is_some(), "{name} is not described");
    }
}

#[tokio::test]
async fn a_stop_lets_the_request_in_flight_finish() {
    let world = World::new().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let at = listener.local_addr().expect("an address");
    let stop = tokio_util::sync::CancellationToken::new();
    let serving = tokio::spawn(world.api.clone().serve(listener, stop.clone()));
    let mut stream = tokio::net::TcpStream::connect(at).await.expect("a connection");
    stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: a\r\n").await.expect("half a request");
    tokio::time::sleep(Duration::from_millis(100)).await;
    stop.cancel();
    stream.write_all(b"connection: close\r\n\r\n").await.expect("the rest");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    serving.await.expect("no panic").expect("a clean end");
}
