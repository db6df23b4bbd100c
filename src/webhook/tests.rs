mod fuzz;

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::http::StatusCode;
use tokio::{
    net::TcpListener,
    sync::Semaphore,
    time::{Instant, sleep},
};

use super::testing::{Receiver, Running, SECRET, config, eventually, raw_server};
use crate::{
    clock::{Clock, Millis},
    config::WebhookConfig,
    delivery::{Attempt, AttemptResult, DeliveryOutcome, DeliveryStatus, DisabledReason},
    id::{EndpointId, TenantId},
    store::delivery::{self, Lease, testing::TestStore},
};

fn now() -> Millis {
    Clock::System.now()
}

async fn append(store: &TestStore, tenant: TenantId, count: usize) {
    for _ in 0..count {
        store.append(tenant, None, now()).await;
    }
}

async fn delivered(store: &TestStore, endpoint: EndpointId, count: i64) {
    eventually("all deliveries arrive", || async {
        store.count(endpoint, DeliveryStatus::Delivered).await == count
    })
    .await;
}

#[tokio::test]
async fn what_waited_and_what_comes_is_delivered_once() {
    for store in TestStore::all().await {
        let receiver = Receiver::answering(200).await;
        let tenant = store.tenant().await;
        let endpoint = store.endpoint(tenant, &receiver.url, false, &[SECRET]).await;
        append(&store, tenant, 50).await;
        let running = Running::start(&store, Clock::System, config());
        delivered(&store, endpoint, 50).await;
        let started = Instant::now();
        append(&store, tenant, 1).await;
        running.wake.deliveries();
        delivered(&store, endpoint, 51).await;
        assert!(started.elapsed() < Duration::from_millis(900), "a wake-up is not waited out");
        let mut ids: Vec<String> =
            receiver.got().iter().map(|got| got.json()["id"].to_string()).collect();
        ids.sort();
        ids.dedup();
        assert_eq!((ids.len(), receiver.got().len()), (51, 51));
        assert_eq!(running.attempts(AttemptResult::Delivered), 51);
        assert_eq!(running.metrics.webhook_delivery_delay_seconds.get_sample_count(), 51);
        assert_eq!(store.leased().await, 0);
        running.stop().await;
        store.close().await;
    }
}

#[tokio::test]
async fn several_dispatchers_share_the_work_and_send_each_delivery_once() {
    for store in TestStore::all().await {
        let receiver = Receiver::answering(200).await;
        let tenant = store.tenant().await;
        let endpoint = store.endpoint(tenant, &receiver.url, false, &[SECRET]).await;
        append(&store, tenant, 100).await;
        let all: Vec<Running> =
            (0..3).map(|_| Running::start(&store, Clock::System, config())).collect();
        delivered(&store, endpoint, 100).await;
        assert_eq!(receiver.got().len(), 100);
        let attempts: Vec<u64> =
            all.iter().map(|one| one.attempts(AttemptResult::Delivered)).collect();
        assert_eq!(attempts.iter().sum::<u64>(), 100);
        for one in all {
            one.stop().await;
        }
        store.close().await;
    }
}

#[tokio::test]
async fn all_arrive_when_a_receiver_comes_back() {
    for store in TestStore::all().await {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        drop(listener);
        let tenant = store.tenant().await;
        let url = format!("http://{address}/hook");
        let endpoint = store.endpoint(tenant, &url, false, &[SECRET]).await;
        append(&store, tenant, 10).await;
        let running = Running::start(&store, Clock::System, config());
        eventually("it is tried in vain", || async {
            running.attempts(AttemptResult::Unreachable) > 3
        })
        .await;
        // An attempt is counted before it is recorded.
        eventually("that is recorded", || async { store.failing_since(endpoint).await.is_some() })
            .await;
        let receiver = Receiver::at(&address, |_| async { StatusCode::OK }).await;
        delivered(&store, endpoint, 10).await;
        assert_eq!(receiver.got().len(), 10);
        assert!(store.failing_since(endpoint).await.is_none());
        let attempts = store.attempts(endpoint).await;
        assert!(attempts.contains(&(None, Some("unreachable: connect".to_owned()))));
        running.stop().await;
        store.close().await;
    }
}

