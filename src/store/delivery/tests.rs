use super::{testing::TestStore, *};
use crate::{
    delivery::DisabledReason,
    id::WalletId,
    store::{Db, endpoint},
};

const NOW: Millis = Millis(1_768_469_400_000);
const LATER: Millis = Millis(NOW.0 + 40_000);

fn attempt(claimed: &Claimed) -> Attempt {
    Attempt {
        number: claimed.attempts + 1,
        started_at: NOW,
        latency_ms: 3,
        status_code: Some(200),
        error: None,
    }
}

async fn claim_at(
    store: &TestStore,
    endpoint: EndpointId,
    now: Millis,
    limit: i64,
) -> Vec<Claimed> {
    let lease = Lease { token: store.ids.next(), until: Millis(now.0 + 30_000) };
    let mut tx = store.db.begin().await.unwrap();
    let claimed = claim(&mut tx.conn(), endpoint, now, lease, limit).await.unwrap();
    tx.commit().await.unwrap();
    claimed
}

async fn record_at(db: &Db, claimed: &Claimed, outcome: DeliveryOutcome, now: Millis) -> bool {
    let mut tx = db.begin().await.unwrap();
    let recorded = record(&mut tx.conn(), claimed, &attempt(claimed), outcome, now).await.unwrap();
    tx.commit().await.unwrap();
    recorded
}

async fn due_at(store: &TestStore, now: Millis) -> Vec<EndpointId> {
    let mut session = store.db.read().await.unwrap();
    let due = due_endpoints(&mut session.conn(), now, None, 100).await.unwrap();
    due.into_iter().map(|endpoint| endpoint.id).collect()
}

async fn one_endpoint(store: &TestStore, ordered: bool) -> (TenantId, EndpointId) {
    let tenant = store.tenant().await;
    (tenant, store.endpoint(tenant, "https://consumer.example/", ordered, &[]).await)
}

#[tokio::test]
async fn a_delivery_is_leased_to_one_only_until_the_lease_ends() {
    for store in TestStore::all().await {
        let (tenant, endpoint) = one_endpoint(&store, false).await;
        for _ in 0..3 {
            store.append(tenant, None, NOW).await;
        }
        assert!(claim_at(&store, endpoint, Millis(NOW.0 - 1), 10).await.is_empty(), "not yet due");
        assert_eq!(due_at(&store, NOW).await, [endpoint]);
        assert_eq!(claim_at(&store, endpoint, NOW, 2).await.len(), 2, "no more than asked for");
        assert_eq!(claim_at(&store, endpoint, NOW, 10).await.len(), 1);
        assert!(claim_at(&store, endpoint, NOW, 10).await.is_empty());
        assert!(due_at(&store, NOW).await.is_empty());
        assert_eq!(claim_at(&store, endpoint, LATER, 10).await.len(), 3);
        store.close().await;
    }
}

#[tokio::test]
async fn claimers_at_once_never_get_the_same_delivery() {
    for store in TestStore::all().await {
        let (tenant, endpoint) = one_endpoint(&store, false).await;
        for _ in 0..40 {
            store.append(tenant, None, NOW).await;
        }
        let claims = (0..8).map(|_| claim_at(&store, endpoint, NOW, 10));
        let mut ids: Vec<DeliveryId> =
            futures::future::join_all(claims).await.into_iter().flatten().map(|c| c.id).collect();
        // On PostgreSQL a claimer passes over what another one is taking, so some may be left.
        ids.extend(claim_at(&store, endpoint, NOW, 100).await.into_iter().map(|c| c.id));
        assert_eq!(ids.len(), 40);
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), 40);
        store.close().await;
    }
}

#[tokio::test]
async fn a_record_with_a_stale_lease_changes_nothing() {
    for store in TestStore::all().await {
        let (tenant, endpoint) = one_endpoint(&store, false).await;
        store.append(tenant, None, NOW).await;
        let first = claim_at(&store, endpoint, NOW, 1).await.remove(0);
        let second = claim_at(&store, endpoint, LATER, 1).await.remove(0);
        assert_eq!(first.id, second.id);
        let before = store.delivery(first.id).await;
        assert!(!record_at(&store.db, &first, DeliveryOutcome::Delivered, LATER).await);
        let mut tx = store.db.begin().await.unwrap();
        assert!(!release(&mut tx.conn(), &first).await.unwrap());
        tx.commit().await.unwrap();
        assert_eq!(store.delivery(first.id).await, before);
        assert!(store.attempts(endpoint).await.is_empty());
        assert!(record_at(&store.db, &second, DeliveryOutcome::Delivered, LATER).await);
        assert!(
            !record_at(&store.db, &second, DeliveryOutcome::Failed, LATER).await,
            "recorded once"
        );
        assert_eq!(store.delivery(first.id).await.status, DeliveryStatus::Delivered);
        assert_eq!(store.attempts(endpoint).await, [(Some(200), None)]);
        store.close().await;
    }
}

#[tokio::test]
async fn a_delivery_to_be_tried_again_waits_until_then_and_counts_its_attempts() {
    for store in TestStore::all().await {
        let (tenant, endpoint) = one_endpoint(&store, false).await;
        store.append(tenant, None, NOW).await;
        let claimed = claim_at(&store, endpoint, NOW, 1).await.remove(0);
        assert!(record_at(&store.db, &claimed, DeliveryOutcome::Retry { at: LATER }, NOW).await);
        assert!(claim_at(&store, endpoint, Millis(LATER.0 - 1), 1).await.is_empty());
        let mut session = store.db.read().await.unwrap();
        assert_eq!(next_due(&mut session.conn(), NOW).await.unwrap(), Some(LATER));
        assert_eq!(next_due(&mut session.conn(), LATER).await.unwrap(), None);
        let backlog = backlog(&mut session.conn()).await.unwrap();
        assert_eq!(backlog, Backlog { pending: 1, oldest: Some(NOW) });
        drop(session);
        let again = claim_at(&store, endpoint, LATER, 1).await.remove(0);
        assert_eq!((again.id, again.attempts), (claimed.id, 1));
        store.close().await;
    }
}

