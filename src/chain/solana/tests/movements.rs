//! What of a block is called a movement.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::cluster::{Cluster, FEE, Key, Op, RENT, Slot, Tx, key, text};
use crate::{
    amount::Amount,
    chain::{
        Address, AssetKey, Block, BlockRef, Kind, Movement, Ordinal,
        rpc::Failure,
        solana::{TOKEN, TOKEN_2022, WRAPPED_SOL, decode, json, verify},
    },
    config::Verification,
};

const USD: Key = [150; 32];
const FEE_USD: Key = [220; 32];

fn wrapped() -> Key {
    decode::key(WRAPPED_SOL).expect("a mint")
}

fn token(mint: Key) -> AssetKey {
    AssetKey::Token(Address::from(mint))
}

fn decoded(slot: &Slot) -> Result<Block, Failure> {
    let text = slot.block.to_string();
    let block: json::Block<'_> = serde_json::from_str(&text).expect("the documented shape");
    decode::block(&verify::block(slot.at.number, &block, Verification::Full)?)
}

/// Alice (1), Bob (2) and Carol (3) with SOL; Alice's and Bob's accounts (11, 12) hold dollars, Alice's
/// second one (21) too; 31 and 32 hold dollars whose mint takes a fee; 41 is Alice's wrapped SOL.
fn cluster() -> Cluster {
    let cluster = Cluster::new(&[key(1), key(2), key(3)]);
    let open = |account: u8, mint: Key, owner: u8, program: &'static str| Op::Open {
        payer: key(3),
        account: key(account),
        mint,
        owner: key(owner),
        program,
    };
    let mint = |account: u8, amount: u64| Op::Mint { account: key(account), amount };
    cluster.mine(&[
        Tx::new(key(3), vec![open(11, USD, 1, TOKEN), mint(11, 1_000)]),
        Tx::new(key(3), vec![open(12, USD, 2, TOKEN), mint(12, 1_000)]),
        Tx::new(key(3), vec![open(21, USD, 1, TOKEN), mint(21, 500)]),
        Tx::new(key(3), vec![open(31, FEE_USD, 1, TOKEN_2022), mint(31, 10_000)]),
        Tx::new(key(3), vec![open(32, FEE_USD, 2, TOKEN_2022)]),
        Tx::new(key(3), vec![open(41, wrapped(), 1, TOKEN)]),
    ]);
    cluster
}

/// The movements of one block with these transactions; their sums are what the state says.
fn movements(cluster: &Cluster, txs: &[Tx]) -> Vec<Movement> {
    let before = cluster.head();
    cluster.mine(txs);
    let after = cluster.head();
    let block = decoded(&after).expect("an honest block");
    assert_sums(&before, &after, &block);
    block.movements
}

/// For everybody and every asset: held before, and gained, is lost, and held after.
fn assert_sums(before: &Slot, after: &Slot, block: &Block) {
    let mut sums: BTreeMap<(Address, AssetKey), (Amount, Amount)> = BTreeMap::new();
    let add = |sum: &mut Amount, amount| *sum = sum.checked_add(amount).expect("small");
    let mut places = BTreeSet::new();
    for movement in &block.movements {
        for (who, incoming) in [(movement.to, true), (movement.from, false)] {
            let Some(who) = who else { continue };
            let sum = sums.entry((who, movement.asset)).or_default();
            add(if incoming { &mut sum.0 } else { &mut sum.1 }, movement.amount);
            let place = (who, incoming, movement.asset, movement.tx, movement.ordinal.to_string());
            assert!(places.insert(place), "two movements at one place: {movement:?}");
        }
    }
    let everybody: BTreeSet<Key> = before
        .accounts
        .keys()
        .chain(after.accounts.keys())
        .copied()
        .chain((1..=60).map(key))
        .collect();
    for who in everybody {
        for asset in [AssetKey::Native, token(USD), token(FEE_USD), token(wrapped())] {
            let (gained, lost) =
                sums.get(&(Address::from(who), asset)).copied().unwrap_or_default();
            let (had, has) =
                (Cluster::holds(before, who, asset), Cluster::holds(after, who, asset));
            assert_eq!(
                had.checked_add(gained),
                has.checked_add(lost),
                "{} of {asset:?}",
                text(&who)
            );
        }
    }
}

