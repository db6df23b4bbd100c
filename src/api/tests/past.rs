//! Past balances and explanations: what can be asked for, and what is answered where nothing is known.

use super::{balances::open, *};
use crate::{
    chain::{Kind, Ordinal, TxId},
    id::{Naming, WalletId},
    ledger::changes::{AssetOpening, BalanceChange, ProofChange, TransferUpdate},
    model::{
        Balance, ChainNo, Direction, Entry, EntryKind, Position, Reason, Status, TenantNo,
        Transfer, TransferNo, WalletNo,
    },
    store::{asset_opening, balance, transfer},
};

const HEAD: u64 = 200;

/// The time of a block: two of them share each.
fn time(block: u64) -> Millis {
    Millis(NOW.0 - 1_000_000 + i64::try_from(block / 2).expect("a small number") * 1000)
}

/// A wallet on a chain that stands at [`HEAD`], watched from block 1 on.
struct Books {
    world: World,
    id: WalletId,
    chain: ChainNo,
    wallet: WalletNo,
    rows: Vec<Transfer>,
}

impl Books {
    async fn new() -> Self {
        let world = World::new().await;
        world.begin_chain("base", HEAD, time(HEAD)).await;
        let wallet = world.wallet(ALICE).await;
        let id = open(&world, &wallet, "base").await;
        let mut tx = world.api.db.begin().await.expect("a transaction");
        let chain = ensure(&mut tx.conn(), &ChainName::new("base")).await.expect("a chain");
        let wallet =
            crate::store::event::numbers(&mut tx.conn(), &[id]).await.expect("a read")[&id];
        drop(tx);
        Self { world, id, chain, wallet, rows: Vec::new() }
    }

    /// Takes down a transfer of USDC, without writing it.
    fn moves(&mut self, block: u64, direction: Direction, amount: u64, status: Status) {
        let n = u64::try_from(self.rows.len()).expect("few") + 1;
        self.rows.push(Transfer {
            no: TransferNo::nth(self.chain, n).expect("a number"),
            id: Naming::new("test").field(&n.to_be_bytes()).at(time(block)),
            wallet: self.wallet,
            tenant: TenantNo(1),
            tx: TxId::from([u8::try_from(n % 250).expect("a byte"); 32]),
            ordinal: Ordinal::Log(0),
            direction,
            asset: AssetNo::nth(self.chain, 1).expect("a number"),
            kind: Kind::Transfer,
            status,
            amount: amount.into(),
            counterparty: None,
            counted: true,
            block: BlockRef { number: block, hash: BlockHash([7; 32]) },
            block_time: time(block),
            connection: 1,
            reason: None,
            memo: None,
            omitted: None,
            seen_at: NOW,
            settled_by: None,
            settled_at: None,
            orphaned_at: None,
        });
    }

    /// Writes what was taken down, with its entries and the balance that it makes.
    async fn write(&self) {
        let mut tx = self.world.api.db.begin().await.expect("a transaction");
        let conn = &mut tx.conn();
        let mut position = Position::default();
        let mut entries = Vec::new();
        for row in &self.rows {
            let kind = match row.status {
                Status::Settled => EntryKind::ConnectSettled,
                Status::Pending | Status::Orphaned => EntryKind::Connect,
            };
            let Transfer { no, amount, direction, .. } = *row;
            if row.status != Status::Orphaned {
                position = position.apply(kind, direction, amount).expect("bookable");
            }
            entries.push(Entry { transfer: no, kind, amount });
        }
        transfer::insert(conn, self.chain, &self.rows).await.expect("transfers");
        // One after the other: none of them is made of the rows.
        transfer::insert_entries(conn, &entries, &[], 1, NOW).await.expect("entries");
        let orphaned = self.rows.iter().filter(|row| row.status == Status::Orphaned);
        let taken_back: Vec<Entry> = orphaned
            .map(|row| Entry { transfer: row.no, kind: EntryKind::Disconnect, amount: row.amount })
            .collect();
        transfer::insert_entries(conn, &taken_back, &[], 1, NOW).await.expect("entries");
        let asset = AssetNo::nth(self.chain, 1).expect("a number");
        let balance = Balance { position, ..Balance::default() };
        let change = BalanceChange {
            wallet: self.wallet,
            asset,
            balance,
            block: HEAD,
            proof: ProofChange::Kept,
        };
        balance::write(conn, &[change], NOW).await.expect("a balance");
        tx.commit().await.expect("a commit");
    }

    async fn balances(&self, query: &str) -> Reply {
        self.world.get(&format!("/v1/wallets/{}/balances?{query}", self.id)).await
    }

