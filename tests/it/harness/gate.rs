//! A door between the daemon and its node or its store: it can be closed, led to another one, and hold what comes
//! without a word.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
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
    /// How long each piece of a question is on its way.
    delay: Duration,
    /// Whether anything passes.
    passes: Arc<watch::Sender<bool>>,
}

impl Gate {
    /// A door to the node at `url`.
    pub async fn to(url: &str) -> Self {
        let gate = Self::closed().await;
        gate.open(url);
        gate
    }

    /// A door that leads nowhere yet.
    pub async fn closed() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = State {
            target: None,
            cut: CancellationToken::new(),
            delay: Duration::ZERO,
            passes: Arc::new(watch::Sender::new(true)),
        };
        let state = Arc::new(Mutex::new(state));
        let task = AbortOnDropHandle::new(tokio::spawn(serve(listener, Arc::clone(&state))));
        Self { address, state, _task: task }
    }

    pub fn port(&self) -> u16 {
        self.address.port()
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

    /// From now on a question takes that long to the node, on new connections.
    pub fn delay(&self, delay: Duration) {
        let mut state = self.state.lock();
        state.delay = delay;
        std::mem::replace(&mut state.cut, CancellationToken::new()).cancel();
    }

    /// Leads to this node from now on; open connections to the former one end.
    pub fn open(&self, url: &str) {
        self.lead(Some(host(url)));
    }

    /// Nothing passes any more, in either direction, not even that a side has hung up: as with a cable that was
    /// pulled.
    pub fn hold(&self) {
        self.state.lock().passes.send_replace(false);
    }

    /// What was held goes on.
    pub fn release(&self) {
        self.state.lock().passes.send_replace(true);
    }

    /// New connections pass; of those that were held nothing is heard, ever.
    pub fn forget(&self) {
        self.state.lock().passes = Arc::new(watch::Sender::new(true));
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
    while let Ok((client, _)) = listener.accept().await {
        let (target, cut, delay, passes) = {
            let state = state.lock();
            (state.target.clone(), state.cut.clone(), state.delay, Arc::clone(&state.passes))
        };
        let Some(target) = target else { continue };
        connections.spawn(async move {
            let Ok(node) = TcpStream::connect(&target).await else { return };
            let (questions, answers) = client.into_split();
            let (from_node, to_node) = node.into_split();
            let pass = async {
                tokio::join!(
                    pass(questions, to_node, delay, &passes),
                    pass(from_node, answers, Duration::ZERO, &passes)
                );
            };
            tokio::select! {
                () = pass => {}
                () = cut.cancelled() => {}
            }
        });
    }
}

/// Passes on what comes, each piece after a while, until one side is closed.
async fn pass(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    delay: Duration,
    passes: &watch::Sender<bool>,
) {
    let mut piece = vec![0; 64 * 1024];
    let mut passes = passes.subscribe();
    loop {
        let read = from.read(&mut piece).await;
        // The sender lives as long as the connection.
        let _ = passes.wait_for(|passes| *passes).await;
        let Ok(length @ 1..) = read else { break };
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        if to.write_all(&piece[..length]).await.is_err() {
            return;
        }
    }
    // The other side may still have something to say.
    let _ = to.shutdown().await;
}