/// Kind, from, to, amount and ordinal; people by the byte that their keys repeat.
type Told = (Kind, Option<u8>, Option<u8>, u64, String);

fn told(movements: &[Movement]) -> Vec<Told> {
    let who = |address: Option<Address>| address.map(|address| address.as_slice()[0]);
    movements
        .iter()
        .map(|m| {
            let amount = u64::try_from(m.amount.get()).expect("small");
            (m.kind, who(m.from), who(m.to), amount, m.ordinal.to_string())
        })
        .collect()
}

fn fee(payer: u8) -> Told {
    (Kind::Fee, Some(payer), None, FEE, "fee".to_owned())
}

fn owner(rank: u32) -> String {
    Ordinal::Owner(rank).to_string()
}

fn at(index: u32) -> String {
    Ordinal::Account(index).to_string()
}

#[test]
fn a_payment_in_sol_and_its_fee_are_two_movements() {
    let pay = Op::Pay { from: key(1), to: key(9), lamports: 7 };
    let seen = movements(&cluster(), &[Tx::new(key(1), vec![pay])]);
    assert_eq!(told(&seen), [fee(1), (Kind::Transfer, Some(1), Some(9), 7, at(1))]);
}

#[test]
fn a_failed_transaction_moves_nothing_but_its_fee() {
    let pay = Op::Pay { from: key(1), to: key(9), lamports: 7 };
    let seen = movements(&cluster(), &[Tx::failed(key(1), vec![pay])]);
    assert_eq!(told(&seen), [fee(1)]);
}

#[test]
fn a_token_transfer_belongs_to_the_owners_and_the_rent_to_the_new_account() {
    let open =
        Op::Open { payer: key(2), account: key(50), mint: USD, owner: key(9), program: TOKEN };
    let pay = Op::Move { from: key(12), to: key(50), amount: 30, withheld: 0 };
    let seen = movements(&cluster(), &[Tx::new(key(2), vec![open, pay])]);
    assert_eq!(
        told(&seen),
        [
            fee(2),
            (Kind::Transfer, Some(2), Some(50), RENT, at(1)),
            (Kind::Transfer, Some(2), Some(9), 30, owner(0)),
        ]
    );
    assert_eq!(seen[2].asset, token(USD));
}

#[test]
fn an_account_that_is_not_the_associated_one_counts_for_its_owner() {
    let pay = Op::Move { from: key(12), to: key(21), amount: 30, withheld: 0 };
    let seen = movements(&cluster(), &[Tx::new(key(2), vec![pay])]);
    assert_eq!(told(&seen)[1], (Kind::Transfer, Some(2), Some(1), 30, owner(1)));
}

#[test]
fn moving_between_two_accounts_of_one_owner_is_no_movement() {
    let own = Op::Move { from: key(11), to: key(21), amount: 30, withheld: 0 };
    let seen = movements(&cluster(), &[Tx::new(key(1), vec![own])]);
    assert_eq!(told(&seen), [fee(1)]);
}

#[test]
fn a_fee_that_a_mint_withholds_is_not_credited_and_stands_by_itself() {
    let pay = Op::Move { from: key(31), to: key(32), amount: 1_000, withheld: 10 };
    let seen = movements(&cluster(), &[Tx::new(key(1), vec![pay])]);
    assert_eq!(
        told(&seen)[1..],
        [
            (Kind::Transfer, Some(1), Some(2), 990, owner(1)),
            (Kind::Fee, Some(1), None, 10, "rest:0".to_owned()),
        ]
    );
}

