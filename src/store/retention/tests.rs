use super::*;
use crate::store::{delivery::testing::TestStore, feed, idempotency};

const NOW: Millis = Millis(1_768_469_400_000);

#[test]
fn the_first_id_of_a_time_sorts_before_all_ids_made_then() {
    let clock = crate::clock::Clock::manual(NOW);
    let ids = crate::id::Ids::new(clock.clone());
    let earlier: DeliveryId = ids.next();
    let first = first_id(Millis(NOW.0 + 1));
    clock.set(Millis(NOW.0 + 1));
    assert!(earlier < first && first < ids.next::<DeliveryId>());
}

/// A tenant with 100 deliveries, failed but for every tenth, each with the attempts of `attempts`.
async fn hundred(store: &TestStore, attempts: usize) -> TenantId {
    let tenant = store.tenant().await;
    let endpoint = store.endpoint(tenant, "https://consumer.example/", false, &[]).await;
    for _ in 0..100 {
        store.append(tenant, None, NOW).await;
    }
    let mut tx = store.db.begin().await.unwrap();
    on!(&mut tx.conn(), c => sqlx::query(
        "UPDATE delivery SET status = 'failed', finished_at = 1
         WHERE endpoint_id = $1 AND event_position % 10 <> 0",
    )
    .bind(endpoint).execute(c).await.map(|_| ()))
    .unwrap();
    for number in 1..=attempts {
        on!(&mut tx.conn(), c => sqlx::query(
            "INSERT INTO delivery_attempt (delivery_id, attempt, started_at, latency_ms)
             SELECT id, $2, 0, 0 FROM delivery WHERE endpoint_id = $1",
        )
        .bind(endpoint).bind(i64::try_from(number).unwrap()).execute(c).await.map(|_| ()))
        .unwrap();
    }
    tx.commit().await.unwrap();
    tenant
}

/// After everything that the tests write.
fn later() -> Millis {
    crate::clock::Clock::System.now().plus(std::time::Duration::from_hours(1))
}

#[tokio::test]
async fn a_batch_deletes_no_more_rows_than_it_may() {
    for store in TestStore::all().await {
        let tenant = hundred(&store, 3).await;
        let start = DeliveryId(Uuid::nil());
        let (mut after, mut deleted, mut batches) = (start, 0, 0);
        loop {
            let mut tx = store.db.begin().await.unwrap();
            let batch = delete_attempts(&mut tx.conn(), after, later(), 10).await.unwrap();
            tx.commit().await.unwrap();
            assert!(batch.deleted <= 10 + 2, "the rest of the last delivery's: {batch:?}");
            deleted += batch.deleted;
            batches += 1;
            let Some(next) = batch.next else { break };
            after = next;
        }
        assert_eq!((deleted, batches), (270, 26), "those of waiting deliveries are passed over");
        let (mut after, mut deleted) = (start, 0);
        loop {
            let mut tx = store.db.begin().await.unwrap();
            let batch = delete_deliveries(&mut tx.conn(), after, later(), 7).await.unwrap();
            tx.commit().await.unwrap();
            assert!(batch.deleted <= 7, "{batch:?}");
            deleted += batch.deleted;
            let Some(next) = batch.next else { break };
            after = next;
        }
        assert_eq!(deleted, 90);
        let mut tx = store.db.begin().await.unwrap();
        let mut conn = tx.conn();
        for number in 0..50 {
            let at = Millis(NOW.0 + number);
            let key = (tenant, number.to_string());
            idempotency::take(&mut conn, vec![(&key, &[0; 32])], at, at).await.unwrap();
        }
        let keys = Expiring::IdempotencyKeys;
        let (mut after, mut deleted) = (Millis(0), 0);
        loop {
            let batch = delete_expired(&mut conn, keys, after, later(), 7).await.unwrap();
            assert!(batch.deleted <= 7, "{batch:?}");
            deleted += batch.deleted;
            let Some(next) = batch.next else { break };
            after = next;
        }
        assert_eq!(deleted, 50);
        let page = feed_page(&mut conn, tenant, 7).await.unwrap();
        assert_eq!((page.events.len(), page.waiting), (7, Some(10)));
        tx.commit().await.unwrap();
        store.close().await;
    }
}

