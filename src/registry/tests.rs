use std::collections::BTreeSet;

use proptest::prelude::*;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

use super::*;

/// Addresses as honest chains make them, and as somebody would choose them to crowd one place.
fn address(n: u16) -> Address {
    let hash = alloy::primitives::keccak256(n.to_be_bytes());
    let mut bytes = [0; 32];
    match n % 4 {
        0 => return Address::from_slice(&hash[..20]).expect("20 bytes"),
        // One behind the other.
        1 => bytes[18..20].copy_from_slice(&n.to_be_bytes()),
        // The same at both ends.
        2 => bytes[9..11].copy_from_slice(&n.to_be_bytes()),
        _ => {
            bytes.copy_from_slice(&hash[..]);
            bytes[0] = 0xff;
            return Address::from(bytes);
        }
    }
    Address::from_slice(&bytes[..20]).expect("20 bytes")
}

fn packed(numbers: impl IntoIterator<Item = u16>, width: usize) -> Vec<u8> {
    let addresses: BTreeSet<Address> = numbers.into_iter().map(address).collect();
    let of_width = addresses.iter().filter(|address| address.as_slice().len() == width);
    of_width.flat_map(Address::as_slice).copied().collect()
}

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
    assert_eq!(registry.watchlist(&ChainName::new("ethereum")).len(), 1, "it shares the count");
}

#[test]
fn an_address_of_20_bytes_is_not_the_one_of_32_that_begins_alike() {
    let watchlist = Registry::default().watchlist(&ChainName::new("base"));
    watchlist.insert([Address::from([7; 20])]);
    assert!(!watchlist.contains(&Address::from([7; 32])));
    watchlist.insert([Address::from([7; 32])]);
    watchlist.remove(&Address::from([7; 20]));
    assert!(watchlist.contains(&Address::from([7; 32])));
    assert_eq!(watchlist.len(), 1);
}

#[test]
fn readers_go_on_while_addresses_are_added_and_lose_none() {
    let watchlist = Registry::default().watchlist(&ChainName::new("base"));
    let addresses: Vec<Address> = (0..u16::MAX).step_by(4).map(address).collect();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut seen = 0;
            while seen < addresses.len() {
                let before = seen;
                let reader = watchlist.read();
                seen = addresses.iter().take_while(|address| reader.contains(address)).count();
                assert!(before <= seen, "{before} were there, now {seen}");
            }
        });
        for some in addresses.chunks(100) {
            watchlist.insert(some.iter().copied());
        }
    });
    assert_eq!(watchlist.len(), addresses.len());
}

#[test]
fn addresses_chosen_to_crowd_one_place_are_told_apart() {
    const COUNT: u32 = 20_000;
    // All but three bytes are the same; the highest come first.
    let crowded = |n: u32| {
        let mut bytes = [0x5a; 20];
        bytes[9..12].copy_from_slice(&n.to_be_bytes()[1..]);
        Address::from(bytes)
    };
    let watchlist = Registry::default().watchlist(&ChainName::new("base"));
    for n in (0..COUNT).rev() {
        watchlist.insert([crowded(2 * n)]);
    }
    let reader = watchlist.read();
    assert!((0..COUNT).all(|n| reader.contains(&crowded(2 * n))));
    assert!(!(0..COUNT).any(|n| reader.contains(&crowded(2 * n + 1))));
}

#[test]
fn an_address_of_an_evm_chain_takes_24_bytes_of_memory() {
    fn random(seed: u64, count: usize) -> Vec<[u8; 20]> {
        let mut random = StdRng::seed_from_u64(seed);
        (0..count).map(|_| random.random()).collect()
    }
    const LOADED: usize = 600_000;
    const ADDED: usize = 100_000;
    let mut index = Index::default();
    let mut loaded = random(1, LOADED);
    loaded.sort_unstable();
    for some in loaded.chunks(16_384) {
        index.insert_sorted(some, 1);
    }
    assert!(index.bytes() <= 24 * LOADED, "{} bytes when they were loaded", index.bytes());
    for mut some in random(2, ADDED).chunks(100).map(<[_]>::to_vec) {
        some.sort_unstable();
        index.insert_sorted(&some, 1);
    }
    let all = LOADED + ADDED;
    assert!(index.bytes() <= 24 * all, "{} bytes when more were registered", index.bytes());
}

#[derive(Clone, Debug)]
enum Step {
    Insert(usize, Vec<u16>),
    InsertPacked(usize, u16, u16),
    Remove(usize, Vec<u16>),
    Clear(usize),
}

/// Numbers of addresses: few enough to meet again, more than fit into a page.
const NUMBERS: u16 = 3000;

fn step() -> impl Strategy<Value = Step> {
    let some = || prop::collection::vec(0..NUMBERS, 1..300);
    prop_oneof![
        3 => (0..3_usize, some()).prop_map(|(chain, some)| Step::Insert(chain, some)),
        1 => (0..3_usize, 0..NUMBERS, 0..NUMBERS)
            .prop_map(|(chain, from, count)| Step::InsertPacked(chain, from, count)),
        2 => (0..3_usize, some()).prop_map(|(chain, some)| Step::Remove(chain, some)),
        1 => (0..3_usize).prop_map(Step::Clear),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn each_chain_watches_exactly_what_was_inserted_and_not_removed_or_forgotten(
        steps in prop::collection::vec(step(), 1..40),
    ) {
        let registry = Registry::default();
        let chains = ["ethereum", "base", "solana"].map(ChainName::new);
        let watchlists = chains.each_ref().map(|chain| registry.watchlist(chain));
        let mut model: [BTreeSet<Address>; 3] = Default::default();
        for step in steps {
            match step {
                Step::Insert(chain, numbers) => {
                    watchlists[chain].insert(numbers.iter().copied().map(address));
                    model[chain].extend(numbers.into_iter().map(address));
                }
                Step::InsertPacked(chain, from, count) => {
                    let numbers = from..from.saturating_add(count).min(NUMBERS);
                    for width in [20, 32] {
                        let bytes = packed(numbers.clone(), width);
                        let packed = PackedAddresses::new(&bytes, bytes.len() / width);
                        watchlists[chain].insert_packed(packed.expect("whole addresses"));
                    }
                    model[chain].extend(numbers.map(address));
                }
                Step::Clear(chain) => {
                    watchlists[chain].clear();
                    model[chain].clear();
                }
                Step::Remove(chain, numbers) => {
                    for address in numbers.into_iter().map(address) {
                        watchlists[chain].remove(&address);
                        model[chain].remove(&address);
                    }
                }
            }
            for (watchlist, model) in watchlists.iter().zip(&model) {
                prop_assert_eq!(watchlist.len(), model.len());
            }
        }
        for (watchlist, model) in watchlists.iter().zip(&model) {
            let reader = watchlist.read();
            for address in (0..NUMBERS).map(address) {
                prop_assert_eq!(reader.contains(&address), model.contains(&address), "{:?}", address);
            }
        }
    }
}
