//! What a trace says beyond the block's own movements.

use std::collections::BTreeMap;

use alloy::primitives::{B256, U256};

use super::{Told, diff::Change, frames::Moved};
use crate::{
    amount::Amount,
    chain::{Address, AssetKey, Beside, Block, Excess, Kind, Movement, TxId, evm::decode::address},
};

/// What an address gained and lost.
#[derive(Clone, Copy, Default)]
struct Sums {
    gained: U256,
    lost: U256,
}

impl Sums {
    fn add(&mut self, gained: U256, lost: U256) -> Option<()> {
        self.gained = self.gained.checked_add(gained)?;
        self.lost = self.lost.checked_add(lost)?;
        Some(())
    }

    fn excess(self) -> Option<Excess> {
        use std::cmp::Ordering::{Equal, Greater, Less};
        match self.gained.cmp(&self.lost) {
            Equal => None,
            Greater => Some(Excess::Gained(Amount::new(self.gained.checked_sub(self.lost)?))),
            Less => Some(Excess::Lost(Amount::new(self.lost.checked_sub(self.gained)?))),
        }
    }
}

/// Whose balance changed by more than the movements explain; `None` if that is the trace of another block, or its
/// figures cannot be.
pub(super) fn of(block: &Block, told: &Told) -> Option<Vec<Beside>> {
    match told {
        Told::Changes(txs) => of_changes(block, txs),
        Told::Moved(txs) => of_moved(block, txs),
    }
}

fn of_changes(block: &Block, txs: &[(Option<B256>, Vec<Change>)]) -> Option<Vec<Beside>> {
    let transactions = &block.transactions;
    // A transaction that no block has follows Polygon's own, from before its Madhugiri fork.
    if txs.len() < transactions.len() || txs.len() > transactions.len() + 1 {
        return None;
    }
    let producer = Producer::of(block);
    let mut rewarded = Vec::new();
    let mut beside = Vec::new();
    let mut rest = block.movements.as_slice();
    for (index, (fact, (hash, changes))) in (0u32..).zip(transactions.iter().zip(txs)) {
        if hash.is_some_and(|hash| TxId::from(hash.0) != fact.tx) {
            return None;
        }
        let own = rest.iter().take_while(|movement| movement.tx == fact.tx).count();
        let (own, later) = rest.split_at(own);
        rest = later;
        for (who, sums) in unexplained(own, changes)? {
            let Some(excess) = sums.excess() else { continue };
            let of_one = Beside { tx: index, address: who, excess };
            if producer.as_ref().is_some_and(|producer| producer.address == who) {
                rewarded.push((sums, of_one));
            } else {
                beside.push(of_one);
            }
        }
    }
    // What the block's producer earns is one movement of the whole block.
    if let Some(producer) = producer {
        let mut sums = Sums { gained: U256::ZERO, lost: producer.reward };
        for (of_one, _) in &rewarded {
            sums.add(of_one.gained, of_one.lost)?;
        }
        if sums.excess().is_some() {
            beside.extend(rewarded.into_iter().map(|(_, of_one)| of_one));
        }
    }
    Some(beside)
}

/// For everybody whom a transaction concerns, what its balance gained and lost beyond the movements.
fn unexplained(own: &[Movement], changes: &[Change]) -> Option<BTreeMap<Address, Sums>> {
    let mut sums: BTreeMap<Address, Sums> = BTreeMap::new();
    for change in changes {
        sums.entry(address(change.address)).or_default().add(change.after, change.before)?;
    }
    for movement in own.iter().filter(|movement| movement.asset == AssetKey::Native) {
        let wei = movement.amount.get();
        if let Some(from) = movement.from {
            sums.entry(from).or_default().add(wei, U256::ZERO)?;
        }
        if let Some(to) = movement.to {
            sums.entry(to).or_default().add(U256::ZERO, wei)?;
        }
    }
    Some(sums)
}

fn of_moved(block: &Block, txs: &[Vec<Moved>]) -> Option<Vec<Beside>> {
    if txs.len() > block.transactions.len() {
        return None;
    }
    let mut beside = Vec::new();
    for (index, moved) in (0u32..).zip(txs) {
        for (who, sums) in net(moved)? {
            let excess = sums.excess();
            beside.extend(excess.map(|excess| Beside { tx: index, address: who, excess }));
        }
    }
    Some(beside)
}

fn net(moved: &[Moved]) -> Option<BTreeMap<Address, Sums>> {
    let mut sums: BTreeMap<Address, Sums> = BTreeMap::new();
    for Moved { from, to, wei, .. } in moved {
        sums.entry(address(*from)).or_default().add(U256::ZERO, *wei)?;
        sums.entry(address(*to)).or_default().add(*wei, U256::ZERO)?;
    }
    Some(sums)
}

/// Whether the calls of a transaction moved for each of these addresses what was left over.
pub(super) fn fits(moved: &[Moved], beside: &[&Beside], producer: Option<Address>) -> bool {
    let Some(net) = net(moved) else { return false };
    beside.iter().filter(|of_one| Some(of_one.address) != producer).all(|of_one| {
        net.get(&of_one.address).and_then(|sums| sums.excess()) == Some(of_one.excess)
    })
}

/// Who earns the block's fees, and what it has earned of them.
struct Producer {
    address: Address,
    reward: U256,
}

impl Producer {
    fn of(block: &Block) -> Option<Self> {
        let reward = block.movements.iter().rfind(|movement| movement.kind == Kind::Reward)?;
        Some(Self { address: reward.to?, reward: reward.amount.get() })
    }
}

/// Who earns the block's fees, where that is among its movements.
pub(super) fn producer(block: &Block) -> Option<Address> {
    Producer::of(block).map(|producer| producer.address)
}
