//! The place of a movement inside its transaction, as bytes: short in the store, and a part of the id.

use crate::chain::Ordinal;

const TX: u8 = 0;
const LOG: u8 = 1;
const TRACE: u8 = 2;
const FEE: u8 = 3;
const ACCOUNT: u8 = 4;
const OWNER: u8 = 5;
const REST: u8 = 6;
const WITHDRAWAL: u8 = 7;
const REWARD: u8 = 8;
const OPENING_SETTLED: u8 = 9;
const OPENING_UNSETTLED: u8 = 10;
const ADJUSTMENT: u8 = 11;
const PROOF: u8 = 12;
const OWN: u8 = 13;

/// LEB128: seven bits a byte, the lowest first.
fn push(out: &mut Vec<u8>, mut value: u64) {
    loop {
        let [low, ..] = value.to_le_bytes();
        value >>= 7;
        if value == 0 {
            out.push(low & 0x7f);
            return;
        }
        out.push(low | 0x80);
    }
}

fn take(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        let part = u64::from(byte & 0x7f);
        if part << shift >> shift != part {
            return None;
        }
        value |= part << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// The kind of place, then its numbers.
#[must_use]
pub fn ordinal_bytes(ordinal: &Ordinal) -> Vec<u8> {
    let mut out = Vec::with_capacity(8);
    let mut numbered = |kind: u8, numbers: &[u64]| {
        out.push(kind);
        for &number in numbers {
            push(&mut out, number);
        }
    };
    match ordinal {
        Ordinal::Tx => numbered(TX, &[]),
        Ordinal::Log(index) => numbered(LOG, &[u64::from(*index)]),
        Ordinal::Trace(path) => {
            out.push(TRACE);
            for &step in path {
                push(&mut out, u64::from(step));
            }
        }
        Ordinal::Fee => numbered(FEE, &[]),
        Ordinal::Own(index) => numbered(OWN, &[u64::from(*index)]),
        Ordinal::Account(index) => numbered(ACCOUNT, &[u64::from(*index)]),
        Ordinal::Owner(rank) => numbered(OWNER, &[u64::from(*rank)]),
        Ordinal::Rest(rank) => numbered(REST, &[u64::from(*rank)]),
        Ordinal::Withdrawal(index) => numbered(WITHDRAWAL, &[*index]),
        Ordinal::Reward(index) => numbered(REWARD, &[u64::from(*index)]),
        Ordinal::OpeningSettled(number) => numbered(OPENING_SETTLED, &[*number]),
        Ordinal::OpeningUnsettled(number) => numbered(OPENING_UNSETTLED, &[*number]),
        Ordinal::Adjustment(number) => numbered(ADJUSTMENT, &[*number]),
        Ordinal::Proof(number, count) => numbered(PROOF, &[*number, u64::from(*count)]),
    }
    out
}

/// The inverse of [`ordinal_bytes`]; `None` for anything else.
#[must_use]
pub fn read_ordinal(bytes: &[u8]) -> Option<Ordinal> {
    let (&kind, mut rest) = bytes.split_first()?;
    let rest = &mut rest;
    let short = |rest: &mut &[u8]| u32::try_from(take(rest)?).ok();
    let ordinal = match kind {
        TX => Ordinal::Tx,
        LOG => Ordinal::Log(short(rest)?),
        TRACE => {
            let mut path = Vec::new();
            while !rest.is_empty() {
                path.push(short(rest)?);
            }
            Ordinal::Trace(path)
        }
        FEE => Ordinal::Fee,
        OWN => Ordinal::Own(short(rest)?),
        ACCOUNT => Ordinal::Account(short(rest)?),
        OWNER => Ordinal::Owner(short(rest)?),
        REST => Ordinal::Rest(short(rest)?),
        WITHDRAWAL => Ordinal::Withdrawal(take(rest)?),
        REWARD => Ordinal::Reward(short(rest)?),
        OPENING_SETTLED => Ordinal::OpeningSettled(take(rest)?),
        OPENING_UNSETTLED => Ordinal::OpeningUnsettled(take(rest)?),
        ADJUSTMENT => Ordinal::Adjustment(take(rest)?),
        PROOF => Ordinal::Proof(take(rest)?, short(rest)?),
        _ => return None,
    };
    rest.is_empty().then_some(ordinal)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_ordinal() -> impl Strategy<Value = Ordinal> {
        prop_oneof![
            Just(Ordinal::Tx),
            any::<u32>().prop_map(Ordinal::Log),
            prop::collection::vec(any::<u32>(), 0..6).prop_map(Ordinal::Trace),
            Just(Ordinal::Fee),
            any::<u32>().prop_map(Ordinal::Own),
            any::<u32>().prop_map(Ordinal::Account),
            any::<u32>().prop_map(Ordinal::Owner),
            any::<u32>().prop_map(Ordinal::Rest),
            any::<u64>().prop_map(Ordinal::Withdrawal),
            any::<u32>().prop_map(Ordinal::Reward),
            any::<u64>().prop_map(Ordinal::OpeningSettled),
            any::<u64>().prop_map(Ordinal::OpeningUnsettled),
            any::<u64>().prop_map(Ordinal::Adjustment),
            (any::<u64>(), any::<u32>()).prop_map(|(at, count)| Ordinal::Proof(at, count)),
        ]
    }

    proptest! {
        #[test]
        fn every_ordinal_survives_its_bytes(ordinal in any_ordinal()) {
            prop_assert_eq!(read_ordinal(&ordinal_bytes(&ordinal)), Some(ordinal));
        }

        #[test]
        fn bytes_that_are_no_ordinal_are_refused_and_never_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..24),
        ) {
            if let Some(ordinal) = read_ordinal(&bytes) {
                // A number may be written longer than it need be, but it is read as the same place.
                prop_assert_eq!(read_ordinal(&ordinal_bytes(&ordinal)), Some(ordinal));
            }
        }
    }

    #[test]
    fn the_bytes_of_an_ordinal_stay_what_they_are_because_ids_are_made_of_them() {
        assert_eq!(ordinal_bytes(&Ordinal::Tx), [0]);
        assert_eq!(ordinal_bytes(&Ordinal::Log(300)), [1, 0xac, 2]);
        assert_eq!(ordinal_bytes(&Ordinal::Trace(vec![0, 1])), [2, 0, 1]);
        assert_eq!(ordinal_bytes(&Ordinal::Proof(5, 1)), [12, 5, 1]);
        assert_eq!(read_ordinal(&[]), None);
        assert_eq!(read_ordinal(&[0, 0]), None, "nothing may follow");
        assert_eq!(ordinal_bytes(&Ordinal::Own(1)), [13, 1]);
        assert_eq!(read_ordinal(&[14]), None);
        assert_eq!(read_ordinal(&[1, 0x80]), None, "cut short");
    }
}
