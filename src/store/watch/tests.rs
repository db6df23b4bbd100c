use sqlx::AssertSqlSafe;

use super::*;
use crate::store::{engine::Engine, testing::TestStore};

const REQUESTS: i64 = 20_000;
const PAGE: i64 = 500;

/// As many requests as one import of a tenant, written by SQL: what the API does takes a minute for them.
const IMPORT: &str = "
    INSERT INTO tenant (no, id, name, feed_position, created_at) OVERRIDING SYSTEM VALUE
        VALUES (1, gen_random_uuid(), 'acme', 0, 0);
    INSERT INTO chain (no, name) OVERRIDING SYSTEM VALUE VALUES (1, 'a');
    INSERT INTO wallet (no, id, tenant_id, family, address, kind, created_at, updated_at) OVERRIDING SYSTEM VALUE
        SELECT n, gen_random_uuid(), (SELECT id FROM tenant), 'evm', decode(lpad(to_hex(n), 40, '0'), 'hex'), 'eoa', 0, 0
        FROM generate_series(1, 20000) n;
    INSERT INTO watch (chain_no, address, wallet_no, tenant_no, status, created_at, updated_at)
        SELECT 1, address, no, 1, 0, 0, 0 FROM wallet;
    ALTER TABLE watch SET (autovacuum_enabled = off)";

/// The pages of the store that are looked at to find the next page of requests after a wallet.
async fn looked_at(conn: &mut Conn<'_>, after: i64) -> i64 {
    let Conn::Postgres(c) = conn else { unreachable!("only PostgreSQL keeps what is past") };
    let sql = TO_DO
        .replace("$1", "1")
        .replace("$2", "0::smallint")
        .replace("$3", &PAGE.to_string())
        .replace("$4", &after.to_string());
    let sql = AssertSqlSafe(format!("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {sql}"));
    let plan: serde_json::Value = sqlx::query_scalar(sql).fetch_one(&mut **c).await.unwrap();
    let read = |key: &str| plan[0]["Plan"][key].as_i64().unwrap();
    assert_eq!(read("Actual Rows"), PAGE);
    read("Shared Hit Blocks") + read("Shared Read Blocks")
}

#[tokio::test]
async fn a_page_of_requests_costs_the_same_however_many_were_opened_before_it() {
    for store in TestStore::all().await {
        // SQLite takes what was from its index at once.
        let Engine::Postgres { pool, .. } = &store.db.engine else {
            store.close().await;
            continue;
        };
        sqlx::raw_sql(IMPORT).execute(pool.lend().await.unwrap().conn()).await.unwrap();
        // It keeps everything from being cleaned up, as a long report does.
        let mut report = store.db.snapshot().await.unwrap();
        let first = looked_at(&mut report.conn(), 0).await;
        let mut tx = store.db.begin().await.unwrap();
        let mut after = 0;
        while after < REQUESTS - PAGE {
            let conn = &mut tx.conn();
            let page =
                to_do(conn, ChainNo(1), Family::Evm, WatchStatus::Requested, WalletNo(after), PAGE);
            let places: Vec<(WalletNo, Address)> = page
                .await
                .unwrap()
                .into_iter()
                .map(|(watch, _)| (watch.wallet, watch.address))
                .collect();
            after = places.last().unwrap().0.0;
            let changes = WatchChanges { opened: places, ..WatchChanges::default() };
            let at = BlockRef { number: 1, hash: BlockHash([1; 32]) };
            let head = BlockPoint { at, time: Millis(0) };
            write(conn, ChainNo(1), &head, &changes, Millis(0)).await.unwrap();
        }
        tx.commit().await.unwrap();
        let mut session = store.db.read().await.unwrap();
        let last = looked_at(&mut session.conn(), after).await;
        assert!(last <= first + first / 10, "{first} pages of the store at first, {last} at last");
        let from_the_start = looked_at(&mut session.conn(), 0).await;
        assert!(from_the_start > last, "what was opened is still there to be passed");
        report.commit().await.unwrap();
        drop(session);
        store.close().await;
    }
}
