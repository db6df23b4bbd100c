//! A daemon that is cut off from its database or from its node, without being told so by anybody: nothing comes any
//! more, and no connection ends.

use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use alloy::primitives::{Address, U256};

use crate::harness::{
    CHAIN, Gate, Node, eventually,
    fleet::{Fleet, LEASE, SLACK, leads},
};

/// What one question to the node may take.
const ASKING: Duration = Duration::from_secs(2);
/// How often the one that follows is cut off: the one before has to follow then.
const CUTS: usize = 4;

/// Two daemons, each with doors of its own to the database and to the node.
struct Doors {
    fleet: Fleet,
    to_database: [Gate; 2],
    to_node: [Gate; 2],
}

impl Doors {
    async fn start() -> Self {
        let (to_database, to_node) = tokio::join!(closed(), closed());
        let fleet = Fleet::start(2, 1, |index, mut settings| {
            let mut url: url::Url = settings.database_url.parse().unwrap();
            let server = (url.host_str().unwrap(), url.port().unwrap_or(5432));
            to_database[index].open(&format!("{}:{}", server.0, server.1));
            url.set_host(Some("127.0.0.1")).unwrap();
            url.set_port(Some(to_database[index].port())).unwrap();
            settings.database_url = url.into();
            to_node[index].open(&settings.node_url);
            settings.node_url = to_node[index].url();
            settings.node_ws = Some(to_node[index].ws_url());
            // Anvil, which mines all the time here, executes each block anew for what is traced of it.
            settings.endpoint =
                format!(", request_timeout_seconds = {}, tracing = \"none\"", ASKING.as_secs());
            settings
        })
        .await;
        Self { fleet, to_database, to_node }
    }

    /// Cuts off whoever follows, again and again, while deposits come: the other one follows within `limit`, tells of
    /// new wallets, and nothing is lost.
    async fn cut_in_turn(mut self, doors: impl Fn(&Self) -> &[Gate; 2], limit: Duration) {
        let wallet = Node::stranger();
        self.fleet.apis[0].watch(wallet).await;
        let (stop, paid) = (AtomicBool::new(false), AtomicUsize::new(0));
        let pay = async {
            while !stop.load(Ordering::Relaxed) {
                self.fleet.chains[0].node.mint(wallet, 1).await;
                paid.fetch_add(1, Ordering::Relaxed);
            }
        };
        let cut = async {
            let mut late = Vec::new();
            for _ in 0..CUTS {
                late.push(self.cut(doors(&self), limit).await);
            }
            stop.store(true, Ordering::Relaxed);
            late
        };
        let (late, ()) = tokio::join!(cut, pay);
        let paid = paid.into_inner();
        for daemon in &mut self.fleet.daemons {
            daemon.ready().await;
        }
        let node = &self.fleet.chains[0].node;
        node.settle().await;
        for (index, api) in self.fleet.apis.iter().enumerate() {
            self.fleet.settled(api).await;
            let balance = api.balance(wallet, "DUSD").await;
            assert_eq!(balance.available, U256::from(paid), "at daemon {index}");
            assert_eq!(api.transfers(wallet).await.len(), paid);
            for &wallet in &late {
                assert_eq!(api.balance(wallet, "ETH").await.available, U256::from(7));
            }
        }
        self.fleet.history().await;
        self.fleet.one_followed_at_a_time().await;
        self.fleet.audit().await;
    }

    /// Cuts off whoever follows for more than two leases; the wallet that was registered meanwhile.
    async fn cut(&self, doors: &[Gate; 2], limit: Duration) -> Address {
        let Fleet { daemons, apis, chains, .. } = &self.fleet;
        let old = self.fleet.leader(CHAIN).await;
        let other = 1 - old;
        let begun = Instant::now();
        doors[old].hold();
        eventually("the other one", || async { leads(&daemons[other], CHAIN).await.then_some(()) })
            .await;
        let took = begun.elapsed();
        eprintln!("daemon {other} follows after {took:?}");
        assert!(took < limit, "{took:?}");
        let late = Node::stranger();
        apis[other].watch(late).await;
        let node = &chains[0].node;
        // From another account than the other payments, whose transactions are counted one by one.
        node.pay(node.accounts[0], late, 7).await;
        apis[other]
            .balance_becomes(late, "ETH", "what is paid meanwhile", |balance| {
                balance.total == U256::from(7)
            })
            .await;
        let alive = apis[old].get("/healthz").await;
        assert!(alive.status.is_success(), "{alive:?}");
        tokio::time::sleep((LEASE * 2).saturating_sub(begun.elapsed())).await;
        doors[old].release();
        eventually("the end of the old one", || async {
            (!leads(&daemons[old], CHAIN).await).then_some(())
        })
        .await;
        late
    }
}

async fn closed() -> [Gate; 2] {
    [Gate::closed().await, Gate::closed().await]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_cut_off_from_its_database_is_replaced_within_its_lease_and_takes_part_again() {
    Doors::start().await.cut_in_turn(|doors| &doors.to_database, LEASE + SLACK).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_cut_off_from_its_node_gives_its_chain_to_one_that_is_not() {
    Doors::start().await.cut_in_turn(|doors| &doors.to_node, LEASE * 2 + ASKING + SLACK).await;
}