#[tokio::test]
async fn a_delivery_is_not_deleted_before_its_attempts() {
    for store in TestStore::all().await {
        hundred(&store, 1).await;
        let start = DeliveryId(Uuid::nil());
        let mut tx = store.db.begin().await.unwrap();
        let batch = delete_deliveries(&mut tx.conn(), start, later(), 1000).await.unwrap();
        assert_eq!(batch.deleted, 0);
        tx.commit().await.unwrap();
        store.close().await;
    }
}

#[tokio::test]
async fn only_tenants_with_old_events_are_looked_at() {
    for store in TestStore::all().await {
        let (old, new, none) = (store.tenant().await, store.tenant().await, store.tenant().await);
        store.append(old, None, NOW).await;
        store.append(new, None, Millis(NOW.0 + 1000)).await;
        let mut tx = store.db.begin().await.unwrap();
        let mut conn = tx.conn();
        let start = TenantId(Uuid::nil());
        let due = |tenants: Vec<TenantId>| tenants == [old];
        let before = Millis(NOW.0 + 500);
        assert!(due(tenants_with_events(&mut conn, start, before, 10).await.unwrap()));
        assert!(tenants_with_events(&mut conn, none, before, 10).await.unwrap().is_empty());
        feed_page(&mut conn, old, 10).await.unwrap();
        assert_eq!(cut_feed(&mut conn, old, 1).await.unwrap(), 1);
        assert!(tenants_with_events(&mut conn, start, before, 10).await.unwrap().is_empty());
        tx.commit().await.unwrap();
        store.close().await;
    }
}

#[tokio::test]
async fn a_row_that_tells_two_events_stays_while_a_delivery_waits_for_either() {
    for store in TestStore::all().await {
        let tenant = store.tenant().await;
        let endpoint = store.endpoint(tenant, "https://consumer.example/", false, &[]).await;
        for _ in 0..4 {
            store.append(tenant, None, NOW).await;
        }
        // Rows at 2 and 4, each with the event before it, as a commit that connects and settles writes them.
        let mut tx = store.db.begin().await.unwrap();
        let mut conn = tx.conn();
        for sql in ["DELETE FROM event WHERE position IN (1, 3)", "UPDATE event SET events = 2"] {
            on!(&mut conn, c => sqlx::query(sql).execute(c).await.map(|_| ())).unwrap();
        }
        let start = TenantId(Uuid::nil());
        let old = tenants_with_events(&mut conn, start, Millis(NOW.0 + 1), 10).await.unwrap();
        assert_eq!(old, [tenant]);
        for (ended, waiting) in [(0, Some(1)), (1, Some(2)), (2, Some(3)), (3, Some(4)), (4, None)]
        {
            on!(&mut conn, c => sqlx::query(
                "UPDATE delivery SET status = 'failed' WHERE endpoint_id = $1 AND event_position <= $2",
            )
            .bind(endpoint).bind(ended).execute(c).await.map(|_| ()))
            .unwrap();
            let page = feed_page(&mut conn, tenant, 10).await.unwrap();
            assert_eq!(page, FeedPage { events: vec![(2, NOW), (4, NOW)], waiting });
        }
        tx.commit().await.unwrap();
        store.close().await;
    }
}

#[tokio::test]
async fn a_cut_feed_remembers_the_greatest_time_of_what_was_deleted() {
    for store in TestStore::all().await {
        let tenant = store.tenant().await;
        let mut ids = Vec::new();
        // Another chain's blocks can be committed later and be older.
        for at in [5, 90, 20, 30, 80] {
            ids.push(store.append(tenant, None, Millis(NOW.0 + at)).await);
        }
        let mut tx = store.db.begin().await.unwrap();
        let mut conn = tx.conn();
        for (through, deleted) in [(1, vec![0]), (2, vec![0, 1]), (3, vec![0, 1, 2])] {
            feed_page(&mut conn, tenant, 10).await.unwrap();
            assert_eq!(cut_feed(&mut conn, tenant, through).await.unwrap(), 1);
            for place in deleted {
                assert!(feed::may_have_been(&mut conn, tenant, ids[place]).await.unwrap());
            }
        }
        tx.commit().await.unwrap();
        store.close().await;
    }
}
