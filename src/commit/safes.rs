//! Committing what nodes said of Safes and of the transactions that deploy them.

use super::{
    CommitError, Committed, Committer, Tries,
    load::{Step, assets},
};
use crate::{
    chain::{Address, TxId},
    id::WalletId,
    ledger::{
        Known,
        deployments::{self, Examined, Judged, Verdict},
        known::{HashSet, KnownDeployments},
        safes::{self, Holder, Looked},
    },
    model::{ChainNo, Cursor},
    store::{
        Conn, StoreError, safe,
        safe_contract::{self, Code},
        safe_look, safe_state, setting, watch,
    },
};

impl Committer {
    /// Writes what was learned of tracked deployments since they were read. What has changed meanwhile stays as it
    /// is, and is looked at again.
    pub async fn deployments(
        &self,
        cursor: &Cursor,
        examined: &[Examined],
    ) -> Result<Committed, CommitError> {
        let mut tries = Tries::new("deployments", "deployments");
        loop {
            let (known, safes) = self.step().for_deployments(cursor, examined).await?;
            let (info, now) = (&*self.chain, self.clock.now());
            let examined = examined.to_vec();
            let changes = deployments::examined(info, cursor, &known, safes, examined, now)?;
            if let Some(committed) = self.write(changes, &mut tries).await? {
                return Ok(committed);
            }
        }
    }

    /// Makes wallets of the Safes that were proven, and puts off those that no node could judge. What was taken
    /// back with its block meanwhile is nothing any more.
    pub async fn judged(
        &self,
        cursor: &Cursor,
        judged: &[Judged],
    ) -> Result<Committed, CommitError> {
        let mut tries = Tries::new("safes", "safes");
        loop {
            let (known, safes, judged) = self.step().for_judged(cursor, judged).await?;
            let (info, now) = (&*self.chain, self.clock.now());
            let changes = deployments::judged(info, cursor, &known, safes, judged, now)?;
            if let Some(committed) = self.write(changes, &mut tries).await? {
                return Ok(committed);
            }
        }
    }
}

impl Committer {
    /// Writes which of Safe's own contracts stand on the chain.
    pub async fn safe_contracts(&self, chain: ChainNo, codes: &[Code]) -> Result<(), StoreError> {
        let now = self.clock.now();
        self.db
            .run_tx("safe_contracts", |mut tx| async move {
                safe_contract::write(&mut tx.conn(), chain, codes, now).await?;
                Ok((tx, ()))
            })
            .await
    }

    /// Writes what was read of watched Safes. What has changed meanwhile stays as it is, and is read again.
    pub async fn looked(
        &self,
        cursor: &Cursor,
        looked: &[Looked],
    ) -> Result<Committed, CommitError> {
        let mut tries = Tries::new("safe_states", "safe_states");
        loop {
            let (known, holders, looked) = self.step().for_looked(cursor, looked).await?;
            let (info, now) = (&*self.chain, self.clock.now());
            let changes = safes::looked(info, cursor, &known, &holders, looked, now)?;
            if let Some(committed) = self.write(changes, &mut tries).await? {
                return Ok(committed);
            }
        }
    }
}

