//! Daemons and validators that die.

use std::{collections::BTreeSet, time::Duration};

use alloy::primitives::U256;
use rand::Rng as _;
use solana_commitment_config::CommitmentConfig;
use solana_keypair::Keypair;
use solana_pubkey::Pubkey;
use solana_signer::Signer as _;
use tidemark::dev::solana::Rpc;

use crate::harness::{
    Daemon, Receiver, eventually, on_both_stores,
    solana::{Chain, SOL, Solana, Witness},
};

/// How many slots below the newest block have none.
async fn skipped(rpc: &Rpc) -> u64 {
    let newest = rpc.client().get_slot().await.unwrap();
    let sure = CommitmentConfig::confirmed();
    let slots = rpc.client().get_blocks_with_commitment(0, Some(newest), sure).await.unwrap();
    newest + 1 - u64::try_from(slots.len()).unwrap()
}

/// Kills the validator until the slot that it had begun stays without a block. A block that was confirmed a
/// moment before may vanish, too: it has told of it before it wrote it down.
async fn skip_a_slot(chain: &mut Chain, rpc: &Rpc) {
    let already = skipped(rpc).await;
    // About one time in ten a kill falls into the part of a slot that leaves it without a block.
    for _ in 0..150 {
        let pause = Duration::from_millis(rand::rng().random_range(50..250));
        tokio::time::sleep(pause).await;
        chain.validator.kill_9().unwrap();
        chain.validator.start_again().await.unwrap();
        let begun = rpc.client().get_slot().await.unwrap();
        eventually("the next slots", || async {
            (rpc.client().get_slot().await.ok()? > begun + 1).then_some(())
        })
        .await;
        if skipped(rpc).await > already {
            return;
        }
    }
    panic!("no slot was ever skipped");
}

/// The program `cp`, which keeps what it cannot read, such as sockets, out of the way.
fn copy(from: &std::path::Path, to: &std::path::Path) {
    let status = std::process::Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
    assert!(status.success());
}

on_both_stores! {
    async fn kill_9_at_any_moment_loses_and_doubles_nothing(store) {
        let chain = Solana::shared().await;
        let (mut daemon, api) = chain.daemon(&store).await;
        let receiver = Receiver::start().await;
        receiver.subscribe(&api, "hook", &["*"]).await;
        let wallets: [Pubkey; 2] = std::array::from_fn(|_| Keypair::new().pubkey());
        for wallet in wallets {
            api.watch(wallet).await;
        }
        let witness = Witness::of(&chain, &chain.rpc, &wallets);
        let (mut sent, mut deposits, mut last) = ([0u64; 2], 0, 0);
        for _ in 0..6 {
            let pause = Duration::from_millis(rand::rng().random_range(0..900));
            let load = async {
                for _ in 0..2 {
                    for (index, wallet) in wallets.into_iter().enumerate() {
                        let lamports = SOL + rand::rng().random_range(1..1000);
                        last = chain.rpc.fund(&wallet, lamports).await.unwrap().slot;
                        sent[index] += lamports;
                        deposits += 1;
                    }
                }
            };
            let death = async {
                tokio::time::sleep(pause).await;
                daemon.kill_9().await;
            };
            tokio::join!(load, death);
            daemon.begin().await;
        }
        daemon.ready().await;
        witness.agrees(&api, last).await;
        for (wallet, sent) in wallets.into_iter().zip(sent) {
            assert_eq!(api.balance(wallet, "SOL").await.available, U256::from(sent));
        }
        let events = api.events().await;
        for kind in ["deposit.pending", "deposit.available"] {
            let count = events.iter().filter(|event| event["type"] == kind).count();
            assert_eq!(count, deposits, "{kind}");
        }
        let feed: BTreeSet<_> = events.iter().map(|event| event["id"].to_string()).collect();
        eventually("every event by webhook", || async {
            let seen = receiver.events("hook").await;
            let seen: BTreeSet<_> = seen.iter().map(|event| event["id"].to_string()).collect();
            (seen == feed).then_some(())
        })
        .await;
    }

    async fn a_validator_that_dies_and_comes_back_is_followed_over_the_skipped_slots(store) {
        let mut chain = Chain::start().await;
        let rpc = chain.validator.rpc();
        let mut daemon = Daemon::start_with(chain.settings(&store)).await;
        let api = daemon.customer("acme").await;
        let wallet = Keypair::new().pubkey();
        api.watch(wallet).await;
        for (round, daemon_lives) in [(1, true), (2, false)] {
            let before = rpc.fund(&wallet, SOL + 1).await.unwrap();
            api.event_of("deposit.available", &before.signature).await;
            if !daemon_lives {
                daemon.kill_9().await;
            }
            skip_a_slot(&mut chain, &rpc).await;
            let witness = Witness::of(&chain, &rpc, &[wallet]);
            let after = rpc.fund(&wallet, SOL + 2).await.unwrap();
            if !daemon_lives {
                daemon.begin().await;
                daemon.ready().await;
            }
            witness.agrees(&api, after.slot).await;
            let total = api.balance(wallet, "SOL").await.available;
            assert_eq!(total, U256::from(round * (2 * SOL + 3)));
            let events = api.events().await;
            assert!(events.iter().all(|event| event["type"] != "deposit.orphaned"), "{events:#?}");
        }
    }

    async fn a_confirmed_deposit_whose_block_vanishes_is_taken_back(store) {
        let mut chain = Chain::start().await;
        let rpc = chain.validator.rpc();
        let daemon = Daemon::start_with(chain.settings(&store)).await;
        let api = daemon.customer("acme").await;
        let wallet = Keypair::new().pubkey();
        api.watch(wallet).await;
        let kept = rpc.fund(&wallet, SOL).await.unwrap();
        api.event_of("deposit.available", &kept.signature).await;
        let witness = Witness::of(&chain, &rpc, &[wallet]);
        chain.validator.kill_9().unwrap();
        let ledger = chain.validator.ledger();
        let saved = ledger.with_extension("saved");
        copy(&ledger, &saved);
        chain.validator.start_again().await.unwrap();
        let lost = rpc.fund(&wallet, SOL / 2).await.unwrap();
        api.event_of("deposit.pending", &lost.signature).await;
        chain.validator.kill_9().unwrap();
        std::fs::remove_dir_all(&ledger).unwrap();
        std::fs::rename(&saved, &ledger).unwrap();
        drop(witness);
        // The chain goes on from where it was saved, with other blocks.
        chain.validator.start_again().await.unwrap();
        let witness = Witness::of(&chain, &rpc, &[wallet]);
        let later = rpc.fund(&wallet, SOL / 4).await.unwrap();
        let event = api.event_of("deposit.orphaned", &lost.signature).await;
        assert_eq!(event["data"]["balance"]["total"]["raw"], SOL.to_string());
        api.event_of("deposit.available", &later.signature).await;
        witness.agrees(&api, later.slot).await;
        assert_eq!(api.balance(wallet, "SOL").await.available, U256::from(SOL + SOL / 4));
    }
}
