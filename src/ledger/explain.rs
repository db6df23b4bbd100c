//! Why a balance is what it is: its entries in the order of the chain, each with what they add up to so far.
//!
//! Inside a block what comes in is added first, as the ledger books it. A transfer that was taken back stands
//! with both its entries, at the block that vanished.

use alloy::primitives::U256;

use crate::{
    amount::Amount,
    clock::Millis,
    id::TransferId,
    model::{Direction, EntryKind, Status, Transfer},
};

/// A sum that entries of vanished blocks can lead below zero on the way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    pub low: U256,
    /// What is carried past 256 bits; -1 is below zero.
    pub high: i64,
}

impl Sum {
    fn add(&mut self, amount: Amount) {
        let (low, carried) = self.low.overflowing_add(amount.get());
        *self = Self { low, high: self.high.saturating_add(i64::from(carried)) };
    }

    fn subtract(&mut self, amount: Amount) {
        let (low, borrowed) = self.low.overflowing_sub(amount.get());
        *self = Self { low, high: self.high.saturating_sub(i64::from(borrowed)) };
    }

    /// What it is, if a balance can be that.
    #[must_use]
    pub fn amount(self) -> Option<Amount> {
        (self.high == 0).then_some(Amount::new(self.low))
    }
}

/// What entries add up to so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub settled: Sum,
    pub total: Sum,
}

impl Tally {
    pub fn add(&mut self, kind: EntryKind, direction: Direction, amount: Amount) {
        use EntryKind::{Connect, Disconnect, DisconnectSettled, Early, EarlyOver, Settle};
        // Neither what is there nor what has settled changes.
        if matches!(kind, Early | EarlyOver) {
            return;
        }
        let taken_back = matches!(kind, Disconnect | DisconnectSettled);
        let more = (direction == Direction::In) != taken_back;
        let change = |sum: &mut Sum| if more { sum.add(amount) } else { sum.subtract(amount) };
        if kind != Settle {
            change(&mut self.total);
        }
        if !matches!(kind, Connect | Disconnect) {
            change(&mut self.settled);
        }
    }
}

/// Where a transfer stands in the order of the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub time: Millis,
    pub block: u64,
    pub is_out: bool,
    pub id: TransferId,
    pub connection: u32,
}

impl Place {
    #[must_use]
    pub fn of(row: &Transfer) -> Self {
        Self {
            // As in front of ids, whatever time the block claims.
            time: TransferId::range(row.block_time).0.time(),
            block: row.block.number,
            is_out: row.direction == Direction::Out,
            id: row.id,
            connection: row.connection,
        }
    }

    /// Behind all of a time.
    #[must_use]
    pub fn behind(time: Millis) -> Self {
        let id = TransferId::range(Millis(i64::MAX)).1;
        Self { time, block: u64::MAX, is_out: true, id, connection: u32::MAX }
    }
}

/// How far an explanation was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bookmark {
    /// What the transfers up to `firm` add up to. They lie below the settled block, so it stays.
    pub tally: Tally,
    pub firm: Option<Place>,
    /// Up to where they were shown: those in between are added up anew, they may have been taken back since.
    pub shown: Option<Place>,
}

/// What one entry did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Effect {
    pub kind: EntryKind,
    /// When it was booked.
    pub at: Millis,
    pub after: Tally,
}

/// A transfer with its entries.
#[derive(Clone, Debug)]
pub struct Line {
    pub transfer: Transfer,
    pub effects: Vec<Effect>,
}

/// A part of an explanation, as it is read.
#[derive(Debug)]
pub struct Reader {
    mark: Bookmark,
    tally: Tally,
    is_firm: bool,
    settled: Millis,
    limit: usize,
    pub lines: Vec<Line>,
}

impl Reader {
    /// Goes on from a mark, with so many transfers at most. From the time of the settled block on, adjustments and
    /// reorgs can change what was read.
    #[must_use]
    pub fn new(mark: Bookmark, limit: usize, settled: Millis) -> Self {
        Self { mark, tally: mark.tally, is_firm: true, settled, limit, lines: Vec::new() }
    }

    /// Whether a place is yet to be added up.
    #[must_use]
    pub fn is_ahead(&self, place: Place) -> bool {
        self.mark.firm.is_none_or(|firm| place > firm)
    }

    /// Takes the next transfer with its entries in the order in which they happen; `false` if there is no room for it.
    pub fn take(&mut self, transfer: Transfer, entries: &[(EntryKind, Millis)]) -> bool {
        let place = Place::of(&transfer);
        let is_new = self.mark.shown.is_none_or(|shown| place > shown);
        if is_new && self.lines.len() >= self.limit {
            return false;
        }
        let mut effects = Vec::with_capacity(entries.len());
        for &(kind, at) in entries {
            self.tally.add(kind, transfer.direction, transfer.amount);
            effects.push(Effect { kind, at, after: self.tally });
        }
        self.is_firm &= transfer.status != Status::Pending;
        self.passed(place);
        if is_new {
            self.lines.push(Line { transfer, effects });
        }
        true
    }

    /// All up to a place was taken.
    pub fn passed(&mut self, place: Place) {
        self.is_firm &= place.time < self.settled;
        if self.is_firm {
            (self.mark.firm, self.mark.tally) = (self.mark.firm.max(Some(place)), self.tally);
        }
        self.mark.shown = self.mark.shown.max(Some(place));
    }

    /// Where the next part goes on.
    #[must_use]
    pub fn mark(&self) -> Bookmark {
        self.mark
    }

    /// What everything that was taken adds up to.
    #[must_use]
    pub fn tally(&self) -> Tally {
        self.tally
    }
}

#[cfg(test)]
mod tests;
