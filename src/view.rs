//! The shapes that the API and the events share, as JSON (camelCase; API.md fixes the names).

mod wallet;

use serde::Serialize;
use utoipa::ToSchema;
pub use wallet::{SafeChainView, SafeStateView, SafeView, WalletChainView, WalletData, WalletView};

use crate::{
    amount::{Amount, in_units},
    chain::{AssetKey, BlockRef, Family},
    clock::Millis,
    id::WalletId,
    model::{
        Asset, Buckets, Deployment, Direction, Quarantine, Reason, Status, Transfer, WalletRef,
    },
};

/// An amount: base units, whole units, and US dollars where a price is known.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct AmountView {
    /// Base units, in decimal digits.
    #[schema(example = "1500000")]
    pub raw: String,
    /// Whole units; null where the asset's decimals are not known.
    #[schema(example = "1.5")]
    pub amount: Option<String>,
    #[schema(example = "1.50")]
    pub usd: Option<String>,
}

impl AmountView {
    #[must_use]
    pub fn new(amount: Amount, asset: &Asset) -> Self {
        let raw = amount.to_string();
        let units = asset.decimals.map(|decimals| in_units(&raw, decimals));
        Self { raw, amount: units, usd: None }
    }
}

#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AssetView {
    /// CAIP-19.
    #[schema(example = "eip155:8453/erc20:0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913")]
    pub id: String,
    pub symbol: Option<String>,
    pub name: Option<String>,
    pub decimals: Option<u8>,
    pub native: bool,
    /// On the configured lists: only verified assets are in balances.
    pub verified: bool,
    /// Only there while a token is set aside, because its contract chose figures that no balance can hold: it is not
    /// `verified` then, nothing of it is booked any more, and its balances stay as they were.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quarantined: Option<QuarantineView>,
}

/// Since when a token is set aside, and why.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Quarantine)]
pub struct QuarantineView {
    #[schema(value_type = String, format = DateTime)]
    pub since: Millis,
    /// The number of the block that could not be booked; of the newest one, where an operator set the token aside.
    pub block: u64,
    /// `overflow`: a balance would not fit in 256 bits; `shortfall`: it would fall below zero; `operator`:
    /// it was set aside by hand.
    pub reason: &'static str,
}

impl From<Quarantine> for QuarantineView {
    fn from(quarantine: Quarantine) -> Self {
        let Quarantine { since, block, reason } = quarantine;
        Self { since, block, reason: reason.as_str() }
    }
}

impl From<&Asset> for AssetView {
    fn from(asset: &Asset) -> Self {
        Self {
            id: asset.caip19.clone(),
            symbol: asset.symbol.clone(),
            name: asset.name.clone(),
            decimals: asset.decimals,
            native: asset.key == AssetKey::Native,
            verified: asset.verified,
            quarantined: asset.quarantine.map(QuarantineView::from),
        }
    }
}

/// `available + pending + frozen = total`, always.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct BucketsView {
    pub available: AmountView,
    pub pending: AmountView,
    pub frozen: AmountView,
    pub total: AmountView,
}

impl BucketsView {
    #[must_use]
    pub fn new(buckets: &Buckets, asset: &Asset) -> Self {
        Self {
            available: AmountView::new(buckets.available, asset),
            pending: AmountView::new(buckets.pending, asset),
            frozen: AmountView::new(buckets.frozen, asset),
            total: AmountView::new(buckets.total, asset),
        }
    }
}

#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct BlockView {
    pub number: u64,
    pub hash: String,
    #[schema(value_type = String, format = DateTime)]
    pub time: Millis,
}

/// A block, or a time, as far as it is known.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
#[schema(as = Point)]
pub struct PointView {
    /// Null for a time.
    pub number: Option<u64>,
    /// Null for blocks that are not remembered.
    pub hash: Option<String>,
    #[schema(value_type = Option<String>, format = DateTime)]
    pub time: Option<Millis>,
}

/// One movement as one wallet sees it.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TransferView {
    #[schema(value_type = String, example = "trf_0197Qm3kJ2pXvN4hL1pR3w")]
    pub id: crate::id::TransferId,
    #[schema(value_type = String)]
    pub wallet_id: crate::id::WalletId,
    pub chain: String,
    pub asset: AssetView,
    /// `in` or `out`.
    pub direction: &'static str,
    /// `transfer`, `internal`, `fee`, `withdrawal`, `mint`, `burn`, `wrap`, `unwrap`, `reward`,
    /// `opening` or `adjustment`.
    pub kind: &'static str,
    /// `pending`, `settled` or `orphaned`.
    pub status: &'static str,
    pub amount: AmountView,
    pub from: Option<String>,
    pub to: Option<String>,
    /// Null for what belongs to no transaction.
    pub tx_hash: Option<String>,
    /// The place inside the transaction; with chain and txHash it names the movement for ever.
    pub ordinal: String,
    pub block: BlockView,
    /// Blocks from this one to the newest applied one, both counted; 0 while orphaned.
    pub confirmations: u64,
    /// In a word, why it was booked or taken back, where no movement on the chain says so.
    pub reason: Option<&'static str>,
    /// What the sender wrote beside the payment, on chains whose transactions carry text.
    pub memo: Option<String>,
    /// Only where there were some: how many more transfers of the transaction to and from the wallet, of unverified
    /// assets or of nothing, were left out after this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub omitted: Option<u32>,
    #[schema(value_type = String, format = DateTime)]
    pub seen_at: Millis,
    /// Only where one did: the rule by which it became available, or a withdrawal settled. `finalized`, `safe` and
    /// `confirmations:12` are the chain's policy; `tier:3` is a value tier: the block lay 3 blocks below the head then,
    /// and while the transfer is `pending` it can still be orphaned.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "finalized")]
    pub settled_by: Option<String>,
    #[schema(value_type = Option<String>, format = DateTime)]
    pub settled_at: Option<Millis>,
    #[schema(value_type = Option<String>, format = DateTime)]
    pub orphaned_at: Option<Millis>,
}

