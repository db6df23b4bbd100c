//! A cluster in memory: accounts, transactions with their balances before and after, slots with and without
//! blocks, branches; shown as an honest node shows it, or not quite.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::{
    amount::Amount,
    chain::{
        Address, AssetKey, BlockHash, BlockRef, Family, TxId,
        rpc::testing::{Node, Reply},
        solana::{MEMO, TOKEN, TOKEN_2022},
    },
};

pub(crate) const GENESIS: &str = "EtWTRABZaYq6iMfeYKouRu166VU2xqa1wcaWoxPkrZBG";
pub(crate) const FEE: u64 = 5000;
const SYSTEM: &str = "11111111111111111111111111111111";

pub(crate) type Key = [u8; 32];

pub(crate) fn key(number: u8) -> Key {
    [number; 32]
}

pub(crate) fn text(key: &Key) -> String {
    Family::Solana.format_address(&Address::from(*key))
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tokens {
    pub mint: Key,
    pub owner: Key,
    pub amount: u64,
    pub program: &'static str,
    pub frozen: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Account {
    pub lamports: u64,
    pub tokens: Option<Tokens>,
}

type Accounts = BTreeMap<Key, Account>;

/// What a transaction does, one after the other.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    Pay {
        from: Key,
        to: Key,
        lamports: u64,
    },
    /// Opens a token account with `rent` lamports of `payer`.
    Open {
        payer: Key,
        account: Key,
        mint: Key,
        owner: Key,
        program: &'static str,
    },
    Mint {
        account: Key,
        amount: u64,
    },
    /// Moves tokens; `withheld` of them stay in the target account, out of its amount.
    Move {
        from: Key,
        to: Key,
        amount: u64,
        withheld: u64,
    },
    Burn {
        account: Key,
        amount: u64,
    },
    /// Gives the lamports to `to`.
    Close {
        account: Key,
        to: Key,
    },
    SetOwner {
        account: Key,
        owner: Key,
    },
    Freeze {
        account: Key,
        frozen: bool,
    },
    /// Puts lamports into a wrapped SOL account and counts them.
    Wrap {
        from: Key,
        account: Key,
        lamports: u64,
    },
    Memo(&'static str),
}

pub(crate) const RENT: u64 = 2_039_280;

#[derive(Clone, Debug)]
pub(crate) struct Tx {
    pub payer: Key,
    pub ops: Vec<Op>,
    pub failed: bool,
}

impl Tx {
    pub fn new(payer: Key, ops: Vec<Op>) -> Self {
        Self { payer, ops, failed: false }
    }

    pub fn failed(payer: Key, ops: Vec<Op>) -> Self {
        Self { payer, ops, failed: true }
    }
}

fn pay(accounts: &mut Accounts, from: &Key, to: &Key, lamports: u64) {
    accounts.get_mut(from).expect("a payer").lamports -= lamports;
    accounts.entry(*to).or_default().lamports += lamports;
}

fn apply(accounts: &mut Accounts, op: &Op) {
    let tokens = |accounts: &mut Accounts, account: &Key, change: &dyn Fn(&mut Tokens)| {
        change(accounts.get_mut(account).and_then(|a| a.tokens.as_mut()).expect("a token account"));
    };
    match op {
        Op::Pay { from, to, lamports } => pay(accounts, from, to, *lamports),
        Op::Open { payer, account, mint, owner, program } => {
            pay(accounts, payer, account, RENT);
            let fresh = Tokens { mint: *mint, owner: *owner, amount: 0, program, frozen: false };
            accounts.get_mut(account).expect("just paid").tokens = Some(fresh);
        }
        Op::Mint { account, amount } => tokens(accounts, account, &|t| t.amount += amount),
        Op::Move { from, to, amount, withheld } => {
            tokens(accounts, from, &|t| t.amount -= amount);
            tokens(accounts, to, &|t| t.amount += amount - withheld);
        }
        Op::Burn { account, amount } => tokens(accounts, account, &|t| t.amount -= amount),
        Op::Close { account, to } => {
            let all = accounts[account].lamports;
            pay(accounts, account, to, all);
            accounts.remove(account);
        }
        Op::SetOwner { account, owner } => tokens(accounts, account, &|t| t.owner = *owner),
        Op::Freeze { account, frozen } => tokens(accounts, account, &|t| t.frozen = *frozen),
        Op::Wrap { from, account, lamports } => {
            pay(accounts, from, account, *lamports);
            tokens(accounts, account, &|t| t.amount += lamports);
        }
        Op::Memo(_) => {}
    }
}

/// The accounts that an operation names, in the order of its instruction.
fn keys_of(op: &Op, before: &Accounts) -> Vec<Key> {
    let mint = |account: &Key| before.get(account).and_then(|a| a.tokens.as_ref()).map(|t| t.mint);
    match op {
        Op::Pay { from, to, .. } => vec![*from, *to],
        Op::Open { payer, account, mint, owner, .. } => vec![*payer, *account, *mint, *owner],
        Op::Mint { account, .. } | Op::Burn { account, .. } | Op::Freeze { account, .. } => {
            std::iter::once(*account).chain(mint(account)).collect()
        }
        Op::Move { from, to, .. } => [*from, *to].into_iter().chain(mint(from)).collect(),
        Op::Close { account, to } => vec![*account, *to],
        Op::SetOwner { account, .. } => vec![*account],
        Op::Wrap { from, account, .. } => vec![*from, *account],
        Op::Memo(_) => Vec::new(),
    }
}

fn token_balances(keys: &[Key], accounts: &Accounts) -> Value {
    let entries = keys.iter().enumerate().filter_map(|(index, key)| {
        let tokens = accounts.get(key)?.tokens.as_ref()?;
        Some(json!({
            "accountIndex": index, "mint": text(&tokens.mint), "owner": text(&tokens.owner),
            "programId": tokens.program,
            "uiTokenAmount": {
                "amount": tokens.amount.to_string(), "decimals": 6,
                "uiAmount": null, "uiAmountString": "of no use",
            },
        }))
    });
    entries.collect()
}

/// Runs a transaction; gives it as `transactionDetails: "accounts"` shows it.
fn execute(accounts: &mut Accounts, tx: &Tx, signature: &str) -> Value {
    let mut keys = vec![tx.payer];
    let mut after = accounts.clone();
    after.get_mut(&tx.payer).expect("a payer").lamports -= FEE;
    let mut all = after.clone();
    for op in &tx.ops {
        for key in keys_of(op, &all) {
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
        apply(&mut all, op);
    }
    if !tx.failed {
        after = all;
    }
    let lamports = |accounts: &Accounts, key: &Key| accounts.get(key).map_or(0, |a| a.lamports);
    let mut pre: Vec<u64> = keys.iter().map(|key| lamports(accounts, key)).collect();
    let mut post: Vec<u64> = keys.iter().map(|key| lamports(&after, key)).collect();
    let mut programs = vec![SYSTEM];
    let has_tokens = tx.ops.iter().any(|op| !matches!(op, Op::Pay { .. } | Op::Memo(_)));
    if has_tokens {
        programs.extend([TOKEN, TOKEN_2022]);
    }
    if tx.ops.iter().any(|op| matches!(op, Op::Memo(_))) {
        programs.push(MEMO[1]);
    }
    pre.extend(programs.iter().map(|_| 1));
    post.extend(programs.iter().map(|_| 1));
    let account = |pubkey: String, signer: bool, writable: bool| json!({"pubkey": pubkey, "signer": signer, "writable": writable, "source": "transaction"});
    let mut listed: Vec<Value> =
        keys.iter().enumerate().map(|(i, key)| account(text(key), i == 0, true)).collect();
    listed.extend(programs.iter().map(|program| account((*program).to_owned(), false, false)));
    let balances = |accounts: &Accounts| {
        if has_tokens { token_balances(&keys, accounts) } else { json!([]) }
    };
    let err = if tx.failed { json!({"InstructionError": [0, {"Custom": 1}]}) } else { Value::Null };
    let shown = json!({
        "meta": {
            "err": err, "fee": FEE, "status": {}, "preBalances": pre, "postBalances": post,
            "preTokenBalances": balances(accounts), "postTokenBalances": balances(&after),
        },
        "transaction": {"accountKeys": listed, "signatures": [signature]},
        "version": "legacy",
    });
    *accounts = after;
    shown
}

#[derive(Clone)]
pub(crate) struct Slot {
    pub at: BlockRef,
    pub block: Value,
    pub accounts: Accounts,
    memos: Vec<(String, Vec<&'static str>)>,
}

impl Slot {
    fn transactions(&self) -> std::slice::Iter<'_, Value> {
        self.block["transactions"].as_array().map(|all| all.iter()).unwrap_or_default()
    }
}

#[derive(Default)]
struct State {
    chain: Vec<Slot>,
    finalized: u64,
    mints: BTreeSet<Key>,
    made: u64,
}

impl State {
    /// The block whose state a question of that commitment is about.
    fn bank(&self, config: &Value) -> &Slot {
        let rooted = config["commitment"] == "finalized";
        let newest = if rooted { self.finalized } else { u64::MAX };
        let mut banks = self.chain.iter().rev();
        banks.find(|slot| slot.at.number <= newest).expect("a first block")
    }

    /// What an honest node says of accounts.
    fn accounts(&self, method: &str, params: &Value) -> Reply {
        let config = params.as_array().and_then(|params| params.last()).expect("a configuration");
        let bank = self.bank(config);
        let reached = config["minContextSlot"].as_u64();
        if reached.is_some_and(|least| bank.at.number < least) {
            return Reply::error(-32016, "Minimum context slot has not been reached");
        }
        let value = match method {
            "getMultipleAccounts" => {
                let asked = params[0].as_array().expect("accounts").iter();
                let lamports = asked.map(|asked| {
                    let found = bank.accounts.iter().find(|(key, _)| text(key) == *asked);
                    found.filter(|(_, account)| account.lamports > 0).map_or(
                        Value::Null,
                        |(_, account)| json!({"lamports": account.lamports, "data": ["", "base64"]}),
                    )
                });
                lamports.collect()
            }
            "getTokenAccountsByOwner" => {
                let accounts = bank.accounts.iter();
                accounts
                    .filter_map(|(key, account)| Some((key, account.tokens.as_ref()?)))
                    .filter(|(_, tokens)| {
                        text(&tokens.owner) == params[0] && tokens.program == params[1]["programId"]
                    })
                    .map(|(key, tokens)| token_account(key, tokens))
                    .collect()
            }
            _ => {
                let mint = self.mints.iter().find(|mint| text(mint) == params[0]);
                mint.map_or(Value::Null, |mint| {
                    // A convention of these tests: mints above 200 belong to Token-2022.
                    let program = if mint[0] > 200 { TOKEN_2022 } else { TOKEN };
                    json!({
                        "owner": program, "lamports": 1,
                        "data": {"program": "spl-token", "parsed": {"type": "mint", "info": {"decimals": 6}}},
                    })
                })
            }
        };
        Reply::Result(json!({"context": {"slot": bank.at.number}, "value": value}))
    }
}

/// The cluster; cloning shares it.
#[derive(Clone)]
pub(crate) struct Cluster {
    state: Arc<Mutex<State>>,
}

impl Cluster {
    /// A first block, in which `rich` have a thousand SOL each.
    pub fn new(rich: &[Key]) -> Self {
        let accounts = rich
            .iter()
            .map(|key| (*key, Account { lamports: 1_000_000_000_000, tokens: None }))
            .collect();
        let hash = BlockHash([1; 32]);
        let at = BlockRef { number: 0, hash };
        let block = shown(at, at, &[], &[]);
        let first = Slot { at, block, accounts, memos: Vec::new() };
        let state = State { chain: vec![first], ..State::default() };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// The next block, `skipped` slots after the one that would follow.
    pub fn mine_after(&self, skipped: u64, txs: &[Tx], rewards: &[(Key, i64)]) -> BlockRef {
        let mut state = self.state.lock();
        state.made += 1;
        let made = state.made;
        let last = state.chain.last().expect("a first block").clone();
        let mut hash = [0xb0; 32];
        hash[..8].copy_from_slice(&made.to_be_bytes());
        let at = BlockRef { number: last.at.number + 1 + skipped, hash: BlockHash(hash) };
        let mut accounts = last.accounts;
        let (mut transactions, mut memos) = (Vec::new(), Vec::new());
        for (index, tx) in txs.iter().enumerate() {
            let mut signature = [made.to_be_bytes()[7]; 64];
            signature[..8].copy_from_slice(&made.to_be_bytes());
            signature[8] = u8::try_from(index).expect("few transactions");
            let signature = Family::Solana.format_tx(&TxId::from(signature));
            transactions.push(execute(&mut accounts, tx, &signature));
            let texts = tx.ops.iter().filter_map(|op| match op {
                Op::Memo(text) => Some(*text),
                _ => None,
            });
            memos.push((signature, texts.collect()));
            for op in &tx.ops {
                if let Op::Open { mint, .. } = op {
                    state.mints.insert(*mint);
                }
            }
        }
        for (who, lamports) in rewards {
            let account = accounts.entry(*who).or_default();
            account.lamports = account.lamports.checked_add_signed(*lamports).expect("rewards");
        }
        let block = shown(at, last.at, &transactions, rewards);
        state.chain.push(Slot { at, block, accounts, memos });
        at
    }

    pub fn mine(&self, txs: &[Tx]) -> BlockRef {
        self.mine_after(0, txs, &[])
    }

    /// Takes the blocks above that slot off the chain; others may come instead.
    pub fn cut(&self, slot: u64) {
        self.state.lock().chain.retain(|block| block.at.number <= slot);
    }

    pub fn finalize(&self, slot: u64) {
        self.state.lock().finalized = slot;
    }

    pub fn head(&self) -> Slot {
        self.state.lock().chain.last().expect("a first block").clone()
    }

    pub fn slot(&self, number: u64) -> Option<Slot> {
        self.state.lock().chain.iter().find(|slot| slot.at.number == number).cloned()
    }

    /// Changes what is shown of a block, not what happened in it.
    pub fn alter(&self, number: u64, change: impl FnOnce(&mut Value)) {
        let mut state = self.state.lock();
        let slot = state.chain.iter_mut().find(|slot| slot.at.number == number);
        change(&mut slot.expect("a block").block);
    }

    /// What somebody holds after a block.
    pub fn holds(slot: &Slot, who: Key, asset: AssetKey) -> Amount {
        match asset {
            AssetKey::Native => slot.accounts.get(&who).map_or(0, |a| a.lamports).into(),
            AssetKey::Token(mint) => slot
                .accounts
                .values()
                .filter_map(|account| account.tokens.as_ref())
                .filter(|tokens| tokens.owner == who && Address::from(tokens.mint) == mint)
                .map(|tokens| tokens.amount)
                .sum::<u64>()
                .into(),
        }
    }

    pub async fn node(&self) -> Node {
        let cluster = self.clone();
        Node::start(move |method, params| cluster.honest(method, params)).await
    }

    /// What an honest node says.
    pub fn honest(&self, method: &str, params: &Value) -> Reply {
        let state = self.state.lock();
        let number = |value: &Value| value.as_u64().expect("a number");
        let listed = |from: u64, to: u64| {
            let numbers = state.chain.iter().map(|slot| slot.at.number);
            numbers.filter(|slot| (from..=to).contains(slot)).collect::<Vec<_>>()
        };
        Reply::Result(match method {
            "getGenesisHash" => json!(GENESIS),
            "getSlot" => json!(state.bank(&params[0]).at.number),
            "getBlocks" => json!(listed(number(&params[0]), number(&params[1]))),
            "getBlocksWithLimit" => {
                let mut slots = listed(number(&params[0]), u64::MAX);
                slots.truncate(usize::try_from(number(&params[1])).expect("small"));
                json!(slots)
            }
            "getBlock" => {
                let slot = number(&params[0]);
                let Some(found) = state.chain.iter().find(|known| known.at.number == slot) else {
                    let text = format!("Block not available for slot {slot}");
                    return Reply::error(-32004, text);
                };
                let mut block = found.block.clone();
                if params[1]["transactionDetails"] == "none" {
                    block.as_object_mut().expect("a block").remove("transactions");
                    block.as_object_mut().expect("a block").remove("rewards");
                }
                block
            }
            "getMultipleAccounts" | "getTokenAccountsByOwner" | "getAccountInfo" => {
                return state.accounts(method, params);
            }
            "getSignaturesForAddress" => {
                let limit = number(&params[1]["limit"]);
                let mut newest_first = state
                    .chain
                    .iter()
                    .rev()
                    .flat_map(|slot| slot.transactions().rev().map(|tx| (slot.at.number, tx)));
                if let Some(before) = params[1]["before"].as_str() {
                    newest_first.find(|(_, tx)| signature(tx) == before);
                }
                let named = newest_first.filter(|(_, tx)| {
                    let keys = tx["transaction"]["accountKeys"].as_array().expect("keys");
                    keys.iter().any(|key| key["pubkey"] == params[0])
                });
                let listed = named.take(usize::try_from(limit).expect("small"));
                listed
                    .map(
                        |(slot, tx)| json!({"slot": slot, "signature": signature(tx), "err": null}),
                    )
                    .collect()
            }
            "getTransaction" => {
                assert_eq!(params[1]["encoding"], "jsonParsed");
                let found = state.chain.iter().find_map(|slot| {
                    let tx = slot.transactions().find(|tx| signature(tx) == params[0])?;
                    let (_, memos) = slot.memos.iter().find(|(known, _)| *known == params[0])?;
                    Some(by_itself(slot.at.number, tx, memos))
                });
                found.unwrap_or(Value::Null)
            }
            _ => return Reply::error(-32601, "Method not found"),
        })
    }
}

fn token_account(key: &Key, tokens: &Tokens) -> Value {
    json!({
        "pubkey": text(key),
        "account": {
            "lamports": RENT, "owner": tokens.program,
            "data": {"program": "spl-token", "parsed": {"type": "account", "info": {
                "mint": text(&tokens.mint), "owner": text(&tokens.owner),
                "state": if tokens.frozen { "frozen" } else { "initialized" },
                "tokenAmount": {"amount": tokens.amount.to_string(), "decimals": 6},
            }}},
        },
    })
}

fn signature(tx: &Value) -> &str {
    tx["transaction"]["signatures"][0].as_str().expect("a signature")
}

/// A transaction as `encoding: "jsonParsed"` shows it: the first memo is called by itself, the others from
/// inside another instruction.
fn by_itself(slot: u64, tx: &Value, memos: &[&str]) -> Value {
    let call = |text: &str| json!({"program": "spl-memo", "programId": MEMO[1], "parsed": text, "stackHeight": null});
    let other = json!({"programId": SYSTEM, "accounts": [], "data": "3Bxs4h24hBtQy9rw", "stackHeight": null});
    let first: Vec<Value> = memos.iter().take(1).map(|text| call(text)).collect();
    let inner: Vec<Value> = memos.iter().skip(1).map(|text| call(text)).collect();
    let mut meta = tx["meta"].clone();
    meta["innerInstructions"] = json!([{"index": 1, "instructions": inner}]);
    json!({
        "slot": slot,
        "transaction": {
            "signatures": tx["transaction"]["signatures"],
            "message": {
                "accountKeys": tx["transaction"]["accountKeys"],
                "instructions": first.into_iter().chain([other]).collect::<Vec<_>>(),
            },
        },
        "meta": meta,
    })
}

fn shown(at: BlockRef, parent: BlockRef, txs: &[Value], rewards: &[(Key, i64)]) -> Value {
    let hash = |hash: &BlockHash| Family::Solana.format_block_hash(hash);
    let rewards: Vec<Value> = rewards
        .iter()
        .map(|(who, lamports)| {
            json!({"pubkey": text(who), "lamports": lamports, "postBalance": 0, "rewardType": "Fee", "commission": null})
        })
        .collect();
    json!({
        "blockHeight": at.number, "blockTime": 1_700_000_000 + at.number, "blockhash": hash(&at.hash),
        "parentSlot": parent.number, "previousBlockhash": hash(&parent.hash),
        "transactions": txs, "rewards": rewards,
    })
}
