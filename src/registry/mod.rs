//! Which addresses are watched, in memory: the cost of a block does not depend on how many there are.
//!
//! One index of raw address bytes for all chains of the process; each address is kept once, with the chains
//! that watch it. It says only *whether* an address is watched, never for whom: that is one look-up in the
//! store, for the few movements that match. It may hold more than the store (an address just closed), never
//! less: each follower adds what it opens before it connects the next block.

mod chains;
mod filter;
mod index;

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use parking_lot::{RwLock, RwLockReadGuard};

use self::{chains::Mask, index::Index};
use crate::chain::{Address, ChainName, PackedAddresses};

/// How many chains one process can follow.
pub const MAX_CHAINS: usize = Mask::BITS as usize;

/// Addresses added between two chances for a reader: a small fraction of a millisecond.
const AT_ONCE: usize = 4096;

/// The index of all chains; cloning shares it.
#[derive(Clone, Default)]
pub struct Registry {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    watched: RwLock<Watched>,
    chains: RwLock<Vec<(ChainName, Arc<AtomicUsize>)>>,
}

#[derive(Default)]
struct Watched {
    /// EVM and Tron: 20 bytes.
    short: Index<20>,
    /// Solana: 32 bytes.
    long: Index<32>,
}

/// One chain's view of the index; cloning shares it.
#[derive(Clone)]
pub struct Watchlist {
    inner: Arc<Inner>,
    chain: Mask,
    count: Arc<AtomicUsize>,
}

/// Looks up many addresses of one block. While it is held nothing is added or removed, so it is not kept for
/// longer, and its holder neither writes nor takes a second one.
pub struct Reader<'a> {
    watched: RwLockReadGuard<'a, Watched>,
    chain: Mask,
}

impl Registry {
    /// The part of one chain.
    ///
    /// # Panics
    /// Past [`MAX_CHAINS`] chains, which the configuration refuses.
    pub fn watchlist(&self, chain: &ChainName) -> Watchlist {
        let mut chains = self.inner.chains.write();
        let index = chains.iter().position(|(known, _)| known == chain).unwrap_or_else(|| {
            chains.push((chain.clone(), Arc::default()));
            chains.len() - 1
        });
        assert!(index < MAX_CHAINS, "more than {MAX_CHAINS} chains in one process");
        let count = Arc::clone(&chains[index].1);
        Watchlist { inner: Arc::clone(&self.inner), chain: 1 << index, count }
    }
}

impl Watchlist {
    /// For the look-ups of a whole block, which then wait for nobody.
    pub fn read(&self) -> Reader<'_> {
        Reader { watched: self.inner.watched.read(), chain: self.chain }
    }

    /// One look-up; a block has [`Watchlist::read`].
    #[must_use]
    pub fn contains(&self, address: &Address) -> bool {
        self.read().contains(address)
    }

    /// Adds addresses; those of a length that no family has are left out.
    pub fn insert(&self, addresses: impl IntoIterator<Item = Address>) {
        let (mut short, mut long) = (Vec::new(), Vec::new());
        for address in addresses {
            let bytes = address.as_slice();
            if let Ok(address) = <[u8; 20]>::try_from(bytes) {
                short.push(address);
            } else if let Ok(address) = <[u8; 32]>::try_from(bytes) {
                long.push(address);
            }
        }
        self.insert_all(&short, |watched| &mut watched.short);
        self.insert_all(&long, |watched| &mut watched.long);
    }

    /// The same for many, quickest when they are sorted.
    pub fn insert_packed(&self, addresses: PackedAddresses<'_>) {
        match addresses {
            PackedAddresses::Short(short) => self.insert_all(short, |watched| &mut watched.short),
            PackedAddresses::Long(long) => self.insert_all(long, |watched| &mut watched.long),
        }
    }

    fn insert_all<const N: usize>(
        &self,
        addresses: &[[u8; N]],
        index: impl Fn(&mut Watched) -> &mut Index<N>,
    ) {
        let mut sorted = Vec::new();
        let mut ordered = addresses;
        if !addresses.is_sorted_by(index::lower) {
            sorted.extend_from_slice(addresses);
            sorted.sort_unstable();
            sorted.dedup();
            ordered = &sorted;
        }
        for some in ordered.chunks(AT_ONCE) {
            let added = index(&mut self.inner.watched.write()).insert_sorted(some, self.chain);
            self.count.fetch_add(added, Ordering::Relaxed);
        }
    }

    /// Forgets all addresses of this chain. Look-ups for others wait for a small part of it at most.
    pub fn clear(&self) {
        for part in 0..Index::<20>::PARTS {
            let mut watched = self.inner.watched.write();
            watched.short.forget(part, self.chain);
            watched.long.forget(part, self.chain);
        }
        self.count.store(0, Ordering::Relaxed);
    }

    pub fn remove(&self, address: &Address) {
        let bytes = address.as_slice();
        let mut watched = self.inner.watched.write();
        let had = if let Ok(short) = <&[u8; 20]>::try_from(bytes) {
            watched.short.remove(short, self.chain)
        } else if let Ok(long) = <&[u8; 32]>::try_from(bytes) {
            watched.long.remove(long, self.chain)
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

impl Reader<'_> {
    #[must_use]
    pub fn contains(&self, address: &Address) -> bool {
        let bytes = address.as_slice();
        if let Ok(short) = <&[u8; 20]>::try_from(bytes) {
            self.watched.short.contains(short, self.chain)
        } else if let Ok(long) = <&[u8; 32]>::try_from(bytes) {
            self.watched.long.contains(long, self.chain)
        } else {
            false
        }
    }
}

#[cfg(test)]
mod tests;
