//! Stores for tests: a temporary SQLite file, and a database of its own on the PostgreSQL server that
//! `TIDEMARK_TEST_POSTGRES_URL` names (`tests/run` starts one), with what tests look at.

use std::{collections::BTreeMap, env};

use sqlx::{AssertSqlSafe, Connection as _, FromRow, PgConnection};
use tempfile::TempDir;

use super::{Db, StoreError, audit, balance, chain, code, event, feed, on, registration};
use crate::{
    amount::Amount,
    chain::{Address, AssetKey, ChainName, Kind},
    clock::{Clock, Millis},
    id::{Ids, TenantId, WalletId},
    ledger::changes::{BalanceChange, ProofChange},
    metrics::Metrics,
    model::{
        AssetNo, Balance, BalanceRef, Cursor, Direction, NewWallet, NewWatch, Position, Status,
        WalletKind, WalletNo, read_ordinal,
    },
};

pub(crate) struct TestStore {
    pub db: Db,
    pub ids: Ids,
    _folder: Option<TempDir>,
    server: Option<(String, String)>,
}

/// A transfer by what it is and how it stands; ids and times differ between runs of one history.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct StoredTransfer {
    pub tx: Vec<u8>,
    pub ordinal: String,
    pub direction: Direction,
    pub asset: Vec<u8>,
    pub kind: Kind,
    pub status: Status,
    pub amount: Amount,
    pub counted: bool,
    pub block_number: i64,
}

#[derive(FromRow)]
struct RawStored {
    tx: Vec<u8>,
    ordinal: Vec<u8>,
    direction: i16,
    asset: Vec<u8>,
    kind: i16,
    status: i16,
    amount: Amount,
    counted: bool,
    block_number: i64,
}

impl TryFrom<RawStored> for StoredTransfer {
    type Error = StoreError;

    fn try_from(row: RawStored) -> Result<Self, StoreError> {
        Ok(Self {
            tx: row.tx,
            ordinal: read_ordinal(&row.ordinal).expect("an ordinal").to_string(),
            direction: code::read_direction(row.direction)?,
            asset: row.asset,
            kind: code::read_kind(row.kind)?,
            status: code::read_status(row.status)?,
            amount: row.amount,
            counted: row.counted,
            block_number: row.block_number,
        })
    }
}

impl TestStore {
    /// One store per engine that can be tested here.
    pub async fn all() -> Vec<Self> {
        let folder = tempfile::tempdir().unwrap();
        let db = Db::open(&format!("sqlite://{}/t.db", folder.path().display()), &Metrics::new())
            .await
            .unwrap();
        let ids = Ids::new(Clock::System);
        let mut stores = vec![Self { db, ids: ids.clone(), _folder: Some(folder), server: None }];
        if let Ok(server) = env::var("TIDEMARK_TEST_POSTGRES_URL") {
            let name = format!("t_{}", ids.next::<uuid::Uuid>().simple());
            let mut admin = PgConnection::connect(&server).await.unwrap();
            let create = AssertSqlSafe(format!("CREATE DATABASE {name}"));
            sqlx::query(create).execute(&mut admin).await.unwrap();
            let mut url: url::Url = server.parse().unwrap();
            url.set_path(&name);
            let db = Db::open(url.as_str(), &Metrics::new()).await.unwrap();
            stores.push(Self { db, ids, _folder: None, server: Some((server, name)) });
        }
        stores
    }

    pub async fn close(self) {
        self.db.close().await;
        if let Some((server, name)) = self.server {
            let mut admin = PgConnection::connect(&server).await.unwrap();
            let drop = AssertSqlSafe(format!("DROP DATABASE {name} WITH (FORCE)"));
            sqlx::query(drop).execute(&mut admin).await.unwrap();
        }
    }

    /// Ends every connection to a PostgreSQL store, as a restart of the server does; `false` on SQLite.
    pub async fn end_connections(&self) -> bool {
        let Some((server, name)) = &self.server else { return false };
        let mut admin = PgConnection::connect(server).await.unwrap();
        sqlx::query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1")
            .bind(name)
            .execute(&mut admin)
            .await
            .unwrap();
        true
    }

