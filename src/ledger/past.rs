//! Balances of the past: what the transfers that stand add up to at a block, as the chain is known now.
//!
//! A history is walked from whichever end is nearer: from its beginning, adding up; or from the balances of the
//! newest block, taking back. Both end in the same figures. The order is that of the blocks' times, which on every
//! chain rise with the height or stay.

use std::collections::BTreeMap;

use super::Replay;
use crate::{
    amount::Amount,
    chain::HistoryMethod,
    clock::Millis,
    ledger::changes::AssetOpening,
    model::{
        Asset, AssetNo, ChainNo, Direction, EntryKind, HistoryStatus, Position, Status, Transfer,
        WalletChain, WalletNo,
    },
};

/// Up to where transfers count. Openings count wherever balances are known: between the block from which on they are and
/// the one at which an opening was read, nothing moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// After this block of one chain.
    Block(ChainNo, u64),
    /// After the newest block of each chain that is not younger.
    Time(Millis),
}

/// A transfer that is no opening, as far as balances depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weight {
    pub asset: AssetNo,
    pub block: u64,
    pub time: Millis,
    pub direction: Direction,
    pub status: Status,
    /// Whether it is available though its block has not settled.
    pub early: bool,
    pub amount: Amount,
}

impl From<&Transfer> for Weight {
    fn from(row: &Transfer) -> Self {
        let Transfer { asset, block, block_time, direction, status, amount, .. } = *row;
        let early = row.is_early();
        Self { asset, block: block.number, time: block_time, direction, status, early, amount }
    }
}

impl Moment {
    /// Whether what the moment says applies to a chain.
    #[must_use]
    pub fn concerns(self, chain: ChainNo) -> bool {
        match self {
            Self::Block(own, _) => own == chain,
            Self::Time(_) => true,
        }
    }

    /// Whether a block is not above it.
    #[must_use]
    pub fn reaches(self, block: u64, time: Millis) -> bool {
        match self {
            Self::Block(_, number) => block <= number,
            Self::Time(until) => time <= until,
        }
    }
}

/// From which end a history is walked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From the beginning, adding up what counts to the openings.
    Up,
    /// From the newest block, taking back what does not count.
    Down,
}

/// Positions of a wallet on their way to a moment.
#[derive(Debug)]
pub struct Walk {
    moment: Moment,
    way: Way,
    sums: BTreeMap<AssetNo, Replay>,
    over: bool,
}

impl Walk {
    /// From the openings that stand.
    #[must_use]
    pub fn up(moment: Moment, openings: &[Transfer]) -> Self {
        let mut sums: BTreeMap<AssetNo, Replay> = BTreeMap::new();
        for Transfer { asset, status, direction, amount, .. } in openings {
            let kind = match status {
                Status::Settled => EntryKind::ConnectSettled,
                Status::Pending => EntryKind::Connect,
                Status::Orphaned => continue,
            };
            sums.entry(*asset).or_default().add(kind, *direction, *amount);
        }
        Self { moment, way: Way::Up, sums, over: false }
    }

    /// From the balances of the newest block.
    #[must_use]
    pub fn down(moment: Moment, now: impl IntoIterator<Item = (AssetNo, Position)>) -> Self {
        let now = now.into_iter().filter(|(asset, _)| moment.concerns(asset.chain()));
        let sums = now.map(|(asset, position)| (asset, Replay(position))).collect();
        Self { moment, way: Way::Down, sums, over: false }
    }

    #[must_use]
    pub fn way(&self) -> Way {
        self.way
    }

    /// The next transfers on the way: all of the blocks of some times.
    pub fn pass(&mut self, weights: &[Weight]) {
        for weight in weights {
            self.weigh(weight);
            let counts = self.moment.reaches(weight.block, weight.time);
            let stands = weight.status != Status::Orphaned;
            let concerned = stands && self.moment.concerns(weight.asset.chain());
            self.over |= concerned && counts == (self.way == Way::Down);
        }
    }

    /// Counts a transfer, wherever on the way it stands.
    pub fn weigh(&mut self, weight: &Weight) {
        let Weight { asset, block, time, direction, status, early, amount } = *weight;
        if !self.moment.concerns(asset.chain()) {
            return;
        }
        let kind = match (self.way, self.moment.reaches(block, time), status) {
            (_, _, Status::Orphaned) | (Way::Up, false, _) | (Way::Down, true, _) => return,
            (Way::Up, true, Status::Pending) => EntryKind::Connect,
            (Way::Up, true, Status::Settled) => EntryKind::ConnectSettled,
            (Way::Down, false, Status::Pending) => EntryKind::Disconnect,
            (Way::Down, false, Status::Settled) => EntryKind::DisconnectSettled,
        };
        let sums = self.sums.entry(asset).or_default();
        sums.add(kind, direction, amount);
        if early {
            let kind = match self.way {
                Way::Up => EntryKind::Early,
                Way::Down => EntryKind::EarlyOver,
            };
            sums.add(kind, direction, amount);
        }
    }

    /// Whether nothing further on the way can change the result.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// The positions at the moment.
    #[must_use]
    pub fn positions(&self) -> BTreeMap<AssetNo, Position> {
        self.sums.iter().map(|(asset, sum)| (*asset, sum.position())).collect()
    }
}

/// From where on balances are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Coverage {
    /// The block after which they are known.
    pub from: u64,
    /// Its time, or a later one from which on they are known for certain; `None` where no time is known.
    pub since: Option<Millis>,
}

impl Coverage {
    /// Of a chain's tokens, or of its coin; `None` while the watch has not begun.
    #[must_use]
    pub fn of_chain(on: &WalletChain, is_coin: bool) -> Option<Self> {
        let opened = Self { from: on.opened?, since: on.opened_time };
        // An index of logs is believed once it was proven.
        let unproven = on.history_method == Some(HistoryMethod::Logs)
            && on.history != Some(HistoryStatus::Complete);
        let first = if is_coin { on.internal_from() } else { on.covered_from };
        let from = first.filter(|_| !unproven).map(|first| first.saturating_sub(1));
        let from = from.filter(|from| *from < opened.from);
        Some(from.map_or(opened, |from| Self { from, ..opened }))
    }

    /// Of an asset on a chain with this coverage, by where assets began to count for the wallet; `None` while it does
    /// not count yet.
    #[must_use]
    pub fn of_asset(
        self,
        asset: &Asset,
        wallet: WalletNo,
        openings: &[AssetOpening],
    ) -> Option<Self> {
        let own = openings.iter().filter(|opening| opening.holds(asset.no, wallet));
        match own.max_by_key(|opening| opening.block) {
            Some(newest) if newest.block > self.from => {
                Some(Self { from: newest.block, since: Some(newest.time) })
            }
            None if asset.listing.is_some() && !asset.counts_for(wallet) => None,
            _ => Some(self),
        }
    }

    /// With the time of a transfer that is known to be covered.
    #[must_use]
    pub fn seen(self, first: Millis) -> Self {
        Self { since: Some(self.since.map_or(first, |since| since.min(first))), ..self }
    }

    #[must_use]
    pub fn covers(self, moment: Moment) -> bool {
        match moment {
            Moment::Block(_, number) => number >= self.from,
            Moment::Time(time) => self.since.is_some_and(|since| time >= since),
        }
    }
}

#[cfg(test)]
mod tests;