impl Step<'_> {
    async fn for_looked(
        &self,
        cursor: &Cursor,
        looked: &[Looked],
    ) -> Result<(Known, Vec<Holder>, Vec<Looked>), StoreError> {
        let mut session = self.db.read().await?;
        let conn = &mut session.conn();
        let addresses: Vec<Address> = looked.iter().map(|looked| looked.before.address).collect();
        let holders = watch::watching(conn, cursor.no, self.chain.family, &addresses).await?;
        let assets = assets(conn, cursor, HashSet::default(), Vec::new()).await?;
        let now = safe_state::of(conn, cursor.no, &addresses).await?;
        let as_read = |looked: &&Looked| {
            let now = now.get(&looked.before.address);
            now.is_some_and(|now| now.revision == looked.before.revision)
        };
        let looked = looked.iter().filter(as_read).cloned().collect();
        Ok((Known { assets, ..Known::default() }, holders, looked))
    }

    async fn for_deployments(
        &self,
        cursor: &Cursor,
        examined: &[Examined],
    ) -> Result<(Known, KnownDeployments), StoreError> {
        let mut session = self.db.read().await?;
        let conn = &mut session.conn();
        let rows = || examined.iter().map(|examined| &examined.now);
        let txs: Vec<TxId> = rows().map(|row| row.tx).collect();
        let mut known = self.deployments(conn, cursor, &txs).await?;
        let addresses: Vec<Address> = rows().filter_map(|row| row.address).collect();
        let owners: Vec<Address> = rows().flat_map(|row| row.owners.iter().copied()).collect();
        self.wallets(conn, cursor, &mut known, &addresses, &owners).await?;
        let assets = assets(conn, cursor, HashSet::default(), Vec::new()).await?;
        Ok((Known { assets, ..Known::default() }, known))
    }

    /// With what of `judged` still waits.
    async fn for_judged(
        &self,
        cursor: &Cursor,
        judged: &[Judged],
    ) -> Result<(Known, KnownDeployments, Vec<Judged>), StoreError> {
        let mut session = self.db.read().await?;
        let conn = &mut session.conn();
        let mut waiting = Vec::with_capacity(judged.len());
        for judged in judged {
            if safe_look::waits(conn, cursor.no, &judged.safe).await? {
                waiting.push(judged.clone());
            }
        }
        let proven = || {
            waiting.iter().filter_map(|judged| match &judged.verdict {
                Verdict::Safe(state) => Some((&judged.safe.claim, state)),
                Verdict::NoSafe | Verdict::Unknown => None,
            })
        };
        let txs: Vec<TxId> = proven().map(|(claim, _)| claim.tx).collect();
        let mut known = self.deployments(conn, cursor, &txs).await?;
        let addresses: Vec<Address> = proven().map(|(claim, _)| claim.address).collect();
        let owners: Vec<Address> =
            proven().flat_map(|(_, state)| state.owners.iter().copied()).collect();
        self.wallets(conn, cursor, &mut known, &addresses, &owners).await?;
        let assets = assets(conn, cursor, HashSet::default(), Vec::new()).await?;
        Ok((Known { assets, ..Known::default() }, known, waiting))
    }

    /// The deployments of some transactions, with their wallets as events show them.
    pub(super) async fn deployments(
        &self,
        conn: &mut Conn<'_>,
        cursor: &Cursor,
        txs: &[TxId],
    ) -> Result<KnownDeployments, StoreError> {
        let deployments = safe::of_transactions(conn, cursor.no, txs).await?;
        let ids: Vec<WalletId> = deployments
            .iter()
            .flat_map(|row| [row.wallet_id, row.owner_wallet])
            .flatten()
            .collect();
        let mut known = KnownDeployments { deployments, ..KnownDeployments::default() };
        self.show(conn, &mut known, ids).await?;
        Ok(known)
    }

    /// Who has registered some owners, and who watches some Safes already.
    async fn wallets(
        &self,
        conn: &mut Conn<'_>,
        cursor: &Cursor,
        known: &mut KnownDeployments,
        addresses: &[Address],
        owners: &[Address],
    ) -> Result<(), StoreError> {
        let family = self.chain.family;
        known.owners = watch::open_by_address(conn, cursor.no, owners, None).await?;
        for (watch, shown) in watch::watching(conn, cursor.no, family, addresses).await? {
            known.watching.insert((watch.tenant, watch.address), watch);
            known.wallets.insert(shown.id, shown);
        }
        let states = safe_state::of(conn, cursor.no, addresses).await?.into_iter();
        known.states = states.filter_map(|(address, look)| Some((address, look.known?))).collect();
        let watches = || known.owners.values().flatten();
        let tenants: Vec<_> = watches()
            .map(|watch| watch.tenant)
            .chain(known.deployments.iter().map(|row| row.tenant))
            .collect();
        let ids: Vec<WalletId> = watches().map(|watch| watch.wallet_id).collect();
        known.found = safe::found_by_owners(conn, cursor.no, ids.iter().copied()).await?;
        known.adopt = setting::adopt_safes_of(conn, tenants).await?;
        self.show(conn, known, ids).await
    }

    async fn show(
        &self,
        conn: &mut Conn<'_>,
        known: &mut KnownDeployments,
        mut ids: Vec<WalletId>,
    ) -> Result<(), StoreError> {
        ids.sort_unstable();
        ids.dedup();
        let shown = watch::shown(conn, self.chain.family, &ids).await?;
        known.wallets.extend(shown.into_iter().map(|wallet| (wallet.id, wallet)));
        Ok(())
    }
}
