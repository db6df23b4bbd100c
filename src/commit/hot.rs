//! What the newest commits read and wrote, kept for the next one.
//!
//! The chain's follower is the only one who changes its balances and watches, so what a commit has left is what the
//! next one finds. What others may change (holds) raises a balance's version: the write is refused then, and
//! everything is read anew. Changes are taken over when they are decided; if they are not written, nothing is kept.

use crate::{
    chain::{Address, AssetKey},
    ledger::{
        Changes, Known,
        changes::AssetChange,
        known::{HashMap, HashSet, Unsettled},
    },
    model::{Asset, AssetNo, Balance, Cursor, WalletNo, Watch},
};

/// Addresses, wallets and assets kept at most; past that all is forgotten, and what is needed is read again.
const MOST: usize = 50_000;

/// The part of a chain's ledger that was touched lately.
#[derive(Debug, Default)]
pub(super) struct Hot {
    /// What was read or written; its unsettled transfers are of one step only.
    pub known: Known,
    /// Wallets all of whose balances are known.
    wallets: HashSet<WalletNo>,
    /// What the newest changes leave: whoever builds upon another cursor knows nothing.
    cursor: Option<Cursor>,
}

impl Hot {
    /// Whether what is known is what `cursor` builds upon, and stays when a step begins.
    pub fn continues(&self, cursor: &Cursor) -> bool {
        let Known { watches, assets, .. } = &self.known;
        let full = watches.len() > MOST || self.wallets.len() > MOST || assets.len() > MOST;
        !full && self.cursor.as_ref() == Some(cursor)
    }

    /// Makes ready for a step that builds upon `cursor`.
    pub fn begin(&mut self, cursor: &Cursor) {
        if !self.continues(cursor) {
            *self = Self { cursor: Some(cursor.clone()), ..Self::default() };
        }
        self.known.unsettled = Unsettled::default();
    }

    /// The addresses among these whose watches are not known.
    pub fn unknown_addresses(&self, addresses: HashSet<Address>) -> Vec<Address> {
        let known = &self.known.watches;
        addresses.into_iter().filter(|address| !known.contains_key(address)).collect()
    }

    /// The wallets among these whose balances are not known.
    pub fn unknown_wallets(&self, wallets: HashSet<WalletNo>) -> Vec<WalletNo> {
        wallets.into_iter().filter(|wallet| !self.wallets.contains(wallet)).collect()
    }

    /// The assets among these that are not known.
    pub fn unknown_assets(&self, keys: HashSet<AssetKey>) -> Vec<AssetKey> {
        keys.into_iter().filter(|key| !self.known.assets.contains_key(key)).collect()
    }

    /// The assets among these that are not known.
    pub fn unknown_numbers(&self, numbers: &HashSet<AssetNo>) -> Vec<AssetNo> {
        if numbers.is_empty() {
            return Vec::new();
        }
        let known: HashSet<AssetNo> = self.known.assets.values().map(|asset| asset.no).collect();
        numbers.difference(&known).copied().collect()
    }

    pub fn learn_watches(&mut self, watches: HashMap<Address, Vec<Watch>>) {
        self.known.watches.extend(watches);
    }

    /// All balances of `wallets`.
    pub fn learn_balances(
        &mut self,
        wallets: Vec<WalletNo>,
        balances: HashMap<(WalletNo, AssetNo), Balance>,
    ) {
        self.known.balances.extend(balances);
        self.wallets.extend(wallets);
    }

    pub fn learn_assets(&mut self, assets: impl IntoIterator<Item = Asset>) {
        self.known.assets.extend(assets.into_iter().map(|asset| (asset.key, asset)));
    }

    /// Takes over what was decided. What is known of another cursor than the one that it was decided upon (a
    /// rewind has moved it, say) is forgotten.
    pub fn take_over(&mut self, changes: &Changes) {
        if self.cursor.as_ref() != Some(&changes.from) {
            self.forget();
        }
        let watches = &changes.watches;
        let moved = !watches.opened.is_empty()
            || !watches.closed.is_empty()
            || watches.reopened.as_ref().is_some_and(|(_, places)| !places.is_empty())
            || !changes.safes.is_empty();
        if moved {
            // Rare, and a watch more or less changes who sees a movement: read them again.
            self.known.watches.clear();
        }
        for change in &changes.balances {
            let balance =
                Balance { version: change.balance.version.saturating_add(1), ..change.balance };
            if self.wallets.contains(&change.wallet) {
                self.known.balances.insert((change.wallet, change.asset), balance);
            }
        }
        for change in &changes.assets {
            let (AssetChange::New(asset)
            | AssetChange::Changed { after: asset, .. }
            | AssetChange::Opened(asset)) = change;
            self.known.assets.insert(asset.key, asset.clone());
        }
        self.cursor = Some(changes.cursor.clone());
    }

    /// Forgets everything.
    pub fn forget(&mut self) {
        *self = Self::default();
    }
}