#[tokio::test]
async fn an_ordered_endpoint_gets_one_delivery_at_a_time_of_each_wallet() {
    for store in TestStore::all().await {
        let (tenant, ordered) = one_endpoint(&store, true).await;
        let other = store.endpoint(tenant, "https://other.example/", false, &[]).await;
        let (a, b): (WalletId, WalletId) =
            (store.wallet(tenant, &[7; 20]).await, store.wallet(tenant, &[8; 20]).await);
        for wallet in [Some(a), Some(a), Some(b), Some(a), None, None] {
            store.append(tenant, wallet, NOW).await;
        }
        let taken = |claimed: &[Claimed]| {
            let mut positions: Vec<i64> = claimed.iter().map(|c| c.event_position).collect();
            positions.sort_unstable();
            positions
        };
        let first = claim_at(&store, ordered, NOW, 10).await;
        assert_eq!(taken(&first), [1, 3, 5, 6], "one of each wallet, and all without a wallet");
        assert!(claim_at(&store, ordered, NOW, 10).await.is_empty());
        assert!(!due_at(&store, NOW).await.contains(&ordered), "blocked ones are not due");
        assert_eq!(claim_at(&store, other, NOW, 10).await.len(), 6, "only there");
        let of_a = first.iter().find(|c| c.event_position == 1).unwrap();
        assert!(record_at(&store.db, of_a, DeliveryOutcome::Retry { at: LATER }, NOW).await);
        assert!(
            claim_at(&store, ordered, NOW, 10).await.is_empty(),
            "a failing one blocks its wallet"
        );
        let again = claim_at(&store, ordered, LATER, 10).await;
        assert_eq!(taken(&again)[0], 1);
        let of_a = again.iter().find(|c| c.event_position == 1).unwrap();
        assert!(record_at(&store.db, of_a, DeliveryOutcome::Failed, LATER).await);
        assert_eq!(taken(&claim_at(&store, ordered, LATER, 10).await), [2]);
        store.close().await;
    }
}

#[tokio::test]
async fn a_disabled_endpoint_gets_nothing_and_what_waited_has_failed() {
    for store in TestStore::all().await {
        let (tenant, endpoint) = one_endpoint(&store, false).await;
        for _ in 0..2 {
            store.append(tenant, None, NOW).await;
        }
        let claimed = claim_at(&store, endpoint, NOW, 1).await.remove(0);
        let mut tx = store.db.begin().await.unwrap();
        assert!(
            endpoint::disable(&mut tx.conn(), endpoint, DisabledReason::Gone, NOW).await.unwrap()
        );
        assert!(
            !endpoint::disable(&mut tx.conn(), endpoint, DisabledReason::Failing, NOW)
                .await
                .unwrap()
        );
        tx.commit().await.unwrap();
        assert!(claim_at(&store, endpoint, NOW, 10).await.is_empty());
        let mut session = store.db.read().await.unwrap();
        assert!(request(&mut session.conn(), &claimed, NOW).await.unwrap().is_none());
        drop(session);
        let mut tx = store.db.begin().await.unwrap();
        let closed = closed_with_pending(&mut tx.conn(), NOW, 10).await.unwrap();
        assert_eq!(closed, [endpoint]);
        assert_eq!(fail_pending(&mut tx.conn(), endpoint, NOW).await.unwrap(), 1);
        assert!(closed_with_pending(&mut tx.conn(), NOW, 10).await.unwrap().is_empty());
        assert_eq!(closed_with_pending(&mut tx.conn(), LATER, 10).await.unwrap(), [endpoint]);
        tx.commit().await.unwrap();
        assert_eq!(store.count(endpoint, DeliveryStatus::Failed).await, 1);
        assert!(
            record_at(&store.db, &claimed, DeliveryOutcome::Delivered, NOW).await,
            "it was under way"
        );
        assert_eq!(store.disabled_reason(endpoint).await, Some(DisabledReason::Gone));
        store.close().await;
    }
}

#[tokio::test]
async fn a_request_has_the_events_body_and_the_valid_secrets_only() {
    for store in TestStore::all().await {
        let tenant = store.tenant().await;
        let endpoint =
            store.endpoint(tenant, "https://consumer.example/", false, &["a", "b"]).await;
        let mut tx = store.db.begin().await.unwrap();
        on!(&mut tx.conn(), c => sqlx::query(
            "UPDATE webhook_secret SET expires_at = $1 WHERE secret = 'a'",
        )
        .bind(LATER).execute(c).await.map(|_| ()))
        .unwrap();
        tx.commit().await.unwrap();
        let event = store.append(tenant, None, NOW).await;
        let claimed = claim_at(&store, endpoint, NOW, 1).await.remove(0);
        let mut session = store.db.read().await.unwrap();
        let now = request(&mut session.conn(), &claimed, NOW).await.unwrap().unwrap();
        assert_eq!(now.secrets, ["a", "b"]);
        assert_eq!(now.url, "https://consumer.example/");
        assert_eq!(now.event, event);
        assert!(now.body.contains(&event.to_string()));
        let later = request(&mut session.conn(), &claimed, LATER).await.unwrap().unwrap();
        assert_eq!(later.secrets, ["b"]);
        drop(session);
        store.close().await;
    }
}
