//! A node that answers some methods falsely and passes everything else on to a real one.

use std::{collections::HashMap, sync::Arc};

use axum::{Json, Router, extract::State, routing::post};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;

/// What a call is answered with in place of the truth.
#[derive(Clone, Debug)]
pub enum Lie {
    Result(Value),
    /// The truth, but for what this makes of it.
    Change(fn(&mut Value)),
    Error(i64, &'static str),
    /// The truth with the first text in it replaced by the second.
    Instead(String, String),
}

type Lies = Arc<Mutex<HashMap<&'static str, Lie>>>;

pub struct Liar {
    url: String,
    lies: Lies,
    _task: AbortOnDropHandle<()>,
}

impl Liar {
    /// Stands before the node at `url`, honest at first.
    pub async fn before(url: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let lies = Lies::default();
        let state = (super::api::client(), url.to_owned(), Arc::clone(&lies));
        let app = Router::new().route("/", post(answer)).with_state(state);
        let task = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { url: format!("http://{address}"), lies, _task: AbortOnDropHandle::new(task) }
    }

    pub fn url(&self) -> String {
        self.url.clone()
    }

    /// From now on, each call of this method is answered so.
    pub fn lie(&self, method: &'static str, lie: Lie) {
        self.lies.lock().insert(method, lie);
    }

    pub fn tell_the_truth(&self) {
        self.lies.lock().clear();
    }
}

async fn answer(
    State((client, url, lies)): State<(reqwest::Client, String, Lies)>,
    Json(asked): Json<Value>,
) -> Json<Value> {
    let sent = client.post(&url).json(&asked).send().await.unwrap();
    let mut answered: Value = sent.json().await.unwrap();
    let lies = lies.lock().clone();
    let calls = asked.as_array().cloned().unwrap_or_else(|| vec![asked]);
    let answers = match &mut answered {
        Value::Array(answers) => answers.iter_mut().collect::<Vec<_>>(),
        one => vec![one],
    };
    for answer in answers {
        let call = calls.iter().find(|call| call["id"] == answer["id"]);
        let lie = call.and_then(|call| lies.get(call["method"].as_str().unwrap_or_default()));
        let id = answer["id"].clone();
        match lie {
            Some(Lie::Result(result)) => {
                *answer = json!({ "jsonrpc": "2.0", "id": id, "result": result });
            }
            Some(Lie::Change(change)) => change(&mut answer["result"]),
            Some(Lie::Error(code, message)) => {
                let error = json!({ "code": code, "message": message });
                *answer = json!({ "jsonrpc": "2.0", "id": id, "error": error });
            }
            Some(Lie::Instead(truth, told)) => {
                *answer = serde_json::from_str(&answer.to_string().replace(truth, told)).unwrap();
            }
            None => {}
        }
    }
    Json(answered)
}
