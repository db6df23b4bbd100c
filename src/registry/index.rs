//! The exact index of addresses of one length.
//!
//! The addresses are kept sorted, in pages of at most [`POSITIONS`]. The pages lie in shards by the leading
//! bits of their addresses, so that whatever is moved for one address is small. Each shard has a [`Filter`]
//! in front, because nearly all look-ups are for addresses that nobody watches.
//!
//! Addresses are chosen by strangers. Where millions crowd into one shard, a look-up takes one more step for
//! each doubling, an insertion moves the list of that shard's pages, and each time the shard has grown by an
//! eighth all of its addresses go into a new filter. Nothing gets slower than that.

use std::cmp::Ordering;

use super::{
    chains::{Chains, Mask, POSITIONS},
    filter::Filter,
};

/// How many leading bits of an address choose its shard.
const SHARD_BITS: u32 = 10;

/// How many addresses a page makes room for when it has none left.
const ROOM: usize = 8;

/// Addresses of `N` bytes, and for each the chains that watch it.
#[derive(Debug)]
pub struct Index<const N: usize> {
    shards: Vec<Shard<N>>,
}

/// The addresses with the same leading bits.
#[derive(Debug, Default)]
struct Shard<const N: usize> {
    /// Sorted; none is empty.
    pages: Vec<Page<N>>,
    filter: Filter,
}

/// Some neighbouring addresses.
#[derive(Debug)]
struct Page<const N: usize> {
    /// Not above the page's first address, and above all of the page before.
    from: [u8; N],
    /// Sorted, each once.
    addresses: Vec<[u8; N]>,
    chains: Chains,
}

impl<const N: usize> Default for Index<N> {
    fn default() -> Self {
        let mut shards = Vec::new();
        shards.resize_with(1 << SHARD_BITS, Shard::default);
        Self { shards }
    }
}

fn shard_of<const N: usize>(address: &[u8; N]) -> usize {
    usize::from(u16::from_be_bytes([address[0], address[1]]) >> (u16::BITS - SHARD_BITS))
}

/// The first eight bytes of an address as a number, in the order of addresses.
fn leading<const N: usize>(address: &[u8; N]) -> u64 {
    address.first_chunk().copied().map_or(0, u64::from_be_bytes)
}

/// Whether an address is lower than another one; nearly always the first bytes tell.
pub fn lower<const N: usize>(one: &[u8; N], other: &[u8; N]) -> bool {
    match leading(one).cmp(&leading(other)) {
        Ordering::Equal => one < other,
        order => order.is_lt(),
    }
}

