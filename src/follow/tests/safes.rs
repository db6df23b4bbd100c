//! Safes and tracked transactions: asked about beside the chain, and told of once the node has answered.

use std::collections::{BTreeSet, HashMap};

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::*;
use crate::{
    chain::{
        BlockHash, SafeCandidate, SafePlugs, SafeRejection, SafeSource, SafeState, TxFact, TxId,
        TxLookup,
    },
    clock::Millis,
    model::Wallet,
    store::{
        safe, safe_look,
        wallet::{self, WalletFilter},
    },
};

/// What the scripted node knows of Safes.
pub(super) struct Safes {
    claims: Mutex<HashMap<BlockHash, (BlockRef, SafeCandidate)>>,
    /// Answers about Safes are held back.
    held: watch::Sender<bool>,
    /// No question about a Safe is answered.
    mute: Mutex<bool>,
    /// Transactions that were asked for.
    asked: Mutex<Vec<TxId>>,
    /// Transactions that wait to be in a block, with the nonces that they use.
    pub pool: Mutex<HashMap<TxId, u64>>,
    /// The nonce that their sender uses next, in the settled state.
    pub next_nonce: Mutex<u64>,
    /// What Safes have become since they were made.
    changed: Mutex<HashMap<Address, Result<SafeState, SafeRejection>>>,
    /// The Safes that logged in a block.
    ran: Mutex<HashMap<BlockHash, Vec<Address>>>,
}

impl Default for Safes {
    fn default() -> Self {
        Self {
            claims: Mutex::default(),
            held: watch::channel(false).0,
            mute: Mutex::default(),
            asked: Mutex::default(),
            pool: Mutex::default(),
            next_nonce: Mutex::default(),
            changed: Mutex::default(),
            ran: Mutex::default(),
        }
    }
}

impl Safes {
    pub fn add(&self, at: BlockRef, claim: SafeCandidate) {
        self.claims.lock().insert(at.hash, (at, claim));
    }

    /// From now on the state says this of a Safe.
    pub fn becomes(&self, safe: Address, state: Result<SafeState, SafeRejection>) {
        self.changed.lock().insert(safe, state);
    }

    /// Safes log in a block.
    pub fn run(&self, at: BlockRef, safes: &[Address]) {
        self.ran.lock().insert(at.hash, safes.to_vec());
    }

    /// The block with its Safes, and with their transactions.
    pub fn show(&self, mut block: Block) -> Block {
        if let Some(ran) = self.ran.lock().get(&block.header.at.hash) {
            block.ran.clone_from(ran);
        }
        if let Some((_, claim)) = self.claims.lock().get(&block.header.at.hash) {
            block.safes.push(claim.clone());
            let sender = Address::from([1; 20]);
            block.transactions.push(TxFact { tx: claim.tx, sender, nonce: None, success: true });
        }
        block
    }

    pub fn hold(&self, held: bool) {
        self.held.send_replace(held);
    }

    fn mute(&self, mute: bool) {
        *self.mute.lock() = mute;
    }
}

#[async_trait]
impl SafeSource for Safes {
    async fn transaction(&self, tx: TxId) -> Result<Option<TxLookup>, SourceError> {
        self.asked.lock().push(tx);
        let claims = self.claims.lock();
        let found = claims.values().find(|(_, claim)| claim.tx == tx);
        if let Some(nonce) = self.pool.lock().get(&tx) {
            let sender = Address::from([1; 20]);
            return Ok(Some(TxLookup { sender, nonce: Some(*nonce), mined: None }));
        }
        Ok(found.map(|(at, claim)| TxLookup {
            sender: Address::from([1; 20]),
            nonce: Some(u64::MAX),
            mined: Some((*at, true, vec![claim.clone()])),
        }))
    }

    async fn next_nonce(&self, _: Address, _: BlockRef) -> Result<u64, SourceError> {
        Ok(*self.next_nonce.lock())
    }

