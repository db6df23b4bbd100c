use std::time::Duration;

use futures::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::{net::TcpListener, time::timeout};
use tokio_tungstenite::{accept_async, tungstenite::Message};

use super::{config, endpoint};
use crate::{
    chain::{Source as _, evm::EvmSource},
    config::Secret,
    metrics::Metrics,
};

/// A node that announces one block per connection, its number the connection's, and then hangs up.
async fn announcer(chain_id: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("ws://{}", listener.local_addr().expect("an address"));
    tokio::spawn(async move {
        for connection in 1_u64.. {
            let (stream, _) = listener.accept().await.expect("a connection");
            let mut socket = accept_async(stream).await.expect("a websocket");
            while let Some(Ok(Message::Text(text))) = socket.next().await {
                let call: Value = serde_json::from_str(&text).expect("JSON");
                let subscribes = call["method"] == "eth_subscribe";
                let result = if subscribes { "0xabc" } else { chain_id };
                let mut said = vec![json!({"jsonrpc": "2.0", "id": call["id"], "result": result})];
                if subscribes {
                    let hash = format!("0x{connection:064x}");
                    let head = json!({"number": format!("{connection:#x}"), "hash": hash});
                    said.push(json!({
                        "jsonrpc": "2.0", "method": "eth_subscription",
                        "params": {"subscription": "0xabc", "result": head},
                    }));
                }
                for message in said {
                    socket.send(Message::Text(message.to_string().into())).await.expect("sent");
                }
                if subscribes {
                    break;
                }
            }
        }
    });
    url
}

fn source(ws: Option<String>) -> EvmSource {
    let mut one = endpoint("one", "http://127.0.0.1:9", 1);
    one.ws = ws.map(Secret::new);
    EvmSource::new(&config(vec![one]), Metrics::new()).expect("a source")
}

#[tokio::test]
async fn announcements_go_on_after_the_connection_was_lost() {
    let source = source(Some(announcer("0x7a69").await));
    let mut heads = source.announced();
    let seen = async {
        for expected in 1.. {
            heads.changed().await.expect("the source lives");
            let number = heads.borrow_and_update().expect("a head").number;
            assert_eq!(number, expected);
            if number == 3 {
                break;
            }
        }
    };
    let both = async {
        tokio::select! {
            () = source.listen() => panic!("listening never ends"),
            () = seen => {}
        }
    };
    timeout(Duration::from_secs(5), both).await.expect("three connections");
}

#[tokio::test]
async fn another_chains_announcements_are_not_listened_to() {
    let source = source(Some(announcer("0x1").await));
    let listening = timeout(Duration::from_millis(500), source.listen()).await;
    assert!(listening.is_err(), "it goes on trying");
    assert_eq!(*source.announced().borrow(), None);
}

#[tokio::test]
async fn without_a_websocket_listening_ends_at_once() {
    let source = source(None);
    timeout(Duration::from_secs(1), source.listen()).await.expect("it ended");
}
