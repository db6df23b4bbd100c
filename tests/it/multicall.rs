//! Many balances by one call tell the same as each by itself, on a real EVM.

use alloy::primitives::{Address, address};
use serde_json::{Value, json};
use tidemark::{
    chain::{AssetKey, BalanceQuery, ChainName, Source as _, evm::EvmSource},
    config::Config,
    metrics::Metrics,
};

use crate::harness::{CHAIN, Node};

const MULTICALL3: Address = address!("cA11bde05977b3631167028862bE2a173976CA11");
const CODE: &str = include_str!("../../src/chain/evm/tests/multicall3.hex");

fn plain(address: Address) -> tidemark::chain::Address {
    tidemark::chain::Address::from(address.into_array())
}

#[tokio::test]
async fn multicall3_tells_the_figures_that_the_node_tells() {
    let node = Node::start().await;
    let _: Value = node.call("anvil_setCode", json!([MULTICALL3, CODE.trim()])).await.unwrap();
    let people: Vec<Address> = (0..40).map(|_| Node::stranger()).collect();
    let mut paid = Vec::new();
    for (n, &to) in (1_u64..).zip(&people[1..]) {
        paid.push(node.token_transfer(node.accounts[9], to, n).with_gas(100_000));
        paid.push(tidemark::dev::anvil::Request::pay(
            node.accounts[1],
            to,
            alloy::primitives::U256::from(n),
        ));
    }
    node.mint(node.accounts[9], 1_000_000).await;
    node.block_with(&paid).await;

    let config = Config::from_toml(&format!(
        "[chains.{CHAIN}]\nfamily = \"evm\"\nchain_id = 31337\nendpoints = [{{ url = \"{}\" }}]",
        node.url()
    ))
    .unwrap();
    let metrics = Metrics::new();
    let source = EvmSource::new(&config.chains[&ChainName::new(CHAIN)], metrics.clone()).unwrap();
    let asked = |method: &str| {
        let labels = [CHAIN, "endpoint-1", method, "ok"];
        metrics.rpc_requests_total.with_label_values(&labels).get()
    };
    let at = source.head().await.unwrap().at;
    let nowhere = Node::stranger();
    let assets =
        [AssetKey::Native, AssetKey::Token(plain(node.token)), AssetKey::Token(plain(nowhere))];
    let queries: Vec<BalanceQuery> = people
        .iter()
        .flat_map(|&who| assets.map(|asset| BalanceQuery { address: plain(who), asset }))
        .collect();
    let together = source.balances_at(at, &queries).await.unwrap();
    assert_eq!(
        (asked("eth_call"), asked("eth_getBalance")),
        (1, 1),
        "one call, and one to compare"
    );
    let mut alone = Vec::new();
    for few in queries.chunks(assets.len()) {
        alone.extend(source.balances_at(at, few).await.unwrap());
    }
    assert_eq!(asked("eth_getBalance"), 1 + 40);
    assert_eq!(together, alone);
    assert_eq!(together[3 * 39].total, 39.into());
    assert_eq!(together[3 * 39 + 1].total, 39.into());
    assert!(together.iter().skip(2).step_by(3).all(|held| held.unreadable));

    // The state is that of the block, whatever the head has.
    node.pay(node.accounts[1], people[39], 1).await;
    let later = source.head().await.unwrap().at;
    assert_eq!(source.balances_at(at, &queries).await.unwrap(), together);
    assert_eq!(source.balances_at(later, &queries).await.unwrap()[3 * 39].total, 40.into());
}