    async fn explain(&self, rest: &str) -> Reply {
        self.world.get(&format!("/v1/wallets/{}/balances/{rest}", self.id)).await
    }

    /// Does to the store what no function of the program does.
    async fn watch(&self, set: &'static str) {
        crate::store::testing::change_watches(&self.world.api.db, set).await;
    }
}

fn total(read: &Value) -> &str {
    read["balances"][0]["total"]["raw"].as_str().expect("digits")
}

#[tokio::test]
async fn a_past_balance_is_what_stood_at_that_block_with_what_has_settled_since() {
    use Direction::{In, Out};
    let mut books = Books::new().await;
    books.moves(10, In, 1_000, Status::Settled);
    books.moves(11, Out, 300, Status::Settled);
    books.moves(11, In, 5_000, Status::Orphaned);
    books.moves(195, In, 70, Status::Pending);
    books.moves(196, Out, 100, Status::Pending);
    books.write().await;
    for (at, expected) in
        [(1, "0"), (9, "0"), (10, "1000"), (11, "700"), (194, "700"), (195, "770"), (200, "670")]
    {
        let read = books.balances(&format!("at={at}&tokens=usdc")).await.ok(200);
        assert_eq!(total(&read), expected, "after block {at}");
        assert_eq!(read["asOf"][0]["at"]["number"], at);
        assert_eq!(read["asOf"][0]["head"]["number"], HEAD);
    }
    // Blocks 10 and 11 have one time, and so have 194 and 195.
    books.watch("opened_time = 1768468400000").await;
    assert_eq!(time(1).0, 1_768_468_400_000);
    for (at, expected) in [(9, "0"), (10, "700"), (193, "700"), (194, "770")] {
        let read = books.balances(&format!("at={}&tokens=usdc", time(at))).await.ok(200);
        assert_eq!(total(&read), expected, "at the time of block {at}");
        assert_eq!(read["asOf"][0]["at"]["number"], Value::Null);
        assert_eq!(read["asOf"][0]["at"]["time"], time(at).to_string());
    }
    let one = books.balances("at=196").await.ok(200)["balances"][0].clone();
    assert_eq!((&one["available"]["raw"], &one["pending"]["raw"]), (&json!("600"), &json!("70")));
    assert_eq!((&one["frozen"]["raw"], &one["updatedAt"]), (&json!("0"), &Value::Null));
    let none = books.balances("at=9").await.ok(200);
    assert_eq!(none["balances"], json!([]), "nothing was held, and nothing is named");
}

#[tokio::test]
async fn where_a_balance_is_not_known_the_answer_says_from_where_to_where_it_is() {
    let mut books = Books::new().await;
    books.moves(50, Direction::In, 1, Status::Settled);
    books.write().await;
    books.watch("opened_number = 40").await;
    let before = books.balances("at=39").await;
    let body = before.is_problem(409, "not_covered");
    assert_eq!(body["covered"][0]["chain"], "base");
    assert_eq!(body["covered"][0]["from"]["number"], 40);
    assert_eq!(body["covered"][0]["to"]["number"], HEAD);
    assert!(body["detail"].as_str().expect("a detail").contains("block 40"));
    books.balances("at=40").await.ok(200);
    books.balances("at=201").await.is_problem(409, "not_covered");
    books
        .balances(&format!("at={}", Millis(time(HEAD).0 + 1)))
        .await
        .is_problem(409, "not_covered");
    books.balances(&format!("at={}", time(HEAD))).await.is_problem(409, "not_covered");
    // Whoever opened the watch did not keep the time of its block: the first transfer will do.
    books.balances(&format!("at={}", time(45))).await.is_problem(409, "not_covered");
    books.balances(&format!("at={}", time(50))).await.ok(200);
    books.watch("opened_time = 1768468420000").await;
    assert_eq!(time(40).0, 1_768_468_420_000);
    books.balances(&format!("at={}", time(45))).await.ok(200);
    books.balances(&format!("at={}", time(39))).await.is_problem(409, "not_covered");
    // A history that reaches further back, and one that only an index of logs has shown.
    books.watch("history = 'complete', history_method = 'blocks', covered_from = 21").await;
    books.balances("at=20").await.ok(200);
    books.balances("at=19").await.is_problem(409, "not_covered");
    books.watch("history_method = 'logs'").await;
    books.balances("at=20&tokens=usdc").await.ok(200);
    let coin = books.balances("at=20&tokens=eth,usdc").await;
    let body = coin.is_problem(409, "not_covered");
    assert_eq!(body["covered"][0]["asset"], "eip155:8453/slip44:60");
    books.watch("history = 'wanted'").await;
    books.balances("at=20&tokens=usdc").await.is_problem(409, "not_covered");
    for at in ["", "-1", "1.5", "0x10", "yesterday", "9223372036854775808"] {
        let reply = books.balances(&format!("at={at}")).await;
        reply.is_problem(400, "invalid_request");
        reply.field("at");
    }
}