#[test]
fn minting_and_burning_have_one_side() {
    let cluster = cluster();
    let mint = Op::Mint { account: key(11), amount: 5 };
    let seen = movements(&cluster, &[Tx::new(key(3), vec![mint])]);
    assert_eq!(told(&seen)[1], (Kind::Mint, None, Some(1), 5, owner(0)));
    let burn = Op::Burn { account: key(11), amount: 4 };
    let seen = movements(&cluster, &[Tx::new(key(1), vec![burn])]);
    assert_eq!(told(&seen)[1], (Kind::Burn, Some(1), None, 4, owner(0)));
}

#[test]
fn wrapping_and_unwrapping_change_lamports_into_tokens_and_back() {
    let cluster = cluster();
    let wrap = Op::Wrap { from: key(1), account: key(41), lamports: 800 };
    let seen = movements(&cluster, &[Tx::new(key(1), vec![wrap])]);
    assert_eq!(
        told(&seen)[1..],
        [
            (Kind::Transfer, Some(1), Some(41), 800, at(1)),
            (Kind::Wrap, None, Some(1), 800, owner(0)),
        ]
    );
    let close = Op::Close { account: key(41), to: key(1) };
    let seen = movements(&cluster, &[Tx::new(key(1), vec![close])]);
    assert_eq!(
        told(&seen)[1..],
        [
            (Kind::Transfer, Some(41), Some(1), RENT + 800, at(0)),
            (Kind::Unwrap, Some(1), None, 800, owner(0)),
        ]
    );
}

#[test]
fn an_account_opened_and_closed_in_one_transaction_leaves_no_trace() {
    let open =
        Op::Open { payer: key(1), account: key(50), mint: USD, owner: key(1), program: TOKEN };
    let there = Op::Move { from: key(11), to: key(50), amount: 30, withheld: 0 };
    let back = Op::Move { from: key(50), to: key(12), amount: 30, withheld: 0 };
    let close = Op::Close { account: key(50), to: key(1) };
    let seen = movements(&cluster(), &[Tx::new(key(1), vec![open, there, back, close])]);
    assert_eq!(told(&seen), [fee(1), (Kind::Transfer, Some(1), Some(2), 30, owner(1))]);
}

#[test]
fn an_account_that_changes_hands_takes_its_tokens_along() {
    let give = Op::SetOwner { account: key(21), owner: key(2) };
    let seen = movements(&cluster(), &[Tx::new(key(1), vec![give])]);
    assert_eq!(told(&seen), [fee(1), (Kind::Transfer, Some(1), Some(2), 500, owner(1))]);
}

#[test]
fn an_account_that_changes_hands_and_loses_to_a_fee_has_two_places() {
    let give = Op::SetOwner { account: key(31), owner: key(2) };
    let burn = Op::Burn { account: key(31), amount: 100 };
    let seen = movements(&cluster(), &[Tx::new(key(1), vec![burn, give])]);
    assert_eq!(seen.len(), 3);
}

#[test]
fn two_owners_of_one_account_who_both_gain_from_one_sender_have_places_of_their_own() {
    let give = Op::SetOwner { account: key(21), owner: key(3) };
    let pay = Op::Move { from: key(12), to: key(11), amount: 600, withheld: 0 };
    let seen = movements(&cluster(), &[Tx::new(key(2), vec![give, pay])]);
    let mut paid = told(&seen)[1..].to_vec();
    paid.sort();
    assert_eq!(
        paid,
        [
            (Kind::Transfer, Some(2), Some(1), 100, owner(0)),
            (Kind::Transfer, Some(2), Some(3), 500, owner(1)),
        ]
    );
}

