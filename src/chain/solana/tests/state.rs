//! Balances as after exactly one block, from nodes that only know their newest state.

use super::{
    cluster::{Cluster, FEE, Key, Op, Tx, key},
    endpoint, source,
};
use crate::{
    amount::Amount,
    chain::{
        Address, AssetKey, BalanceQuery, BlockHash, BlockRef, ChainBalance, Source as _,
        SourceError, TokenFacts, TokenSource as _,
        solana::{SolanaSource, TOKEN, TOKEN_2022},
    },
};

const USD: Key = [150; 32];
const FEE_USD: Key = [220; 32];

fn query(who: u8, mint: Option<Key>) -> BalanceQuery {
    let asset = mint.map_or(AssetKey::Native, |mint| AssetKey::Token(Address::from(mint)));
    BalanceQuery { address: Address::from(key(who)), asset }
}

fn open(account: u8, mint: Key, owner: u8, program: &'static str, amount: u64) -> Tx {
    let account = key(account);
    let open = Op::Open { payer: key(3), account, mint, owner: key(owner), program };
    Tx::new(key(3), vec![open, Op::Mint { account, amount }])
}

/// Alice (1) has dollars in two accounts, Bob (2) dollars of the mint with a fee.
async fn cluster() -> (Cluster, SolanaSource) {
    let cluster = Cluster::new(&[key(1), key(2), key(3)]);
    cluster.mine(&[
        open(11, USD, 1, TOKEN, 1_000),
        open(21, USD, 1, TOKEN, 500),
        open(32, FEE_USD, 2, TOKEN_2022, 70),
    ]);
    let node = cluster.node().await;
    let source = source(vec![endpoint("one", &node.url, 1)]);
    (cluster, source)
}

fn totals(held: &[ChainBalance]) -> Vec<u64> {
    held.iter().map(|holding| u64::try_from(holding.total.get()).expect("small")).collect()
}

fn all() -> [BalanceQuery; 6] {
    [
        query(1, None),
        query(1, Some(USD)),
        query(2, Some(FEE_USD)),
        query(2, Some(USD)),
        query(9, None),
        query(9, Some(key(199))),
    ]
}

#[tokio::test]
async fn all_token_accounts_of_an_owner_count_and_a_mint_that_is_not_told_proves_nothing() {
    let (cluster, source) = cluster().await;
    let at = cluster.head().at;
    let held = source.balances_at(at, &all()).await.expect("balances");
    assert_eq!(totals(&held), [1_000_000_000_000, 1_500, 70, 0, 0, 0]);
    let unreadable: Vec<bool> = held.iter().map(|holding| holding.unreadable).collect();
    assert_eq!(unreadable, [false, false, false, false, false, true]);
    let (usd, unknown) = (Address::from(USD), Address::from(key(199)));
    let dollar = TokenFacts { decimals: Some(6), ..TokenFacts::default() };
    let told = source.token_facts(&[usd, unknown]).await.expect("an answer");
    assert_eq!(told, [dollar.clone(), TokenFacts::default()]);
    assert_eq!(source.opinions_of(usd).await.expect("an answer"), [dollar]);
}

#[tokio::test]
async fn a_balance_holds_at_the_block_that_was_asked_for_though_the_node_is_ahead() {
    let (cluster, source) = cluster().await;
    let asked = cluster.head();
    let pay = Op::Pay { from: key(1), to: key(9), lamports: 77 };
    let gone = Op::Close { account: key(21), to: key(9) };
    cluster.mine(&[Tx::new(key(1), vec![pay]), Tx::failed(key(1), vec![])]);
    cluster.mine_after(3, &[Tx::new(key(1), vec![gone])], &[(key(1), 500)]);
    for block in [&asked, &cluster.slot(2).expect("a block"), &cluster.head()] {
        let held = source.balances_at(block.at, &all()).await.expect("balances");
        for (query, holding) in all().iter().zip(held) {
            let who: Key = query.address.as_slice().try_into().expect("32 bytes");
            assert_eq!(holding.total, Cluster::holds(block, who, query.asset), "{query:?}");
        }
    }
    let before = source.balances_at(asked.at, &[query(1, None)]).await.expect("a balance");
    assert_eq!(before[0].total, Amount::from(1_000_000_000_000));
    let after = source.balances_at(cluster.head().at, &[query(1, None)]).await.expect("a balance");
    assert_eq!(after[0].total, Amount::from(1_000_000_000_000 - 77 - 3 * FEE + 500));
}

