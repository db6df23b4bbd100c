//! Proofs of balances: what can be asked for, what is said where there is none, and how much nodes are asked.

use super::{balances::open, *};
use crate::{
    chain::{
        Source,
        evm::EvmSource,
        rpc::testing::{Node, Reply},
    },
    metrics::Metrics,
};

/// Alice's wallet on base, at block 200 with 190 settled, and the node that is asked for proofs.
async fn world(
    script: impl Fn(&str, &Value) -> Reply + Send + Sync + 'static,
) -> (World, Node, String) {
    let node = Node::start(move |method, params| match method {
        "eth_chainId" => Reply::Result(json!("0x2105")),
        _ => script(method, params),
    })
    .await;
    let mut config = config();
    let base = ChainName::new("base");
    let chain = config.chains.get_mut(&base).expect("base");
    chain.endpoints = vec![testing::endpoint("one", &node.url, 1)];
    let source = EvmSource::new(chain, Metrics::new()).expect("a source");
    let source: Arc<dyn Source> = Arc::new(source);
    let mut world = World::with(config).await;
    world.api.provers = Provers::new(BTreeMap::from([(base, source)]));
    let (router, writing) = world.api.clone().parts();
    let world = World { router, _writing: JoinSet::from_iter([writing]), ..world };
    world.begin_chain("base", 200, NOW).await;
    let wallet = world.wallet(ALICE).await;
    open(&world, &wallet, "base").await;
    let id = wallet["id"].as_str().expect("an id");
    let path = format!("/v1/wallets/{id}/proof");
    (world, node, path)
}

#[tokio::test]
async fn what_is_asked_for_must_be_there() {
    let (world, node, path) = world(|_, _| Reply::Http(500, String::new())).await;
    let ask = async |query: &str| world.get(&format!("{path}?{query}")).await;
    ask("").await.is_problem(400, "invalid_request");
    for (query, field) in [("block=200", "asset"), ("asset=usdc&block=-1", "block")] {
        assert!(!ask(query).await.field(field).is_empty(), "{query}");
    }
    ask("asset=usdc&block=9223372036854775808").await.is_problem(400, "invalid_request");
    ask("asset=doge").await.is_problem(400, "unknown_token");
    ask("asset=usdc&chain=moon").await.is_problem(400, "unknown_chain");
    ask("asset=usdc&chain=solana").await.is_problem(409, "not_covered");
    let reply = ask("asset=usdc&block=201").await;
    let detail = reply.is_problem(409, "not_covered")["detail"].to_string();
    assert!(detail.contains("the newest one is 200"), "{detail}");
    assert_eq!(node.times("eth_getBlockByHash"), 0, "no node was asked");
    let elsewhere = world.get_as(&world.other, &format!("{path}?asset=usdc")).await;
    elsewhere.is_problem(404, "wallet_not_found");
}

#[tokio::test]
async fn a_chain_without_proofs_says_so() {
    let (mut world, _, path) = world(|_, _| Reply::Http(500, String::new())).await;
    world.api.provers = Provers::default();
    world.router = world.api.clone().parts().0;
    let reply = world.get(&format!("{path}?asset=usdc")).await;
    reply.is_problem(422, "not_provable");
}

#[tokio::test]
async fn what_nodes_lack_is_said_without_their_own_words() {
    let gone: fn(&str, &Value) -> Reply =
        |_, _| Reply::error(-32000, "missing trie node at http://inside.example/secret-key");
    let without: fn(&str, &Value) -> Reply = |_, _| Reply::error(-32601, "method not found");
    let broken: fn(&str, &Value) -> Reply = |_, _| Reply::Http(500, "secret-key".to_owned());
    for (script, status, code) in [
        (gone, 409, "state_pruned"),
        (without, 422, "not_provable"),
        (broken, 503, "chain_unavailable"),
    ] {
        let (world, node, path) = world(script).await;
        for query in ["asset=usdc", "asset=eth&block=200", "asset=eth&block=3"] {
            let reply = world.get(&format!("{path}?{query}")).await;
            // What no node says of a height that is not remembered is no matter of proofs.
            if !(query.ends_with("=3") && status == 422) {
                reply.is_problem(status, code);
            }
            let text = reply.body.to_string();
            assert!(!text.contains("secret") && !text.contains("inside"), "{text}");
        }
        assert!(node.times("eth_getBlockByHash") > 0);
    }
}

#[tokio::test]
async fn nodes_are_asked_for_a_few_proofs_at_a_time() {
    let (world, node, path) = world(|_, _| Reply::Silence).await;
    let uri = format!("{path}?asset=eth");
    let mut requests = JoinSet::new();
    for _ in 0..9 {
        let request = World::request("GET", &uri, &world.acme).body(Body::empty());
        requests.spawn(world.router.clone().oneshot(request.expect("a request")));
    }
    while node.times("eth_getBlockByHash") < 4 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(node.times("eth_getBlockByHash"), 4);
}

#[tokio::test]
async fn a_tenant_who_asks_too_often_is_told_to_wait() {
    let (world, node, path) = world(|_, _| Reply::error(-32601, "method not found")).await;
    for _ in 0..60 {
        world.get(&format!("{path}?asset=eth")).await.is_problem(422, "not_provable");
    }
    let asked = node.times("eth_getBlockByHash");
    world.get(&format!("{path}?asset=eth")).await.is_problem(429, "rate_limited");
    assert_eq!(node.times("eth_getBlockByHash"), asked);
    world.api.clock.set(NOW.plus(Duration::from_mins(1)));
    world.get(&format!("{path}?asset=eth")).await.is_problem(422, "not_provable");
}
