//! A door between the daemon and its node: it can be closed, and led to another node.

use std::{net::SocketAddr, sync::Arc};

use parking_lot::Mutex;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

pub struct Gate {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    _task: AbortOnDropHandle<()>,
}

struct State {
    /// `None` while closed: connections are accepted and dropped.
    target: Option<String>,
    /// Ends the connections that go to the present target.
    cut: CancellationToken,
}

impl Gate {
    /// A door to the node at `url`.
    pub async fn to(url: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = State { target: Some(host(url)), cut: CancellationToken::new() };
        let state = Arc::new(Mutex::new(state));
        let task = AbortOnDropHandle::new(tokio::spawn(serve(listener, Arc::clone(&state))));
        Self { address, state, _task: task }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn ws_url(&self) -> String {
        format!("ws://{}", self.address)
    }

    /// The node is gone for whoever is behind the door.
    pub fn close(&self) {
        self.lead(None);
    }

    /// Leads to this node from now on; open connections to the former one end.
    pub fn open(&self, url: &str) {
        self.lead(Some(host(url)));
    }

    fn lead(&self, target: Option<String>) {
        let mut state = self.state.lock();
        state.target = target;
        std::mem::replace(&mut state.cut, CancellationToken::new()).cancel();
    }
}

fn host(url: &str) -> String {
    url.trim_start_matches("http://").to_owned()
}

async fn serve(listener: TcpListener, state: Arc<Mutex<State>>) {
    let mut connections = JoinSet::new();
    while let Ok((mut client, _)) = listener.accept().await {
        let (target, cut) = {
            let state = state.lock();
            (state.target.clone(), state.cut.clone())
        };
        let Some(target) = target else { continue };
        connections.spawn(async move {
            let Ok(mut node) = TcpStream::connect(&target).await else { return };
            tokio::select! {
                _ = copy_bidirectional(&mut client, &mut node) => {}
                () = cut.cancelled() => {}
            }
        });
    }
}
