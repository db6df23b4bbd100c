//! What happened to a tenant's wallets: immutable, and what webhooks deliver and the feed lists.
//!
//! What the ledger tells of transfers is stored as facts (which transfer, how it stood, the balance then) and
//! written out as JSON when it is read: the same event always as the same bytes, see `body`.

mod body;

pub use body::{Body, TransferFacts};
use serde::Serialize;

use crate::{
    amount::Amount,
    clock::Millis,
    id::{EventId, Naming, TransferId, WalletId},
    model::{Position, Status, TenantNo, TransferNo, WalletNo},
    string_enum::string_enum,
};

string_enum! {
    /// The type of an event, as consumers subscribe to it.
    EventType {
        DepositPending = "deposit.pending",
        DepositAvailable = "deposit.available",
        DepositOrphaned = "deposit.orphaned",
        WithdrawalPending = "withdrawal.pending",
        WithdrawalSettled = "withdrawal.settled",
        WithdrawalOrphaned = "withdrawal.orphaned",
        BalanceAdjusted = "balance.adjusted",
        WalletCreated = "wallet.created",
        WalletActivated = "wallet.activated",
        WalletRotated = "wallet.rotated",
        WalletDisabled = "wallet.disabled",
        SafeDeploymentProcessing = "safe_deployment.processing",
        SafeDeploymentCompleted = "safe_deployment.completed",
        SafeDeploymentFailed = "safe_deployment.failed",
        SafeOwnersChanged = "safe.owners_changed",
        SafeChanged = "safe.changed",
        TransactionSuccess = "transaction.success",
        TransactionFailed = "transaction.failed",
        TransactionDropped = "transaction.dropped",
        HoldCreated = "hold.created",
        HoldReleased = "hold.released",
        EndpointDisabled = "endpoint.disabled",
        AssetQuarantined = "asset.quarantined",
        /// Sent only by `POST …/test`.
        Test = "test",
    }
}

impl EventType {
    /// The number under which the store holds a type. It never changes: old events keep their type.
    #[must_use]
    pub const fn code(self) -> i16 {
        match self {
            Self::DepositPending => 1,
            Self::DepositAvailable => 2,
            Self::DepositOrphaned => 3,
            Self::WithdrawalPending => 4,
            Self::WithdrawalSettled => 5,
            Self::WithdrawalOrphaned => 6,
            Self::BalanceAdjusted => 7,
            Self::WalletCreated => 8,
            Self::WalletActivated => 9,
            Self::WalletRotated => 10,
            Self::WalletDisabled => 11,
            Self::SafeDeploymentProcessing => 12,
            Self::SafeDeploymentCompleted => 13,
            Self::SafeDeploymentFailed => 14,
            Self::SafeOwnersChanged => 15,
            Self::TransactionSuccess => 16,
            Self::TransactionFailed => 17,
            Self::TransactionDropped => 18,
            Self::HoldCreated => 19,
            Self::HoldReleased => 20,
            Self::EndpointDisabled => 21,
            Self::Test => 22,
            Self::AssetQuarantined => 23,
            Self::SafeChanged => 24,
        }
    }

    #[must_use]
    pub fn from_code(code: i16) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.code() == code)
    }

    /// What is told when the transfer settles that this type tells of as pending.
    #[must_use]
    pub const fn once_settled(self) -> Option<Self> {
        match self {
            Self::DepositPending => Some(Self::DepositAvailable),
            Self::WithdrawalPending => Some(Self::WithdrawalSettled),
            _ => None,
        }
    }
}

/// An event about to be appended; it gets its position and sequence in the transaction that tells it.
#[derive(Clone, Debug)]
pub struct NewEvent {
    pub tenant: TenantNo,
    pub wallet: Option<EventWallet>,
    /// The time in front of its id: the block's for what a block tells.
    pub time: Millis,
    pub told: Told,
}

/// The wallet that an event is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventWallet {
    No(WalletNo),
    /// One that may be made in the same transaction.
    Id(WalletId),
}

/// What an event tells.
#[derive(Clone, Debug)]
pub enum Told {
    Transfer(TransferTold),
    /// What is told once and rarely: its data as JSON, ready to be sent.
    Data {
        kind: EventType,
        id: EventId,
        data: String,
    },
}

/// Where a transfer stands, and the balance after all of its block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransferTold {
    pub kind: EventType,
    pub transfer: TransferNo,
    pub id: TransferId,
    pub connection: u32,
    pub status: Status,
    /// Two events in one row: the one of `kind`, and then, of the same commit, the one that tells of its
    /// settlement. All that was open of the balance settled with it.
    pub and_settled: bool,
    pub position: Position,
    /// What of the balance could not be spent.
    pub locked: Amount,
    /// The newest applied block, from which confirmations are counted.
    pub head: u64,
    /// Which version of the asset's facts the event shows.
    pub asset_version: i64,
}