#[test]
fn several_payments_of_one_transaction_are_told_with_their_other_side_where_there_is_one() {
    let pay = |from: u8, to: u8, lamports: u64| Op::Pay { from: key(from), to: key(to), lamports };
    let cluster = cluster();
    let seen = movements(&cluster, &[Tx::new(key(1), vec![pay(1, 8, 7), pay(1, 9, 9)])]);
    assert_eq!(
        told(&seen)[1..],
        [
            (Kind::Transfer, Some(1), Some(8), 7, at(1)),
            (Kind::Transfer, Some(1), Some(9), 9, at(2))
        ]
    );
    let seen = movements(&cluster, &[Tx::new(key(3), vec![pay(1, 9, 7), pay(2, 9, 9)])]);
    assert_eq!(
        told(&seen)[1..],
        [
            (Kind::Transfer, Some(1), Some(9), 7, at(1)),
            (Kind::Transfer, Some(2), Some(9), 9, at(3))
        ]
    );
    let seen = movements(&cluster, &[Tx::new(key(3), vec![pay(1, 8, 7), pay(2, 9, 9)])]);
    assert_eq!(
        told(&seen)[1..],
        [
            (Kind::Transfer, Some(1), None, 7, at(1)),
            (Kind::Transfer, Some(2), None, 9, at(3)),
            (Kind::Transfer, None, Some(8), 7, at(2)),
            (Kind::Transfer, None, Some(9), 9, at(4)),
        ]
    );
}

#[test]
fn rewards_come_from_nowhere_and_rent_goes_there() {
    let cluster = cluster();
    let before = cluster.head();
    cluster.mine_after(0, &[], &[(key(1), 900), (key(2), -3), (key(3), 0)]);
    let block = decoded(&cluster.head()).expect("an honest block");
    assert_sums(&before, &cluster.head(), &block);
    assert_eq!(
        told(&block.movements),
        [
            (Kind::Reward, None, Some(1), 900, "reward:0".to_owned()),
            (Kind::Fee, Some(2), None, 3, "reward:1".to_owned()),
        ]
    );
}

#[test]
fn a_freeze_moves_nothing_and_is_seen() {
    let cluster = cluster();
    let freeze = Op::Freeze { account: key(11), frozen: true };
    cluster.mine(&[Tx::new(key(3), vec![freeze])]);
    let block = decoded(&cluster.head()).expect("an honest block");
    assert_eq!(told(&block.movements), [fee(3)]);
    let touched: Vec<_> = block.touched.iter().map(|query| (query.address, query.asset)).collect();
    assert_eq!(touched, [(Address::from(key(1)), token(USD))]);
}

#[test]
fn a_memo_is_noticed_and_left_to_be_read() {
    let cluster = cluster();
    let pay = Op::Pay { from: key(1), to: key(9), lamports: 7 };
    let memo = Tx::new(key(1), vec![Op::Memo("invoice 12"), pay.clone()]);
    cluster.mine(&[memo, Tx::new(key(1), vec![pay])]);
    let block = decoded(&cluster.head()).expect("an honest block");
    assert_eq!(block.unread_memos, [block.transactions[0].tx]);
    assert!(block.movements.iter().all(|movement| movement.memo.is_none()));
}

#[test]
fn only_the_raw_amount_of_a_token_is_read() {
    let cluster = cluster();
    let pay = Op::Move { from: key(12), to: key(11), amount: 30, withheld: 0 };
    cluster.mine(&[Tx::new(key(2), vec![pay])]);
    let number = cluster.head().at.number;
    cluster.alter(number, |block| {
        let balance = &mut block["transactions"][0]["meta"]["postTokenBalances"][0];
        // As a mint with a multiplier shows it.
        balance["uiTokenAmount"]["uiAmount"] = serde_json::json!(0.5);
        balance["uiTokenAmount"]["uiAmountString"] = serde_json::json!("0.5");
    });
    let block = decoded(&cluster.head()).expect("an honest block");
    assert_eq!(told(&block.movements)[1].3, 30);
}

