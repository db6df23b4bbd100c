//! Whose native balance each transaction of a block changed, as `prestateTracer` tells it in its `diffMode`.

use std::fmt;

use alloy::primitives::{Address as EvmAddress, B256, U256};
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};

/// One transaction of a traced block.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct TracedTx {
    /// Missing where the node is old: then its place in the block says which it is.
    pub tx_hash: Option<B256>,
    pub result: Option<Diff>,
}

/// The accounts that a transaction changed, before and after. What did not change is left out after it; an account
/// that is left out whole is gone.
#[derive(Debug, Deserialize)]
pub(super) struct Diff {
    pre: Accounts,
    post: Accounts,
}

/// A balance before and after a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::chain::evm) struct Change {
    pub address: EvmAddress,
    pub before: U256,
    pub after: U256,
}

impl Diff {
    /// The balances that changed.
    pub fn changes(&self) -> impl Iterator<Item = Change> {
        let known = self.pre.0.iter().map(|(address, before)| {
            let before = before.unwrap_or_default();
            let after = self.post.of(*address).map_or(U256::ZERO, |after| after.unwrap_or(before));
            Change { address: *address, before, after }
        });
        let is_new = |address: EvmAddress| self.pre.of(address).is_none();
        let new = self.post.0.iter().filter(move |(address, _)| is_new(*address)).map(
            |(address, after)| Change {
                address: *address,
                before: U256::ZERO,
                after: after.unwrap_or_default(),
            },
        );
        known.chain(new).filter(|change| change.before != change.after)
    }
}

/// Accounts and their balances, by address.
#[derive(Debug)]
struct Accounts(Vec<(EvmAddress, Option<U256>)>);

impl Accounts {
    fn of(&self, address: EvmAddress) -> Option<&Option<U256>> {
        let place = self.0.binary_search_by_key(&address, |(address, _)| *address).ok()?;
        Some(&self.0[place].1)
    }
}

#[derive(Deserialize)]
struct Account {
    balance: Option<U256>,
}

impl<'de> Deserialize<'de> for Accounts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Accounts;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("accounts by their addresses")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Accounts, A::Error> {
                let mut accounts = Vec::with_capacity(map.size_hint().unwrap_or(4));
                while let Some((address, account)) = map.next_entry::<EvmAddress, Account>()? {
                    accounts.push((address, account.balance));
                }
                accounts.sort_unstable_by_key(|(address, _)| *address);
                // Who stands there twice is taken as it stands first.
                accounts.dedup_by_key(|(address, _)| *address);
                Ok(Accounts(accounts))
            }

            fn visit_unit<E>(self) -> Result<Accounts, E> {
                Ok(Accounts(Vec::new()))
            }
        }
        deserializer.deserialize_any(Reader)
    }
}