#[tokio::test]
async fn a_wallet_says_from_which_block_on_its_history_has_internal_transfers() {
    let mut books = Books::new().await;
    books.moves(50, Direction::In, 1, Status::Settled);
    books.write().await;
    let internal_from = async || {
        let wallet = books.world.get(&format!("/v1/wallets/{}", books.id)).await.ok(200);
        wallet["chains"][0]["internalFrom"].clone()
    };
    assert_eq!(internal_from().await, Value::Null, "no history was asked for");
    books.watch("opened_number = 40, from_block = 21, history = 'wanted'").await;
    assert_eq!(internal_from().await, Value::Null, "nobody has begun");
    books.watch("history = 'complete', history_method = 'blocks', covered_from = 21").await;
    assert_eq!(internal_from().await, 21, "all of it was traced");
    books.balances("at=20&tokens=eth").await.ok(200);
    books.watch("untraced = 30").await;
    assert_eq!(internal_from().await, 31);
    books.balances("at=20&tokens=usdc").await.ok(200);
    books.balances("at=30&tokens=eth").await.ok(200);
    let unknown = books.balances("at=29&tokens=eth").await;
    assert_eq!(unknown.is_problem(409, "not_covered")["covered"][0]["from"]["number"], 30);
    books.watch("untraced = 5").await;
    assert_eq!(internal_from().await, 21, "no more than is covered");
    books.watch("untraced = NULL, history_method = 'signatures'").await;
    assert_eq!(internal_from().await, 21);
    books.watch("history_method = 'logs'").await;
    assert_eq!(internal_from().await, Value::Null, "no log shows the native coin");
    books.watch("history_method = 'blocks', status = 2").await;
    assert_eq!(internal_from().await, Value::Null);
}

#[tokio::test]
async fn an_asset_that_was_listed_later_is_not_known_before() {
    let mut books = Books::new().await;
    books.moves(100, Direction::In, 9, Status::Settled);
    books.write().await;
    let mut tx = books.world.api.db.begin().await.expect("a transaction");
    let opening = AssetOpening {
        asset: AssetNo::nth(books.chain, 1).expect("a number"),
        from: WalletNo(books.wallet.0 - 1),
        to: books.wallet,
        block: 90,
        time: time(90),
    };
    asset_opening::insert(&mut tx.conn(), books.chain, &[opening]).await.expect("an opening");
    tx.commit().await.expect("a commit");
    for at in ["89".to_owned(), time(89).to_string()] {
        let read = books.balances(&format!("at={at}&chains=base")).await;
        // By time the watch itself is not known that far back.
        if at == "89" {
            let read = read.ok(200);
            assert_eq!(read["balances"], json!([]));
            assert_eq!(read["notCovered"][0]["asset"]["symbol"], "USDC");
            assert_eq!(read["notCovered"][0]["from"]["number"], 90);
        }
        let named = books.balances(&format!("at={at}&tokens=usdc")).await;
        named.is_problem(409, "not_covered");
    }
    assert_eq!(total(&books.balances("at=100&tokens=usdc").await.ok(200)), "9");
    let read = books.balances("at=90&tokens=usdc").await.ok(200);
    assert_eq!((total(&read), &read["notCovered"]), ("0", &Value::Null));
}

#[tokio::test]
async fn a_block_is_one_of_one_chain() {
    let world = World::new().await;
    world.begin_chain("base", 100, time(100)).await;
    world.begin_chain("ethereum", 50, time(100)).await;
    let body = json!({ "address": ALICE, "chains": ["base", "ethereum"] });
    let wallet = world.post("/v1/wallets", body).await.ok(201);
    let get = async |rest: &str| world.get(&format!("/v1/wallets/{ALICE}/balances{rest}")).await;
    get("?at=1").await.is_problem(409, "not_covered");
    open(&world, &wallet, "base").await;
    get("?at=70").await.ok(200);
    open(&world, &wallet, "ethereum").await;
    let several = get("?at=70").await;
    several.is_problem(400, "invalid_request");
    assert!(several.field("at").contains("base, ethereum"));
    get("?at=70&chains=base").await.ok(200);
    get("?at=70&chains=ethereum").await.is_problem(409, "not_covered");
    get("?at=70&tokens=eip155:8453/slip44:60").await.ok(200);
    let several = get("/usdc/explain").await;
    several.is_problem(400, "invalid_request");
    assert!(several.field("chain").contains("base, ethereum"));
    get("/usdc/explain?chain=ethereum").await.ok(200);
    get("/eip155:1%2Fslip44:60/explain").await.ok(200);
}