/// The check that an altered block fails.
fn refusal(change: impl FnOnce(&mut serde_json::Value)) -> &'static str {
    let cluster = cluster();
    let pay = |from: u8, lamports| Op::Pay { from: key(from), to: key(9), lamports };
    let dollars = |amount| Op::Move { from: key(12), to: key(11), amount, withheld: 0 };
    cluster.mine(&[
        Tx::new(key(1), vec![pay(1, 7)]),
        Tx::new(key(2), vec![dollars(30)]),
        Tx::new(key(1), vec![pay(1, 8)]),
        Tx::new(key(3), vec![dollars(40)]),
        Tx::new(key(1), vec![dollars(50)]),
    ]);
    let number = cluster.head().at.number;
    cluster.alter(number, change);
    match decoded(&cluster.head()) {
        Err(Failure::Untrusted { check, .. }) => check,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_transaction_left_out_between_others_of_its_accounts_or_altered_is_noticed() {
    let transactions = |block: &mut serde_json::Value| {
        block["transactions"].as_array().expect("transactions").clone()
    };
    let without = |index: usize| {
        refusal(|block| {
            let mut rest = transactions(block);
            rest.remove(index);
            block["transactions"] = rest.into();
        })
    };
    assert_eq!(without(2), "lamports_continue");
    assert_eq!(without(3), "tokens_continue");
    let twice = refusal(|block| {
        let mut more = transactions(block);
        more.insert(0, more[0].clone());
        block["transactions"] = more.into();
    });
    assert_eq!(twice, "lamports_continue");
    let meta = |block: &mut serde_json::Value, field: &str, value: serde_json::Value| {
        block["transactions"][0]["meta"][field] = value;
    };
    let more = refusal(|block| {
        let balance = block["transactions"][0]["meta"]["postBalances"][1].as_u64().expect("one");
        block["transactions"][0]["meta"]["postBalances"][1] = (balance + 1).into();
    });
    assert_eq!(more, "lamports_conserved");
    assert_eq!(refusal(|block| meta(block, "postBalances", vec![1_u64].into())), "balance_lists");
    let beyond = serde_json::json!([{
        "accountIndex": 99, "mint": text(&USD), "owner": text(&key(1)), "programId": TOKEN,
        "uiTokenAmount": {"amount": "1"},
    }]);
    assert_eq!(refusal(|block| meta(block, "preTokenBalances", beyond)), "balance_lists");
    let lost = refusal(|block| block["transactions"][0]["meta"] = serde_json::Value::Null);
    assert_eq!(lost, "transaction_meta");
    let own_parent = refusal(|block| block["parentSlot"] = 99.into());
    assert_eq!(own_parent, "parent_slot");
}

#[test]
fn what_stands_twice_in_a_block_and_what_is_too_long_for_a_transaction_is_noticed() {
    // Nobody pays for it, so that no balance of it contradicts another.
    let twice = refusal(|block| {
        let mut tx = block["transactions"][0].clone();
        tx["meta"]["fee"] = 0.into();
        tx["meta"]["preBalances"] = tx["meta"]["postBalances"].clone();
        let more = block["transactions"].as_array_mut().expect("transactions");
        more.insert(1, tx);
    });
    assert_eq!(twice, "transaction_twice");
    let long = refusal(|block| {
        let tx = &mut block["transactions"][0];
        let keys = tx["transaction"]["accountKeys"].as_array_mut().expect("keys");
        keys.resize(257, keys[0].clone());
        for list in ["preBalances", "postBalances"] {
            tx["meta"][list] = vec![7; 257].into();
        }
    });
    assert_eq!(long, "balance_lists");
}

#[test]
fn a_slot_that_no_chain_has_is_noticed_before_it_reaches_the_store() {
    let shown = cluster().head().block.to_string();
    let block: json::Block<'_> = serde_json::from_str(&shown).expect("a block");
    let check = |slot| match verify::block(slot, &block, Verification::Links) {
        Ok(_) => None,
        Err(Failure::Untrusted { check, .. }) => Some(check),
        Err(other) => panic!("{other:?}"),
    };
    assert_eq!(check(BlockRef::MAX_HEIGHT), None);
    assert_eq!(check(BlockRef::MAX_HEIGHT + 1), Some("height"));
    assert_eq!(check(u64::MAX), Some("height"));
}

#[test]
fn a_token_balance_that_is_not_listed_is_unknown_and_contradicts_nothing() {
    let cluster = cluster();
    let freeze = |frozen| Tx::new(key(1), vec![Op::Freeze { account: key(11), frozen }]);
    cluster.mine(&[freeze(true), freeze(false), freeze(true)]);
    let number = cluster.head().at.number;
    // What a validator does with an account whose mint was closed in the block.
    cluster.alter(number, |block| {
        for list in ["preTokenBalances", "postTokenBalances"] {
            block["transactions"][1]["meta"][list] = serde_json::json!([]);
        }
    });
    assert!(decoded(&cluster.head()).is_ok());
}

fn some_op() -> impl Strategy<Value = (u8, u8, u64, u8)> {
    (0_u8..12, 0_u8..6, 0_u64..60, 0_u8..6)
}

/// An operation that the state allows, from numbers.
fn possible(
    cluster: &Cluster,
    sofar: &[Op],
    (what, a, amount, b): (u8, u8, u64, u8),
) -> Option<Op> {
    let dollars = [11, 12, 21, 51, 52, 53].map(key);
    let fees = [31, 32].map(key);
    let (from, to) = (dollars[usize::from(a)], dollars[usize::from(b)]);
    let opened = |account: &Key| {
        let closed =
            sofar.iter().any(|op| matches!(op, Op::Close { account: c, .. } if c == account));
        let here = sofar.iter().any(|op| matches!(op, Op::Open { account: o, .. } if o == account));
        !closed && (here || cluster.head().accounts.contains_key(account))
    };
    let untouched = |account: &Key| {
        !sofar.iter().any(|op| match op {
            Op::Move { from, to, .. } => from == account || to == account,
            Op::Open { account: o, .. }
            | Op::Close { account: o, .. }
            | Op::Burn { account: o, .. } => o == account,
            _ => false,
        })
    };
    let has = |account: &Key, amount: u64| {
        cluster
            .head()
            .accounts
            .get(account)
            .and_then(|a| a.tokens.as_ref())
            .is_some_and(|tokens| tokens.amount >= amount)
    };
    let person = |n: u8| key(1 + n % 3);
    Some(match what {
        0..3 => Op::Pay { from: person(a), to: key(1 + b), lamports: amount },
        3 | 4
            if opened(&from)
                && opened(&to)
                && untouched(&from)
                && has(&from, amount)
                && from != to =>
        {
            Op::Move { from, to, amount, withheld: 0 }
        }
        5 if untouched(&fees[0]) && has(&fees[0], amount) => {
            Op::Move { from: fees[0], to: fees[1], amount, withheld: amount / 10 }
        }
        6 if opened(&from) => Op::Mint { account: from, amount },
        7 if opened(&from) && untouched(&from) && has(&from, amount) => {
            Op::Burn { account: from, amount }
        }
        8 if !opened(&to) && untouched(&to) => {
            Op::Open { payer: person(a), account: to, mint: USD, owner: person(b), program: TOKEN }
        }
        9 if opened(&from) => Op::SetOwner { account: from, owner: person(b) },
        10 if opened(&from) && a > 2 => Op::Close { account: from, to: person(b) },
        11 => Op::Wrap { from: person(a), account: key(41), lamports: amount },
        _ => return None,
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn the_movements_of_any_block_are_exactly_what_everybody_gained_and_lost(
        blocks in proptest::collection::vec(
            proptest::collection::vec((0_u8..3, any::<bool>(), proptest::collection::vec(some_op(), 0..6)), 1..4),
            1..6,
        ),
    ) {
        let cluster = cluster();
        for txs in blocks {
            // One transaction per block: what is possible is decided from the state before it.
            for (payer, failed, wishes) in txs {
                let mut ops = Vec::new();
                for wish in wishes {
                    if let Some(op) = possible(&cluster, &ops, wish) {
                        ops.push(op);
                    }
                }
                let payer = key(1 + payer);
                movements(&cluster, &[if failed { Tx::failed(payer, ops) } else { Tx::new(payer, ops) }]);
            }
        }
    }
}