/// The first of `len` places that is not `before`, as in [`slice::partition_point`], looked for around a guess:
/// a good one touches few places, a bad one costs twice the steps of a binary search.
fn gallop(len: usize, guess: u64, before: impl Fn(usize) -> bool) -> usize {
    if len == 0 {
        return 0;
    }
    let guess = usize::try_from(guess).map_or(len - 1, |guess| guess.min(len - 1));
    let (mut low, mut high) = (0, len);
    let mut step = 1;
    if before(guess) {
        low = guess + 1;
        while low + step <= len {
            if !before(low + step - 1) {
                high = low + step - 1;
                break;
            }
            low += step;
            step *= 2;
        }
    } else {
        high = guess;
        while high >= step {
            if before(high - step) {
                low = high - step + 1;
                break;
            }
            high -= step;
            step *= 2;
        }
    }
    while low < high {
        let middle = low + (high - low) / 2;
        if before(middle) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    low
}

impl<const N: usize> Index<N> {
    pub fn contains(&self, address: &[u8; N], chain: Mask) -> bool {
        let shard = &self.shards[shard_of(address)];
        shard.filter.may_contain(address) && shard.contains(address, chain)
    }

    /// Watches addresses on a chain and counts those that were not watched there before. They must be
    /// sorted, each once; many at once and new to the index cost little more than copying them.
    pub fn insert_sorted(&mut self, addresses: &[[u8; N]], chain: Mask) -> usize {
        let of_one_shard = addresses.chunk_by(|one, next| shard_of(one) == shard_of(next));
        of_one_shard.map(|some| self.shards[shard_of(&some[0])].insert_sorted(some, chain)).sum()
    }

    /// How many parts [`Index::forget`] works on.
    pub const PARTS: usize = 1 << SHARD_BITS;

    /// Watches no address of one part on a chain any more.
    pub fn forget(&mut self, part: usize, chain: Mask) {
        self.shards[part].forget(chain);
    }

    /// Watches an address on one chain less; `false` if it was not watched there.
    pub fn remove(&mut self, address: &[u8; N], chain: Mask) -> bool {
        self.shards[shard_of(address)].remove(address, chain)
    }
}

#[cfg(test)]
impl<const N: usize> Index<N> {
    /// What it has taken of memory, without what the allocator adds.
    pub fn bytes(&self) -> usize {
        let page = |page: &Page<N>| page.addresses.capacity() * N + page.chains.bytes();
        let shard = |shard: &Shard<N>| {
            let pages: usize = shard.pages.iter().map(page).sum();
            pages + shard.pages.capacity() * size_of::<Page<N>>() + shard.filter.bytes()
        };
        size_of_val(&self.shards[..]) + self.shards.iter().map(shard).sum::<usize>()
    }
}

impl<const N: usize> Shard<N> {
    /// Which page an address belongs to, if there is any.
    fn page_of(&self, address: &[u8; N]) -> usize {
        // Most addresses are as good as random: the bits after the leading ones say how far in it lies.
        let fraction = leading(address) << SHARD_BITS;
        let (_, guess) = fraction.carrying_mul(self.pages.len() as u64, 0);
        let above = gallop(self.pages.len(), guess, |at| !lower(address, &self.pages[at].from));
        above.saturating_sub(1)
    }

    /// The page of an address, and where in it the address is or would be.
    fn find(&self, address: &[u8; N]) -> Option<(usize, Result<usize, usize>)> {
        let at_page = self.page_of(address);
        let page = self.pages.get(at_page)?;
        let (from, of_shard) = (leading(&page.from), u64::MAX >> SHARD_BITS);
        let width = match self.pages.get(at_page + 1) {
            Some(next) => leading(&next.from) - from,
            None => of_shard - (from & of_shard),
        };
        let addresses = &page.addresses;
        // The lowest byte is left out, so that the product fits.
        let part = leading(address).saturating_sub(from) >> u8::BITS;
        let guess = part * addresses.len() as u64 / (width >> u8::BITS).max(1);
        let at = gallop(addresses.len(), guess, |at| lower(&addresses[at], address));
        let found = addresses.get(at).is_some_and(|there| there == address);
        Some((at_page, if found { Ok(at) } else { Err(at) }))
    }

    fn contains(&self, address: &[u8; N], chain: Mask) -> bool {
        match self.find(address) {
            Some((at_page, Ok(at))) => self.pages[at_page].chains.has(at, chain),
            _ => false,
        }
    }

    fn insert_sorted(&mut self, addresses: &[[u8; N]], chain: Mask) -> usize {
        let mut added = 0;
        for (at, address) in addresses.iter().enumerate() {
            let last = self.pages.last().and_then(|page| page.addresses.last());
            if last.is_none_or(|last| last < address) {
                self.append(&addresses[at..], chain);
                return added + addresses.len() - at;
            }
            added += usize::from(self.insert(address, chain));
        }
        added
    }

    /// Takes over addresses that are all above those that are there.
    fn append(&mut self, addresses: &[[u8; N]], chain: Mask) {
        let mut rest = addresses;
        if let Some(page) = self.pages.last_mut() {
            let room = POSITIONS - page.addresses.len();
            let (fitting, others) = rest.split_at(rest.len().min(room));
            page.make_room(fitting.len());
            for address in fitting {
                page.insert(page.addresses.len(), address, chain);
            }
            rest = others;
        }
        self.make_room(rest.len().div_ceil(POSITIONS));
        self.pages.extend(rest.chunks(POSITIONS).map(|addresses| Page {
            from: addresses[0],
            addresses: addresses.to_vec(),
            chains: Chains::only(chain),
        }));
        self.sift(addresses);
    }

    /// Watches an address on a chain; `false` if it was already.
    fn insert(&mut self, address: &[u8; N], chain: Mask) -> bool {
        let Some((at_page, place)) = self.find(address) else {
            self.append(&[*address], chain);
            return true;
        };
        let page = &mut self.pages[at_page];
        let len = page.addresses.len();
        match place {
            Ok(at) => page.chains.set(at, chain, len),
            Err(_) if len == POSITIONS => {
                let upper = page.split_off(len / 2);
                self.make_room(1);
                self.pages.insert(at_page + 1, upper);
                self.insert(address, chain)
            }
            Err(at) => {
                page.make_room(1);
                page.insert(at, address, chain);
                self.sift(&[*address]);
                true
            }
        }
    }

    fn remove(&mut self, address: &[u8; N], chain: Mask) -> bool {
        let Some((at_page, Ok(at))) = self.find(address) else { return false };
        let page = &mut self.pages[at_page];
        let len = page.addresses.len();
        let had = page.chains.clear(at, chain, len);
        if !page.chains.any(at) {
            page.addresses.remove(at);
            page.chains.remove(at, len);
            if page.addresses.is_empty() {
                self.pages.remove(at_page);
            } else if page.addresses.capacity() > page.addresses.len() + 2 * ROOM {
                page.addresses.shrink_to(page.addresses.len() + ROOM);
            }
        }
        had
    }

    fn forget(&mut self, chain: Mask) {
        for page in &mut self.pages {
            let len = page.addresses.len();
            let gone = page.chains.forget(chain, len);
            if gone.len() == len {
                page.addresses.clear();
                continue;
            }
            for (before, &at) in gone.iter().rev().enumerate() {
                page.addresses.remove(at);
                page.chains.remove(at, len - before);
            }
            page.addresses.shrink_to(page.addresses.len() + ROOM);
        }
        self.pages.retain(|page| !page.addresses.is_empty());
        self.pages.shrink_to_fit();
        self.filter = Filter::default();
        if !self.pages.is_empty() {
            self.sift_anew();
        }
    }

    /// Makes room for more pages: in all shards together, doubling it would leave much unused.
    fn make_room(&mut self, pages: usize) {
        if self.pages.capacity() - self.pages.len() < pages {
            self.pages.reserve_exact(pages + self.pages.len() / 8);
        }
    }

    /// Puts addresses that are in pages now into the filter, which is made anew if it has no room for them.
    fn sift(&mut self, addresses: &[[u8; N]]) {
        if self.filter.room() >= addresses.len() {
            for address in addresses {
                self.filter.insert(address);
            }
            return;
        }
        self.sift_anew();
    }

    /// Makes the filter anew, with room for an eighth more, without what was removed.
    fn sift_anew(&mut self) {
        let count: usize = self.pages.iter().map(|page| page.addresses.len()).sum();
        let mut filter = Filter::with_room(count + (count / 8).max(ROOM));
        for address in self.pages.iter().flat_map(|page| &page.addresses) {
            filter.insert(address);
        }
        self.filter = filter;
    }
}

impl<const N: usize> Page<N> {
    fn make_room(&mut self, addresses: usize) {
        if self.addresses.capacity() - self.addresses.len() < addresses {
            self.addresses.reserve_exact(addresses.max(ROOM));
        }
    }

    fn insert(&mut self, at: usize, address: &[u8; N], chain: Mask) {
        self.chains.insert(at, chain, self.addresses.len());
        self.addresses.insert(at, *address);
        self.from = self.from.min(*address);
    }

    /// Keeps the addresses below a position and gives the others.
    fn split_off(&mut self, at: usize) -> Self {
        let chains = self.chains.split_off(at, self.addresses.len());
        let mut addresses = Vec::with_capacity(self.addresses.len() - at + ROOM);
        addresses.extend(self.addresses.drain(at..));
        self.addresses.shrink_to(at + ROOM);
        Self { from: addresses[0], addresses, chains }
    }
}
