//! The decoders of what a Solana node says, on whatever it says.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Write as _,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Deserialize;
use serde_json::{json, value::RawValue};

use super::cluster::{Cluster, Key, Op, Tx, key, text};
use crate::{
    amount::Amount,
    chain::{
        Address, AssetKey, Block, BlockHash, BlockRef, ChainBalance, Header, Rules as _,
        rpc::testing::{Reply, answer_of},
        solana::{
            Solana, TOKEN, TOKEN_2022, decode,
            json::{self, AtSlot, Instructed, Keyed, Lamports, Mint, Parsed, TokenAccount},
            memo, state, verify,
        },
        testing::{assert_storable, outcome},
    },
    config::Verification,
    fuzz::{about, run},
};

const USD: Key = [150; 32];
const FEE_USD: Key = [220; 32];

/// Two blocks: accounts are opened in one, and in the other there is some of everything.
fn cluster() -> Cluster {
    let cluster = Cluster::new(&[key(1), key(2)]);
    let open = |account: u8, mint: Key, owner: u8, program: &'static str| Op::Open {
        payer: key(1),
        account: key(account),
        mint,
        owner: key(owner),
        program,
    };
    cluster.mine(&[
        Tx::new(key(1), vec![open(11, USD, 1, TOKEN), Op::Mint { account: key(11), amount: 90 }]),
        Tx::new(key(1), vec![open(12, USD, 2, TOKEN), open(31, FEE_USD, 1, TOKEN_2022)]),
        Tx::new(key(1), vec![open(32, FEE_USD, 2, TOKEN_2022)]),
    ]);
    let (from, to) = (key(11), key(12));
    let txs = [
        Tx::new(key(1), vec![Op::Pay { from: key(1), to: key(2), lamports: 7 }, Op::Memo("é\0")]),
        Tx::new(key(1), vec![Op::Move { from, to, amount: 30, withheld: 0 }]),
        Tx::new(key(2), vec![Op::Mint { account: key(31), amount: u64::MAX }]),
        Tx::new(key(2), vec![Op::Move { from: key(31), to: key(32), amount: 100, withheld: 3 }]),
        Tx::new(
            key(2),
            vec![Op::Freeze { account: to, frozen: true }, Op::Memo("a"), Op::Memo("b")],
        ),
        Tx::new(key(2), vec![Op::SetOwner { account: from, owner: key(2) }]),
        Tx::failed(key(2), vec![Op::Close { account: from, to: key(2) }]),
    ];
    cluster.mine_after(1, &txs, &[(key(1), 5), (key(2), -5)]);
    cluster
}

#[derive(Deserialize)]
struct Slot<'a> {
    slot: u64,
    #[serde(borrow)]
    block: &'a RawValue,
}

type Sums = BTreeMap<(Address, AssetKey), i128>;

/// What everybody gained or lost, as the balances in the transactions say it.
fn stated(block: &json::Block<'_>) -> Sums {
    let mut sums: BTreeMap<(&str, Option<&str>), i128> = BTreeMap::new();
    let mut add = |who, mint, change| *sums.entry((who, mint)).or_default() += change;
    for tx in &block.transactions {
        let meta = tx.meta.as_ref().expect("it was decoded");
        let sides = [
            (-1, &meta.pre_balances, &meta.pre_token_balances),
            (1, &meta.post_balances, &meta.post_token_balances),
        ];
        for (sign, lamports, tokens) in sides {
            for (key, lamports) in tx.transaction.account_keys.iter().zip(lamports) {
                add(key.pubkey, None, sign * i128::from(*lamports));
            }
            for held in tokens.iter().flatten() {
                add(held.owner, Some(held.mint), sign * i128::from(held.amount.amount));
            }
        }
    }
    for reward in &block.rewards {
        add(reward.pubkey, None, i128::from(reward.lamports));
    }
    let address = |text: &str| Address::from(decode::key(text).expect("it was decoded"));
    let changed = sums.into_iter().filter(|(_, change)| *change != 0);
    changed
        .map(|((who, mint), change)| {
            let asset = mint.map_or(AssetKey::Native, |mint| AssetKey::Token(address(mint)));
            ((address(who), asset), change)
        })
        .collect()
}

fn moved(block: &Block) -> Sums {
    let mut sums = Sums::new();
    for movement in &block.movements {
        let amount = i128::try_from(movement.amount.get()).expect("a few balances of 64 bits");
        for (who, change) in [(movement.to, amount), (movement.from, -amount)] {
            if let Some(who) = who {
                *sums.entry((who, movement.asset)).or_default() += change;
            }
        }
    }
    sums.retain(|_, change| *change != 0);
    sums
}

#[test]
fn a_block_moves_exactly_what_its_balances_state() {
    let cluster = cluster();
    let given = [1, 3].map(|slot| {
        let block = cluster.slot(slot).expect("a block").block;
        json!({"slot": slot, "block": block}).to_string().into_bytes()
    });
    run("solana_block", given.to_vec(), |input| {
        let Ok(Slot { slot, block }) = serde_json::from_slice(input) else {
            return "no document".to_owned();
        };
        let answer = answer_of(block.get().as_bytes());
        let block = answer.parse::<json::Block<'_>>();
        let Ok(block) = &block else { return outcome(&block) };
        [Verification::Full, Verification::Links]
            .map(|verification| {
                let read = verify::block(slot, block, verification)
                    .and_then(|verified| decode::block(&verified));
                if let Ok(read) = &read {
                    assert_storable(read);
                    assert_eq!(moved(read), stated(block));
                    assert!(read.touched.len() * 32 <= input.len());
                }
                let movements = read.as_ref().map_or(0, |read| read.movements.len());
                format!("{} {}", outcome(&read), about(movements))
            })
            .join(" ")
    });
}

