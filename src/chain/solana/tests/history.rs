//! The past of one owner, from lists that each know only a part of it.

use serde_json::{Value, json};
use solana_pubkey::Pubkey;
use spl_associated_token_account_interface::address::get_associated_token_address_with_program_id;

use super::{
    cluster::{Cluster, FEE, Key, Op, Tx, key, text},
    endpoint, source,
};
use crate::{
    amount::Amount,
    chain::{
        Address, AddressIndex as _, AssetKey, HistoryBlock, SourceError,
        rpc::testing::{Node, Reply},
        solana::{SolanaSource, TOKEN, decode},
    },
};

const USD: Key = [150; 32];

fn alice() -> Address {
    Address::from(key(1))
}

/// Alice's associated account.
fn associated() -> Key {
    let [owner, mint] = [key(1), USD].map(Pubkey::new_from_array);
    let program = Pubkey::new_from_array(decode::key(TOKEN).expect("a program"));
    get_associated_token_address_with_program_id(&owner, &mint, &program).to_bytes()
}

fn open(account: Key, owner: u8) -> Op {
    Op::Open { payer: key(3), account, mint: USD, owner: key(owner), program: TOKEN }
}

fn dollars(from: Key, to: Key, amount: u64) -> Op {
    Op::Move { from, to, amount, withheld: 0 }
}

/// Alice has had four accounts: the associated one, closed by now (its owner is named nowhere in what it
/// received); one that she still has; one that was given to her, in whose list the gift alone names nobody;
/// one that nobody but her own transactions tells of, closed too.
fn cluster() -> Cluster {
    let cluster = Cluster::new(&[key(1), key(2), key(3)]);
    let (bob, still, given, gone) = (key(12), key(21), key(22), key(23));
    let mint = Op::Mint { account: bob, amount: 1_000_000 };
    cluster.mine(&[Tx::new(key(3), vec![open(bob, 2), mint])]);
    cluster.mine(&[Tx::new(key(3), vec![open(associated(), 1), open(still, 1)])]);
    cluster.mine_after(4, &[Tx::new(key(2), vec![dollars(bob, associated(), 10)])], &[]);
    cluster.mine(&[
        Tx::new(key(2), vec![dollars(bob, still, 100), Op::Memo("rent")]),
        Tx::new(key(3), vec![open(given, 2)]),
        Tx::new(key(2), vec![dollars(bob, given, 1000)]),
    ]);
    cluster.mine(&[Tx::new(key(2), vec![Op::SetOwner { account: given, owner: key(1) }])]);
    cluster.mine(&[Tx::new(key(1), vec![open(gone, 1), dollars(given, gone, 500)])]);
    cluster.mine(&[Tx::new(key(2), vec![dollars(bob, gone, 7)])]);
    cluster.mine(&[Tx::new(key(1), vec![dollars(gone, still, 507), close(gone)])]);
    let all = dollars(associated(), still, 10);
    cluster.mine(&[Tx::new(key(1), vec![all, close(associated())])]);
    cluster.mine(&[Tx::failed(key(1), vec![])]);
    cluster.mine(&[]);
    cluster
}

fn close(account: Key) -> Op {
    Op::Close { account, to: key(1) }
}

fn of_node(node: &Node) -> SolanaSource {
    source(vec![endpoint("one", &node.url, 1)])
}

async fn history(source: &SolanaSource, cluster: &Cluster, from: u64) -> Vec<HistoryBlock> {
    let tokens = [Address::from(USD)];
    source.history(alice(), &tokens, from, cluster.head().at).await.expect("a history")
}

/// What a history adds up to: gained and lost.
fn sums(history_blocks: &[HistoryBlock], asset: AssetKey) -> (Amount, Amount) {
    let mut sums = (Amount::ZERO, Amount::ZERO);
    for movement in
        history_blocks.iter().flat_map(|past| &past.movements).filter(|m| m.asset == asset)
    {
        let sum = if movement.to == Some(alice()) { &mut sums.0 } else { &mut sums.1 };
        *sum = sum.checked_add(movement.amount).expect("small");
    }
    sums
}