#[tokio::test]
async fn a_store_that_restarts_delays_deliveries_and_loses_none() {
    for store in TestStore::all().await {
        let receiver = Receiver::answering(200).await;
        let tenant = store.tenant().await;
        let endpoint = store.endpoint(tenant, &receiver.url, false, &[SECRET]).await;
        append(&store, tenant, 300).await;
        let quick = WebhookConfig { request_timeout: Duration::from_millis(500), ..config() };
        let running = Running::start(&store, Clock::System, quick);
        // For two seconds no connection lasts.
        let until = Instant::now() + Duration::from_secs(2);
        while Instant::now() < until && store.end_connections().await {
            sleep(Duration::from_millis(10)).await;
        }
        append(&store, tenant, 10).await;
        // What this test reads with is believed to live for a second without being asked.
        sleep(Duration::from_secs(1)).await;
        delivered(&store, endpoint, 310).await;
        let ids: BTreeSet<String> =
            receiver.got().iter().map(|got| got.json()["id"].to_string()).collect();
        assert_eq!(ids.len(), 310);
        running.stop().await;
        store.close().await;
    }
}

#[tokio::test]
async fn gone_disables_the_endpoint_and_the_tenant_is_told() {
    for store in TestStore::all().await {
        let gone = Receiver::answering(410).await;
        let other = Receiver::answering(200).await;
        let tenant = store.tenant().await;
        let dead = store.endpoint(tenant, &gone.url, false, &[SECRET]).await;
        let alive = store.endpoint(tenant, &other.url, false, &[SECRET]).await;
        append(&store, tenant, 20).await;
        let limits = WebhookConfig { max_in_flight_per_endpoint: 2, ..config() };
        let running = Running::start(&store, Clock::System, limits);
        delivered(&store, alive, 21).await;
        let told = other.got().into_iter().find(|got| got.json()["type"] == "endpoint.disabled");
        assert_eq!(told.unwrap().json()["data"]["endpoint"]["reason"], "gone");
        eventually("its deliveries fail", || async {
            store.count(dead, DeliveryStatus::Failed).await == 20
        })
        .await;
        assert_eq!(store.disabled_reason(dead).await, Some(DisabledReason::Gone));
        assert_eq!(store.disabled_events().await, 1, "told once");
        assert!(gone.got().len() <= 4);
        running.stop().await;
        store.close().await;
    }
}

#[tokio::test]
async fn an_endpoint_that_fails_for_too_long_is_disabled() {
    for store in TestStore::all().await {
        let receiver = Receiver::answering(500).await;
        let tenant = store.tenant().await;
        let endpoint = store.endpoint(tenant, &receiver.url, false, &[SECRET]).await;
        store.set_failing_since(endpoint, Millis(now().0 - 3_600_000)).await;
        append(&store, tenant, 1).await;
        let patience = WebhookConfig { disable_after: Duration::from_mins(59), ..config() };
        let running = Running::start(&store, Clock::System, patience);
        eventually("it fails", || async {
            store.count(endpoint, DeliveryStatus::Failed).await == 1
        })
        .await;
        assert_eq!(store.disabled_reason(endpoint).await, Some(DisabledReason::Failing));
        assert_eq!(store.disabled_events().await, 1);
        assert_eq!(store.attempts(endpoint).await, [(Some(500), Some("rejected".to_owned()))]);
        running.stop().await;
        store.close().await;
    }
}

#[tokio::test]
async fn a_delivery_fails_when_its_attempts_are_used_up_and_the_endpoint_lives() {
    for store in TestStore::all().await {
        let receiver = Receiver::answering(500).await;
        let tenant = store.tenant().await;
        let endpoint = store.endpoint(tenant, &receiver.url, false, &[SECRET]).await;
        append(&store, tenant, 1).await;
        let schedule = WebhookConfig { retry_schedule: vec![Duration::ZERO; 2], ..config() };
        let running = Running::start(&store, Clock::System, schedule);
        eventually("it fails", || async {
            store.count(endpoint, DeliveryStatus::Failed).await == 1
        })
        .await;
        assert_eq!(receiver.got().len(), 3);
        assert_eq!(store.disabled_reason(endpoint).await, None);
        running.stop().await;
        store.close().await;
    }
}

