//! The fields that are read of a node's answers; texts stay where they came in.
//!
//! Blocks are asked for with `transactionDetails: "accounts"`: all balances and all account keys, those of
//! look-up tables among them, and none of the instructions and logs.

use serde::{
    Deserialize, Deserializer,
    de::{self, IgnoredAny},
};
use serde_json::value::RawValue;

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

/// A transaction by itself, as `encoding: "jsonParsed"` shows it.
#[derive(Debug, Deserialize)]
pub(super) struct PastTransaction<'a> {
    pub slot: u64,
    #[serde(borrow)]
    transaction: PastBody<'a>,
    #[serde(borrow)]
    meta: Option<Meta<'a>>,
}

#[derive(Debug, Deserialize)]
struct PastBody<'a> {
    #[serde(borrow)]
    signatures: Vec<&'a str>,
    #[serde(borrow)]
    message: PastMessage<'a>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PastMessage<'a> {
    #[serde(borrow)]
    account_keys: Vec<AccountKey<'a>>,
}

/// In the shape that blocks have it in.
impl<'a> From<PastTransaction<'a>> for Transaction<'a> {
    fn from(PastTransaction { transaction, meta, .. }: PastTransaction<'a>) -> Self {
        let PastBody { signatures, message: PastMessage { account_keys } } = transaction;
        Self { transaction: Accounts { signatures, account_keys }, meta }
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

/// A transaction's instructions, as `encoding: "jsonParsed"` shows them.
#[derive(Debug, Deserialize)]
pub(super) struct Instructed<'a> {
    pub slot: u64,
    #[serde(borrow)]
    pub transaction: InstructedBody<'a>,
    #[serde(borrow)]
    pub meta: Option<InstructedMeta<'a>>,
}

#[derive(Debug, Deserialize)]
pub(super) struct InstructedBody<'a> {
    #[serde(borrow)]
    pub message: InstructedMessage<'a>,
}

#[derive(Debug, Deserialize)]
pub(super) struct InstructedMessage<'a> {
    #[serde(borrow)]
    pub instructions: Vec<Instruction<'a>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Instruction<'a> {
    pub program_id: &'a str,
    /// What the node makes of it: of a memo its text. Missing where the node does not know the program.
    #[serde(default, borrow)]
    pub parsed: Option<&'a RawValue>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct InstructedMeta<'a> {
    #[serde(default, borrow)]
    pub inner_instructions: Option<Vec<Inner<'a>>>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Inner<'a> {
    /// Of the top-level instruction that called these.
    pub index: usize,
    #[serde(borrow)]
    pub instructions: Vec<Instruction<'a>>,
}
