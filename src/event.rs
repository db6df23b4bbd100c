//! What happened to a tenant's wallets: immutable, and what webhooks deliver and the feed lists.

use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    chain::words,
    clock::Millis,
    id::{EventId, TenantId, WalletId},
};

words! {
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
        TransactionSuccess = "transaction.success",
        TransactionFailed = "transaction.failed",
        TransactionDropped = "transaction.dropped",
        HoldCreated = "hold.created",
        HoldReleased = "hold.released",
        EndpointDisabled = "endpoint.disabled",
        /// Sent only by `POST …/test`.
        Test = "test",
    }
}

/// An event about to be appended; it gets its id, position and sequence in the transaction that tells it.
#[derive(Clone, Debug)]
pub struct NewEvent {
    pub tenant: TenantId,
    pub wallet: Option<WalletId>,
    pub kind: EventType,
    pub data: Value,
}

impl NewEvent {
    /// # Panics
    /// Never: the views serialize to plain JSON.
    #[must_use]
    pub fn new(
        tenant: TenantId,
        wallet: Option<WalletId>,
        kind: EventType,
        data: &impl Serialize,
    ) -> Self {
        Self { tenant, wallet, kind, data: serde_json::to_value(data).unwrap_or(Value::Null) }
    }
}

/// The JSON body that consumers get. It never changes afterwards.
#[must_use]
pub fn body(id: EventId, event: &NewEvent, sequence: Option<i64>, at: Millis) -> String {
    json!({
        "id": id,
        "type": event.kind,
        "timestamp": at,
        "sequence": sequence,
        "data": event.data,
    })
    .to_string()
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
    fn a_pattern_takes_its_type_its_group_or_everything() {
        assert!(matches("deposit.pending", EventType::DepositPending));
        assert!(matches("deposit.*", EventType::DepositPending));
        assert!(matches("*", EventType::HoldCreated));
        assert!(!matches("deposit.*", EventType::WithdrawalPending));
        assert!(!matches("dep*", EventType::DepositPending), "only whole groups");
        assert!(is_pattern("safe_deployment.*") && !is_pattern("deposits.*") && !is_pattern(""));
    }
}