#[tokio::test]
async fn an_explanation_shows_every_entry_and_adds_up_to_the_balance() {
    use Direction::{In, Out};
    let mut books = Books::new().await;
    books.moves(1, In, 500, Status::Settled);
    (books.rows[0].kind, books.rows[0].ordinal) = (Kind::Opening, Ordinal::OpeningSettled(1));
    // In one block, and in the order of the ids first what leaves: what came in is added first.
    for _ in 0..4 {
        books.moves(20, Out, 400, Status::Settled);
        books.moves(20, In, 400, Status::Settled);
    }
    books.moves(30, In, 40, Status::Settled);
    books.rows[9].reason = Some(Reason::UntracedCredit);
    (books.rows[9].kind, books.rows[9].ordinal) = (Kind::Adjustment, Ordinal::Proof(30, 1));
    books.moves(195, In, 5_000, Status::Orphaned);
    books.moves(196, Out, 100, Status::Pending);
    books.write().await;
    let whole = books.explain("usdc/explain").await.ok(200);
    let after = |entry: &Value| entry["totalAfter"]["raw"].as_str().map(str::to_owned);
    let entries = whole["entries"].as_array().expect("entries");
    let totals: Vec<String> = entries.iter().filter_map(after).collect();
    let expected = [
        "500", "900", "1300", "1700", "2100", "1700", "1300", "900", "500", "540", "5540", "540",
        "440",
    ];
    assert_eq!(totals, expected);
    assert_eq!((&whole["total"]["raw"], &whole["agrees"]), (&json!("440"), &json!(true)));
    assert_eq!(whole["total"], whole["balance"]);
    assert_eq!(whole["opening"]["amount"]["raw"], "500");
    assert_eq!(whole["opening"]["block"]["number"], 1);
    let effects: Vec<&str> =
        entries[9..].iter().map(|entry| entry["effect"].as_str().expect("a word")).collect();
    assert_eq!(effects, ["connect_settled", "connect", "disconnect", "connect"]);
    assert_eq!(entries[9]["reason"], "untraced_credit");
    assert_eq!(entries[9]["proof"]["number"], 30);
    assert_eq!(entries[12]["settledAfter"]["raw"], "540");
    for limit in 1..8 {
        let (mut seen, mut cursor) = (Vec::new(), String::new());
        loop {
            let path = format!("usdc/explain?limit={limit}{cursor}");
            let page = books.explain(&path).await.ok(200);
            seen.extend(page["entries"].as_array().expect("entries").clone());
            let Some(next) = page["nextCursor"].as_str() else {
                assert_eq!(page["agrees"], true, "pages of {limit}");
                break;
            };
            cursor = format!("&cursor={next}");
        }
        assert_eq!(&seen, entries, "pages of {limit}");
    }
    books.explain("doge/explain").await.is_problem(400, "unknown_token");
    books.explain("usdc/explain?limit=0").await.is_problem(400, "invalid_request");
    books.explain("usdc/explain?cursor=abc").await.is_problem(400, "invalid_request");
    let page = books.explain("usdc/explain?limit=1").await.ok(200);
    let cursor = page["nextCursor"].as_str().expect("a cursor");
    let other = books.explain(&format!("eth/explain?cursor={cursor}")).await;
    other.is_problem(400, "invalid_request");
    let nothing = books.explain("eth/explain").await.ok(200);
    assert_eq!((&nothing["agrees"], &nothing["total"]["raw"]), (&json!(true), &json!("0")));
}

