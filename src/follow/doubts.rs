//! Differences from the chain's own figures that are not confirmed yet.
//!
//! One node's word never changes settled money. A proof against the state root is enough; otherwise a difference
//! gathers points, once at each settled block at which it is seen: one for a single endpoint's word, three where
//! two endpoints agree. Money that came in needs three points, money that is gone five. What is booked then is the
//! least that was seen on the way; the rest stays in doubt.

use std::collections::BTreeMap;

use crate::{
    amount::Amount,
    chain::{Address, Certainty},
    ledger::reconcile::{Belief, Comparison},
    model::{AssetNo, BalanceRef, WalletNo},
};

const CREDIT: u32 = 3;
const DEBIT: u32 = 5;

/// How much a figure says.
fn points(certainty: Certainty) -> u32 {
    match certainty {
        Certainty::Disputed => 0,
        Certainty::Told => 1,
        Certainty::Agreed => 3,
        Certainty::Proven => DEBIT,
    }
}

#[derive(Clone, Copy, Debug)]
struct Doubt {
    balance: BalanceRef,
    credit: bool,
    least: Amount,
    points: u32,
    /// The settled block at which it was last seen.
    at: u64,
}

/// The open doubts of one chain, in memory: a new process begins anew.
#[derive(Debug)]
pub(super) struct Doubts {
    open: BTreeMap<(WalletNo, AssetNo), Doubt>,
    most: usize,
}

impl Doubts {
    /// Remembers `most` of them.
    pub fn new(most: usize) -> Self {
        Self { open: BTreeMap::new(), most }
    }

    pub fn len(&self) -> usize {
        self.open.len()
    }

    /// The balances that are to be compared at the next settled block.
    pub fn balances(&self) -> impl Iterator<Item = BalanceRef> {
        self.open.values().map(|doubt| doubt.balance)
    }

