//! What tests of deliveries put into a store and look at.

use crate::{
    clock::Millis,
    delivery::{DeliveryStatus, DisabledReason},
    event::{EventType, EventWallet, NewEvent},
    id::{DeliveryId, EndpointId, EventId, TenantId, WalletId},
    store::{event, on},
};

pub(crate) use crate::store::testing::TestStore;

/// A delivery as the store has it.
#[derive(Debug, PartialEq, Eq, sqlx::FromRow)]
pub(crate) struct DeliveryState {
    #[sqlx(try_from = "String")]
    pub status: DeliveryStatus,
    pub attempts: i64,
    pub next_attempt_at: Millis,
    pub lease_until: Option<Millis>,
}

impl TestStore {
    pub async fn endpoint(
        &self,
        tenant: TenantId,
        url: &str,
        ordered: bool,
        secrets: &[&str],
    ) -> EndpointId {
        let id: EndpointId = self.ids.next();
        let mut tx = self.db.begin().await.unwrap();
        on!(&mut tx.conn(), c => sqlx::query(
            "INSERT INTO webhook_endpoint (id, tenant_id, url, events, ordered, created_at, updated_at)
             VALUES ($1, $2, $3, '[\"*\"]', $4, 0, 0)",
        )
        .bind(id).bind(tenant).bind(url).bind(ordered).execute(c).await.map(|_| ()))
        .unwrap();
        for secret in secrets {
            on!(&mut tx.conn(), c => sqlx::query(
                "INSERT INTO webhook_secret (endpoint_id, secret, created_at) VALUES ($1, $2, 0)",
            )
            .bind(id).bind(*secret).execute(c).await.map(|_| ()))
            .unwrap();
        }
        tx.commit().await.unwrap();
        id
    }

    /// Appends one event as the ledger does, with a delivery to every endpoint of the tenant.
    pub async fn append(&self, tenant: TenantId, wallet: Option<WalletId>, now: Millis) -> EventId {
        let data = serde_json::json!({ "wallet": wallet, "text": "é" });
        let once: uuid::Uuid = self.ids.next();
        let mut tx = self.db.begin().await.unwrap();
        let no = event::tenant_no(&mut tx.conn(), tenant).await.unwrap();
        let of = wallet.map(EventWallet::Id);
        let kind = EventType::DepositPending;
        let told = NewEvent::data(no, of, kind, &[once.as_bytes()], now, &data).unwrap();
        let id = told.ids()[0];
        event::append(&mut tx.conn(), &self.ids, now, &[told]).await.unwrap();
        tx.commit().await.unwrap();
        id
    }

    pub async fn delivery(&self, id: DeliveryId) -> DeliveryState {
        let mut session = self.db.read().await.unwrap();
        on!(&mut session.conn(), c => sqlx::query_as(
            "SELECT status, attempts, next_attempt_at, lease_until FROM delivery WHERE id = $1",
        )
        .bind(id).fetch_one(c).await)
        .unwrap()
    }

    /// How many deliveries to an endpoint have a status.
    pub async fn count(&self, endpoint: EndpointId, status: DeliveryStatus) -> i64 {
        let mut session = self.db.read().await.unwrap();
        on!(&mut session.conn(), c => sqlx::query_scalar(
            "SELECT COUNT(*) FROM delivery WHERE endpoint_id = $1 AND status = $2",
        )
        .bind(endpoint).bind(status.as_str()).fetch_one(c).await)
        .unwrap()
    }

    pub async fn leased(&self) -> i64 {
        self.number("SELECT COUNT(*) FROM delivery WHERE lease_token IS NOT NULL").await
    }

    /// The attempts to an endpoint in their order: status code and error.
    pub async fn attempts(&self, endpoint: EndpointId) -> Vec<(Option<i64>, Option<String>)> {
        let mut session = self.db.read().await.unwrap();
        on!(&mut session.conn(), c => sqlx::query_as(
            "SELECT a.status_code, a.error FROM delivery_attempt a JOIN delivery d ON d.id = a.delivery_id
             WHERE d.endpoint_id = $1 ORDER BY d.id, a.attempt",
        )
        .bind(endpoint).fetch_all(c).await)
        .unwrap()
    }

    pub async fn disabled_reason(&self, endpoint: EndpointId) -> Option<DisabledReason> {
        let mut session = self.db.read().await.unwrap();
        let reason: Option<String> = on!(&mut session.conn(), c => sqlx::query_scalar(
            "SELECT disabled_reason FROM webhook_endpoint WHERE id = $1",
        )
        .bind(endpoint).fetch_one(c).await)
        .unwrap();
        reason.map(|word| DisabledReason::parse(&word).unwrap())
    }

    pub async fn set_failing_since(&self, endpoint: EndpointId, since: Millis) {
        let mut tx = self.db.begin().await.unwrap();
        on!(&mut tx.conn(), c => sqlx::query(
            "UPDATE webhook_endpoint SET failing_since = $2 WHERE id = $1",
        )
        .bind(endpoint).bind(since).execute(c).await.map(|_| ()))
        .unwrap();
        tx.commit().await.unwrap();
    }

    pub async fn failing_since(&self, endpoint: EndpointId) -> Option<Millis> {
        let mut session = self.db.read().await.unwrap();
        on!(&mut session.conn(), c => sqlx::query_scalar(
            "SELECT failing_since FROM webhook_endpoint WHERE id = $1",
        )
        .bind(endpoint).fetch_one(c).await)
        .unwrap()
    }

    pub async fn disabled_events(&self) -> i64 {
        self.number("SELECT COUNT(*) FROM event WHERE kind = 21").await
    }

    async fn number(&self, sql: &'static str) -> i64 {
        let mut session = self.db.read().await.unwrap();
        on!(&mut session.conn(), c => sqlx::query_scalar(sql).fetch_one(c).await).unwrap()
    }
}
