//! Which of the registrations that were asked for together are made, and what they add. Pure.

use std::collections::{BTreeMap, btree_map::Entry};

use super::Register;
use crate::{
    chain::{ChainName, Family},
    clock::Millis,
    id::{AccountId, Ids, TenantId, WalletId},
    model::{
        AccountKey, ChainNo, HistoryStatus, LocatorKey, LocatorKind, NewWallet, NewWatch,
        Registrations, TenantNo, Wallet, WalletChain, WalletKind, WatchKey, WatchStatus,
    },
};

/// What the store has of what is asked for.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub watched: BTreeMap<WatchKey, WalletId>,
    pub accounts: BTreeMap<AccountKey, AccountId>,
    pub locators: BTreeMap<LocatorKey, AccountId>,
}

/// A registration with the numbers of what it names.
#[derive(Debug)]
pub(super) struct Asked<'a> {
    pub tenant: TenantNo,
    pub tenant_id: TenantId,
    /// By name.
    pub chains: Vec<AskedChain<'a>>,
    pub register: &'a Register,
}

#[derive(Debug)]
pub(super) struct AskedChain<'a> {
    pub no: ChainNo,
    pub name: &'a ChainName,
    pub from_block: Option<u64>,
}

impl Asked<'_> {
    pub fn key(&self, chain: &AskedChain<'_>) -> WatchKey {
        (self.tenant, chain.no, self.register.address)
    }
}

/// Why a registration is not made.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The tenant watches the address on this chain already.
    Exists { chain: ChainName, wallet: WalletId },
    /// The locator names another account.
    NamesAnother { kind: LocatorKind, account: AccountId },
}

/// Decides one registration after the other, each on what the ones before have added.
#[derive(Debug)]
pub(super) struct Deciding<'a> {
    known: Known,
    ids: &'a Ids,
    now: Millis,
    new: Registrations,
    /// Which of the new wallets is the primary one.
    primary: BTreeMap<(AccountId, Family), usize>,
}

impl<'a> Deciding<'a> {
    pub fn new(known: Known, ids: &'a Ids, now: Millis) -> Self {
        Self { known, ids, now, new: Registrations::default(), primary: BTreeMap::new() }
    }

    /// What is to be written.
    pub fn finish(self) -> Registrations {
        self.new
    }

    /// The wallet as it is made, or why it is not; then nothing is added.
    pub fn register(&mut self, asked: &Asked<'_>) -> Result<Wallet, Refusal> {
        let (tenant, register) = (asked.tenant_id, asked.register);
        let (account_id, is_new) = self.account(tenant, register)?;
        for chain in &asked.chains {
            if let Some(&wallet) = self.known.watched.get(&asked.key(chain)) {
                return Err(Refusal::Exists { chain: chain.name.clone(), wallet });
            }
        }
        let id: WalletId = self.ids.next();
        if let (Some(account), Some(owner)) = (account_id, &register.owner) {
            if is_new {
                let key = (tenant, owner.external_id.clone());
                self.known.accounts.insert(key.clone(), account);
                self.new.accounts.push((key, account));
            }
            for (kind, value) in &owner.locators {
                let key = (tenant, *kind, value.clone());
                if let Entry::Vacant(vacant) = self.known.locators.entry(key.clone()) {
                    vacant.insert(account);
                    self.new.locators.push((key, account));
                }
            }
            if register.is_primary {
                self.promote(account, is_new, register.family);
            }
        }
        for chain in &asked.chains {
            let key = asked.key(chain);
            self.known.watched.insert(key, id);
            self.new.watches.push(NewWatch { key, wallet: id, from_block: chain.from_block });
        }
        let new = NewWallet {
            id,
            tenant: asked.tenant,
            tenant_id: tenant,
            account_id,
            family: register.family,
            address: register.address,
            kind: if register.safe.is_some() { WalletKind::Safe } else { WalletKind::Eoa },
            safe: register.safe.clone(),
            client_reference_id: register.client_reference_id.clone(),
            nickname: register.nickname.clone(),
            is_primary: register.is_primary,
        };
        let requested = |chain: &AskedChain<'_>| WalletChain {
            chain: chain.name.clone(),
            status: WatchStatus::Requested,
            from_block: chain.from_block,
            history: chain.from_block.map(|_| HistoryStatus::Wanted),
            history_method: None,
            opened: None,
            opened_time: None,
            covered_from: None,
            untraced: None,
            head: None,
            deployment: None,
            safe: None,
        };
        let wallet = new.requested(asked.chains.iter().map(requested).collect(), self.now);
        self.new.wallets.push(new);
        Ok(wallet)
    }

    /// The owner's account, and whether it has yet to be made.
    fn account(
        &self,
        tenant: TenantId,
        asked: &Register,
    ) -> Result<(Option<AccountId>, bool), Refusal> {
        let Some(owner) = &asked.owner else { return Ok((None, false)) };
        let known = self.known.accounts.get(&(tenant, owner.external_id.clone())).copied();
        let id = known.unwrap_or_else(|| self.ids.next());
        for (kind, value) in &owner.locators {
            let named = self.known.locators.get(&(tenant, *kind, value.clone()));
            if let Some(&account) = named.filter(|&&account| account != id) {
                return Err(Refusal::NamesAnother { kind: *kind, account });
            }
        }
        Ok((Some(id), known.is_none()))
    }

    /// The next new wallet is the account's primary one, and no other.
    fn promote(&mut self, account: AccountId, is_new: bool, family: Family) {
        let next = self.new.wallets.len();
        if let Some(before) = self.primary.insert((account, family), next) {
            self.new.wallets[before].is_primary = false;
        } else if !is_new {
            self.new.primaries.push((account, family));
        }
    }
}

#[cfg(test)]
mod tests;
