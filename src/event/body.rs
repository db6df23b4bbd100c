//! An event as consumers get it: version 1 of its JSON. It is made of facts that never change, so the same
//! event is always the same bytes.

use serde::Serialize;
use serde_json::value::RawValue;

use super::EventType;
use crate::{
    amount::Amount,
    clock::Millis,
    id::EventId,
    ledger::LedgerError,
    model::{Asset, Position, Transfer, WalletRef},
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
    /// As it was then.
    pub wallet: &'a WalletRef,
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
        let Self { transfer, wallet, asset, .. } = *self;
        let buckets = self.position.buckets(self.locked)?;
        let view = WalletRefView::from(wallet);
        let seen = Seen { wallet: wallet.id, address: &view.address, family: wallet.family };
        Ok(TransferData {
            transfer: TransferView::new(transfer, seen, asset, self.head),
            wallet: view,
            balance: BucketsView::new(&buckets, asset),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use uuid::Uuid;

    use super::*;
    use crate::{
        chain::{Address, AssetKey, BlockHash, BlockRef, ChainName, Family, Kind, Ordinal, TxId},
        id::{AccountId, TransferId, WalletId},
        model::{AssetNo, Direction, Reason, Status, TenantNo, TransferNo, WalletNo},
    };

    /// What an event was written as when version 1 was made.
    macro_rules! golden {
        ($kind:literal) => {
            include_str!(concat!("golden/", $kind, ".json")).trim_end()
        };
    }

    const NOW: Millis = Millis(1_768_469_400_123);

    fn usdc() -> Asset {
        let contract = Address::from([0xa0; 20]);
        Asset {
            no: AssetNo(1),
            chain: ChainName::new("ethereum"),
            key: AssetKey::Token(contract),
            caip19: "eip155:1/erc20:0xA0A0A0A0A0a0A0A0a0a0A0a0a0A0A0a0A0a0A0a0".into(),
            symbol: Some("USDC".into()),
            name: Some("USD Coin".into()),
            decimals: Some(6),
            verified: true,
            quarantine: None,
            version: 0,
            listing: None,
        }
    }

    fn deposit() -> Transfer {
        Transfer {
            no: TransferNo(1),
            id: TransferId(Uuid::from_u128(0x0197_0000_0000_8000_8000_0000_0000_0001)),
            wallet: WalletNo(1),
            tenant: TenantNo(1),
            tx: TxId::from([0x11; 32]),
            ordinal: Ordinal::Log(4),
            direction: Direction::In,
            asset: AssetNo(1),
            kind: Kind::Transfer,
            status: Status::Pending,
            amount: Amount::from(1_500_000),
            counterparty: Some(Address::from([0xbb; 20])),
            counted: true,
            block: BlockRef { number: 100, hash: BlockHash([0x22; 32]) },
            block_time: Millis(1_768_469_399_000),
            connection: 1,
            reason: None,
            memo: None,
            omitted: None,
            seen_at: NOW,
            settled_by: None,
            settled_at: None,
            orphaned_at: None,
        }
    }

    /// The JSON of an event about `transfer` of a wallet that had `position` after it.
    fn written(kind: EventType, transfer: &Transfer, asset: &Asset, position: Position) -> String {
        let wallet = WalletRef {
            id: WalletId(Uuid::from_u128(0x0197_0000_0000_7000_8000_0000_0000_0002)),
            family: Family::Evm,
            address: Address::from([0xaa; 20]),
            account_id: Some(AccountId(Uuid::from_u128(3))),
            client_reference_id: Some("r-1 \"ü\"".into()),
            safe: None,
        };
        let facts = TransferFacts {
            transfer,
            wallet: &wallet,
            asset,
            position,
            locked: Amount::from(1),
            head: 101,
        };
        let body = Body {
            id: EventId(Uuid::from_u128(4)),
            kind,
            timestamp: NOW,
            sequence: Some(12),
            data: facts.data().expect("a position that can be"),
        };
        body.json().expect("plain JSON").get().to_owned()
    }

    /// Consumers may keep these bytes and compare them: version 1 never changes.
    #[test]
    fn the_json_of_events_stays_what_it_is() {
        let position = Position {
            settled: Amount::from(2_000_001),
            incoming: Amount::from(1_500_000),
            outgoing: Amount::ZERO,
            early: Amount::ZERO,
        };
        let pending = written(EventType::DepositPending, &deposit(), &usdc(), position);
        assert_eq!(pending, golden!("deposit.pending"));

        let transfer = Transfer { status: Status::Settled, settled_at: Some(NOW), ..deposit() };
        let settled = Position::of(Amount::from(3_500_001));
        let available = written(EventType::DepositAvailable, &transfer, &usdc(), settled);
        assert_eq!(available, golden!("deposit.available"));

        let unlisted =
            Asset { symbol: None, name: None, decimals: None, verified: false, ..usdc() };
        let transfer = Transfer {
            status: Status::Orphaned,
            direction: Direction::Out,
            kind: Kind::Adjustment,
            ordinal: Ordinal::Adjustment(100),
            tx: TxId::from([0x22; 32]),
            amount: Amount::MAX,
            counterparty: None,
            reason: Some(Reason::UntracedCredit),
            memo: Some("for </script> 你".into()),
            orphaned_at: Some(NOW),
            ..deposit()
        };
        let adjusted =
            written(EventType::BalanceAdjusted, &transfer, &unlisted, Position::default());
        assert_eq!(adjusted, golden!("balance.adjusted"));

        let data = json!({"endpointId": "whe_1"});
        let kind = EventType::EndpointDisabled;
        let body =
            Body { id: EventId(Uuid::from_u128(4)), kind, timestamp: NOW, sequence: None, data };
        let disabled = body.json().expect("plain JSON");
        assert_eq!(disabled.get(), golden!("endpoint.disabled"));
    }
}