    /// Makes the store one of before the fourth migration, by `down`, and brings it up to date again.
    pub async fn upgrade(&self, down: &[&'static str]) {
        for sql in down {
            self.execute(sql).await.unwrap();
        }
        self.execute("DELETE FROM _sqlx_migrations WHERE version = 4").await.unwrap();
        self.db.engine.migrate().await.unwrap();
    }

    /// Whether a transaction that writes has the whole store for itself.
    pub fn has_one_writer(&self) -> bool {
        self.server.is_none()
    }

    /// Does to the store what no function of the program does.
    pub async fn execute(&self, sql: &'static str) -> Result<u64, StoreError> {
        let mut tx = self.db.begin().await?;
        let rows = on!(&mut tx.conn(), c => {
            sqlx::query(sql).execute(c).await.map(|done| done.rows_affected())
        })?;
        tx.commit().await?;
        Ok(rows)
    }

    pub async fn tenant(&self) -> TenantId {
        let id: TenantId = self.ids.next();
        let mut tx = self.db.begin().await.unwrap();
        on!(&mut tx.conn(), c => sqlx::query(
            "INSERT INTO tenant (id, name, created_at) VALUES ($1, $2, 0)",
        )
        .bind(id).bind(id.to_string()).execute(c).await.map(|_| ()))
        .unwrap();
        tx.commit().await.unwrap();
        id
    }

    pub async fn wallet(&self, tenant: TenantId, address: &[u8]) -> WalletId {
        let mut tx = self.db.begin().await.unwrap();
        let wallet = NewWallet {
            id: self.ids.next(),
            tenant: event::tenant_no(&mut tx.conn(), tenant).await.unwrap(),
            tenant_id: tenant,
            account_id: None,
            family: crate::chain::Family::Evm,
            address: Address::from_slice(address).unwrap(),
            kind: WalletKind::Eoa,
            safe: None,
            client_reference_id: None,
            nickname: None,
            is_primary: false,
        };
        let wallets = [wallet];
        registration::insert_wallets(&mut tx.conn(), &wallets, Millis(0)).await.unwrap();
        tx.commit().await.unwrap();
        wallets[0].id
    }

    /// The number of a wallet.
    pub async fn wallet_no(&self, wallet: WalletId) -> WalletNo {
        let mut session = self.db.read().await.unwrap();
        event::numbers(&mut session.conn(), &[wallet]).await.unwrap()[&wallet]
    }

    /// How many rows a table has.
    pub async fn rows(&self, table: &str) -> i64 {
        let mut session = self.db.read().await.unwrap();
        let sql = format!("SELECT COUNT(*) FROM {table}");
        on!(&mut session.conn(), c => sqlx::query_scalar(sqlx::AssertSqlSafe(sql))
            .fetch_one(c).await)
        .unwrap()
    }

    /// Every row of every table, as text.
    pub async fn everything(&self) -> BTreeMap<String, Vec<String>> {
        let is_file = self.has_one_writer();
        let mut session = self.db.read().await.unwrap();
        let mut conn = session.conn();
        let mut texts = async |sql: String| -> Vec<String> {
            on!(&mut conn, c => sqlx::query_scalar(AssertSqlSafe(sql)).fetch_all(c).await).unwrap()
        };
        let tables = if is_file {
            "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
        } else {
            "SELECT tablename::TEXT FROM pg_tables WHERE schemaname = 'public'"
        };
        let mut all = BTreeMap::new();
        for table in texts(tables.to_owned()).await {
            let row = if is_file {
                let quoted = "SELECT 'quote(\"' || name || '\")' FROM";
                texts(format!("{quoted} pragma_table_info('{table}')")).await.join(" || ',' || ")
            } else {
                "t::TEXT".to_owned()
            };
            let rows = texts(format!("SELECT {row} FROM {table} t ORDER BY 1")).await;
            all.insert(table, rows);
        }
        all
    }

    /// The number of an asset, if the chain has it.
    pub async fn asset_no(&self, name: &ChainName, asset: AssetKey) -> Option<AssetNo> {
        let cursor = self.cursor(name).await?;
        let mut session = self.db.read().await.unwrap();
        let found = super::asset::by_keys(&mut session.conn(), cursor.no, &[asset]).await.unwrap();
        found.into_iter().find(|found| found.key == asset).map(|found| found.no)
    }

    /// Which balance of a tenant's wallet.
    pub async fn balance_ref(
        &self,
        tenant: TenantId,
        wallet: WalletId,
        address: Address,
        name: &ChainName,
        key: AssetKey,
    ) -> BalanceRef {
        let mut session = self.db.read().await.unwrap();
        let tenant = event::tenant_no(&mut session.conn(), tenant).await.unwrap();
        drop(session);
        BalanceRef {
            wallet: self.wallet_no(wallet).await,
            tenant,
            wallet_id: wallet,
            address,
            asset: self.asset_no(name, key).await.unwrap(),
            key,
        }
    }

    /// Registers an address as the API does: a wallet, and the request to watch it.
    pub async fn register(
        &self,
        tenant: TenantId,
        chain: &ChainName,
        address: Address,
    ) -> WalletId {
        self.register_since(tenant, chain, address, None).await
    }

    /// The same, with the history since a block.
    pub async fn register_since(
        &self,
        tenant: TenantId,
        chain: &ChainName,
        address: Address,
        from: Option<u64>,
    ) -> WalletId {
        let id = self.wallet(tenant, address.as_slice()).await;
        let numbers = BTreeMap::from([(id, self.wallet_no(id).await)]);
        let mut tx = self.db.begin().await.unwrap();
        let chain_no = chain::ensure(&mut tx.conn(), chain).await.unwrap();
        let tenant = event::tenant_no(&mut tx.conn(), tenant).await.unwrap();
        let watch = NewWatch { key: (tenant, chain_no, address), wallet: id, from_block: from };
        let mut conn = tx.conn();
        let watched = registration::insert_watches(&mut conn, &[watch], &numbers, Millis(0)).await;
        assert!(watched.unwrap(), "it is watched already");
        tx.commit().await.unwrap();
        id
    }

    /// How many open watches wait for their history.
    pub async fn wanted_histories(&self) -> i64 {
        let mut session = self.db.read().await.unwrap();
        on!(&mut session.conn(), c => sqlx::query_scalar(
            "SELECT COUNT(*) FROM watch WHERE history = 'wanted' AND status = 1",
        )
        .fetch_one(c)
        .await)
        .unwrap()
    }

    /// Asks for a wallet's watches to be closed, as the API does.
    pub async fn ask_to_close(&self, wallet: WalletId) {
        let mut tx = self.db.begin().await.unwrap();
        on!(&mut tx.conn(), c => sqlx::query(
            "UPDATE watch SET status = 2
             WHERE wallet_no = (SELECT no FROM wallet WHERE id = $1) AND status = 1",
        )
        .bind(wallet).execute(c).await.map(|_| ()))
        .unwrap();
        tx.commit().await.unwrap();
    }

    pub async fn cursor(&self, name: &ChainName) -> Option<Cursor> {
        let mut session = self.db.read().await.unwrap();
        chain::cursor(&mut session.conn(), name).await.unwrap()
    }

    /// Makes a token one that is not listed.
    pub async fn unlist(&self, name: &ChainName, asset: AssetKey) {
        let no = self.asset_no(name, asset).await.unwrap();
        let mut tx = self.db.begin().await.unwrap();
        on!(&mut tx.conn(), c => sqlx::query("UPDATE asset SET verified = $2 WHERE no = $1")
            .bind(no.0)
            .bind(false)
            .execute(c)
            .await
            .map(|_| ()))
        .unwrap();
        tx.commit().await.unwrap();
    }

    pub async fn position(&self, wallet: WalletId, name: &ChainName, asset: AssetKey) -> Position {
        self.balance(wallet, name, asset).await.position
    }

    pub async fn balance(&self, wallet: WalletId, name: &ChainName, asset: AssetKey) -> Balance {
        let Some(asset) = self.asset_no(name, asset).await else { return Balance::default() };
        let wallet = self.wallet_no(wallet).await;
        let mut session = self.db.read().await.unwrap();
        let conn = &mut session.conn();
        let all = balance::of_wallets(conn, asset.chain(), &[wallet]).await.unwrap();
        all.get(&(wallet, asset)).copied().unwrap_or_default()
    }

    /// The newest figure of the chain's own that a balance agreed with.
    pub async fn agreement(
        &self,
        wallet: WalletId,
        name: &ChainName,
        asset: AssetKey,
    ) -> Option<balance::Agreement> {
        let asset = self.asset_no(name, asset).await?;
        let wallet = self.wallet_no(wallet).await;
        let mut session = self.db.read().await.unwrap();
        balance::agreement(&mut session.conn(), wallet, asset).await.unwrap()
    }

    /// Writes a balance behind the ledger's back.
    pub async fn set_balance(
        &self,
        wallet: WalletId,
        name: &ChainName,
        asset: AssetKey,
        balance: Balance,
    ) {
        let asset = self.asset_no(name, asset).await.unwrap();
        let wallet = self.wallet_no(wallet).await;
        let change = BalanceChange { wallet, asset, balance, block: 0, proof: ProofChange::Kept };
        let mut tx = self.db.begin().await.unwrap();
        balance::write(&mut tx.conn(), &[change], Millis(0)).await.unwrap();
        tx.commit().await.unwrap();
    }

    /// Changes the kept number of a tenant's addresses behind its watches' back.
    pub async fn miscount(&self, tenant: TenantId, by: i64) {
        let mut tx = self.db.begin().await.unwrap();
        on!(&mut tx.conn(), c => sqlx::query(
            "UPDATE watch_count SET addresses = addresses + $2
             WHERE tenant_no = (SELECT no FROM tenant WHERE id = $1)",
        )
        .bind(tenant).bind(by).execute(c).await.map(|_| ()))
        .unwrap();
        tx.commit().await.unwrap();
    }

    /// A wallet's transfers, in a stable order.
    pub async fn transfers(&self, wallet: WalletId) -> Vec<StoredTransfer> {
        let mut session = self.db.read().await.unwrap();
        let rows: Vec<RawStored> = on!(&mut session.conn(), c => sqlx::query_as(
            "SELECT t.tx, t.ordinal, t.direction, a.asset, t.kind, t.status, t.amount, t.counted,
                    t.block_number
             FROM transfer t JOIN asset a ON a.no = t.asset_no
             WHERE t.wallet_no = (SELECT no FROM wallet WHERE id = $1) AND t.status <> 3",
        )
        .bind(wallet).fetch_all(c).await)
        .unwrap();
        let mut rows: Vec<StoredTransfer> =
            rows.into_iter().map(|row| StoredTransfer::try_from(row).unwrap()).collect();
        rows.sort();
        rows
    }

    /// A wallet's balances, computed anew from the entries alone.
    pub async fn replayed(
        &self,
        wallet: WalletId,
        name: &ChainName,
    ) -> BTreeMap<AssetKey, Position> {
        let Some(cursor) = self.cursor(name).await else { return BTreeMap::new() };
        let wallet = self.wallet_no(wallet).await;
        let mut session = self.db.read().await.unwrap();
        let conn = &mut session.conn();
        let books = audit::replayed(conn, cursor.no, wallet).await.unwrap();
        assert_eq!((books.altered, books.doubled), (0, 0));
        let numbers: Vec<AssetNo> = books.positions.keys().copied().collect();
        let assets = super::asset::by_numbers(conn, &numbers).await.unwrap();
        books.positions.into_iter().map(|(no, position)| (assets[&no].key, position)).collect()
    }

    /// What was told of a tenant, in order: type, the wallet's sequence, and the JSON that consumers get.
    pub async fn events(&self, tenant: TenantId) -> Vec<(String, Option<i64>, serde_json::Value)> {
        let mut session = self.db.read().await.unwrap();
        let rows = feed::after(&mut session.conn(), tenant, 0, &[], i64::MAX).await.unwrap();
        let positions: Vec<i64> = rows.iter().map(|row| row.event.position).collect();
        let expected: Vec<i64> = (1..=i64::try_from(rows.len()).unwrap()).collect();
        assert_eq!(positions, expected, "the feed has no gaps");
        rows.into_iter()
            .map(|row| {
                let body = serde_json::from_str(row.body.get()).unwrap();
                (row.event.kind.to_string(), row.event.sequence, body)
            })
            .collect()
    }
}

/// Changes all watches behind the followers' back.
pub(crate) async fn change_watches(db: &Db, set: &'static str) {
    let mut tx = db.begin().await.unwrap();
    on!(&mut tx.conn(), c => {
        sqlx::query(AssertSqlSafe(format!("UPDATE watch SET {set}"))).execute(c).await.map(|_| ())
    })
    .unwrap();
    tx.commit().await.unwrap();
}
