//! Stores for tests: a temporary SQLite file, and a database of its own on the PostgreSQL server that
//! `TIDEMARK_TEST_POSTGRES_URL` names (`tests/run` starts one), with what tests look at.

use std::{collections::BTreeMap, env};

use sqlx::{AssertSqlSafe, Connection as _, FromRow, PgConnection};
use tempfile::TempDir;

use super::{Db, audit, chain, on, transfer};
use crate::{
    amount::Amount,
    chain::{Address, AssetKey, ChainName},
    clock::Clock,
    id::{Ids, TenantId, WalletId},
    ledger::Position,
};

pub(crate) struct TestStore {
    pub db: Db,
    pub ids: Ids,
    _folder: Option<TempDir>,
    server: Option<(String, String)>,
}

/// A transfer by what it is and how it stands; ids and times differ between runs of one history.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, FromRow)]
pub(crate) struct Standing {
    pub tx: Vec<u8>,
    pub ordinal: String,
    pub direction: String,
    pub asset: Vec<u8>,
    pub kind: String,
    pub status: String,
    pub amount: Amount,
    pub counted: bool,
    pub block_number: i64,
}

impl TestStore {
    /// One store per engine that can be tested here.
    pub async fn all() -> Vec<Self> {
        let folder = tempfile::tempdir().unwrap();
        let db = Db::open(&format!("sqlite://{}/t.db", folder.path().display())).await.unwrap();
        let ids = Ids::new(Clock::System);
        let mut stores = vec![Self { db, ids: ids.clone(), _folder: Some(folder), server: None }];
        if let Ok(server) = env::var("TIDEMARK_TEST_POSTGRES_URL") {
            let name = format!("t_{}", ids.next::<uuid::Uuid>().simple());
            let mut admin = PgConnection::connect(&server).await.unwrap();
            let create = AssertSqlSafe(format!("CREATE DATABASE {name}"));
            sqlx::query(create).execute(&mut admin).await.unwrap();
            let mut url: url::Url = server.parse().unwrap();
            url.set_path(&name);
            let db = Db::open(url.as_str()).await.unwrap();
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
        let id: WalletId = self.ids.next();
        let mut tx = self.db.begin().await.unwrap();
        on!(&mut tx.conn(), c => sqlx::query(
            "INSERT INTO wallet (id, tenant_id, family, address, kind, created_at, updated_at)
             VALUES ($1, $2, 'evm', $3, 'eoa', 0, 0)",
        )
        .bind(id).bind(tenant).bind(address).execute(c).await.map(|_| ()))
        .unwrap();
        tx.commit().await.unwrap();
        id
    }

    /// Registers an address as the API does: a wallet, and the wish to watch it.
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
        let from = from.map(|block| i64::try_from(block).unwrap());
        let mut tx = self.db.begin().await.unwrap();
        on!(&mut tx.conn(), c => sqlx::query(
            "INSERT INTO watch (chain, address, wallet_id, tenant_id, status, from_block, history, created_at,
                                updated_at)
             VALUES ($1, $2, $3, $4, 'requested', $5, $6, 0, 0)",
        )
        .bind(chain.as_str()).bind(address.as_slice()).bind(id).bind(tenant)
        .bind(from).bind(from.map(|_| "wanted")).execute(c).await.map(|_| ()))
        .unwrap();
        tx.commit().await.unwrap();
        id
    }

    /// Asks for a wallet's watches to be closed, as the API does.
    pub async fn ask_to_close(&self, wallet: WalletId) {
        let mut tx = self.db.begin().await.unwrap();
        on!(&mut tx.conn(), c => sqlx::query(
            "UPDATE watch SET status = 'closing' WHERE wallet_id = $1 AND status = 'open'",
        )
        .bind(wallet).execute(c).await.map(|_| ()))
        .unwrap();
        tx.commit().await.unwrap();
    }

    pub async fn cursor(&self, name: &ChainName) -> Option<chain::Cursor> {
        let mut session = self.db.read().await.unwrap();
        chain::cursor(&mut session.conn(), name).await.unwrap()
    }

    pub async fn position(&self, wallet: WalletId, name: &ChainName, asset: AssetKey) -> Position {
        let mut session = self.db.read().await.unwrap();
        transfer::balance(&mut session.conn(), wallet, name, &asset).await.unwrap().position
    }

    /// A wallet's transfers, in a stable order.
    pub async fn transfers(&self, wallet: WalletId) -> Vec<Standing> {
        let mut session = self.db.read().await.unwrap();
        let mut rows: Vec<Standing> = on!(&mut session.conn(), c => sqlx::query_as(
            "SELECT tx, ordinal, direction, asset, kind, status, amount, counted, block_number
             FROM transfer WHERE wallet_id = $1",
        )
        .bind(wallet).fetch_all(c).await)
        .unwrap();
        rows.sort();
        rows
    }

    /// A wallet's balances, computed anew from the entries alone.
    pub async fn replayed(
        &self,
        wallet: WalletId,
        name: &ChainName,
    ) -> BTreeMap<AssetKey, Position> {
        let mut session = self.db.read().await.unwrap();
        audit::replayed(&mut session.conn(), name, wallet).await.unwrap()
    }

    /// What was told of a tenant, in order: type, wallet, and the transfer's id if it is of one.
    pub async fn events(&self, tenant: TenantId) -> Vec<(String, Option<i64>, serde_json::Value)> {
        let mut session = self.db.read().await.unwrap();
        let rows: Vec<(String, Option<i64>, String)> =
            on!(&mut session.conn(), c => sqlx::query_as(
            "SELECT type, sequence, body FROM event WHERE tenant_id = $1 ORDER BY position",
        )
        .bind(tenant).fetch_all(c).await)
            .unwrap();
        rows.into_iter()
            .map(|(kind, sequence, body)| (kind, sequence, serde_json::from_str(&body).unwrap()))
            .collect()
    }
}
