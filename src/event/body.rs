//! An event as consumers get it: version 1 of its JSON. It is made of facts that never change, so the same
//! event is always the same bytes.

use serde::Serialize;
use serde_json::value::RawValue;

use super::EventType;
use crate::{
    amount::Amount,
    chain::Family,
    clock::Millis,
    id::{AccountId, EventId},
    ledger::LedgerError,
    model::{Asset, Position, Transfer},
    view::{BucketsView, Seen, TransferView, WalletRefView},
};

/// The whole body, with whatever data.
#[derive(Serialize)]
pub struct Body<T> {
    pub id: EventId,
    #[serde(rename = "type")]
    pub kind: EventType,
    pub timestamp: Millis,
    pub sequence: Option<i64>,
    pub data: T,
}

impl<T: Serialize> Body<T> {
    /// # Errors
    /// When the data is not plain JSON.
    pub fn json(&self) -> Result<Box<RawValue>, serde_json::Error> {
        serde_json::value::to_raw_value(self)
    }
}

/// What an event about a transfer is made of.
#[derive(Clone, Copy, Debug)]
pub struct TransferFacts<'a> {
    /// As it stood when it was told.
    pub transfer: &'a Transfer,
    pub seen: Seen<'a>,
    pub account_id: Option<AccountId>,
    pub client_reference_id: Option<&'a str>,
    pub asset: &'a Asset,
    pub position: Position,
    pub locked: Amount,
    pub head: u64,
}

#[derive(Serialize)]
pub(super) struct TransferData {
    wallet: WalletRefView,
    transfer: TransferView,
    balance: BucketsView,
}

impl TransferFacts<'_> {
    /// The data of the event.
    ///
    /// # Errors
    /// A position that no commit can have written.
    pub fn data(&self) -> Result<impl Serialize + use<>, LedgerError> {
        let Self { transfer, seen, asset, .. } = *self;
        let buckets = self.position.buckets(self.locked)?;
        Ok(TransferData {
            wallet: self.wallet(seen.family),
            transfer: TransferView::new(transfer, seen, asset, self.head),
            balance: BucketsView::new(&buckets, asset),
        })
    }

    fn wallet(&self, family: Family) -> WalletRefView {
        WalletRefView {
            id: self.seen.wallet,
            address: family.format_address(self.seen.address),
            account_id: self.account_id,
            client_reference_id: self.client_reference_id.map(str::to_owned),
        }
    }
}
