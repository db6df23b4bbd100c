//! Slots are announced again after every loss of a connection, and wake the follower by their number only.

use std::time::Duration;

use futures::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::{net::TcpListener, time::timeout};
use tokio_tungstenite::{accept_async, tungstenite::Message};

use super::{endpoint, source};
use crate::{
    chain::{Announced, Source as _},
    config::Secret,
};

/// A node that announces one slot per connection, its number the connection's, and then hangs up.
async fn announcer() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("ws://{}", listener.local_addr().expect("an address"));
    tokio::spawn(async move {
        for slot in 1_u64.. {
            let (stream, _) = listener.accept().await.expect("a connection");
            let mut socket = accept_async(stream).await.expect("a websocket");
            let Some(Ok(Message::Text(text))) = socket.next().await else { continue };
            let call: Value = serde_json::from_str(&text).expect("JSON");
            assert_eq!(call["method"], "slotSubscribe");
            let said = [
                json!({"jsonrpc": "2.0", "id": call["id"], "result": 7}),
                json!({
                    "jsonrpc": "2.0", "method": "slotNotification",
                    "params": {"subscription": 7, "result": {"slot": slot, "parent": 0, "root": 0}},
                }),
            ];
            for message in said {
                socket.send(Message::Text(message.to_string().into())).await.expect("sent");
            }
        }
    });
    url
}

#[tokio::test]
async fn announcements_go_on_after_the_connection_was_lost() {
    let mut one = endpoint("one", "http://127.0.0.1:9", 1);
    one.ws = Some(Secret::new(announcer().await));
    let source = source(vec![one]);
    let mut slots = source.announced();
    let seen = async {
        for expected in 1..4 {
            slots.changed().await.expect("the source lives");
            let announced = *slots.borrow_and_update();
            assert_eq!(announced, Some(Announced { number: expected, hash: None }));
        }
    };
    tokio::select! {
        () = source.listen() => panic!("listening ends only with its source"),
        seen = timeout(Duration::from_secs(10), seen) => seen.expect("three slots in time"),
    }
}

#[tokio::test]
async fn without_a_websocket_there_is_nothing_to_listen_to() {
    let source = source(vec![endpoint("one", "http://127.0.0.1:9", 1)]);
    timeout(Duration::from_secs(1), source.listen()).await.expect("it returns at once");
    assert_eq!(*source.announced().borrow(), None);
}