#[tokio::test]
async fn no_more_is_sent_at_once_than_the_limits_say() {
    for store in TestStore::all().await {
        let (all, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let tenant = store.tenant().await;
        let mut receivers = Vec::new();
        for _ in 0..3 {
            let (all, most) = (Arc::clone(&all), Arc::clone(&most));
            let (own, own_most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
            let seen = Arc::clone(&own_most);
            let receiver = Receiver::start(move |_| {
                let (all, most) = (Arc::clone(&all), Arc::clone(&most));
                let (own, own_most) = (Arc::clone(&own), Arc::clone(&own_most));
                async move {
                    most.fetch_max(all.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    own_most.fetch_max(own.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    sleep(Duration::from_millis(100)).await;
                    own.fetch_sub(1, Ordering::SeqCst);
                    all.fetch_sub(1, Ordering::SeqCst);
                    StatusCode::OK
                }
            })
            .await;
            let endpoint = store.endpoint(tenant, &receiver.url, false, &[SECRET]).await;
            receivers.push((receiver, endpoint, seen));
        }
        append(&store, tenant, 12).await;
        let limits = WebhookConfig { max_in_flight: 5, max_in_flight_per_endpoint: 2, ..config() };
        let running = Running::start(&store, Clock::System, limits);
        for (_, endpoint, seen) in &receivers {
            delivered(&store, *endpoint, 12).await;
            assert_eq!(seen.load(Ordering::SeqCst), 2);
        }
        assert_eq!(most.load(Ordering::SeqCst), 5);
        running.stop().await;
        store.close().await;
    }
}

#[tokio::test]
async fn a_dead_endpoint_does_not_delay_another() {
    for store in TestStore::all().await {
        let silent = raw_server(|stream| async move {
            sleep(Duration::from_mins(1)).await;
            drop(stream);
            Ok(())
        })
        .await;
        let receiver = Receiver::answering(200).await;
        let tenant = store.tenant().await;
        let dead = store.endpoint(tenant, &silent, false, &[SECRET]).await;
        append(&store, tenant, 200).await;
        let alive = store.endpoint(tenant, &receiver.url, false, &[SECRET]).await;
        append(&store, tenant, 20).await;
        let patient = WebhookConfig { request_timeout: Duration::from_secs(20), ..config() };
        let started = Instant::now();
        let running = Running::start(&store, Clock::System, patient);
        delivered(&store, alive, 20).await;
        assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
        assert_eq!(store.count(dead, DeliveryStatus::Pending).await, 220);
        assert_eq!(store.leased().await, 8, "no more than one endpoint's share");
        // A shutdown does not wait for it either: the rest is given back.
        assert!(running.stop().await < Duration::from_secs(8));
        assert_eq!(store.leased().await, 0);
        assert_eq!(store.count(dead, DeliveryStatus::Pending).await, 220);
        store.close().await;
    }
}

#[tokio::test]
async fn an_ordered_endpoint_keeps_a_wallets_order_while_one_fails() {
    for store in TestStore::all().await {
        let healed = Arc::new(AtomicBool::new(false));
        let tenant = store.tenant().await;
        let (bad, good) =
            (store.wallet(tenant, &[7; 20]).await, store.wallet(tenant, &[8; 20]).await);
        let (wallet, open) = (bad.to_string(), Arc::clone(&healed));
        let receiver = Receiver::start(move |got| {
            let ok = got.json()["data"]["wallet"] != wallet.as_str() || open.load(Ordering::SeqCst);
            async move { if ok { StatusCode::OK } else { StatusCode::INTERNAL_SERVER_ERROR } }
        })
        .await;
        let endpoint = store.endpoint(tenant, &receiver.url, true, &[SECRET]).await;
        for _ in 0..5 {
            store.append(tenant, Some(bad), now()).await;
            store.append(tenant, Some(good), now()).await;
        }
        let running = Running::start(&store, Clock::System, config());
        delivered(&store, endpoint, 5).await;
        let of_bad = |receiver: &Receiver| -> Vec<i64> {
            let of_bad = |got: &super::testing::Got| {
                let json = got.json();
                (json["data"]["wallet"] == bad.to_string().as_str())
                    .then(|| json["sequence"].as_i64().unwrap())
            };
            receiver.got().iter().filter_map(of_bad).collect()
        };
        assert!(of_bad(&receiver).iter().all(|&sequence| sequence == 1));
        healed.store(true, Ordering::SeqCst);
        delivered(&store, endpoint, 10).await;
        let mut order = of_bad(&receiver);
        assert!(order.is_sorted());
        order.dedup();
        assert_eq!(order, [1, 2, 3, 4, 5]);
        running.stop().await;
        store.close().await;
    }
}

#[tokio::test]
async fn what_a_crashed_sender_held_is_sent_when_its_lease_ends() {
    for store in TestStore::all().await {
        let receiver = Receiver::answering(200).await;
        let tenant = store.tenant().await;
        let endpoint = store.endpoint(tenant, &receiver.url, false, &[SECRET]).await;
        append(&store, tenant, 1).await;
        let clock = Clock::manual(now());
        let until = Millis(clock.now().0 + 10_000);
        let lease = Lease { token: store.ids.next(), until };
        let mut tx = store.db.begin().await.unwrap();
        let held = delivery::claim(&mut tx.conn(), endpoint, clock.now(), lease, 1).await.unwrap();
        assert_eq!(held.len(), 1);
        tx.commit().await.unwrap();
        let running = Running::start(&store, clock.clone(), config());
        sleep(Duration::from_millis(1300)).await;
        assert!(receiver.got().is_empty(), "the lease holds");
        clock.set(until);
        delivered(&store, endpoint, 1).await;
        assert_eq!(receiver.got().len(), 1);
        running.stop().await;
        store.close().await;
    }
}

#[tokio::test]
async fn an_answer_after_the_lease_changes_nothing() {
    for store in TestStore::all().await {
        let gate = Arc::new(Semaphore::new(0));
        let held = Arc::clone(&gate);
        let receiver = Receiver::start(move |_| {
            let gate = Arc::clone(&held);
            async move {
                gate.acquire().await.unwrap().forget();
                StatusCode::GONE
            }
        })
        .await;
        let tenant = store.tenant().await;
        let endpoint = store.endpoint(tenant, &receiver.url, false, &[SECRET]).await;
        append(&store, tenant, 1).await;
        let clock = Clock::manual(now());
        let patient = WebhookConfig { request_timeout: Duration::from_secs(20), ..config() };
        let running = Running::start(&store, clock.clone(), patient);
        eventually("it is being sent", || async { receiver.got().len() == 1 }).await;
        // Another process, whose time is past the lease, sends it again with success.
        let late = Millis(clock.now().0 + 600_000);
        let lease = Lease { token: store.ids.next(), until: Millis(late.0 + 600_000) };
        let mut tx = store.db.begin().await.unwrap();
        let again = delivery::claim(&mut tx.conn(), endpoint, late, lease, 1).await.unwrap();
        let attempt = Attempt {
            number: 1,
            started_at: late,
            latency_ms: 1,
            status_code: Some(200),
            error: None,
        };
        let recorded =
            delivery::record(&mut tx.conn(), &again[0], &attempt, DeliveryOutcome::Delivered, late)
                .await;
        assert!(recorded.unwrap());
        tx.commit().await.unwrap();
        gate.add_permits(1);
        eventually("the answer came", || async { running.attempts(AttemptResult::Rejected) == 1 })
            .await;
        running.stop().await;
        assert_eq!(store.count(endpoint, DeliveryStatus::Delivered).await, 1);
        assert_eq!(store.attempts(endpoint).await, [(Some(200), None)]);
        assert_eq!(store.disabled_reason(endpoint).await, None);
        assert_eq!(store.failing_since(endpoint).await, None);
        store.close().await;
    }
}

#[tokio::test]
async fn an_endpoint_inside_is_refused_and_tried_again_later() {
    for store in TestStore::all().await {
        let receiver = Receiver::answering(200).await;
        let tenant = store.tenant().await;
        let endpoint = store.endpoint(tenant, &receiver.url, false, &[SECRET]).await;
        append(&store, tenant, 1).await;
        let strict = WebhookConfig { allow_private_addresses: false, ..config() };
        let running = Running::start(&store, Clock::System, strict);
        eventually("it is refused", || async { running.attempts(AttemptResult::Refused) > 1 })
            .await;
        running.stop().await;
        assert!(receiver.got().is_empty());
        let (status, error) = store.attempts(endpoint).await.remove(0);
        assert_eq!(status, None);
        assert!(error.unwrap().starts_with("refused: "));
        store.close().await;
    }
}

#[tokio::test]
async fn the_gauges_tell_what_waits() {
    for store in TestStore::all().await {
        let tenant = store.tenant().await;
        let endpoint = store.endpoint(tenant, "http://127.0.0.1:9/", false, &[SECRET]).await;
        store.append(tenant, None, Millis(now().0 - 60_000)).await;
        let slow = vec![Duration::from_mins(10)];
        let running = Running::start(
            &store,
            Clock::System,
            WebhookConfig { retry_schedule: slow, ..config() },
        );
        eventually("the gauge shows it", || async {
            running.metrics.webhook_deliveries_pending.get() == 1
        })
        .await;
        assert!(running.metrics.webhook_oldest_pending_seconds.get() >= 60.0);
        assert_eq!(store.count(endpoint, DeliveryStatus::Pending).await, 1);
        running.stop().await;
        store.close().await;
    }
}
