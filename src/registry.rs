//! Which addresses are watched, in memory: the cost of a block does not depend on how many there are.
//!
//! One index of raw address bytes for all chains of the process; each address carries a bit per chain. It
//! says only *whether* an address is watched, never for whom: that is one look-up in the store, for the few
//! movements that match. It may hold more than the store (an address just closed), never less: each
//! follower adds what it opens before it connects the next block.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use parking_lot::RwLock;

use crate::chain::{Address, ChainName};

/// One bit per chain.
type Mask = u32;

/// How many chains one process can follow.
pub const MAX_CHAINS: usize = Mask::BITS as usize;

/// The index of all chains; cloning shares it.
#[derive(Clone, Default)]
pub struct Registry {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    /// EVM and Tron: 20 bytes.
    short: RwLock<HashMap<[u8; 20], Mask>>,
    /// Solana: 32 bytes.
    long: RwLock<HashMap<[u8; 32], Mask>>,
    chains: RwLock<Vec<ChainName>>,
}

/// One chain's view of the index.
#[derive(Clone)]
pub struct Watchlist {
    inner: Arc<Inner>,
    bit: Mask,
    count: Arc<AtomicUsize>,
}

impl Registry {
    /// The part of one chain. Ask once per chain: the count is this view's own.
    ///
    /// # Panics
    /// Past [`MAX_CHAINS`] chains, which the configuration refuses.
    pub fn watchlist(&self, chain: &ChainName) -> Watchlist {
        let mut chains = self.inner.chains.write();
        let index = chains.iter().position(|known| known == chain).unwrap_or_else(|| {
            chains.push(chain.clone());
            chains.len() - 1
        });
        assert!(index < MAX_CHAINS, "more than {MAX_CHAINS} chains in one process");
        Watchlist { inner: Arc::clone(&self.inner), bit: 1 << index, count: Arc::default() }
    }
}

impl Watchlist {
    #[must_use]
    pub fn contains(&self, address: &Address) -> bool {
        let bytes = address.as_slice();
        let mask = if let Ok(key) = <&[u8; 20]>::try_from(bytes) {
            self.inner.short.read().get(key).copied()
        } else if let Ok(key) = <&[u8; 32]>::try_from(bytes) {
            self.inner.long.read().get(key).copied()
        } else {
            None
        };
        mask.is_some_and(|mask| mask & self.bit != 0)
    }

    /// Adds addresses; those of a length that no family has are left out.
    pub fn insert(&self, addresses: impl IntoIterator<Item = Address>) {
        let mut short = self.inner.short.write();
        let mut long = self.inner.long.write();
        for address in addresses {
            let bytes = address.as_slice();
            let mask = if let Ok(key) = <[u8; 20]>::try_from(bytes) {
                short.entry(key).or_default()
            } else if let Ok(key) = <[u8; 32]>::try_from(bytes) {
                long.entry(key).or_default()
            } else {
                continue;
            };
            if *mask & self.bit == 0 {
                *mask |= self.bit;
                self.count.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    pub fn remove(&self, address: &Address) {
        fn clear<K: Eq + std::hash::Hash>(map: &mut HashMap<K, Mask>, key: &K, bit: Mask) -> bool {
            let Some(mask) = map.get_mut(key) else { return false };
            let had = *mask & bit != 0;
            *mask &= !bit;
            if *mask == 0 {
                map.remove(key);
            }
            had
        }
        let bytes = address.as_slice();
        let had = if let Ok(key) = <&[u8; 20]>::try_from(bytes) {
            clear(&mut self.inner.short.write(), key, self.bit)
        } else if let Ok(key) = <&[u8; 32]>::try_from(bytes) {
            clear(&mut self.inner.long.write(), key, self.bit)
        } else {
            false
        };
        if had {
            self.count.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// How many addresses are watched on this chain.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_watched_on_its_own_chains_only() {
        let registry = Registry::default();
        let base = registry.watchlist(&ChainName::new("base"));
        let ethereum = registry.watchlist(&ChainName::new("ethereum"));
        let address = Address::from([7; 20]);
        base.insert([address, address]);
        assert!(base.contains(&address) && !ethereum.contains(&address));
        assert_eq!((base.len(), ethereum.len()), (1, 0));
        ethereum.insert([address]);
        base.remove(&address);
        assert!(!base.contains(&address) && ethereum.contains(&address));
        assert_eq!((base.len(), ethereum.len()), (0, 1));
    }
}