#[test]
fn a_past_transaction_moves_only_what_it_states() {
    let cluster = cluster();
    let block = cluster.slot(3).expect("a block").block;
    let signatures = (0..7).map(|n| &block["transactions"][n]["transaction"]["signatures"][0]);
    let given = signatures.map(|signature| {
        let asked = json!([signature, {"encoding": "jsonParsed"}]);
        let Reply::Result(tx) = cluster.honest("getTransaction", &asked) else {
            panic!("a result")
        };
        tx.to_string().into_bytes()
    });
    let hash = BlockHash([7; 32]);
    let at = BlockRef { number: 3, hash };
    let header = Header { at, parent: BlockRef { number: 1, hash }, time: 0 };
    run("solana_transaction", given.collect(), |input| {
        let answer = answer_of(input);
        let mut told = String::new();
        let instructed = answer.parse::<Instructed<'_>>();
        if let Ok(tx) = &instructed {
            let memo = memo::text(tx);
            let length = memo.as_ref().map_or(0, String::len);
            assert!(length <= input.len() && !memo.is_some_and(|memo| memo.contains('\0')));
            let _ = write!(told, "memo {} ", about(length));
        }
        let past = answer.parse::<json::PastTransaction<'_>>();
        let Ok(past) = past else { return told + &outcome(&past) };
        let tx = json::Transaction::from(past);
        let mut block = Block::empty(header);
        let read = verify::transaction(&tx).and_then(|tx| decode::transaction(&tx, &mut block));
        if read.is_ok() {
            assert_storable(&block);
            let (hash, transactions) = (text(&[7; 32]), vec![tx]);
            let whole = json::Block {
                hash: &hash,
                previous_blockhash: &hash,
                parent_slot: 1,
                time: None,
                transactions,
                rewards: Vec::new(),
            };
            assert_eq!(moved(&block), stated(&whole));
        }
        told + &outcome(&read) + about(block.movements.len())
    });
}

#[test]
fn what_an_owner_holds_is_the_sum_of_the_accounts() {
    let (owner, cluster) = (Address::from(key(2)), cluster());
    let asked =
        |program| json!([text(&key(2)), {"programId": program}, {"commitment": "confirmed"}]);
    let given = [
        ("getTokenAccountsByOwner", asked(TOKEN)),
        ("getTokenAccountsByOwner", asked(TOKEN_2022)),
        ("getMultipleAccounts", json!([[text(&key(2)), text(&key(9))], {}])),
        ("getAccountInfo", json!([text(&USD), {}])),
    ];
    let given = given.map(|(method, params)| match cluster.honest(method, &params) {
        Reply::Result(answer) => answer.to_string().into_bytes(),
        _ => panic!("a result"),
    });
    run("solana_accounts", given.to_vec(), |input| {
        let answer = answer_of(input);
        let lamports = answer.parse::<AtSlot<Vec<Option<Lamports>>>>();
        let mint = answer.parse::<AtSlot<Option<Parsed<Mint>>>>();
        let listed = answer.parse::<AtSlot<Vec<Keyed<TokenAccount>>>>();
        let told = format!("{} {}", outcome(&lamports), outcome(&mint));
        let Ok(AtSlot { context, value }) = listed else { return told + &outcome(&listed) };
        let mut held: HashMap<(Address, AssetKey), (ChainBalance, u64)> = HashMap::new();
        let mut sum = Amount::ZERO;
        for Keyed { account, .. } in &value {
            let info = &account.data.parsed.info;
            let added = state::add_token_account(&mut held, &owner, info, context.slot);
            if added.is_err() {
                return told + &outcome(&added);
            }
            let amount: u64 = info.token_amount.amount.parse().expect("it was read");
            sum = sum.checked_add(Amount::from(amount)).expect("few amounts of 64 bits");
        }
        let total = held.values().try_fold(Amount::ZERO, |total, (held, _)| {
            assert!(held.frozen <= held.total, "more is frozen than held");
            total.checked_add(held.total)
        });
        assert_eq!(total, Some(sum));
        told + about(held.len())
    });
}

#[derive(Deserialize)]
struct Signed {
    address: String,
    message: String,
    signature: String,
}

/// Who signed what with which bytes, if somebody did.
fn signed(input: &[u8]) -> Result<(Address, String, Vec<u8>), String> {
    let Signed { address, message, signature } =
        serde_json::from_slice(input).map_err(|error| error.to_string())?;
    let address = Solana.parse_address(&address).map_err(|error| error.to_string())?;
    let verified = Solana.verify_signature(&address, &message, &signature);
    verified.map_err(|error| error.to_string())?;
    let bytes = crate::chain::base58::decode_64(&signature).map(Vec::from);
    let bytes = bytes.unwrap_or_else(|| STANDARD.decode(&signature).expect("it was read"));
    Ok((address, message, bytes))
}

#[test]
fn a_signature_is_the_one_that_was_made_in_every_text_that_is_taken_for_one() {
    let known = include_bytes!("../../../fuzz/corpus/solana_signature/linkly.json");
    let known = signed(known).expect("a published signature");
    run("solana_signature", Vec::new(), |input| {
        let signed = signed(input);
        assert!(signed.as_ref().map_or(true, |signed| *signed == known), "forged: {signed:?}");
        signed.err().unwrap_or_default()
    });
}