    /// The chain says the same as the ledger of these.
    pub fn resolved<'a>(&mut self, balances: impl IntoIterator<Item = &'a BalanceRef>) {
        if self.open.is_empty() {
            return;
        }
        for balance in balances {
            self.open.remove(&(balance.wallet, balance.asset));
        }
    }

    /// Nobody watches these addresses any more, or not as before.
    pub fn forget_addresses(&mut self, closed: &[Address]) {
        self.open.retain(|_, doubt| !closed.contains(&doubt.balance.address));
    }

    /// What a comparison at the settled block `at` comes to, together with what was seen before.
    pub fn weigh(
        &mut self,
        balance: BalanceRef,
        comparison: Comparison,
        certainty: Certainty,
        at: u64,
    ) -> Belief {
        let key = (balance.wallet, balance.asset);
        let (credit, amount) = match comparison {
            Comparison::Equal => {
                self.open.remove(&key);
                return Belief::Doubted;
            }
            Comparison::Credit(amount) => (true, amount),
            Comparison::Debit(amount) => (false, amount),
            Comparison::Unbookable => (false, Amount::MAX),
        };
        if certainty == Certainty::Proven {
            self.open.remove(&key);
            return Belief::Confirmed { most: Amount::MAX };
        }
        let before = self.open.get(&key).filter(|doubt| doubt.credit == credit && at >= doubt.at);
        let mut doubt = Doubt { balance, credit, least: amount, points: points(certainty), at };
        if let Some(before) = before {
            doubt.least = doubt.least.min(before.least);
            // The same block again says nothing new.
            doubt.points = if at > before.at {
                before.points.saturating_add(doubt.points)
            } else {
                before.points.max(doubt.points)
            };
        }
        if doubt.points >= if credit { CREDIT } else { DEBIT } {
            let most = doubt.least;
            let rest = amount.saturating_sub(most);
            if rest.is_zero() {
                self.open.remove(&key);
            } else {
                // Nothing else may ever touch it: it is compared again as any other difference.
                self.open.insert(key, Doubt { least: rest, points: points(certainty), ..doubt });
            }
            return Belief::Confirmed { most };
        }
        if self.open.len() < self.most || self.open.contains_key(&key) {
            self.open.insert(key, doubt);
        }
        Belief::Doubted
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{chain::AssetKey, id::WalletId, model::TenantNo};

    fn balance() -> BalanceRef {
        BalanceRef {
            wallet: WalletNo(1),
            wallet_id: WalletId(uuid::Uuid::nil()),
            tenant: TenantNo(1),
            address: Address::from([1; 20]),
            asset: AssetNo(1),
            key: AssetKey::Native,
        }
    }

    fn credit(units: u64) -> Comparison {
        Comparison::Credit(units.into())
    }

    fn debit(units: u64) -> Comparison {
        Comparison::Debit(units.into())
    }

    fn most(units: u64) -> Belief {
        Belief::Confirmed { most: units.into() }
    }

    #[test]
    fn a_proof_is_enough_and_two_endpoints_are_enough_for_a_credit() {
        let mut doubts = Doubts::new(10);
        let mut weigh = |seen, certainty, at| doubts.weigh(balance(), seen, certainty, at);
        assert_eq!(weigh(debit(5), Certainty::Proven, 1), Belief::Confirmed { most: Amount::MAX });
        assert_eq!(weigh(credit(5), Certainty::Agreed, 1), most(5));
        assert_eq!(weigh(debit(5), Certainty::Agreed, 1), Belief::Doubted);
        assert_eq!(weigh(debit(5), Certainty::Agreed, 2), most(5), "debits twice");
    }

    #[test]
    fn one_endpoint_must_say_a_credit_at_three_settled_blocks_and_a_debit_at_five() {
        let mut doubts = Doubts::new(10);
        for at in [1, 1, 1, 2] {
            assert_eq!(
                doubts.weigh(balance(), credit(5), Certainty::Told, at),
                Belief::Doubted,
                "the same block again says nothing new"
            );
        }
        assert_eq!(doubts.weigh(balance(), credit(7), Certainty::Told, 3), most(5), "the least");
        for at in 4..8 {
            assert_eq!(doubts.weigh(balance(), debit(5), Certainty::Told, at), Belief::Doubted);
        }
        assert_eq!(doubts.weigh(balance(), debit(9), Certainty::Told, 8), most(5));
    }

    #[test]
    fn what_turns_around_vanishes_or_is_disputed_is_not_believed() {
        let mut doubts = Doubts::new(10);
        let told = Certainty::Told;
        doubts.weigh(balance(), credit(5), told, 1);
        doubts.weigh(balance(), credit(5), told, 2);
        assert_eq!(doubts.weigh(balance(), debit(5), told, 3), Belief::Doubted);
        assert_eq!(doubts.weigh(balance(), credit(5), told, 4), Belief::Doubted, "it begins anew");
        doubts.weigh(balance(), Comparison::Equal, told, 5);
        assert_eq!(doubts.len(), 0, "it is over");
        for at in 6..100 {
            let belief = doubts.weigh(balance(), debit(5), Certainty::Disputed, at);
            assert_eq!(belief, Belief::Doubted);
        }
    }

    #[test]
    fn what_is_left_of_a_difference_is_compared_until_it_is_confirmed_as_well() {
        let mut doubts = Doubts::new(10);
        let agreed = Certainty::Agreed;
        assert_eq!(doubts.weigh(balance(), debit(1), agreed, 1), Belief::Doubted);
        assert_eq!(doubts.weigh(balance(), debit(57), agreed, 2), most(1));
        assert_eq!(doubts.balances().count(), 1, "nothing else may touch it");
        assert_eq!(doubts.weigh(balance(), debit(56), agreed, 2), Belief::Doubted, "no news");
        assert_eq!(doubts.weigh(balance(), debit(56), agreed, 3), most(56));
        assert_eq!(doubts.len(), 0);
        assert_eq!(doubts.weigh(balance(), debit(1), agreed, 4), Belief::Doubted);
        assert_eq!(doubts.weigh(balance(), debit(57), agreed, 5), most(1));
        doubts.weigh(balance(), Comparison::Equal, agreed, 6);
        assert_eq!(doubts.len(), 0, "it is over");
    }

    #[test]
    fn so_many_are_remembered_and_no_more() {
        let mut doubts = Doubts::new(2);
        for wallet in 0..100 {
            let balance = BalanceRef { wallet: WalletNo(wallet), ..balance() };
            doubts.weigh(balance, debit(5), Certainty::Told, 1);
        }
        assert_eq!(doubts.len(), 2);
    }
}
