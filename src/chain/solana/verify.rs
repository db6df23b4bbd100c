//! Do the balances that a block states fit together?
//!
//! A block's hash covers its entries, which a node does not hand out; but every transaction states what each
//! of its accounts had before and after. A transaction that was doubled, altered, or left out between two
//! others of one of its accounts breaks that chain, and lamports must add up in each by itself. What this
//! cannot see, an account's first or last transaction of a block left out, is found when the ledger is
//! compared with the chain's state.

use std::collections::HashMap;

use super::{
    TOKEN, TOKEN_2022,
    json::{Meta, TokenBalance, Transaction},
};
use crate::chain::rpc::Failure;

/// What a token account holds: mint and base units; `None` for an account that is none.
type Tokens<'a> = Option<(&'a str, u64)>;

/// What the accounts of a block have after the transactions seen so far.
#[derive(Default)]
pub(super) struct Continuity<'a> {
    lamports: HashMap<&'a str, u64>,
    tokens: HashMap<&'a str, Tokens<'a>>,
}

/// Whether a transaction's lists belong to each other.
pub(super) fn shape(tx: &Transaction<'_>, meta: &Meta<'_>) -> Result<(), Failure> {
    let keys = tx.transaction.account_keys.len();
    if keys == 0 || tx.transaction.signatures.is_empty() {
        return Err(Failure::untrusted("transaction_shape", "a transaction without accounts"));
    }
    let tokens = [&meta.pre_token_balances, &meta.post_token_balances];
    let mut indexes = tokens.into_iter().flatten().flatten().map(|balance| balance.account_index);
    if meta.pre_balances.len() != keys
        || meta.post_balances.len() != keys
        || indexes.any(|index| index >= keys)
    {
        return Err(Failure::untrusted(
            "balance_lists",
            format!(
                "{keys} accounts with {} balances before and {} after",
                meta.pre_balances.len(),
                meta.post_balances.len()
            ),
        ));
    }
    Ok(())
}

impl<'a> Continuity<'a> {
    /// Takes in the next transaction of the block; its shape is known to be good.
    pub fn follow(&mut self, tx: &Transaction<'a>, meta: &Meta<'a>) -> Result<(), Failure> {
        let sum = |list: &[u64]| list.iter().map(|&lamports| u128::from(lamports)).sum::<u128>();
        let (before, after) = (sum(&meta.pre_balances), sum(&meta.post_balances));
        if before != after + u128::from(meta.fee) {
            return Err(Failure::untrusted(
                "lamports_conserved",
                format!("{before} lamports before, {after} and a fee of {} after", meta.fee),
            ));
        }
        let keys = &tx.transaction.account_keys;
        for (index, key) in keys.iter().enumerate() {
            let (before, after) = (meta.pre_balances[index], meta.post_balances[index]);
            if !key.writable && before == after {
                continue;
            }
            if self.lamports.insert(key.pubkey, after).is_some_and(|known| known != before) {
                return Err(Failure::untrusted(
                    "lamports_continue",
                    format!("account {} does not begin with what it was left with", key.pubkey),
                ));
            }
        }
        // A token account changes only in transactions that name its program.
        if !keys.iter().any(|key| key.pubkey == TOKEN || key.pubkey == TOKEN_2022) {
            return Ok(());
        }
        let (Some(before), Some(after)) = (&meta.pre_token_balances, &meta.post_token_balances)
        else {
            return Ok(());
        };
        let at = |list: &[TokenBalance<'a>], index: usize| -> Tokens<'a> {
            let found = list.iter().find(|balance| balance.account_index == index)?;
            Some((found.mint, found.amount.amount))
        };
        for (index, key) in keys.iter().enumerate().filter(|(_, key)| key.writable) {
            let (before, after) = (at(before, index), at(after, index));
            if before.is_none() && after.is_none() && !self.tokens.contains_key(key.pubkey) {
                continue;
            }
            if self.tokens.insert(key.pubkey, after).is_some_and(|known| known != before) {
                return Err(Failure::untrusted(
                    "tokens_continue",
                    format!(
                        "token account {} does not begin with what it was left with",
                        key.pubkey
                    ),
                ));
            }
        }
        Ok(())
    }
}
