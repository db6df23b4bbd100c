//! Where tokens keep balances: which slot of its storage a contract has for an address.

use alloy::primitives::{Address as EvmAddress, B256, U256, b256, keccak256};

use crate::chain::{Layout, Place};

/// Bits of a word.
const WHOLE: u16 = 256;
/// The smallest number that a balance is packed as: as large as 79 billion units of 18 decimals.
const LEAST: u16 = 96;
/// `erc7201:openzeppelin.storage.ERC20`, whose first member is the mapping (`OpenZeppelin`'s upgradeable tokens, 5.0).
const OPENZEPPELIN_5: B256 =
    b256!("52c63247e1f47db19d5ce0460030c497f067ca4cebf71ba98eeadabe20bace00");
/// Solady's `_BALANCE_SLOT_SEED`, behind the zeros that stand before it.
const SOLADY_SEED: [u8; 12] = [0, 0, 0, 0, 0, 0, 0, 0, 0x87, 0xa2, 0x11, 0xa2];
/// Mappings further behind than that are only tried where a node has named the slot.
const USUAL: u64 = 64;
const FURTHEST: u64 = 1024;

/// The slot of an address's balance.
pub(super) fn key(place: Place, owner: EvmAddress) -> B256 {
    let padded = owner.into_word();
    match place.layout {
        Layout::Solidity => keccak256([padded.0, place.slot].concat()),
        Layout::Vyper => keccak256([place.slot, padded.0].concat()),
        Layout::Solady => keccak256([owner.as_slice(), SOLADY_SEED.as_slice()].concat()),
    }
}

/// How many bits of a word a balance can be, the most first. USDC keeps a mark in the highest bit; others pack smaller
/// numbers with something else, in whole bytes.
fn widths() -> impl Iterator<Item = u16> {
    [WHOLE, WHOLE - 1].into_iter().chain((LEAST / 8..WHOLE / 8).rev().map(|bytes| bytes * 8))
}

/// The balance in a word; `None` if no balance has so many bits.
pub(super) fn balance(place: Place, word: U256) -> Option<U256> {
    widths().any(|bits| bits == place.bits).then(|| low_bits(word, place.bits))
}

fn low_bits(word: U256, bits: u16) -> U256 {
    word & (U256::MAX >> usize::from(WHOLE - bits))
}

/// All places that are known, with whole words; the usual ones first.
fn known(furthest: u64) -> impl Iterator<Item = Place> {
    let numbered = (0..=furthest).flat_map(|slot| {
        let slot = U256::from(slot).to_be_bytes();
        [Layout::Solidity, Layout::Vyper].map(|layout| Place { layout, slot, bits: WHOLE })
    });
    let special = [
        Place { layout: Layout::Solidity, slot: OPENZEPPELIN_5.0, bits: WHOLE },
        Place { layout: Layout::Solady, slot: [0; 32], bits: WHOLE },
    ];
    special.into_iter().chain(numbered)
}

/// The places that most tokens have.
pub(super) fn usual() -> Vec<Place> {
    known(USUAL).collect()
}

/// The known places that have one of `keys` for an address.
pub(super) fn named(owner: EvmAddress, keys: &[B256]) -> Vec<Place> {
    known(FURTHEST).filter(|place| keys.contains(&key(*place, owner))).collect()
}

/// A word to be put in a slot, to see what the contract makes of it: every byte of it is something.
pub(super) fn trial(seed: B256) -> U256 {
    let mut bytes = keccak256(seed).0;
    for byte in &mut bytes {
        *byte |= 1;
    }
    bytes[0] |= 0x80;
    U256::from_be_bytes(bytes)
}

/// Of how many of a trial's lowest bits a figure is made; `None` if it is something else.
pub(super) fn bits_of(figure: U256, trial: U256) -> Option<u16> {
    widths().find(|bits| low_bits(trial, *bits) == figure)
}

#[cfg(test)]
mod tests {
    use alloy::primitives::address;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_namespace_is_that_of_erc_7201() {
        let inner = keccak256("openzeppelin.storage.ERC20");
        let less = U256::from_be_bytes(inner.0) - U256::ONE;
        let mut slot = keccak256(less.to_be_bytes::<32>());
        slot.0[31] = 0;
        assert_eq!(slot, OPENZEPPELIN_5);
        let seed = keccak256("Solady.ERC20._BALANCE_SLOT_SEED");
        assert_ne!(seed.as_slice(), &SOLADY_SEED, "it is a constant of its own");
    }

    #[test]
    fn a_slot_is_made_as_each_compiler_makes_it() {
        let owner = address!("0x1111111111111111111111111111111111111111");
        let slot = U256::from(9).to_be_bytes();
        let of = |layout| key(Place { layout, slot, bits: WHOLE }, owner);
        let (padded, nine) = (format!("{:0>64}", "11".repeat(20)), format!("{:0>64}", 9));
        let hashed = |text: String| keccak256(alloy::hex::decode(text).expect("hexadecimal"));
        assert_eq!(of(Layout::Solidity), hashed(format!("{padded}{nine}")));
        assert_eq!(of(Layout::Vyper), hashed(format!("{nine}{padded}")));
        let solady = format!("{}{}87a211a2", "11".repeat(20), "00".repeat(8));
        assert_eq!(of(Layout::Solady), hashed(solady));
    }

    proptest! {
        #[test]
        fn a_place_is_found_by_the_slot_that_a_node_names(owner: [u8; 20], n in 0..=FURTHEST, vyper: bool) {
            let layout = if vyper { Layout::Vyper } else { Layout::Solidity };
            let place = Place { layout, slot: U256::from(n).to_be_bytes(), bits: WHOLE };
            let owner = EvmAddress::from(owner);
            let keys = [B256::ZERO, key(place, owner), B256::repeat_byte(7)];
            prop_assert_eq!(named(owner, &keys), vec![place]);
        }

        #[test]
        fn the_bits_of_a_balance_are_those_that_the_contract_reads(seed: [u8; 32], bytes in 12_u16..=32) {
            let trial = trial(seed.into());
            for bits in [bytes * 8, 255] {
                let figure = low_bits(trial, bits);
                prop_assert_eq!(bits_of(figure, trial), Some(bits));
            }
            prop_assert_eq!(bits_of(low_bits(trial, 88), trial), None);
            // A figure that is reckoned from the word, as a rebasing token's, is none of its bits.
            prop_assert_eq!(bits_of(trial >> 1, trial), None);
            prop_assert_eq!(bits_of(trial.wrapping_add(U256::ONE), trial), None);
        }
    }
}
