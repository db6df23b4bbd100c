//! Blocks whose receipts are larger than an answer may be: anybody can pay for one.

use alloy::primitives::{Address, U256};
use serde_json::{Value, json};
use tidemark::dev::anvil::Request;

use crate::{
    harness::{Daemon, Node, Settings, eventually, on_both_stores},
    hostile::an_honest_deposit_is_available,
};

/// The endpoints of the chain `local`, in the environment.
const ENDPOINTS: &str = "TIDEMARK__CHAINS__LOCAL__ENDPOINTS";

/// One endpoint whose answers may have so many bytes.
fn endpoint(node: &Node, max_response_bytes: usize) -> String {
    let (url, ws) = (node.url(), node.ws_url());
    format!(
        r#"[{{ name = "local-node", url = "{url}", ws = "{ws}", max_response_bytes = {max_response_bytes} }}]"#
    )
}

async fn daemon_with(settings: Settings, node: &Node, max_response_bytes: usize) -> Daemon {
    let mut daemon = Daemon::prepare(settings);
    daemon.set(ENDPOINTS, &endpoint(node, max_response_bytes));
    daemon.begin().await;
    daemon.ready().await;
    daemon
}

/// A creation that emits so many logs without topics and data.
fn flood(from: Address, logs: usize) -> Request {
    // PUSH0 PUSH0 LOG0, and STOP at the end.
    let mut code = [0x5f, 0x5f, 0xa0].repeat(logs);
    code.push(0x00);
    Request::create(from, code).with_gas(100_000 + 700 * logs as u64)
}

/// How many bytes the receipts of the newest block have.
async fn size_of_receipts(node: &Node) -> usize {
    let receipts: Value = node.call("eth_getBlockReceipts", json!(["latest"])).await.unwrap();
    receipts.to_string().len()
}

fn metric(metrics: &str, name: &str) -> usize {
    let series = format!("{name}{{chain=\"local\",endpoint=\"local-node\"}} ");
    let value = metrics.lines().find_map(|line| line.strip_prefix(&series));
    value.unwrap_or_else(|| panic!("no {series}")).parse().unwrap()
}

on_both_stores! {
    async fn a_block_full_of_empty_logs_holds_nobody_up(store) {
        const MAX: usize = 64 * 1024;
        let node = Node::start().await;
        let daemon = daemon_with(Settings::new(&node, &store), &node, MAX).await;
        let api = daemon.customer("acme").await;
        let wallet = Node::stranger();
        api.watch(wallet).await;
        // In one transaction, and in several; an honest deposit is in the midst of them.
        for floods in [1, 4] {
            let mut block: Vec<Request> =
                (0..floods).map(|n| flood(node.accounts[n], 2_000 / floods)).collect();
            block.insert(floods / 2, node.minting(wallet, 5));
            for receipt in node.block_with(&block).await {
                assert!(receipt.succeeded());
            }
            let size = size_of_receipts(&node).await;
            assert!((8 * MAX..16 * MAX).contains(&size), "{size} bytes");
        }
        an_honest_deposit_is_available(&api, &node).await;
        assert_eq!(api.balance_at_head(wallet, "DUSD", &node).await.available, U256::from(10));
        let metrics = daemon.metrics().await;
        assert_eq!(metric(&metrics, "tidemark_oversized_answers_total"), 0);
    }

    async fn a_block_that_no_limit_lets_in_is_waited_for_and_the_limit_is_named(store) {
        const MAX: usize = 4 * 1024;
        let node = Node::start().await;
        let mut daemon = daemon_with(Settings::new(&node, &store), &node, MAX).await;
        let api = daemon.customer("acme").await;
        let wallet = Node::stranger();
        api.watch(wallet).await;
        node.block_with(&[flood(node.accounts[4], 400), node.minting(wallet, 5)]).await;
        let size = size_of_receipts(&node).await;
        let metrics = eventually("the metric", || async {
            let metrics = daemon.metrics().await;
            let times = metric(&metrics, "tidemark_oversized_answers_total");
            (times > 0).then_some(metrics)
        })
        .await;
        let seen = metric(&metrics, "tidemark_oversized_answer_bytes");
        assert!(seen > 16 * 1024 && seen < 2 * size, "{seen} of {size}");
        assert_eq!(api.balance(wallet, "DUSD").await.total, U256::ZERO);
        // New blocks do not make it ask more often.
        for _ in 0..5 {
            node.mine(1).await.unwrap();
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        }
        assert_eq!(metric(&daemon.metrics().await, "tidemark_oversized_answers_total"), 1);
        let log = daemon.log();
        let told = log.lines().filter(|line| line.contains("raise max_response_bytes")).count();
        assert_eq!(told, 1, "{log}");
        daemon.terminate().await;
        daemon.set(ENDPOINTS, &endpoint(&node, 64 * 1024));
        daemon.begin().await;
        daemon.ready().await;
        an_honest_deposit_is_available(&api, &node).await;
        assert_eq!(api.balance_at_head(wallet, "DUSD", &node).await.available, U256::from(5));
    }
}
