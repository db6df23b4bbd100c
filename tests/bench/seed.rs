//! Wallets put into a store before the daemon starts, by the same functions that the daemon uses.

use anyhow::Context as _;
use tidemark::{
    amount::Amount,
    apply::{Applier, ChainInfo, Opening, OpeningBalance},
    chain::{Address, AssetKey, ChainName, Family, Header},
    clock::Clock,
    id::WalletId,
    metrics::Metrics,
    store::{
        chain::AssetRow,
        wallet::{self, NewWallet, WalletKind},
        watch,
    },
    wake::Wake,
};

use super::daemon::Prepared;

/// Watches opened by one commit.
const AT_ONCE: usize = 10_000;

/// The n-th registered address.
pub fn address(n: u64) -> [u8; 20] {
    let hash = alloy::primitives::keccak256(n.to_be_bytes());
    let mut address = [0; 20];
    address.copy_from_slice(&hash[..20]);
    address
}

/// Begins the chain at `at` and opens the watches of `count` wallets there, each with a balance of the native
/// coin and of the token if `rich`.
pub async fn wallets(
    prepared: &Prepared,
    at: &Header,
    count: u64,
    rich: bool,
) -> anyhow::Result<Vec<WalletId>> {
    let clock = Clock::System;
    let chain = prepared.chain()?;
    let info = ChainInfo::from(chain);
    let applier = Applier::new(
        prepared.db.clone(),
        prepared.ids.clone(),
        clock.clone(),
        Metrics::new(),
        Wake::default(),
        info.clone(),
    );
    let cursor = applier.begin(at, at).await?;
    let token = chain.tokens.first().context("a token in the configuration")?;
    let token_key = AssetKey::Token(token.contract);
    let native = &chain.native;
    let row = |key, symbol: &str, name: &str, decimals| AssetRow {
        chain: info.name.clone(),
        key,
        caip19: info.caip19(&key),
        symbol: Some(symbol.to_owned()),
        name: Some(name.to_owned()),
        decimals: Some(decimals),
        verified: true,
    };
    let assets = [
        row(AssetKey::Native, &native.symbol, &native.name, native.decimals),
        row(token_key, &token.symbol, &token.name, token.decimals),
    ];
    applier.verify_assets(&cursor, &assets, &[]).await?;
    let ids = register(prepared, &info.name, count, &clock).await?;
    loop {
        let mut session = prepared.db.read().await?;
        let limit = i64::try_from(AT_ONCE)?;
        let wanted = watch::to_do(&mut session.conn(), &info.name, "requested", limit).await?;
        drop(session);
        if wanted.is_empty() {
            return Ok(ids);
        }
        let balance = |asset, amount: u64| OpeningBalance {
            frozen: Amount::ZERO,
            asset,
            total: Amount::from(amount),
            settled: Amount::from(amount / 2),
        };
        let balances = if rich {
            vec![balance(AssetKey::Native, 2_500_000_000_000_000), balance(token_key, 1_234_567)]
        } else {
            Vec::new()
        };
        let openings: Vec<Opening> =
            wanted.into_iter().map(|watch| Opening { watch, balances: balances.clone() }).collect();
        applier.open(&cursor, &openings, &[]).await?;
    }
}

async fn register(
    prepared: &Prepared,
    chain: &ChainName,
    count: u64,
    clock: &Clock,
) -> anyhow::Result<Vec<WalletId>> {
    let mut ids = Vec::new();
    let mut tx = prepared.db.begin().await?;
    for n in 0..count {
        let new = NewWallet {
            id: prepared.ids.next(),
            tenant_id: prepared.tenant,
            account_id: None,
            family: Family::Evm,
            address: Address::from(address(n)),
            kind: WalletKind::Eoa,
            client_reference_id: None,
            nickname: None,
            is_primary: false,
        };
        wallet::insert(&mut tx.conn(), &new, clock.now()).await?;
        wallet::request_watch(&mut tx.conn(), &new, chain, None, clock.now()).await?;
        ids.push(new.id);
    }
    tx.commit().await?;
    Ok(ids)
}
