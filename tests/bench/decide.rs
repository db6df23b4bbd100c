//! The ledger's rules alone, in memory and on one core: the dense chain with both sides of every transfer watched,
//! each block connected and settled at once, with entries and events. Nothing is loaded or written.

use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use tidemark::{
    amount::Amount,
    chain::{
        Address, AssetKey, BlockHash, BlockRef, ChainName, Family, Header, Kind, Movement, Ordinal,
        TxId,
    },
    clock::Millis,
    id::{TenantId, WalletId},
    ledger::{
        Changes, Decision, Known,
        connect::{self, Blocks},
        known::{Figures, KnownDeployments, MatchedBlock},
    },
    model::{
        Asset, AssetNo, Balance, BlockPoint, ChainInfo, ChainNo, Cursor, JournalHead, Position,
        TenantNo, WalletNo, Watch,
    },
};
use uuid::Uuid;

use super::{
    Bench,
    dense::{ACCOUNTS, TRANSFERS, account},
    figure::{Figure, per_second},
    recorded::{OPENING, Transfer, token},
};

/// Blocks of one commit, as the daemon takes them when they come fast.
const BLOCKS: usize = 300;
const NOW: Millis = Millis(1_768_469_400_000);

pub fn measure(bench: &mut Bench) -> anyhow::Result<()> {
    let dense = bench.dense();
    let blocks = blocks(&dense.by_block());
    let chain = ChainInfo {
        name: ChainName::new("dense"),
        family: Family::Evm,
        caip2: "eip155:1".into(),
        slip44: 60,
        safes_per_owner: 1_000,
        settlement: tidemark::chain::Settlement::Tag(tidemark::chain::SettlementTag::Finalized),
        tiers: Vec::new(),
    };
    let genesis = BlockPoint { at: blocks[0].header.parent, time: Millis(0) };
    let mut cursor = Cursor {
        no: ChainNo(1),
        chain: chain.name.clone(),
        family: chain.family,
        caip2: chain.caip2.clone(),
        head: genesis,
        settled: genesis,
        halted: None,
        epoch: 0,
        transfers: 0,
        assets: 2,
        journal: JournalHead::default(),
    };
    let mut known = known(&chain)?;
    let (mut took, mut booked, figures) = (Duration::ZERO, 0, Figures::new());
    for blocks in blocks.chunks(BLOCKS) {
        let Some(last) = blocks.last() else { bail!("a commit of no blocks") };
        let input =
            Blocks { blocks, settled: (&last.header).into(), figures: &figures, traced: &[] };
        let safes = KnownDeployments::default();
        let started = Instant::now();
        let decision = connect::connect(&chain, &cursor, &known, safes, Vec::new(), input, NOW)?;
        took += started.elapsed();
        let Decision::Commit(changes) = decision else { bail!("a balance was short") };
        booked += changes.transfers.len();
        cursor = changes.cursor.clone();
        take_over(&mut known, &changes);
    }
    ensure!(booked as u64 == 2 * TRANSFERS, "{booked} sides of {TRANSFERS} transfers were booked");
    let rate = per_second(TRANSFERS, took);
    bench.figure(
        Figure::new("decide alone, both sides watched", rate, "transfers/s").at_least(1_000_000.0),
    );
    Ok(())
}

fn blocks(transfers: &[Vec<Transfer>]) -> Vec<MatchedBlock> {
    let at = |number: u64| {
        let mut hash = [7; 32];
        hash[..8].copy_from_slice(&number.to_be_bytes());
        BlockRef { number, hash: BlockHash(hash) }
    };
    let block = |(number, transfers): (u64, &Vec<Transfer>)| {
        let movement = |(index, transfer): (u32, &Transfer)| {
            let mut tx = at(number).hash.0;
            // As in the recorded chain: a transaction has a few of them.
            tx[8..12].copy_from_slice(&(index / 3).to_be_bytes());
            Movement {
                tx: TxId::from(tx),
                ordinal: Ordinal::Log(index),
                kind: Kind::Transfer,
                asset: AssetKey::Token(token(0).into_array().into()),
                from: Some(transfer.from.into_array().into()),
                to: Some(transfer.to.into_array().into()),
                amount: Amount::from(transfer.value),
                memo: None,
            }
        };
        MatchedBlock {
            header: Header { at: at(number), parent: at(number - 1), time: 1_768_000_000 + number },
            movements: (0..).zip(transfers).map(movement).collect(),
            worthless: tidemark::ledger::worthless::Worthless::default(),
            safes: Vec::new(),
            ran: Vec::new(),
            tracked: Vec::new(),
            touched: Vec::new(),
            untraced: false,
        }
    };
    (1..).zip(transfers).map(block).collect()
}

/// Everything that the steps will ask for.
fn known(chain: &ChainInfo) -> anyhow::Result<Known> {
    let mut known = Known::default();
    let keys = [AssetKey::Native, AssetKey::Token(token(0).into_array().into())];
    for (count, key) in (0..).zip(keys) {
        let Some(no) = AssetNo::nth(ChainNo(1), count) else { bail!("no number for an asset") };
        let asset = Asset {
            no,
            chain: chain.name.clone(),
            key,
            caip19: chain.caip19(&key),
            symbol: None,
            name: None,
            decimals: Some(18),
            verified: true,
            listing: None,
            quarantine: None,
            version: 0,
        };
        known.assets.insert(key, asset);
        for n in 0..ACCOUNTS {
            let position = Position { settled: Amount::from(OPENING), ..Position::default() };
            let balance = Balance { position, version: 1, ..Balance::default() };
            known.balances.insert((WalletNo(i64::try_from(n)?), no), balance);
        }
    }
    for n in 0..ACCOUNTS {
        let address = Address::from(account(n).into_array());
        let watch = Watch {
            wallet: WalletNo(i64::try_from(n)?),
            tenant: TenantNo(1),
            wallet_id: WalletId(Uuid::from_u128(n.into())),
            tenant_id: TenantId(Uuid::from_u128(1)),
            address,
            is_eoa: true,
            activated: true,
        };
        known.watches.insert(address, vec![watch]);
    }
    Ok(known)
}

/// What a commit has left is what the next one finds.
fn take_over(known: &mut Known, changes: &Changes) {
    for change in &changes.balances {
        let version = change.balance.version + 1;
        let balance = Balance { version, ..change.balance };
        known.balances.insert((change.wallet, change.asset), balance);
    }
}
