//! The numbers under which big tables hold words. The schema's comments list them.

use super::StoreError;
use crate::{
    chain::{Kind, Settlement, SettlementTag},
    model::{Direction, Reason, SettledBy, Status, WatchStatus},
};

/// A transfer that a later connection of its movement stands for: it is in no list any more.
pub(super) const REPLACED: i16 = 3;

pub(super) const fn status(status: Status) -> i16 {
    match status {
        Status::Settled => 0,
        Status::Pending => 1,
        Status::Orphaned => 2,
    }
}

pub(super) fn read_status(code: i16) -> Result<Status, StoreError> {
    match code {
        0 => Ok(Status::Settled),
        1 => Ok(Status::Pending),
        2 | REPLACED => Ok(Status::Orphaned),
        _ => Err(StoreError::corrupt(format!("the transfer status {code}"))),
    }
}

/// The kind of the rule in the lowest two bits, its confirmations above them.
pub(super) const fn settled_by(by: SettledBy) -> i64 {
    let (kind, count) = match by {
        SettledBy::Policy(Settlement::Tag(SettlementTag::Finalized)) => (0, 0),
        SettledBy::Policy(Settlement::Tag(SettlementTag::Safe)) => (1, 0),
        SettledBy::Policy(Settlement::Confirmations(count)) => (2, count),
        SettledBy::Tier(count) => (3, count),
    };
    count.cast_signed() << 2 | kind
}

pub(super) fn read_settled_by(code: i64) -> Result<SettledBy, StoreError> {
    let count = u64::try_from(code >> 2).map_err(StoreError::corrupt)?;
    Ok(match (code & 3, count) {
        (0, 0) => SettledBy::Policy(Settlement::Tag(SettlementTag::Finalized)),
        (1, 0) => SettledBy::Policy(Settlement::Tag(SettlementTag::Safe)),
        (2, count) => SettledBy::Policy(Settlement::Confirmations(count)),
        (3, count) => SettledBy::Tier(count),
        _ => return Err(StoreError::corrupt(format!("the rule {code}"))),
    })
}

pub(super) const fn direction(direction: Direction) -> i16 {
    match direction {
        Direction::In => 0,
        Direction::Out => 1,
    }
}

pub(super) fn read_direction(code: i16) -> Result<Direction, StoreError> {
    match code {
        0 => Ok(Direction::In),
        1 => Ok(Direction::Out),
        _ => Err(StoreError::corrupt(format!("the direction {code}"))),
    }
}

pub(super) const fn kind(kind: Kind) -> i16 {
    match kind {
        Kind::Transfer => 0,
        Kind::Internal => 1,
        Kind::Fee => 2,
        Kind::Withdrawal => 3,
        Kind::Mint => 4,
        Kind::Burn => 5,
        Kind::Wrap => 6,
        Kind::Unwrap => 7,
        Kind::Reward => 8,
        Kind::Opening => 9,
        Kind::Adjustment => 10,
    }
}

pub(super) fn read_kind(code: i16) -> Result<Kind, StoreError> {
    Kind::ALL
        .iter()
        .copied()
        .find(|&known| kind(known) == code)
        .ok_or_else(|| StoreError::corrupt(format!("the kind {code}")))
}

pub(super) const fn watch_status(status: WatchStatus) -> i16 {
    match status {
        WatchStatus::Requested => 0,
        WatchStatus::Open => 1,
        WatchStatus::Closing => 2,
        WatchStatus::Closed => 3,
    }
}

pub(super) fn read_watch_status(code: i16) -> Result<WatchStatus, StoreError> {
    WatchStatus::ALL
        .iter()
        .copied()
        .find(|&known| watch_status(known) == code)
        .ok_or_else(|| StoreError::corrupt(format!("the watch status {code}")))
}

pub(super) fn read_reason(word: Option<String>) -> Result<Option<Reason>, StoreError> {
    word.map(Reason::try_from).transpose().map_err(StoreError::corrupt)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_survives_its_number() {
        for &word in Status::ALL {
            assert_eq!(read_status(status(word)).ok(), Some(word));
        }
        for &word in Direction::ALL {
            assert_eq!(read_direction(direction(word)).ok(), Some(word));
        }
        for &word in Kind::ALL {
            assert_eq!(read_kind(kind(word)).ok(), Some(word));
        }
        for &word in WatchStatus::ALL {
            assert_eq!(read_watch_status(watch_status(word)).ok(), Some(word));
        }
        assert!(read_kind(11).is_err() && read_status(4).is_err() && read_direction(2).is_err());
    }
}
