//! The fields that are read of a node's answers; texts stay where they came in.
//!
//! Blocks are asked for with `transactionDetails: "accounts"`: all balances and all account keys, those of
//! look-up tables among them, and none of the instructions and logs.

use serde::{
    Deserialize, Deserializer,
    de::{self, IgnoredAny},
};

/// A block without its transactions.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Head<'a> {
    #[serde(rename = "blockhash")]
    pub hash: &'a str,
    pub previous_blockhash: &'a str,
    pub parent_slot: u64,
    /// Seconds; missing for a few blocks.
    #[serde(default, rename = "blockTime")]
    pub time: Option<i64>,
}

/// A block with everything that moves balances in it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Block<'a> {
    #[serde(rename = "blockhash")]
    pub hash: &'a str,
    pub previous_blockhash: &'a str,
    pub parent_slot: u64,
    #[serde(default, rename = "blockTime")]
    pub time: Option<i64>,
    #[serde(borrow)]
    pub transactions: Vec<Transaction<'a>>,
    /// Not optional: without them the leader's and the stakers' balances would be wrong.
    #[serde(borrow)]
    pub rewards: Vec<Reward<'a>>,
}

impl Block<'_> {
    pub fn head(&self) -> Head<'_> {
        Head {
            hash: self.hash,
            previous_blockhash: self.previous_blockhash,
            parent_slot: self.parent_slot,
            time: self.time,
        }
    }
}

/// One entry of a list of signatures.
#[derive(Debug, Deserialize)]
pub(super) struct Listed {
    pub signature: String,
    pub slot: u64,
}

/// A transaction by itself, as `encoding: "json"` shows it.
#[derive(Debug, Deserialize)]
pub(super) struct PastTransaction<'a> {
    pub slot: u64,
    #[serde(borrow)]
    pub transaction: PastBody<'a>,
    #[serde(borrow)]
    pub meta: Option<PastMeta<'a>>,
}

#[derive(Debug, Deserialize)]
pub(super) struct PastBody<'a> {
    #[serde(borrow)]
    pub signatures: Vec<&'a str>,
    #[serde(borrow)]
    pub message: PastMessage<'a>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PastMessage<'a> {
    #[serde(borrow)]
    pub account_keys: Vec<&'a str>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PastMeta<'a> {
    #[serde(flatten, borrow)]
    pub balances: Meta<'a>,
    #[serde(default, borrow)]
    pub loaded_addresses: Option<PastLoaded<'a>>,
}

#[derive(Debug, Deserialize)]
pub(super) struct PastLoaded<'a> {
    #[serde(borrow)]
    pub writable: Vec<&'a str>,
    #[serde(borrow)]
    pub readonly: Vec<&'a str>,
}

impl<'a> Transaction<'a> {
    /// Of all its keys in order; which of them are writable is not told, so all count as such.
    pub fn of_keys(signatures: Vec<&'a str>, keys: &[&'a str], meta: Meta<'a>) -> Self {
        let account_keys =
            keys.iter().map(|&pubkey| AccountKey { pubkey, writable: true }).collect();
        Self { transaction: Accounts { signatures, account_keys }, meta: Some(meta) }
    }
}

#[derive(Debug, Deserialize)]
pub(super) struct Transaction<'a> {
    #[serde(borrow)]
    pub transaction: Accounts<'a>,
    /// Null where a node has lost it: such a block is not complete.
    #[serde(borrow)]
    pub meta: Option<Meta<'a>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Accounts<'a> {
    #[serde(borrow)]
    pub signatures: Vec<&'a str>,
    #[serde(borrow)]
    pub account_keys: Vec<AccountKey<'a>>,
}

#[derive(Debug, Deserialize)]
pub(super) struct AccountKey<'a> {
    pub pubkey: &'a str,
    pub writable: bool,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Meta<'a> {
    #[serde(rename = "err", deserialize_with = "present")]
    pub failed: bool,
    /// Lamports, the priority fee included.
    pub fee: u64,
    pub pre_balances: Vec<u64>,
    pub post_balances: Vec<u64>,
    /// Null in blocks from before token balances were recorded.
    #[serde(borrow)]
    pub pre_token_balances: Option<Vec<TokenBalance<'a>>>,
    #[serde(borrow)]
    pub post_token_balances: Option<Vec<TokenBalance<'a>>>,
}

/// Whether there is something other than null.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    Option::<IgnoredAny>::deserialize(deserializer).map(|value| value.is_some())
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct TokenBalance<'a> {
    pub account_index: usize,
    pub mint: &'a str,
    /// Missing at nodes that are too old to be used.
    pub owner: &'a str,
    pub program_id: &'a str,
    #[serde(rename = "uiTokenAmount")]
    pub amount: TokenAmount,
}

#[derive(Debug, Deserialize)]
pub(super) struct TokenAmount {
    /// Base units. The amounts for display beside it are rounded, and scaled by some mints.
    #[serde(deserialize_with = "digits")]
    pub amount: u64,
}

fn digits<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let text = <&str>::deserialize(deserializer)?;
    text.parse().map_err(|_| de::Error::invalid_value(de::Unexpected::Str(text), &"base units"))
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Reward<'a> {
    pub pubkey: &'a str,
    /// Negative where rent was taken.
    pub lamports: i64,
}

/// An answer about the node's newest state, and the slot of that state.
#[derive(Debug, Deserialize)]
pub(super) struct AtSlot<T> {
    pub context: Context,
    pub value: T,
}

#[derive(Debug, Deserialize)]
pub(super) struct Context {
    pub slot: u64,
}

#[derive(Debug, Deserialize)]
pub(super) struct Lamports {
    pub lamports: u64,
}

/// A token account, parsed by the node.
#[derive(Debug, Deserialize)]
pub(super) struct Keyed<T> {
    pub pubkey: String,
    pub account: Parsed<T>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Parsed<T> {
    /// The program that owns the account.
    pub owner: String,
    pub data: ParsedData<T>,
}

#[derive(Debug, Deserialize)]
pub(super) struct ParsedData<T> {
    pub parsed: Info<T>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Info<T> {
    pub info: T,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct TokenAccount {
    pub mint: String,
    pub owner: String,
    pub state: String,
    pub token_amount: OwnedTokenAmount,
}

#[derive(Debug, Deserialize)]
pub(super) struct OwnedTokenAmount {
    pub amount: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct Mint {
    pub decimals: u8,
}

/// A transaction with its instructions.
#[derive(Debug, Deserialize)]
pub(super) struct Full {
    pub slot: u64,
    pub transaction: FullTransaction,
    pub meta: Option<FullMeta>,
}

#[derive(Debug, Deserialize)]
pub(super) struct FullTransaction {
    pub message: Message,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Message {
    pub account_keys: Vec<String>,
    pub instructions: Vec<Instruction>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Instruction {
    pub program_id_index: usize,
    /// Base58.
    pub data: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct FullMeta {
    #[serde(default)]
    pub inner_instructions: Option<Vec<Inner>>,
    #[serde(default)]
    pub loaded_addresses: Option<Loaded>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Inner {
    /// Of the top-level instruction that called these.
    pub index: usize,
    pub instructions: Vec<Instruction>,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct Loaded {
    pub writable: Vec<String>,
    pub readonly: Vec<String>,
}
