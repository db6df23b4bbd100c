use std::{collections::BTreeSet, time::Duration};

use proptest::prelude::*;

use super::*;
use crate::{
    delivery::{Attempt, DeliveryOutcome, DeliveryStatus},
    id::EndpointId,
    store::{
        delivery::{self, Claimed, Lease, NewDelivery, testing::TestStore},
        endpoint, feed, idempotency, key, on, ownership,
    },
};

const DAY: Duration = Duration::from_hours(24);

fn for_ever() -> RetentionConfig {
    RetentionConfig::for_ever(DAY)
}

/// A day for everything.
fn a_day() -> RetentionConfig {
    RetentionConfig {
        events: Some(DAY),
        deliveries: Some(DAY),
        delivery_attempts: Some(DAY),
        idempotency_keys: DAY,
        expired_secrets: Some(DAY),
        expired_challenges: Some(DAY),
        worthless_transfers: Some(DAY),
    }
}

fn now() -> Millis {
    Clock::System.now()
}

/// Retention that runs days after what the tests wrote.
fn retention(store: &TestStore, days: u32, config: RetentionConfig) -> Retention {
    let clock = Clock::manual(now().plus(days * DAY));
    Retention::new(store.db.clone(), clock, Metrics::new(), config)
}

impl Retention {
    fn deleted(&self, table: Table) -> u64 {
        self.metrics.retention_deleted_total.with_label_values(&[table.as_str()]).get()
    }
}

/// What a store holds of one tenant.
#[derive(Debug, PartialEq, Eq)]
struct Contents {
    positions: Vec<i64>,
    floor: i64,
    pending: i64,
    ended: i64,
    attempts: i64,
}

impl TestStore {
    async fn contents(&self, tenant: TenantId, endpoint: EndpointId) -> Contents {
        // Of one state: the commit of a run that was dropped may still be under way.
        let mut snapshot = self.db.snapshot().await.unwrap();
        let mut conn = snapshot.conn();
        let positions = on!(&mut conn, c => sqlx::query_scalar(
            "SELECT position FROM event
             WHERE tenant_no = (SELECT no FROM tenant WHERE id = $1) ORDER BY position",
        )
        .bind(tenant).fetch_all(c).await)
        .unwrap();
        let floor = on!(&mut conn, c => sqlx::query_scalar(
            "SELECT feed_floor FROM tenant WHERE id = $1",
        )
        .bind(tenant).fetch_one(c).await)
        .unwrap();
        drop(snapshot);
        let pending = self.count(endpoint, DeliveryStatus::Pending).await;
        let delivered = self.count(endpoint, DeliveryStatus::Delivered).await;
        let failed = self.count(endpoint, DeliveryStatus::Failed).await;
        let attempts = i64::try_from(self.attempts(endpoint).await.len()).unwrap();
        Contents { positions, floor, pending, ended: delivered + failed, attempts }
    }

    /// Claims all that is due and records `outcome` for those whose event has one of the positions.
    async fn attempt(&self, endpoint: EndpointId, outcome: DeliveryOutcome, of: &[i64]) {
        let lease = Lease { token: self.ids.next(), until: now().plus(DAY) };
        let mut tx = self.db.begin().await.unwrap();
        let mut conn = tx.conn();
        let claimed = delivery::claim(&mut conn, endpoint, now(), lease, 1000).await.unwrap();
        for claimed in claimed {
            if of.contains(&claimed.event_position) {
                record(&mut conn, &claimed, outcome).await;
            } else {
                assert!(delivery::release(&mut conn, &claimed).await.unwrap());
            }
        }
        tx.commit().await.unwrap();
    }
}

async fn record(conn: &mut crate::store::Conn<'_>, claimed: &Claimed, outcome: DeliveryOutcome) {
    let attempt = Attempt {
        number: claimed.attempts + 1,
        started_at: now(),
        latency_ms: 1,
        status_code: Some(200),
        error: None,
    };
    assert!(delivery::record(conn, claimed, &attempt, outcome, now()).await.unwrap());
}

/// Ten events and their deliveries: 1 to 3 delivered, 4 waiting for its second attempt, 5 failed, 6 to 10
/// delivered.
async fn ten_events(store: &TestStore) -> (TenantId, EndpointId) {
    let tenant = store.tenant().await;
    let endpoint = store.endpoint(tenant, "https://consumer.example/", false, &["s"]).await;
    for _ in 0..10 {
        store.append(tenant, None, now()).await;
    }
    store.attempt(endpoint, DeliveryOutcome::Retry { at: now() }, &[4]).await;
    store.attempt(endpoint, DeliveryOutcome::Failed, &[5]).await;
    store.attempt(endpoint, DeliveryOutcome::Delivered, &[1, 2, 3, 6, 7, 8, 9, 10]).await;
    (tenant, endpoint)
}