/// The wallet that a transfer is seen from.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    pub wallet: WalletId,
    /// As the family writes it: once for all transfers, a checksum costs a hash.
    pub address: &'a str,
    pub family: Family,
}

impl TransferView {
    /// `head` is the chain's newest applied block.
    #[must_use]
    pub fn new(row: &Transfer, by: Seen<'_>, asset: &Asset, head: u64) -> Self {
        let confirmations = match row.status {
            Status::Orphaned => 0,
            Status::Pending | Status::Settled => {
                head.checked_sub(row.block.number).map_or(0, |depth| depth + 1)
            }
        };
        let Seen { wallet, address, family } = by;
        let own = Some(address.to_owned());
        let other = row.counterparty.as_ref().map(|address| family.format_address(address));
        let (from, to) = match row.direction {
            Direction::In => (other, own),
            Direction::Out => (own, other),
        };
        Self {
            id: row.id,
            wallet_id: wallet,
            chain: asset.chain.to_string(),
            asset: asset.into(),
            direction: row.direction.as_str(),
            kind: row.kind.as_str(),
            status: row.status.as_str(),
            amount: AmountView::new(row.amount, asset),
            from,
            to,
            tx_hash: row.has_transaction().then(|| family.format_tx(&row.tx)),
            ordinal: row.ordinal.to_string(),
            block: BlockView {
                number: row.block.number,
                hash: family.format_block_hash(&row.block.hash),
                time: row.block_time,
            },
            confirmations,
            reason: row.reason.map(Reason::as_str),
            memo: row.memo.clone(),
            omitted: row.omitted,
            seen_at: row.seen_at,
            settled_by: row.settled_by.map(|by| by.to_string()),
            settled_at: row.settled_at,
            orphaned_at: row.orphaned_at,
        }
    }
}

/// The wallet as events name it.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct WalletRefView {
    #[schema(value_type = String)]
    pub id: crate::id::WalletId,
    pub address: String,
    #[schema(value_type = Option<String>)]
    pub account_id: Option<crate::id::AccountId>,
    pub client_reference_id: Option<String>,
    /// Only for a Safe that was found by its owner: who else disposes of it, as of the event.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub safe: Option<FoundSafeView>,
}

/// A Safe that became a wallet because one of its owners is registered.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct FoundSafeView {
    /// Always true.
    pub found_by_owner: bool,
    pub owners: Vec<String>,
    pub threshold: i64,
}

impl From<&WalletRef> for WalletRefView {
    fn from(wallet: &WalletRef) -> Self {
        Self {
            id: wallet.id,
            address: wallet.family.format_address(&wallet.address),
            account_id: wallet.account_id,
            client_reference_id: wallet.client_reference_id.clone(),
            safe: wallet.safe.as_ref().map(|safe| FoundSafeView {
                found_by_owner: true,
                owners: safe.owners.iter().map(|at| wallet.family.format_address(at)).collect(),
                threshold: safe.threshold,
            }),
        }
    }
}

/// A Safe on its way to being deployed.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = SafeDeployment)]
pub struct SafeDeploymentView {
    #[schema(value_type = String)]
    pub id: crate::id::SafeDeploymentId,
    pub chain: String,
    pub tx_hash: String,
    /// `pending`, `processing`, `completed` or `failed`.
    pub status: &'static str,
    /// In a word, why it failed: `reverted`, `dropped`, `replaced`, `not_a_safe` (also where
    /// none of Safe's own factories made it), `unknown_singleton`, `not_set_up`, `malformed`.
    pub reason: Option<String>,
    pub address: Option<String>,
    #[schema(value_type = Option<String>)]
    pub wallet_id: Option<crate::id::WalletId>,
    pub version: Option<String>,
    pub singleton: Option<String>,
    pub owners: Vec<String>,
    pub threshold: Option<u64>,
    pub block: Option<BlockRefView>,
    /// Who sent the transaction, once a node has told.
    pub sender: Option<String>,
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Millis,
    #[schema(value_type = String, format = DateTime)]
    pub updated_at: Millis,
}

#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct BlockRefView {
    pub number: u64,
    pub hash: String,
}

impl BlockRefView {
    #[must_use]
    pub fn new(at: BlockRef, family: Family) -> Self {
        Self { number: at.number, hash: family.format_block_hash(&at.hash) }
    }
}

impl SafeDeploymentView {
    #[must_use]
    pub fn new(row: &Deployment, family: Family) -> Self {
        Self {
            id: row.id,
            chain: row.chain.to_string(),
            tx_hash: family.format_tx(&row.tx),
            status: row.status.as_str(),
            reason: row.reason.clone(),
            address: row.address.as_ref().map(|address| family.format_address(address)),
            wallet_id: row.wallet_id,
            version: row.version.clone(),
            singleton: row.singleton.as_ref().map(|address| family.format_address(address)),
            owners: row.owners.iter().map(|owner| family.format_address(owner)).collect(),
            threshold: row.threshold,
            block: row.block.map(|block| BlockRefView::new(block, family)),
            sender: row.sender.as_ref().map(|sender| family.format_address(sender)),
            created_at: row.created_at,
            updated_at: row.updated_at,
        }
    }
}
