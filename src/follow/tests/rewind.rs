//! After a rewind by hand the chain goes on, and its next reorg is an ordinary one.

use super::*;

/// Eight blocks with a deposit each, of which two have settled.
async fn followed(store: &TestStore) -> (Rig, BTreeMap<Address, WalletId>) {
    let mut rig = Rig::new(store);
    let (_, wallet) = one_wallet(store, &mut rig).await;
    for tx in 1..=8 {
        rig.chain.mine(&[pay(tx, None, who(9), tx)]);
    }
    rig.chain.settle(2);
    rig.follow().await.unwrap();
    (rig, BTreeMap::from([(who(9), wallet)]))
}

async fn rewind(rig: &Rig, to: u64) {
    let target = rig.chain.header_at(to).await.unwrap().unwrap();
    rig.follower.committer.rewind(&target, &journal::order()).await.unwrap();
}

/// The chain goes back to a block and continues otherwise.
fn reorg(rig: &Rig, to: u64, first_tx: u64) {
    rig.chain.cut(to);
    for tx in first_tx..first_tx + 6 {
        rig.chain.mine(&[pay(tx, None, who(9), tx)]);
    }
}

#[tokio::test]
async fn a_reorg_below_the_block_of_a_rewind_is_followed_and_goes_back_to_its_fork_and_no_further()
{
    // To a block above the settled one, and to it; followed further in between, or not.
    for (to, fork) in [(6, 4), (6, 2), (2, 2)] {
        for further in [false, true] {
            for store in TestStore::all().await {
                let (mut rig, wallets) = followed(&store).await;
                rewind(&rig, to).await;
                if further {
                    rig.chain.mine(&[]);
                    rig.follow().await.unwrap();
                    assert_exact(&store, &rig, &wallets).await;
                }
                reorg(&rig, fork, 20);
                rig.chain.read();
                rig.follow().await.expect("an ordinary reorg");
                assert_exact(&store, &rig, &wallets).await;
                let lowest = rig.chain.read().into_iter().map(|(from, _)| from).min();
                assert_eq!(lowest, Some(fork + 1), "what is remembered was kept");
                store.close().await;
            }
        }
    }
}

#[tokio::test]
async fn what_is_remembered_of_another_branch_than_that_of_the_rewind_is_forgotten() {
    for store in TestStore::all().await {
        let (mut rig, wallets) = followed(&store).await;
        // Two branches of empty blocks, the second of which nobody has looked at.
        for look in [true, false] {
            rig.chain.cut(4);
            for _ in 0..8 {
                rig.chain.mine(&[]);
            }
            if look {
                rig.follow().await.unwrap();
            }
        }
        rewind(&rig, 10).await;
        let cursor = store.cursor(&chain_name()).await.unwrap();
        let mut session = store.db.read().await.unwrap();
        let known =
            crate::store::chain::blocks_from(&mut session.conn(), cursor.no, 0).await.unwrap();
        drop(session);
        for block in &known {
            let theirs = rig.chain.header_at(block.at.number).await.unwrap().unwrap();
            assert_eq!(block.at, theirs.at, "no block of the other branch");
        }
        assert!(known.iter().any(|block| block.at == cursor.settled.at), "the settled one is kept");
        reorg(&rig, 6, 30);
        rig.follow().await.expect("an ordinary reorg");
        rig.chain.settle(10);
        rig.follow().await.unwrap();
        assert_exact(&store, &rig, &wallets).await;
        store.close().await;
    }
}