#[tokio::test]
async fn what_waits_stays_with_its_event_and_all_else_goes() {
    for store in TestStore::all().await {
        let (tenant, endpoint) = ten_events(&store).await;
        let retention = retention(&store, 10, a_day());
        retention.run_once().await.unwrap();
        let left = store.contents(tenant, endpoint).await;
        let expected =
            Contents { positions: (4..=10).collect(), floor: 3, pending: 1, ended: 0, attempts: 1 };
        assert_eq!(left, expected);
        assert_eq!(retention.deleted(Table::Event), 3);
        assert_eq!(retention.deleted(Table::Delivery), 9);
        assert_eq!(retention.deleted(Table::DeliveryAttempt), 9);
        let last_run = retention.metrics.retention_last_run_timestamp_seconds.get();
        assert!(last_run > now().plus(9 * DAY).as_seconds());
        assert_eq!(retention.metrics.retention_run_duration_seconds.get_sample_count(), 1);

        // Once it is delivered it goes too, and the feed goes on after the last position.
        store.attempt(endpoint, DeliveryOutcome::Delivered, &[4]).await;
        retention.run_once().await.unwrap();
        let left = store.contents(tenant, endpoint).await;
        assert_eq!((left.positions, left.floor, left.attempts), (Vec::new(), 10, 0));
        store.append(tenant, None, now()).await;
        assert_eq!(store.contents(tenant, endpoint).await.positions, [11]);
        store.close().await;
    }
}

#[tokio::test]
async fn what_is_young_stays() {
    for store in TestStore::all().await {
        let (tenant, endpoint) = ten_events(&store).await;
        let before = store.contents(tenant, endpoint).await;
        let retention = retention(
            &store,
            10,
            RetentionConfig { events: Some(11 * DAY), deliveries: Some(11 * DAY), ..a_day() },
        );
        retention.run_once().await.unwrap();
        let after = store.contents(tenant, endpoint).await;
        assert_eq!(after, Contents { attempts: 1, ..before }, "only attempts have another rule");
        store.close().await;
    }
}

#[tokio::test]
async fn a_rule_that_is_not_set_deletes_nothing() {
    for store in TestStore::all().await {
        let (tenant, endpoint) = ten_events(&store).await;
        let before = store.contents(tenant, endpoint).await;
        let retention = retention(&store, 36_500, for_ever());
        retention.run_once().await.unwrap();
        assert_eq!(store.contents(tenant, endpoint).await, before);
        assert!(Table::ALL.iter().all(|&table| retention.deleted(table) == 0));
        store.close().await;
    }
}

#[tokio::test]
async fn a_run_that_is_killed_anywhere_leaves_nothing_half_deleted_and_the_next_goes_on() {
    for store in TestStore::all().await {
        let (tenant, endpoint) = ten_events(&store).await;
        let another = store.tenant().await;
        for _ in 0..500 {
            store.append(tenant, None, now()).await;
            store.append(another, None, now()).await;
        }
        let delivered: Vec<i64> = (11..=510).filter(|position| position % 50 != 0).collect();
        store.attempt(endpoint, DeliveryOutcome::Delivered, &delivered).await;
        let retention = retention(&store, 10, a_day());
        let mut kills = 0;
        for millis in 1_u64.. {
            let run = tokio::time::timeout(Duration::from_millis(millis), retention.run_once());
            let done = run.await;
            let left = store.contents(tenant, endpoint).await;
            let expected: Vec<i64> = (left.floor + 1..=510).collect();
            assert_eq!(left.positions, expected, "a feed is cut from its beginning only");
            assert!(left.floor < 4, "the waiting delivery's event");
            assert_eq!(left.pending, 1 + 10);
            assert!(left.attempts <= left.ended + 1, "attempts go before their deliveries");
            if let Ok(result) = done {
                result.unwrap();
                break;
            }
            kills += 1;
        }
        assert!(kills > 3, "the run was killed {kills} times");
        let left = store.contents(tenant, endpoint).await;
        assert_eq!((left.floor, left.ended, left.attempts), (3, 0, 1));
        assert_eq!(store.contents(another, endpoint).await.floor, 500);
        store.close().await;
    }
}

#[tokio::test]
async fn an_event_that_is_replayed_while_its_feed_is_cut_is_kept() {
    for store in TestStore::all().await {
        let (tenant, endpoint) = ten_events(&store).await;
        store.attempt(endpoint, DeliveryOutcome::Delivered, &[4]).await;
        // The API's replay: it holds the tenant until commit.
        let mut tx = store.db.begin().await.unwrap();
        let mut conn = tx.conn();
        key::lock_tenant(&mut conn, tenant).await.unwrap();
        let event = feed::bodies(&mut conn, tenant, &[2]).await.unwrap()[&2].event;
        let again = NewDelivery::new(endpoint, &event);
        delivery::insert(&mut conn, &store.ids, now(), tenant, &[again]).await.unwrap();
        let retention = retention(&store, 10, a_day());
        let (result, ()) = tokio::join!(retention.run_once(), async {
            sleep(Duration::from_millis(300)).await;
            tx.commit().await.unwrap();
        });
        result.unwrap();
        let left = store.contents(tenant, endpoint).await;
        assert_eq!((left.floor, left.pending), (1, 1));
        assert_eq!(left.positions, (2..=10).collect::<Vec<_>>());
        store.close().await;
    }
}

