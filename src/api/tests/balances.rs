use super::*;
use crate::{
    amount::Amount,
    chain::{Kind, Ordinal, TxId},
    id::WalletId,
    ledger::changes::{BalanceChange, ProofChange},
    model::{
        Asset, AssetNo, Balance, ChainNo, Direction, Position, Status, TenantNo, Transfer,
        TransferNo, WalletNo,
    },
    store::{Conn, asset, balance, transfer},
};

/// Lets the chain's follower have opened the wallet's watch.
pub(super) async fn open(world: &World, wallet: &Value, chain: &str) -> WalletId {
    let id: WalletId = wallet["id"].as_str().expect("an id").parse().expect("an id");
    let mut tx = world.api.db.begin().await.expect("a transaction");
    crate::store::wallet::open_for_test(&mut tx.conn(), id, &ChainName::new(chain)).await;
    tx.commit().await.expect("a commit");
    id
}

/// The numbers of `base` and of one of its assets.
async fn numbers(conn: &mut Conn<'_>, asset: AssetKey) -> (ChainNo, AssetNo) {
    let base = ChainName::new("base");
    let chain = crate::store::chain::ensure(conn, &base).await.expect("a chain");
    let found = asset::by_keys(conn, chain, &[asset]).await.expect("assets");
    let found = found.into_iter().find(|found| found.key == asset).expect("an asset");
    (chain, found.no)
}

async fn wallet_no(conn: &mut Conn<'_>, wallet: WalletId) -> WalletNo {
    crate::store::event::numbers(conn, &[wallet]).await.expect("a read")[&wallet]
}

pub(super) async fn hold(world: &World, wallet: WalletId, asset: AssetKey, balance: Balance) {
    let mut tx = world.api.db.begin().await.expect("a transaction");
    let mut conn = tx.conn();
    let (_, asset) = numbers(&mut conn, asset).await;
    let wallet = wallet_no(&mut conn, wallet).await;
    let change = BalanceChange { wallet, asset, balance, block: 100, proof: ProofChange::Kept };
    balance::write(&mut conn, &[change], NOW).await.expect("a balance");
    tx.commit().await.expect("a commit");
}

pub(super) fn usdc() -> AssetKey {
    AssetKey::Token(Address::from(USDC))
}

#[tokio::test]
async fn a_balance_is_answered_with_its_buckets_and_the_blocks_it_holds_at() {
    let world = World::new().await;
    world.begin_chain("base", 123, Millis(NOW.0 - 400)).await;
    let wallet = world.wallet(ALICE).await;
    let path = format!("/v1/wallets/{}/balances", wallet["id"].as_str().expect("an id"));
    let pending = world.get(&path).await.ok(200);
    assert_eq!((&pending["balances"], &pending["asOf"]), (&json!([]), &json!([])));
    let id = open(&world, &wallet, "base").await;
    let position = Position {
        settled: Amount::from(1_000_000),
        incoming: Amount::from(500_000),
        outgoing: Amount::from(200_000),
        early: Amount::ZERO,
    };
    hold(
        &world,
        id,
        usdc(),
        Balance { position, held: Amount::from(300_000), ..Balance::default() },
    )
    .await;
    let read = world.get(&path).await.ok(200);
    assert_eq!(read["walletId"], wallet["id"]);
    assert_eq!(read["address"], ALICE);
    assert_eq!(read["totalUsd"], Value::Null);
    let balances = read["balances"].as_array().expect("balances");
    assert_eq!(balances.len(), 1, "the native coin was never held");
    let one = &balances[0];
    assert_eq!(one["chain"], "base");
    assert_eq!(one["asset"]["symbol"], "USDC");
    assert_eq!(one["available"], json!({ "raw": "500000", "amount": "0.5", "usd": null }));
    assert_eq!(one["pending"]["raw"], "500000");
    assert_eq!(one["frozen"]["raw"], "300000");
    assert_eq!(one["total"]["amount"], "1.3");
    assert_eq!(one["updatedAt"], "2026-01-15T09:30:00.000Z");
    let as_of = &read["asOf"][0];
    assert_eq!(as_of["head"]["number"], 123);
    assert_eq!(as_of["settled"]["number"], 113);
    assert_eq!(as_of["lagSeconds"], 0.4);
    for locator in [ALICE.to_owned(), ALICE.to_lowercase()] {
        assert_eq!(world.get(&format!("/v1/wallets/{locator}/balances")).await.ok(200), read);
    }
    let shown = world.get(&format!("/v1/wallets/{id}")).await.ok(200);
    assert_eq!(shown["status"], "active");
    assert_eq!(shown["chains"][0]["coveredTo"], 123);
    assert_eq!(world.all("/v1/wallets?status=active").await, [id.to_string()]);
}

