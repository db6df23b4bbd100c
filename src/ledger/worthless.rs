//! Movements that are no money: tokens that nobody configured, and amounts of nothing. Anybody can put as many as a
//! block holds to any address, for next to nothing.
//!
//! Of each transaction and address, the first few sides are recorded, in chain order; how many there were beside them
//! is said with the last of these. It depends on the transaction alone, so it is the same whichever block holds it and
//! however blocks are cut into commits. What moves money is never counted here.

use std::collections::hash_map::Entry;

use super::known::{HashMap, HashSet};
use crate::{
    chain::{Address, AssetKey, Movement, TxId},
    model::Direction,
};

/// What is not recorded of a block's movements, by their index and side.
#[derive(Clone, Debug, Default)]
pub struct Worthless {
    /// Sides of movements that are there for their other side.
    left_out: HashSet<(usize, Direction)>,
    /// How many sides are not recorded beside this one, the last recorded of its transaction and address.
    omitted: HashMap<(usize, Direction), u32>,
}

impl Worthless {
    /// Whether this side of a movement is not recorded.
    #[must_use]
    pub fn leaves_out(&self, movement: usize, direction: Direction) -> bool {
        !self.left_out.is_empty() && self.left_out.contains(&(movement, direction))
    }

    /// What is said with this side of a movement.
    #[must_use]
    pub fn omitted(&self, movement: usize, direction: Direction) -> Option<u32> {
        if self.omitted.is_empty() {
            return None;
        }
        self.omitted.get(&(movement, direction)).copied()
    }
}

/// The sides of one transaction and address.
struct Sides {
    recorded: u64,
    last: (usize, Direction),
    omitted: u32,
}

/// Takes all from a block's movements that is worthless for watched addresses, but for the first `most` sides of each
/// transaction and address.
pub fn cap(
    movements: &mut Vec<Movement>,
    most: u64,
    is_money: impl Fn(&AssetKey) -> bool,
    is_watched: impl Fn(&Address) -> bool,
) -> Worthless {
    let mut worthless = Worthless::default();
    let mut all: HashMap<(TxId, Address), Sides> = HashMap::default();
    let mut index = 0;
    movements.retain(|movement| {
        let is_kept = (!movement.amount.is_zero() && is_money(&movement.asset))
            || is_recorded(movement, index, most, &mut worthless, &mut all, &is_watched);
        index += usize::from(is_kept);
        is_kept
    });
    let said = all.into_values().filter(|sides| sides.recorded > 0 && sides.omitted > 0);
    worthless.omitted = said.map(|sides| (sides.last, sides.omitted)).collect();
    worthless
}

/// Whether a side of a worthless movement is among the first. `index` is its place if it stays.
fn is_recorded(
    movement: &Movement,
    index: usize,
    most: u64,
    worthless: &mut Worthless,
    all: &mut HashMap<(TxId, Address), Sides>,
    is_watched: impl Fn(&Address) -> bool,
) -> bool {
    let mut left_out = [None; 2];
    let mut is_recorded = false;
    let sides = [(movement.from, Direction::Out), (movement.to, Direction::In)];
    for ((address, direction), left_out) in sides.into_iter().zip(&mut left_out) {
        let Some(address) = address.filter(|address| is_watched(address)) else { continue };
        let sides = match all.entry((movement.tx, address)) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => {
                new.insert(Sides { recorded: 0, last: (index, direction), omitted: 0 })
            }
        };
        if sides.recorded < most {
            sides.recorded += 1;
            sides.last = (index, direction);
            is_recorded = true;
        } else {
            sides.omitted = sides.omitted.saturating_add(1);
            *left_out = Some((index, direction));
        }
    }
    if is_recorded {
        worthless.left_out.extend(left_out.into_iter().flatten());
    }
    is_recorded
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        chain::{Kind, Ordinal},
        ledger::testing::who,
    };

    const LISTED: [u8; 20] = [0xee; 20];

    fn movement(index: u32, (tx, from, to, listed, amount): (u8, u8, u8, bool, u64)) -> Movement {
        let token = if listed { LISTED } else { [0xbb; 20] };
        Movement {
            tx: TxId::from([tx; 32]),
            ordinal: Ordinal::Log(index),
            kind: Kind::Transfer,
            asset: AssetKey::Token(Address::from(token)),
            from: (from > 0).then(|| who(from)),
            to: (to > 0).then(|| who(to)),
            amount: amount.into(),
            memo: None,
        }
    }

    fn is_money(movement: &Movement) -> bool {
        !movement.amount.is_zero() && movement.asset == AssetKey::Token(Address::from(LISTED))
    }

    /// Addresses 1 to 3 are watched.
    fn capped(movements: &[Movement], most: u64) -> (Vec<Movement>, Worthless) {
        let mut kept = movements.to_vec();
        let listed = AssetKey::Token(Address::from(LISTED));
        let worthless = cap(
            &mut kept,
            most,
            |key| *key == listed,
            |address| (1..=3).any(|n| who(n) == *address),
        );
        (kept, worthless)
    }

    /// The worthless sides of a transaction and address, with what is said with each.
    fn sides(
        movements: &[Movement],
        worthless: &Worthless,
        tx: u8,
        address: u8,
    ) -> Vec<(Ordinal, Direction, Option<u32>)> {
        let mut sides = Vec::new();
        for (index, movement) in movements.iter().enumerate() {
            let own = [(movement.from, Direction::Out), (movement.to, Direction::In)];
            for (side, direction) in own {
                let is_own = side == Some(who(address)) && movement.tx == TxId::from([tx; 32]);
                if is_own && !is_money(movement) && !worthless.leaves_out(index, direction) {
                    let said = worthless.omitted(index, direction);
                    sides.push((movement.ordinal.clone(), direction, said));
                }
            }
        }
        sides
    }

    proptest! {
        #[test]
        fn the_first_sides_stay_the_rest_is_counted_and_money_is_untouched(
            moved in proptest::collection::vec(
                (0..3_u8, 0..5_u8, 0..5_u8, any::<bool>(), 0..2_u64), 0..120
            ),
            most in 0..5_u64,
        ) {
            let movements: Vec<Movement> =
                (0..).zip(moved).map(|(index, moved)| movement(index, moved)).collect();
            let (kept, worthless) = capped(&movements, most);
            let money = |all: &[Movement]| -> Vec<Movement> {
                all.iter().filter(|movement| is_money(movement)).cloned().collect()
            };
            prop_assert_eq!(money(&kept), money(&movements));
            for (index, movement) in kept.iter().enumerate() {
                for direction in [Direction::In, Direction::Out] {
                    let is_money = is_money(movement);
                    prop_assert!(!is_money || !worthless.leaves_out(index, direction));
                    prop_assert!(!is_money || worthless.omitted(index, direction).is_none());
                }
            }
            let mut recorded = 0;
            for (tx, address) in (0..3).flat_map(|tx| (1..=3).map(move |address| (tx, address))) {
                let mut first = sides(&movements, &Worthless::default(), tx, address);
                let most = usize::try_from(most).unwrap();
                let omitted = u32::try_from(first.len().saturating_sub(most)).unwrap();
                first.truncate(most);
                if let Some(last) = first.last_mut().filter(|_| omitted > 0) {
                    last.2 = Some(omitted);
                }
                recorded += first.len();
                prop_assert_eq!(sides(&kept, &worthless, tx, address), first);
            }
            // Nothing else stays.
            prop_assert!(kept.len() - money(&kept).len() <= recorded);
        }
    }
}
