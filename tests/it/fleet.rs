//! Several daemons on one PostgreSQL: each chain is followed by one of them, and no deposit is lost between them.

mod clocks;
mod cut;
mod order;
mod random;

use std::time::{Duration, Instant};

use alloy::primitives::{Address, U256};

use crate::harness::{
    CHAIN, Node, eventually,
    fleet::{Fleet, LEASE, SLACK, leads},
};

/// Some daemons on one chain, and who was paid there.
struct Paid {
    fleet: Fleet,
    wallets: Vec<Address>,
}

impl Paid {
    async fn by(daemons: usize) -> Self {
        let fleet = Fleet::start(daemons, 1, |_, settings| settings).await;
        Self { fleet, wallets: Vec::new() }
    }

    async fn leader(&self) -> usize {
        self.fleet.leader(CHAIN).await
    }

    /// A wallet that is registered at one daemon, and gets 15 at once.
    async fn pay_one(&mut self, at: usize) {
        let wallet = Node::stranger();
        self.fleet.apis[at].watch(wallet).await;
        self.fleet.chains[0].node.mint(wallet, 15).await;
        self.wallets.push(wallet);
    }

    /// Every deposit is there, told once, and the ledger is exact.
    async fn check(&self, at: usize) {
        let node = &self.fleet.chains[0].node;
        node.settle().await;
        let api = &self.fleet.apis[at];
        for &wallet in &self.wallets {
            let balance = api.balance_settled(wallet, "DUSD", node).await;
            assert_eq!(balance.available, U256::from(15), "{wallet}");
            assert_eq!(api.transfers(wallet).await.len(), 1);
        }
        self.fleet.one_followed_at_a_time().await;
        self.fleet.audit().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_registered_at_any_of_three_daemons_loses_no_deposit() {
    let mut paid = Paid::by(3).await;
    for number in 0..9 {
        paid.pay_one(number % 3).await;
    }
    let leader = paid.leader().await;
    for (index, daemon) in paid.fleet.daemons.iter().enumerate() {
        assert_eq!(leads(daemon, CHAIN).await, index == leader, "one follows");
    }
    paid.check((leader + 1) % 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_that_is_stopped_hands_its_chains_over_and_one_that_is_killed_is_replaced() {
    let mut paid = Paid::by(3).await;
    paid.pay_one(0).await;
    let first = paid.leader().await;
    paid.fleet.daemons[first].terminate().await;
    let begun = Instant::now();
    let second = paid.leader().await;
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    paid.pay_one((0..3).find(|at| ![first, second].contains(at)).unwrap()).await;
    paid.fleet.daemons[second].kill_9().await;
    let begun = Instant::now();
    let third = paid.leader().await;
    assert!(begun.elapsed() < LEASE + SLACK, "{:?}", begun.elapsed());
    assert!(![first, second].contains(&third));
    paid.pay_one(third).await;
    paid.check(third).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_daemon_that_slept_through_its_lease_changes_nothing_when_it_wakes() {
    let mut paid = Paid::by(2).await;
    paid.pay_one(0).await;
    let slept = paid.leader().await;
    paid.fleet.daemons[slept].sleep().await;
    let other = 1 - slept;
    eventually("the other one", || async {
        leads(&paid.fleet.daemons[other], CHAIN).await.then_some(())
    })
    .await;
    for _ in 0..3 {
        paid.pay_one(other).await;
    }
    paid.fleet.daemons[slept].wake().await;
    for number in 0..4 {
        paid.pay_one(number % 2).await;
    }
    eventually("the end of the old one", || async {
        (!leads(&paid.fleet.daemons[slept], CHAIN).await).then_some(())
    })
    .await;
    paid.check(slept).await;
}
