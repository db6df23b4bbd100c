//! Several daemons on one PostgreSQL: each chain is followed by one of them, and no deposit is lost between them.

use std::time::{Duration, Instant};

use alloy::primitives::{Address, U256};
use tokio::process::Command;

use crate::harness::{Api, Daemon, Node, Settings, Store, eventually};

/// A lease, and what the next look may take.
const LEASE: Duration = Duration::from_secs(10 + 2);

struct Fleet {
    node: Node,
    daemons: Vec<(Daemon, Api)>,
    wallets: Vec<Address>,
}

impl Fleet {
    async fn of(count: usize) -> Self {
        let (node, store) = (Node::start().await, Store::postgres().await);
        let mut daemons: Vec<(Daemon, Api)> = Vec::new();
        for _ in 0..count {
            let daemon = Daemon::start_with(Settings::new(&node, &store)).await;
            let api = match daemons.first() {
                Some((_, first)) => Api::new(daemon.base(), first.key.clone()),
                None => daemon.customer("acme").await,
            };
            daemons.push((daemon, api));
        }
        Self { node, daemons, wallets: Vec::new() }
    }

    /// Which daemon follows the chain, of those that run.
    async fn leader(&self) -> usize {
        eventually("one that follows", || async {
            let mut leaders = Vec::new();
            for (index, (daemon, _)) in self.daemons.iter().enumerate() {
                if daemon.runs() && leads(daemon).await {
                    leaders.push(index);
                }
            }
            let [leader] = leaders[..] else { return None };
            Some(leader)
        })
        .await
    }

    /// A wallet that is registered at one daemon, and gets 15 at once.
    async fn pay_one(&mut self, at: usize) {
        let wallet = Node::stranger();
        self.daemons[at].1.watch(wallet).await;
        self.node.mint(wallet, 15).await;
        self.wallets.push(wallet);
    }

    /// Every deposit is there, told once, and the ledger is exact.
    async fn check(&self, at: usize) {
        self.node.settle().await;
        let (daemon, api) = &self.daemons[at];
        for &wallet in &self.wallets {
            let balance = api.balance_settled(wallet, "DUSD", &self.node).await;
            assert_eq!(balance.available, U256::from(15), "{wallet}");
            assert_eq!(api.transfers(wallet).await.len(), 1);
        }
        let (code, said) = daemon.outcome(&["audit"]).await;
        assert_eq!(code, 0, "{said}");
    }
}

async fn leads(daemon: &Daemon) -> bool {
    daemon.metrics().await.contains("tidemark_chain_leader{chain=\"local\"} 1")
}

async fn signal(daemon: &Daemon, signal: &str) {
    let sent = Command::new("kill").args([signal, &daemon.pid().to_string()]).status().await;
    assert!(sent.unwrap().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_registered_at_any_of_three_daemons_loses_no_deposit() {
    let mut fleet = Fleet::of(3).await;
    for number in 0..9 {
        fleet.pay_one(number % 3).await;
    }
    let leader = fleet.leader().await;
    for (index, (daemon, _)) in fleet.daemons.iter().enumerate() {
        assert_eq!(leads(daemon).await, index == leader, "one follows");
    }
    fleet.check((leader + 1) % 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_that_is_stopped_hands_its_chains_over_and_one_that_is_killed_is_replaced() {
    let mut fleet = Fleet::of(3).await;
    fleet.pay_one(0).await;
    let first = fleet.leader().await;
    fleet.daemons[first].0.terminate().await;
    let begun = Instant::now();
    let second = fleet.leader().await;
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    fleet.pay_one((0..3).find(|at| ![first, second].contains(at)).unwrap()).await;
    fleet.daemons[second].0.kill_9().await;
    let begun = Instant::now();
    let third = fleet.leader().await;
    assert!(begun.elapsed() < LEASE, "{:?}", begun.elapsed());
    assert!(![first, second].contains(&third));
    fleet.pay_one(third).await;
    fleet.check(third).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_that_slept_through_its_lease_changes_nothing_when_it_wakes() {
    let mut fleet = Fleet::of(2).await;
    fleet.pay_one(0).await;
    let slept = fleet.leader().await;
    signal(&fleet.daemons[slept].0, "-STOP").await;
    let other = 1 - slept;
    eventually("the other one", || async { leads(&fleet.daemons[other].0).await.then_some(()) })
        .await;
    for _ in 0..3 {
        fleet.pay_one(other).await;
    }
    signal(&fleet.daemons[slept].0, "-CONT").await;
    for number in 0..4 {
        fleet.pay_one(number % 2).await;
    }
    eventually("the end of the old one", || async {
        (!leads(&fleet.daemons[slept].0).await).then_some(())
    })
    .await;
    fleet.check(slept).await;
}