#[tokio::test]
async fn a_named_token_is_shown_though_nothing_is_held_and_an_unknown_one_is_refused() {
    let world = World::new().await;
    world.begin_chain("base", 100, NOW).await;
    let wallet = world.wallet(ALICE).await;
    let id = open(&world, &wallet, "base").await;
    let get = async |query: &str| world.get(&format!("/v1/wallets/{id}/balances?{query}")).await;
    let contract = Family::Evm.format_address(&Address::from(USDC));
    for tokens in ["usdc", "USDC", &contract.to_lowercase(), "eip155:8453/slip44:60"] {
        let read = get(&format!("tokens={tokens}")).await.ok(200);
        assert_eq!(read["balances"][0]["total"]["raw"], "0", "{tokens}");
        assert_eq!(read["balances"][0]["updatedAt"], Value::Null);
    }
    let both = get("tokens=eth,usdc&chains=base").await.ok(200);
    assert_eq!(both["balances"].as_array().map(Vec::len), Some(2));
    let none = get("tokens=eth&chains=ethereum").await.ok(200);
    assert_eq!((&none["balances"], &none["asOf"]), (&json!([]), &json!([])));
    get("tokens=doge").await.is_problem(400, "unknown_token");
    get("tokens=").await.is_problem(400, "unknown_token");
    get("chains=moon").await.is_problem(400, "unknown_chain");
    get("since=1").await.is_problem(400, "invalid_request");
    let assets = world.get("/v1/assets?chain=base").await.ok(200);
    assert_eq!(assets["data"][0]["native"], true);
    assert_eq!(assets["data"][1]["contract"], contract);
    world.get("/v1/assets?chain=moon").await.is_problem(400, "unknown_chain");
}

#[tokio::test]
async fn the_balance_of_an_account_is_that_of_its_primary_wallet() {
    let world = World::new().await;
    world.begin_chain("base", 100, NOW).await;
    let mut ids = Vec::new();
    for (address, primary) in [(ALICE, true), (BOB, false)] {
        let body = json!({ "address": address, "chains": ["base"], "isPrimary": primary,
                           "account": { "externalId": "a", "x": "alice" } });
        ids.push(world.post("/v1/wallets", body).await.ok(201)["id"].clone());
    }
    for locator in ["external:a", "x:alice:evm"] {
        let read = world.get(&format!("/v1/wallets/{locator}/balances")).await.ok(200);
        assert_eq!(read["walletId"], ids[0]);
    }
}