#[tokio::test]
async fn keys_secrets_and_challenges_go_when_they_have_expired() {
    for store in TestStore::all().await {
        let tenant = store.tenant().await;
        let endpoint = store.endpoint(tenant, "https://consumer.example/", false, &["old"]).await;
        let deleted = store.endpoint(tenant, "https://deleted.example/", false, &["deleted"]).await;
        let mut tx = store.db.begin().await.unwrap();
        let mut conn = tx.conn();
        for (name, at) in [("old", now()), ("new", now().plus(9 * DAY + DAY / 2))] {
            let key = (tenant, name.to_owned());
            idempotency::take(&mut conn, vec![(&key, &[0; 32])], at, at).await.unwrap();
        }
        // Rotated out ten days ago and half a day ago; the newest never expires.
        endpoint::expire_secrets(&mut conn, endpoint, now()).await.unwrap();
        endpoint::insert_secret(&mut conn, endpoint, "recent", now()).await.unwrap();
        let recently = now().plus(9 * DAY + DAY / 2);
        endpoint::expire_secrets(&mut conn, endpoint, recently).await.unwrap();
        endpoint::insert_secret(&mut conn, endpoint, "valid", now()).await.unwrap();
        endpoint::expire_secrets(&mut conn, deleted, now()).await.unwrap();
        let challenge = |expires_at: Millis| ownership::Challenge {
            id: store.ids.next(),
            tenant_id: tenant,
            chain: crate::chain::ChainName::new("base"),
            family: crate::chain::Family::Evm,
            address: crate::chain::Address::from_slice(&[7; 20]).unwrap(),
            message: String::new(),
            created_at: Millis(0),
            expires_at,
            verified_at: None,
        };
        let (unmet, met, open) =
            (challenge(now()), challenge(now()), challenge(now().plus(11 * DAY)));
        for row in [&unmet, &met, &open] {
            ownership::insert(&mut conn, row).await.unwrap();
        }
        assert!(ownership::use_up(&mut conn, tenant, met.id, Millis(1)).await.unwrap());
        tx.commit().await.unwrap();

        let retention = retention(&store, 10, a_day());
        retention.run_once().await.unwrap();
        assert_eq!(retention.deleted(Table::IdempotencyKey), 1);
        assert_eq!(retention.deleted(Table::WebhookSecret), 2);
        assert_eq!(retention.deleted(Table::OwnershipChallenge), 1);
        let mut session = store.db.read().await.unwrap();
        let mut conn = session.conn();
        let keys = ["old", "new"].map(|name| (tenant, name.to_owned()));
        let kept = idempotency::first_answers(&mut conn, &keys.each_ref()).await.unwrap();
        assert_eq!(kept.keys().collect::<Vec<_>>(), [&keys[1]]);
        let target = endpoint::target(&mut conn, endpoint, now()).await.unwrap();
        let secrets: BTreeSet<String> = target.unwrap().1.into_iter().collect();
        assert_eq!(secrets, BTreeSet::from(["recent", "valid"].map(str::to_owned)));
        for (row, stays) in [(&unmet, false), (&met, true), (&open, true)] {
            let found = ownership::get(&mut conn, tenant, row.id).await.unwrap();
            assert_eq!(found.is_some(), stays);
        }
        drop(session);
        store.close().await;
    }
}

#[tokio::test]
async fn a_delivery_is_listed_as_long_as_its_event_is_kept() {
    for store in TestStore::all().await {
        let (tenant, endpoint) = ten_events(&store).await;
        store.attempt(endpoint, DeliveryOutcome::Delivered, &[4]).await;
        let listed = async || {
            let mut tx = store.db.snapshot().await.unwrap();
            let mut conn = tx.conn();
            let rows = delivery::list(&mut conn, tenant, endpoint, None, None, 5).await.unwrap();
            let mut positions = Vec::new();
            for row in rows {
                let event = feed::event(&mut conn, tenant, row.event_id).await.unwrap().unwrap();
                positions.push(event.event.position);
            }
            positions
        };
        // Old events are replayed and delivered just before they are past their time.
        let mut tx = store.db.begin().await.unwrap();
        let mut conn = tx.conn();
        let old = feed::bodies(&mut conn, tenant, &[1, 2]).await.unwrap();
        let again: Vec<NewDelivery> =
            old.values().map(|row| NewDelivery::new(endpoint, &row.event)).collect();
        delivery::insert(&mut conn, &store.ids, now(), tenant, &again).await.unwrap();
        tx.commit().await.unwrap();
        store.attempt(endpoint, DeliveryOutcome::Delivered, &[1, 2]).await;
        assert_eq!(listed().await, [2, 1, 10, 9, 8]);
        let mut tx = store.db.begin().await.unwrap();
        retention::feed_page(&mut tx.conn(), tenant, 10).await.unwrap();
        assert_eq!(retention::cut_feed(&mut tx.conn(), tenant, 2).await.unwrap(), 2);
        tx.commit().await.unwrap();
        assert_eq!(listed().await, [10, 9, 8, 7, 6], "a page has no gaps");
        store.close().await;
    }
}

