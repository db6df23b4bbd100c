//! What a receiver answers, and what a webhook is signed with.

use std::{cell::RefCell, sync::Arc, time::Duration};

use axum::http::HeaderMap;
use parking_lot::Mutex;
use standardwebhooks::{
    HEADER_WEBHOOK_ID, HEADER_WEBHOOK_SIGNATURE, HEADER_WEBHOOK_TIMESTAMP, Webhook,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    runtime,
};

use super::super::{
    decide::decide,
    send::{Sender, signatures},
    testing::{SECRET, config},
};
use crate::{
    clock::{Clock, Millis},
    config::WebhookConfig,
    delivery::{AttemptOutcome, DeliveryOutcome, EndpointHealth},
    fuzz::run,
    id::Ids,
    retry::retry_after,
    store::delivery::WebhookRequest,
};

const NOW: Millis = Millis(1_768_469_400_000);

fn request(url: &str, body: &str, secret: &str) -> WebhookRequest {
    WebhookRequest {
        event: Ids::new(Clock::System).next(),
        url: url.to_owned(),
        body: body.to_owned(),
        secrets: vec![secret.to_owned()],
    }
}

/// A server on which every connection gets the bytes that `answer` holds, and is closed.
async fn serve(answer: Arc<Mutex<Vec<u8>>>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}/hook", listener.local_addr().expect("an address"));
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let answer = answer.lock().clone();
            let _ = stream.read(&mut [0; 4096]).await;
            let _ = stream.write_all(&answer).await;
            let _ = stream.shutdown().await;
        }
    });
    url
}

#[test]
fn whatever_a_receiver_answers_is_an_outcome_in_time_and_puts_off_by_a_day_at_most() {
    let runtime = runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let deadline = Duration::from_millis(300);
    let config = WebhookConfig {
        request_timeout: deadline,
        retry_schedule: vec![Duration::from_mins(1); 3],
        ..config()
    };
    let answer: Arc<Mutex<Vec<u8>>> = Arc::default();
    let url = runtime.block_on(serve(Arc::clone(&answer)));
    let sender = Sender::new(config.clone()).expect("a client");
    run("webhook_answer", Vec::new(), |input| {
        input.clone_into(&mut answer.lock());
        let sent = runtime.block_on(sender.send(request(&url, "{}", SECRET), NOW));
        assert!(sent.latency < deadline + Duration::from_secs(10), "{:?}", sent.latency);
        if let AttemptOutcome::Answered { status, .. } = sent.outcome {
            assert!((100..1000).contains(&status), "{status}");
        }
        let refused =
            matches!(sent.outcome, AttemptOutcome::Refused(_) | AttemptOutcome::Withdrawn);
        assert!(!refused, "{:?}", sent.outcome);
        let health = EndpointHealth { failing_since: None, closed: false };
        let next = decide(&sent.outcome, 0, health, &config, NOW, 0.5);
        if let DeliveryOutcome::Retry { at } = next.delivery {
            let pause = at.since(NOW);
            assert!(
                pause >= Duration::from_secs(48) && pause <= Duration::from_hours(24),
                "{at:?}"
            );
        }
        let result = sent.outcome.result();
        format!("{result:?} {:?} {:?}", next.disable, sent.outcome.status_code().map(|s| s / 100))
    });
}

#[test]
fn a_pause_that_is_asked_for_is_a_time_or_nothing() {
    run("retry_after", Vec::new(), |input| {
        let text = String::from_utf8_lossy(input);
        let pause = retry_after(&text, Some(NOW));
        pause.map_or("none", |pause| if pause.is_zero() { "now" } else { "later" }).to_owned()
    });
}

#[test]
fn what_is_signed_is_verified_with_its_secret_and_with_no_other_text() {
    let last: RefCell<Option<(String, String)>> = RefCell::default();
    run("webhook_signature", Vec::new(), |input| {
        let text = String::from_utf8_lossy(input).into_owned();
        let Some((secret, body)) = text.split_once('\n') else { return "no secret".to_owned() };
        let id = "evt_032AfKswHltGno38WIb1UL";
        let now = Clock::System.now();
        let signature = signatures(&request("http://localhost/", body, secret), id, now);
        let Ok(webhook) = Webhook::new(secret) else {
            assert_eq!(signature, "", "signed without a secret");
            return "no secret".to_owned();
        };
        let mut headers = HeaderMap::new();
        let now = now.seconds().to_string();
        headers.insert(HEADER_WEBHOOK_ID, id.parse().expect("a header"));
        headers.insert(HEADER_WEBHOOK_TIMESTAMP, now.parse().expect("a header"));
        headers.insert(HEADER_WEBHOOK_SIGNATURE, signature.parse().expect("a header"));
        webhook.verify(body.as_bytes(), &headers).expect("its own signature");
        let other = last.replace(Some((secret.to_owned(), body.to_owned())));
        if let Some((_, other)) = other.filter(|(_, other)| other != body) {
            assert!(webhook.verify(other.as_bytes(), &headers).is_err(), "{other} is not {body}");
        }
        "signed".to_owned()
    });
}