async fn transfer(world: &World, wallet: WalletId, n: u32, change: impl FnOnce(&mut Transfer)) {
    let mut tx = world.api.db.begin().await.expect("a transaction");
    let mut conn = tx.conn();
    let (chain, asset) = numbers(&mut conn, usdc()).await;
    let time = Millis(NOW.0 + i64::from(n) * 1000);
    let mut row = Transfer {
        no: TransferNo::nth(chain, u64::from(n)).expect("a number"),
        id: crate::id::Naming::new("test").field(&n.to_be_bytes()).at(time),
        wallet: wallet_no(&mut conn, wallet).await,
        tenant: TenantNo(1),
        tx: TxId::from([u8::try_from(n).expect("small"); 32]),
        ordinal: Ordinal::Log(n),
        direction: Direction::In,
        asset,
        kind: Kind::Transfer,
        status: Status::Pending,
        amount: Amount::from(u64::from(n)),
        counterparty: None,
        counted: true,
        block: BlockRef { number: 90 + u64::from(n), hash: BlockHash([9; 32]) },
        block_time: time,
        connection: 1,
        reason: None,
        memo: None,
        omitted: None,
        seen_at: NOW,
        settled_by: None,
        settled_at: None,
        orphaned_at: None,
    };
    change(&mut row);
    transfer::insert(&mut conn, chain, &[row]).await.expect("a transfer");
    tx.commit().await.expect("a commit");
}

#[tokio::test]
async fn the_history_is_complete_newest_first_and_filtered() {
    let world = World::new().await;
    world.begin_chain("base", 100, NOW).await;
    let wallet = world.wallet(ALICE).await;
    let id = open(&world, &wallet, "base").await;
    let scam = Address::from([7; 20]);
    let mut tx = world.api.db.begin().await.expect("a transaction");
    let mut conn = tx.conn();
    let (chain, native) = numbers(&mut conn, AssetKey::Native).await;
    let unlisted = Asset {
        no: AssetNo::nth(chain, 2).expect("a number"),
        chain: ChainName::new("base"),
        key: AssetKey::Token(scam),
        caip19: "eip155:8453/erc20:0x07".to_owned(),
        symbol: None,
        name: None,
        decimals: None,
        verified: false,
        quarantine: None,
        version: 0,
        listing: None,
    };
    let changes = [AssetChange::New(unlisted.clone())];
    asset::write(&mut conn, chain, &changes, NOW).await.expect("an asset");
    tx.commit().await.expect("a commit");
    for n in 1..=5 {
        transfer(&world, id, n, |_| {}).await;
    }
    transfer(&world, id, 6, |row| {
        row.direction = Direction::Out;
        row.status = Status::Settled;
        row.asset = native;
        row.kind = Kind::Fee;
    })
    .await;
    transfer(&world, id, 7, |row| {
        row.asset = unlisted.no;
        row.counted = false;
    })
    .await;

    let list = format!("/v1/wallets/{id}/transfers?");
    let count = async |query: &str| world.all(&format!("{list}{query}&limit=2")).await.len();
    let mut all = world.all(&format!("{list}limit=2")).await;
    assert_eq!(all.len(), 6);
    all.reverse();
    assert!(all.is_sorted());
    assert_eq!(count("includeUnverified=true").await, 7);
    assert_eq!(count("asset=usdc").await, 5);
    assert_eq!(count("asset=eth&chain=base").await, 1);
    assert_eq!(count("chain=ethereum").await, 0);
    assert_eq!(count("status=settled").await, 1);
    assert_eq!(count("direction=out&kind=fee").await, 1);
    let contract = Family::Evm.format_address(&scam);
    assert_eq!(count(&format!("asset={contract}&includeUnverified=true")).await, 1);
    assert_eq!(count("from=2026-01-15T09:30:02Z&to=2026-01-15T09:30:04Z").await, 2);
    let newest = world.get(&format!("{list}limit=1")).await.ok(200)["data"][0].clone();
    assert_eq!(newest["kind"], "fee");
    assert_eq!(newest["confirmations"], 5);
    assert_eq!(newest["walletId"], id.to_string());
    for (query, code) in [
        ("asset=doge", "unknown_token"),
        ("chain=moon", "unknown_chain"),
        ("status=x", "invalid_request"),
        ("direction=x", "invalid_request"),
        ("kind=x", "invalid_request"),
        ("from=x", "invalid_request"),
        ("includeUnverified=1", "invalid_request"),
        ("cursor=x", "invalid_request"),
        (&*format!("asset={contract}"), "unknown_token"),
    ] {
        world.get(&format!("{list}{query}")).await.is_problem(400, code);
    }
}