#[tokio::test]
async fn a_settled_block_costs_no_block_that_was_followed_already() {
    let cluster = Cluster::new(&[key(1), key(2), key(3)]);
    let settled = cluster.mine(&[open(11, USD, 1, TOKEN, 1_000)]);
    for _ in 0..40 {
        let pay = Op::Pay { from: key(1), to: key(9), lamports: 5 };
        cluster.mine(&[Tx::new(key(1), vec![pay])]);
    }
    let node = cluster.node().await;
    let source = source(vec![endpoint("one", &node.url, 1)]);
    let newest = source.head().await.expect("a head");
    source.blocks(1, newest.at.number).await.expect("blocks");
    let asked = node.times("getBlock");
    let held = source.balances_at(settled, &[query(1, None), query(1, Some(USD))]).await;
    assert_eq!(totals(&held.expect("balances")), [1_000_000_000_000, 1_000]);
    assert_eq!(node.times("getBlock"), asked + 1, "only the header of the state's own block");
}

#[tokio::test]
async fn a_block_of_another_branch_or_too_far_back_has_no_balances() {
    let (cluster, source) = cluster().await;
    let there = cluster.head().at;
    let elsewhere = BlockRef { hash: BlockHash([9; 32]), ..there };
    let error = source.balances_at(elsewhere, &[query(1, None)]).await.expect_err("another block");
    assert!(matches!(error, SourceError::NotThere(_)), "{error}");
    cluster.mine(&[]);
    let error = source.balances_at(elsewhere, &[query(1, None)]).await.expect_err("another block");
    assert!(matches!(error, SourceError::NotThere(_)), "{error}");
    for _ in 0..100 {
        cluster.mine(&[]);
    }
    let error = source.balances_at(there, &[query(1, None)]).await.expect_err("too far");
    assert!(matches!(error, SourceError::NotThere(_)), "{error}");
}

#[tokio::test]
async fn a_node_that_has_not_reached_the_block_is_not_believed() {
    let (cluster, source) = cluster().await;
    let next = BlockRef { number: cluster.head().at.number + 1, hash: BlockHash([9; 32]) };
    let error = source.balances_at(next, &[query(1, None)]).await.expect_err("not there yet");
    assert!(matches!(error, SourceError::Unavailable { .. }), "{error}");
}

#[tokio::test]
async fn what_an_issuer_has_frozen_is_told_beside_the_total() {
    let (cluster, source) = cluster().await;
    cluster.mine(&[Tx::new(key(3), vec![Op::Freeze { account: key(21), frozen: true }])]);
    let held = source.balances_at(cluster.head().at, &[query(1, Some(USD))]).await.expect("one");
    assert_eq!((held[0].total, held[0].frozen), (1_500.into(), 500.into()));
}

#[tokio::test]
async fn a_state_that_does_not_fit_the_blocks_is_not_trusted() {
    let (cluster, source) = cluster().await;
    let asked = cluster.head().at;
    let pay = Op::Pay { from: key(1), to: key(9), lamports: 77 };
    let poor = Tx::new(key(1), vec![pay]);
    cluster.mine(&[poor]);
    // The block says that 9 got 77 lamports; the state says that 9 has none.
    let node = cluster.node().await;
    let honest = cluster.clone();
    node.change(move |method, params| match method {
        "getMultipleAccounts" => crate::chain::rpc::testing::Reply::Result(
            serde_json::json!({"context": {"slot": honest.head().at.number}, "value": [null]}),
        ),
        _ => honest.honest(method, params),
    });
    let liar = super::source(vec![endpoint("liar", &node.url, 1)]);
    let error = liar.balances_at(asked, &[query(9, None)]).await.expect_err("a contradiction");
    assert!(matches!(error, SourceError::Untrusted(_)), "{error}");
    let held = source.balances_at(asked, &[query(9, None)]).await.expect("a balance");
    assert_eq!(totals(&held), [0]);
}

#[tokio::test]
async fn what_is_held_of_a_mint_that_a_node_denies_is_found_in_the_accounts() {
    let (cluster, _) = cluster().await;
    let honest = cluster.clone();
    let node = cluster.node().await;
    node.change(move |method, params| match method {
        "getAccountInfo" => crate::chain::rpc::testing::Reply::Result(
            serde_json::json!({"context": {"slot": honest.head().at.number}, "value": null}),
        ),
        _ => honest.honest(method, params),
    });
    let source = super::source(vec![endpoint("denies", &node.url, 1)]);
    let held = source.balances_at(cluster.head().at, &all()).await.expect("balances");
    assert_eq!(totals(&held), [1_000_000_000_000, 1_500, 70, 0, 0, 0]);
    let unreadable: Vec<bool> = held.iter().map(|holding| holding.unreadable).collect();
    assert_eq!(unreadable, [false, false, false, true, false, true], "nothing proves a zero");
}
