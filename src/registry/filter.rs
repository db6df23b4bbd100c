//! A Bloom filter in front of the exact index: says quickly that an address is not there.
//!
//! All bits of an address are in one word, so a look-up touches one place in memory and needs no branch.
//! Nothing rests on the hash, so it needs no seed: addresses that are chosen to collide send look-ups on to the
//! exact index, which takes a microsecond among millions.

/// Bits of the filter for each address when it is full; one look-up in fifty is then sent on for nothing.
const BITS_PER_ADDRESS: usize = 10;

/// Bits set for each address; six bits of its hash choose one.
const BITS_SET: u32 = 4;

/// A filter for a number of addresses that is chosen when it is made.
#[derive(Debug, Default)]
pub struct Filter {
    words: Vec<u64>,
    /// How many addresses it still takes.
    room: usize,
}

impl Filter {
    /// An empty filter for `count` addresses.
    pub fn with_room(count: usize) -> Self {
        Self { words: vec![0; (count * BITS_PER_ADDRESS).div_ceil(64)], room: count }
    }

    /// How many addresses it still takes before it says `true` too often.
    pub fn room(&self) -> usize {
        self.room
    }

    pub fn insert<const N: usize>(&mut self, address: &[u8; N]) {
        self.room = self.room.saturating_sub(1);
        let (at, bits) = self.place(address);
        if let Some(word) = self.words.get_mut(at) {
            *word |= bits;
        }
    }

    /// `false` only if the address was never inserted.
    pub fn may_contain<const N: usize>(&self, address: &[u8; N]) -> bool {
        let (at, bits) = self.place(address);
        self.words.get(at).is_some_and(|word| word & bits == bits)
    }

    /// The word and the bits in it that belong to an address.
    fn place<const N: usize>(&self, address: &[u8; N]) -> (usize, u64) {
        let hash = hash(address);
        let bits = (0..BITS_SET).fold(0, |bits, n| bits | 1_u64 << ((hash >> (6 * n)) & 63));
        // The hash as a fraction of all the words.
        let (_, at) = hash.carrying_mul(self.words.len() as u64, 0);
        (usize::try_from(at).unwrap_or(usize::MAX), bits)
    }
}

/// Folds the product of both ends of an address, which has eight bytes at least.
fn hash<const N: usize>(address: &[u8; N]) -> u64 {
    let word = |bytes: &[u8]| bytes.try_into().map_or(0, u64::from_le_bytes);
    let (head, tail) = (word(&address[..8]), word(&address[N - 8..]));
    // The first digits of pi: any odd-looking numbers would do.
    let (low, high) = (head ^ 0x243f_6a88_85a3_08d3).carrying_mul(tail ^ 0x1319_8a2e_0370_7344, 0);
    low ^ high
}

#[cfg(test)]
impl Filter {
    /// What it has taken of memory beside itself.
    pub fn bytes(&self) -> usize {
        self.words.capacity() * size_of::<u64>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(n: u64) -> [u8; 20] {
        let hash = alloy::primitives::keccak256(n.to_be_bytes());
        hash[..20].try_into().expect("20 of 32 bytes")
    }

    #[test]
    fn what_was_inserted_may_be_contained_and_little_else() {
        let mut filter = Filter::with_room(1000);
        (0..1000).for_each(|n| filter.insert(&address(n)));
        assert_eq!(filter.room(), 0);
        assert!((0..1000).all(|n| filter.may_contain(&address(n))));
        let wrong = (1000..101_000).filter(|n| filter.may_contain(&address(*n))).count();
        assert!(wrong < 4_000, "{wrong} of 100,000");
        assert!(!Filter::default().may_contain(&address(0)));
    }
}