#[tokio::test]
async fn what_vanishes_between_two_pages_is_in_the_sum_of_the_last() {
    let mut books = Books::new().await;
    books.moves(20, Direction::In, 100, Status::Settled);
    books.moves(195, Direction::In, 7, Status::Pending);
    books.moves(196, Direction::In, 8, Status::Pending);
    books.write().await;
    let first = books.explain("usdc/explain?limit=2").await.ok(200);
    assert_eq!(first["entries"][1]["totalAfter"]["raw"], "107");
    let mut tx = books.world.api.db.begin().await.expect("a transaction");
    let conn = &mut tx.conn();
    let row = &books.rows[1];
    let gone = TransferUpdate::Orphaned { no: row.no, mark: row.id.mark(), reason: None };
    transfer::update(conn, &[gone], NOW).await.expect("an update");
    let entry = Entry { transfer: row.no, kind: EntryKind::Disconnect, amount: row.amount };
    transfer::insert_entries(conn, &[entry], &[], 1, NOW).await.expect("an entry");
    let asset = row.asset;
    let position = Position { settled: 100.into(), incoming: 8.into(), ..Position::default() };
    let balance = Balance { position, version: 1, ..Balance::default() };
    let change = BalanceChange {
        wallet: books.wallet,
        asset,
        balance,
        block: HEAD,
        proof: ProofChange::Kept,
    };
    balance::write(conn, &[change], NOW).await.expect("a balance");
    tx.commit().await.expect("a commit");
    let cursor = first["nextCursor"].as_str().expect("a cursor");
    let last = books.explain(&format!("usdc/explain?limit=2&cursor={cursor}")).await.ok(200);
    assert_eq!(last["entries"][0]["totalAfter"]["raw"], "108");
    assert_eq!((&last["agrees"], &last["total"]["raw"]), (&json!(true), &json!("108")));
}

#[tokio::test]
async fn books_that_do_not_add_up_say_so() {
    let mut books = Books::new().await;
    books.moves(20, Direction::In, 100, Status::Settled);
    books.write().await;
    books.watch("opened_number = 1").await;
    let mut tx = books.world.api.db.begin().await.expect("a transaction");
    let balance = Balance { position: Position::of(99.into()), version: 1, ..Balance::default() };
    let (wallet, asset) = (books.wallet, books.rows[0].asset);
    let change = BalanceChange { wallet, asset, balance, block: HEAD, proof: ProofChange::Kept };
    balance::write(&mut tx.conn(), &[change], NOW).await.expect("a balance");
    tx.commit().await.expect("a commit");
    let page = books.explain("usdc/explain").await.ok(200);
    assert_eq!(page["agrees"], false);
    assert_eq!((&page["total"]["raw"], &page["balance"]["raw"]), (&json!("100"), &json!("99")));
}

#[tokio::test]
async fn a_block_far_from_both_ends_of_a_long_history_is_refused_and_one_near_an_end_is_not() {
    let mut books = Books::new().await;
    // Each part that is read is twice as large as the one before: the last begins before the limit and ends behind it.
    let each = 40;
    for n in 0..each * (HEAD - 2) {
        books.moves(2 + n / each, Direction::In, 1, Status::Settled);
    }
    books.write().await;
    let held = |at: u64| (each * (at - 1)).to_string();
    for at in [2, 10, 24, HEAD - 24, HEAD - 10, HEAD - 2] {
        let read = books.balances(&format!("at={at}&tokens=usdc")).await.ok(200);
        assert_eq!(total(&read), held(at), "after block {at}");
    }
    for at in [90, 100, 110] {
        let reply = books.balances(&format!("at={at}")).await;
        let detail = reply.is_problem(422, "history_too_long")["detail"].to_string();
        assert!(detail.contains("More than 1000 transfers"), "{detail}");
    }
}

#[tokio::test]
async fn an_explanation_says_what_the_chain_last_agreed_with() {
    let mut books = Books::new().await;
    books.moves(20, Direction::In, 100, Status::Settled);
    books.write().await;
    let asset = books.rows[0].asset;
    let mut version = 1;
    let mut change = async |proof: ProofChange| {
        let position = Position::of(100.into());
        let balance = Balance { position, version, ..Balance::default() };
        version += 1;
        let wallet = books.wallet;
        let change = BalanceChange { wallet, asset, balance, block: HEAD, proof };
        let mut tx = books.world.api.db.begin().await.expect("a transaction");
        balance::write(&mut tx.conn(), &[change], NOW).await.expect("a balance");
        tx.commit().await.expect("a commit");
        books.explain("usdc/explain").await.ok(200)["proof"].clone()
    };
    assert_eq!(change(ProofChange::Kept).await, Value::Null);
    let agreed = ProofChange::Agreed { block: 190, figure: 100.into() };
    let expected = json!({
        "block": { "number": 190, "hash": null, "time": null },
        "figure": { "raw": "100", "amount": "0.0001", "usd": null },
        "at": NOW.to_string(),
    });
    assert_eq!(change(agreed).await, expected);
    assert_eq!(change(ProofChange::Kept).await, expected);
    let ahead = ProofChange::Agreed { block: 191, figure: 100.into() };
    assert_eq!(change(ahead).await, Value::Null, "what has not settled (any more) shows nothing");
    change(agreed).await;
    assert_eq!(change(ProofChange::Gone).await, Value::Null);
}