    /// A node tells the state after a block even when that is on no chain any more.
    async fn safe_state(
        &self,
        address: Address,
        _: BlockRef,
    ) -> Result<Result<SafeState, SafeRejection>, SourceError> {
        let _ = self.held.subscribe().wait_for(|held| !held).await;
        if *self.mute.lock() {
            let detail = "told to be mute".into();
            return Err(SourceError::Unavailable { detail, retry_after: None });
        }
        if let Some(state) = self.changed.lock().get(&address) {
            return Ok(state.clone());
        }
        let claims = self.claims.lock();
        let found = claims.values().find(|(_, claim)| claim.address == address);
        Ok(found.map_or(Err(SafeRejection::NoCode), |(_, claim)| {
            Ok(SafeState {
                version: "1.4.1",
                singleton: Address::from([2; 20]),
                owners: claim.owners.clone(),
                threshold: 1,
                plugs: SafePlugs::default(),
                plain: true,
            })
        }))
    }

    async fn code_hashes(
        &self,
        addresses: &[Address],
        _: BlockRef,
    ) -> Result<Vec<Option<[u8; 32]>>, SourceError> {
        Ok(vec![None; addresses.len()])
    }

    /// What took it over.
    async fn singleton(&self, _: Address, _: BlockRef) -> Result<Option<Address>, SourceError> {
        Ok(Some(who(0xbb)))
    }
}

/// A Safe of these owners that a known factory made.
pub(super) fn claim(number: u8, owners: &[Address]) -> SafeCandidate {
    SafeCandidate {
        tx: TxId::from([number; 32]),
        address: who(number),
        factory: Some(who(0xfa)),
        owners: owners.to_vec(),
        plain: true,
    }
}