/// The id of the event that tells how a transfer stands: the same wherever the same chain is followed.
#[must_use]
pub fn transfer_event_id(
    transfer: TransferId,
    connection: u32,
    kind: EventType,
    status: Status,
    time: Millis,
) -> EventId {
    // The transfer's id without its time, which is the first block's and not that of this connection.
    Naming::new("event")
        .field(&transfer.0.as_bytes()[6..])
        .field(&connection.to_be_bytes())
        .field(kind.as_str().as_bytes())
        .field(status.as_str().as_bytes())
        .at(time)
}

impl NewEvent {
    /// An event with data of its own. `named` is what tells it from every other event of its type.
    ///
    /// # Errors
    /// When the data is not plain JSON: it is never told as `null` instead.
    pub fn data(
        tenant: TenantNo,
        wallet: Option<EventWallet>,
        kind: EventType,
        named: &[&[u8]],
        time: Millis,
        data: &impl Serialize,
    ) -> Result<Self, serde_json::Error> {
        let naming = Naming::new("event").field(kind.as_str().as_bytes());
        let id = named.iter().fold(naming, |naming, field| naming.field(field)).at(time);
        let data = serde_json::to_string(data)?;
        Ok(Self { tenant, wallet, time, told: Told::Data { kind, id, data } })
    }

    /// The types that it tells, in order.
    pub fn kinds(&self) -> impl Iterator<Item = EventType> + use<> {
        let (kind, second) = match &self.told {
            Told::Transfer(told) => {
                (told.kind, told.kind.once_settled().filter(|_| told.and_settled))
            }
            Told::Data { kind, .. } => (*kind, None),
        };
        [Some(kind), second].into_iter().flatten()
    }

    /// The ids of what it tells, in the same order.
    #[must_use]
    pub fn ids(&self) -> Vec<EventId> {
        match &self.told {
            Told::Data { id, .. } => vec![*id],
            Told::Transfer(told) => {
                let id = |kind, status| {
                    transfer_event_id(told.id, told.connection, kind, status, self.time)
                };
                let second = told.kind.once_settled().filter(|_| told.and_settled);
                let second = second.map(|kind| id(kind, Status::Settled));
                [Some(id(told.kind, told.status)), second].into_iter().flatten().collect()
            }
        }
    }
}

/// Whether an endpoint's pattern (`deposit.pending`, `deposit.*`, `*`) takes events of a type. A test
/// event goes wherever it is sent.
#[must_use]
pub fn matches(pattern: &str, kind: EventType) -> bool {
    match pattern.strip_suffix('*') {
        Some("") => true,
        Some(prefix) => prefix.ends_with('.') && kind.as_str().starts_with(prefix),
        None => pattern == kind.as_str(),
    }
}

/// Whether a pattern names at least one type.
#[must_use]
pub fn is_pattern(pattern: &str) -> bool {
    EventType::ALL.iter().any(|&kind| matches(pattern, kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_has_a_code_of_its_own() {
        for &kind in EventType::ALL {
            assert_eq!(EventType::from_code(kind.code()), Some(kind));
        }
        assert_eq!(EventType::from_code(0), None);
    }

    #[test]
    fn each_way_a_transfer_can_stand_is_an_event_of_its_own() {
        let transfer = Naming::new("test").at(Millis(5));
        let id = |connection, kind, status| {
            transfer_event_id(transfer, connection, kind, status, Millis(5))
        };
        let pending = id(1, EventType::DepositPending, Status::Pending);
        assert_eq!(pending, id(1, EventType::DepositPending, Status::Pending));
        assert_ne!(pending, id(2, EventType::DepositPending, Status::Pending));
        assert_ne!(pending, id(1, EventType::DepositAvailable, Status::Settled));
        let adjusted = EventType::BalanceAdjusted;
        assert_ne!(id(1, adjusted, Status::Pending), id(1, adjusted, Status::Orphaned));
    }

    #[test]
    fn data_that_is_no_json_is_an_error_and_never_null() {
        let keys = std::collections::BTreeMap::from([((1, 2), 3)]);
        let event = NewEvent::data(TenantNo(1), None, EventType::Test, &[], Millis(0), &keys);
        assert!(event.is_err());
    }

    #[test]
    fn a_pattern_takes_its_type_its_group_or_everything() {
        assert!(matches("deposit.pending", EventType::DepositPending));
        assert!(matches("deposit.*", EventType::DepositPending));
        assert!(matches("*", EventType::HoldCreated));
        assert!(!matches("deposit.*", EventType::WithdrawalPending));
        assert!(!matches("dep*", EventType::DepositPending), "only whole groups");
        assert!(is_pattern("safe_deployment.*") && !is_pattern("deposits.*") && !is_pattern(""));
    }
}