#[tokio::test]
async fn transfers_to_every_account_that_ever_was_the_owners_are_found() {
    let cluster = cluster();
    let source = of_node(&cluster.node().await);
    let history_blocks = history(&source, &cluster, 1).await;
    let usd = AssetKey::Token(Address::from(USD));
    for asset in [usd, AssetKey::Native] {
        let (gained, lost) = sums(&history_blocks, asset);
        let first = cluster.slot(0).expect("the first block");
        let before = Cluster::holds(&first, key(1), asset);
        let after = Cluster::holds(&cluster.head(), key(1), asset);
        assert_eq!(before.checked_add(gained), after.checked_add(lost), "{asset:?}");
    }
    assert_eq!(sums(&history_blocks, usd).0, Amount::from(10 + 100 + 1000 + 7));
    let blocks: Vec<u64> = history_blocks.iter().map(|past| past.header.at.number).collect();
    assert!(blocks.is_sorted_by(|a, b| a < b), "{blocks:?}");
    for past in &history_blocks {
        let block = cluster.slot(past.header.at.number).expect("a block");
        assert_eq!(past.header.at, block.at);
    }
    let memos: Vec<&str> = history_blocks
        .iter()
        .flat_map(|past| &past.movements)
        .filter_map(|movement| movement.memo.as_deref())
        .collect();
    assert_eq!(memos, ["rent"]);
    // A failed transaction pays too.
    let fees = history_blocks.iter().flat_map(|past| &past.movements);
    let fees = fees.filter(|movement| movement.amount == FEE.into()).count();
    assert_eq!(fees, 4);
}

#[tokio::test]
async fn a_history_begins_where_it_was_asked_to() {
    let cluster = cluster();
    let source = of_node(&cluster.node().await);
    let all = history(&source, &cluster, 1).await;
    let some = history(&source, &cluster, 8).await;
    let expected: Vec<u64> =
        all.iter().map(|past| past.header.at.number).filter(|number| *number >= 8).collect();
    let found: Vec<u64> = some.iter().map(|past| past.header.at.number).collect();
    assert_eq!(found, expected);
}

#[tokio::test]
async fn long_lists_are_read_page_by_page() {
    let cluster = Cluster::new(&[key(1)]);
    for _ in 0..2_003 {
        cluster.mine(&[Tx::new(key(1), vec![])]);
    }
    let node = cluster.node().await;
    let history_blocks = history(&of_node(&node), &cluster, 1).await;
    assert_eq!(history_blocks.len(), 2_003);
    assert_eq!(
        node.times("getSignaturesForAddress"),
        3,
        "a thousand in each of two, three in the last"
    );
}

/// A node that forgets the `n`-th signature of one account's list.
async fn forgetful(cluster: &Cluster, account: Key, n: usize) -> Node {
    let honest = cluster.clone();
    Node::start(move |method, params| {
        let reply = honest.honest(method, params);
        match reply {
            Reply::Result(Value::Array(mut list))
                if method == "getSignaturesForAddress" && params[0] == json!(text(&account)) =>
            {
                if n < list.len() {
                    list.remove(n);
                }
                Reply::Result(list.into())
            }
            reply => reply,
        }
    })
    .await
}

#[tokio::test]
async fn a_list_with_a_gap_is_not_believed_and_another_endpoint_is_asked() {
    let cluster = cluster();
    for account in [key(1), key(21)] {
        let node = forgetful(&cluster, account, 1).await;
        let error = of_node(&node)
            .history(alice(), &[Address::from(USD)], 1, cluster.head().at)
            .await
            .expect_err("a gap");
        assert!(matches!(error, SourceError::Untrusted(_)), "{error}");
        let good = cluster.node().await;
        let both = source(vec![endpoint("bad", &node.url, 2), endpoint("good", &good.url, 1)]);
        assert!(!history(&both, &cluster, 1).await.is_empty());
    }
}

#[tokio::test]
async fn a_node_whose_list_never_ends_is_not_asked_for_ever() {
    let cluster = cluster();
    let honest = cluster.clone();
    let node = Node::start(move |method, params| match method {
        // Newer than what is asked for, so that no limit of the history is ever reached.
        "getSignaturesForAddress" => {
            let listed = json!({"slot": 1_000_000, "signature": "again", "err": null});
            Reply::Result(vec![listed; 1000].into())
        }
        _ => honest.honest(method, params),
    })
    .await;
    let to = cluster.head().at;
    let source = of_node(&node);
    let asked = source.history(alice(), &[], 1, to);
    let error = tokio::time::timeout(std::time::Duration::from_secs(10), asked)
        .await
        .expect("it ends")
        .expect_err("no list");
    assert!(matches!(error, SourceError::Unavailable { .. }), "{error}");
}