/// Turns until the condition holds.
pub(super) async fn until(rig: &mut Rig, what: &str, mut holds: impl AsyncFnMut() -> bool) {
    for _ in 0..1_000 {
        rig.follow().await.unwrap();
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("in vain waited for {what}");
}

pub(super) async fn wallets(store: &TestStore, tenant: TenantId) -> Vec<Wallet> {
    let mut session = store.db.read().await.unwrap();
    wallet::list(&mut session.conn(), tenant, &WalletFilter::default(), 100).await.unwrap()
}

/// The Safes that wait, whenever they are due.
async fn waiting(store: &TestStore) -> usize {
    let cursor = store.cursor(&chain_name()).await.unwrap();
    let mut session = store.db.read().await.unwrap();
    let all = safe_look::due_safes(&mut session.conn(), cursor.no, Millis(i64::MAX), 100).await;
    all.unwrap().len()
}

#[tokio::test]
async fn a_block_waits_for_no_proof_of_a_safe() {
    for store in TestStore::all().await {
        let mut rig = Rig::new(&store);
        let (tenant, wallet) = one_wallet(&store, &mut rig).await;
        rig.chain.safes.hold(true);
        rig.chain.mine_safe(&[pay(1, None, who(9), 50)], &claim(0x5a, &[who(9)]));
        rig.follow().await.unwrap();
        let seen = store.position(wallet, &chain_name(), AssetKey::Native).await;
        assert_eq!(seen.incoming, 50.into(), "the deposit of the same block is there");
        assert_eq!(waiting(&store).await, 1);
        assert_eq!(wallets(&store, tenant).await.len(), 1);
        rig.chain.safes.hold(false);
        until(&mut rig, "the Safe", async || wallets(&store, tenant).await.len() == 2).await;
        assert_eq!(waiting(&store).await, 0);
        let found = wallets(&store, tenant).await.remove(0);
        let facts = found.safe.unwrap();
        assert!(facts.found_by_owner && facts.owners == [who(9)]);
        rig.chain.settle(1);
        let done =
            async || types(&store.events(tenant).await).contains(&"safe_deployment.completed");
        until(&mut rig, "its settlement", done).await;
        store.close().await;
    }
}

#[tokio::test]
async fn a_judged_safe_whose_block_was_rolled_back_makes_nothing() {
    for store in TestStore::all().await {
        let mut rig = Rig::new(&store);
        let (tenant, _) = one_wallet(&store, &mut rig).await;
        rig.chain.safes.hold(true);
        rig.chain.mine_safe(&[], &claim(0x5a, &[who(9)]));
        rig.follow().await.unwrap();
        rig.chain.cut(0);
        rig.chain.mine(&[]);
        rig.chain.mine(&[]);
        rig.follow().await.unwrap();
        assert_eq!(waiting(&store).await, 0, "it is taken back with its block");
        rig.chain.safes.hold(false);
        let mut turns = 0;
        while rig.follower.judging.is_some() {
            rig.follow().await.unwrap();
            tokio::time::sleep(Duration::from_millis(5)).await;
            turns += 1;
            assert!(turns < 1_000, "the answer is taken in");
        }
        assert_eq!(wallets(&store, tenant).await.len(), 1);
        assert_eq!(types(&store.events(tenant).await), ["wallet.activated"]);
        store.close().await;
    }
}

#[tokio::test]
async fn a_kill_between_a_block_and_the_judgement_of_its_safe_loses_nothing() {
    for store in TestStore::all().await {
        let mut rig = Rig::new(&store);
        let (tenant, _) = one_wallet(&store, &mut rig).await;
        rig.chain.safes.hold(true);
        rig.chain.mine_safe(&[], &claim(0x5a, &[who(9)]));
        rig.follow().await.unwrap();
        rig.restart(&store);
        rig.chain.safes.hold(false);
        until(&mut rig, "the Safe", async || wallets(&store, tenant).await.len() == 2).await;
        store.close().await;
    }
}

#[tokio::test]
async fn a_node_that_cannot_judge_a_safe_is_asked_again_and_holds_nothing() {
    for store in TestStore::all().await {
        let mut rig = Rig::new(&store);
        let (tenant, wallet) = one_wallet(&store, &mut rig).await;
        rig.chain.safes.mute(true);
        rig.chain.mine_safe(&[], &claim(0x5a, &[who(9)]));
        let cursor = store.cursor(&chain_name()).await.unwrap();
        let put_off = async || {
            let mut session = store.db.read().await.unwrap();
            let conn = &mut session.conn();
            let all = safe_look::due_safes(conn, cursor.no, Millis(i64::MAX), 100).await.unwrap();
            all.iter().any(|safe| safe.looks == 1)
        };
        until(&mut rig, "a look in vain", put_off).await;
        rig.chain.mine(&[pay(1, None, who(9), 50)]);
        rig.follow().await.unwrap();
        let seen = store.position(wallet, &chain_name(), AssetKey::Native).await;
        assert_eq!(seen.incoming, 50.into());
        rig.chain.safes.mute(false);
        until(&mut rig, "the Safe", async || wallets(&store, tenant).await.len() == 2).await;
        store.close().await;
    }
}

#[tokio::test]
async fn one_tenants_made_up_transactions_keep_nobody_waiting() {
    for store in TestStore::all().await {
        let mut rig = Rig::new(&store);
        let (honest, wallet) = one_wallet(&store, &mut rig).await;
        let many = store.tenant().await;
        let real = claim(0x5a, &[who(9)]);
        rig.chain.mine_safe(&[], &SafeCandidate { owners: vec![who(7)], ..real.clone() });
        rig.follow().await.unwrap();
        let now = Clock::System.now();
        let mut tx = store.db.begin().await.unwrap();
        for number in 0..300_u64 {
            let mut hash = [0xbb; 32];
            hash[..8].copy_from_slice(&number.to_be_bytes());
            let made_up = TxId::from(hash);
            let conn = &mut tx.conn();
            let id = store.ids.next();
            safe::insert_by_hash(conn, id, many, &chain_name(), &made_up, now).await.unwrap();
        }
        let id = store.ids.next();
        safe::insert_by_hash(&mut tx.conn(), id, honest, &chain_name(), &real.tx, now)
            .await
            .unwrap();
        tx.commit().await.unwrap();
        let processing =
            async || types(&store.events(honest).await).contains(&"safe_deployment.processing");
        until(&mut rig, "the honest one", processing).await;
        let asked = rig.chain.safes.asked.lock().clone();
        assert!(asked.len() <= 20, "{} transactions were asked for before", asked.len());
        rig.chain.mine(&[pay(1, None, who(9), 50)]);
        rig.follow().await.unwrap();
        let seen = store.position(wallet, &chain_name(), AssetKey::Native).await;
        assert_eq!(seen.incoming, 50.into());
        let unique: BTreeSet<_> = asked.iter().map(|tx| tx.as_slice().to_vec()).collect();
        assert_eq!(unique.len(), asked.len(), "none is asked for twice before the others");
        store.close().await;
    }
}

#[tokio::test]
async fn an_owner_leads_to_so_many_safes_and_to_no_more_but_each_can_be_tracked_by_hand() {
    for store in TestStore::all().await {
        let mut rig = Rig::new(&store);
        let (tenant, _) = one_wallet(&store, &mut rig).await;
        let most = rig.follower.config.safes_per_owner;
        for number in 0x50..0x55 {
            rig.chain.mine_safe(&[], &claim(number, &[who(9)]));
        }
        until(&mut rig, "all of them", async || waiting(&store).await == 0).await;
        let found = wallets(&store, tenant).await.len() - 1;
        assert_eq!(u64::try_from(found), Ok(most));
        let omitted = &rig.follower.metrics.safe_candidates_total;
        assert_eq!(omitted.with_label_values(&["scripted", "omitted"]).get(), 5 - most);
        let mut tx = store.db.begin().await.unwrap();
        for number in 0x50..0x55 {
            let (id, hash) = (store.ids.next(), TxId::from([number; 32]));
            let now = Clock::System.now();
            let conn = &mut tx.conn();
            safe::insert_by_hash(conn, id, tenant, &chain_name(), &hash, now).await.unwrap();
        }
        tx.commit().await.unwrap();
        let all = async || wallets(&store, tenant).await.len() == 6;
        until(&mut rig, "those that were given", all).await;
        store.close().await;
    }
}

#[tokio::test]
async fn of_a_block_full_of_one_owners_safes_another_owners_is_judged_first() {
    for store in TestStore::all().await {
        let mut rig = Rig::new(&store);
        let (tenant, _) = one_wallet(&store, &mut rig).await;
        store.register(tenant, &chain_name(), who(8)).await;
        rig.follow().await.unwrap();
        let of = |number: u64, owner: u8| {
            let mut bytes = [owner; 32];
            bytes[..8].copy_from_slice(&number.to_be_bytes());
            SafeCandidate { tx: TxId::from(bytes), ..claim(owner, &[who(1), who(owner)]) }
        };
        let many = (0..1_500).map(|number| of(number, 9));
        let safes: Vec<SafeCandidate> = many.chain([of(0, 8), of(0, 7)]).collect();
        let unknown = SafeCandidate { factory: None, ..of(1, 8) };
        let at = rig.chain.head().at;
        let claimed = rig.follower.claimed(at, [safes, vec![unknown]].concat(), &[]);
        assert_eq!(claimed.len(), 1_000, "what is beyond is left out");
        let first: Vec<_> = claimed.iter().filter(|safe| safe.rank == 0).collect();
        assert_eq!(first.len(), 2, "one of each registered owner");
        assert!(first.iter().any(|safe| safe.claim.owners.contains(&who(8))));
        let metric = &rig.follower.metrics.safe_candidates_total;
        assert_eq!(metric.with_label_values(&["scripted", "omitted"]).get(), 501);
        store.close().await;
    }
}
