//! What the tests of the ledger begin with: a chain, its cursor, its assets, and watches.

use uuid::Uuid;

use crate::{
    chain::{Address, AssetKey, ChainName, Family, Settlement, SettlementTag},
    id::{TenantId, WalletId},
    model::{
        Asset, AssetNo, BlockPoint, ChainInfo, ChainNo, Cursor, JournalHead, TenantNo, WalletNo,
        Watch,
    },
};

pub(super) fn chain() -> ChainInfo {
    ChainInfo {
        name: ChainName::new("ledger"),
        family: Family::Evm,
        caip2: "eip155:1".to_owned(),
        slip44: 60,
        safes_per_owner: 1_000,
        settlement: Settlement::Tag(SettlementTag::Finalized),
        tiers: Vec::new(),
    }
}

/// A cursor at a block that is settled, after so many assets.
pub(super) fn cursor(chain: &ChainInfo, at: BlockPoint, assets: u64) -> Cursor {
    Cursor {
        no: ChainNo(1),
        chain: chain.name.clone(),
        family: chain.family,
        caip2: chain.caip2.clone(),
        head: at,
        settled: at,
        halted: None,
        epoch: 0,
        transfers: 0,
        assets,
        journal: JournalHead::default(),
    }
}

/// The `n`-th asset of the chain; it is money.
pub(super) fn asset(chain: &ChainInfo, n: u64, key: AssetKey) -> Asset {
    Asset {
        no: AssetNo::nth(ChainNo(1), n).unwrap(),
        chain: chain.name.clone(),
        key,
        caip19: chain.caip19(&key),
        symbol: None,
        name: None,
        decimals: Some(18),
        verified: true,
        quarantine: None,
        version: 0,
        listing: None,
    }
}

pub(super) fn who(n: u8) -> Address {
    Address::from([n; 20])
}

/// The watch of [`who`].
pub(super) fn watch(n: u8) -> Watch {
    Watch {
        wallet: WalletNo(n.into()),
        tenant: TenantNo(1),
        wallet_id: WalletId(Uuid::from_u128(n.into())),
        tenant_id: TenantId(Uuid::from_u128(1)),
        address: who(n),
        is_eoa: true,
        activated: true,
    }
}