#[tokio::test]
async fn a_shutdown_ends_it_at_once() {
    for store in TestStore::all().await {
        let shutdown = CancellationToken::new();
        let running = tokio::spawn(retention(&store, 10, a_day()).run(shutdown.clone()));
        sleep(Duration::from_millis(50)).await;
        assert!(!running.is_finished(), "it waits for the next run");
        shutdown.cancel();
        let ended = tokio::time::timeout(Duration::from_secs(1), running).await;
        ended.unwrap().unwrap().unwrap();
        store.close().await;
    }
}

#[test]
fn nothing_is_kept_longer_than_what_it_belongs_to() {
    let at = now();
    let kept = |config: &RetentionConfig, kind: Kind| {
        rules(config, at)
            .into_iter()
            .find(|rule| rule.kind == kind)
            .map(|rule| at.since(rule.before))
    };
    let month = RetentionConfig { events: Some(30 * DAY), ..for_ever() };
    assert_eq!(kept(&month, Kind::Events), Some(30 * DAY));
    assert_eq!(kept(&month, Kind::Deliveries), Some(30 * DAY));
    assert_eq!(kept(&month, Kind::Attempts), Some(30 * DAY));
    let mixed =
        RetentionConfig { deliveries: Some(7 * DAY), delivery_attempts: Some(30 * DAY), ..month };
    assert_eq!(kept(&mixed, Kind::Deliveries), Some(7 * DAY));
    assert_eq!(kept(&mixed, Kind::Attempts), Some(7 * DAY));
    let attempts = RetentionConfig { delivery_attempts: Some(DAY), ..for_ever() };
    assert_eq!(kept(&attempts, Kind::Attempts), Some(DAY));
    assert_eq!(kept(&attempts, Kind::Deliveries), None);
    assert_eq!(kept(&attempts, Kind::Events), None);
}

#[test]
fn attempts_go_before_deliveries_and_deliveries_before_events() {
    let order: Vec<Kind> = rules(&a_day(), now()).into_iter().map(|rule| rule.kind).collect();
    let place = |kind| order.iter().position(|&one| one == kind).unwrap();
    assert!(place(Kind::Attempts) < place(Kind::Deliveries));
    assert!(place(Kind::Deliveries) < place(Kind::Events));
}

proptest! {
    #[test]
    fn a_cut_takes_old_events_only_and_none_that_a_delivery_waits_for(
        ages in proptest::collection::vec(0_i64..10, 0..20),
        waiting in proptest::option::of(0_i64..25),
        before in 0_i64..10,
    ) {
        let events: Vec<(i64, Millis)> = (3..).zip(ages).map(|(at, age)| (at, Millis(age))).collect();
        let page = FeedPage { events, waiting };
        let through = cut(&page, Millis(before)).unwrap_or(i64::MIN);
        let (gone, kept): (Vec<_>, Vec<_>) =
            page.events.iter().partition(|&&(position, _)| position <= through);
        prop_assert!(gone.iter().all(|&&(_, at)| at < Millis(before)));
        prop_assert!(gone.iter().all(|&&(position, _)| Some(position) != waiting));
        prop_assert!(waiting.is_none_or(|waiting| through < waiting));
        if let Some(&&(position, at)) = kept.first() {
            prop_assert!(at >= Millis(before) || waiting.is_some_and(|waiting| waiting <= position));
        }
    }

    #[test]
    fn a_batch_grows_while_it_is_quick_and_shrinks_when_it_is_slow(
        size in SMALLEST_BATCH..=LARGEST_BATCH, micros in 0_u64..10_000_000,
    ) {
        let took = Duration::from_micros(micros);
        let next = next_size(size, took);
        prop_assert!((SMALLEST_BATCH..=LARGEST_BATCH).contains(&next));
        prop_assert!(took <= TARGET || next < size || next == SMALLEST_BATCH);
        prop_assert!(took >= TARGET / 2 || next > size || next == LARGEST_BATCH);
    }
}
