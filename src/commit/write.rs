//! Writing what was decided, in one transaction.

use super::{CommitError, Committer};
use crate::{
    ledger::Changes,
    model::{NewWallet, NewWatch},
    store::{
        StoreError, Tx, asset, asset_opening, balance, chain, event, journal, registration, safe,
        safe_look, safe_state, scan::Moved, transfer, watch,
    },
};

/// What became known only by writing.
pub(super) struct Written {
    pub histories: Moved,
}

impl Committer {
    /// The cursor moves first: whoever holds its row is the only writer of this chain until commit.
    pub(super) async fn write_in(
        &self,
        mut tx: Tx,
        changes: &Changes,
    ) -> Result<(Tx, Written), CommitError> {
        let mut conn = tx.conn();
        let conn = &mut conn;
        let Changes { from, cursor, now, blocks, .. } = changes;
        let (chain, now) = (cursor.no, *now);
        if !chain::move_cursor(conn, from, cursor, now, self.lease.length()).await? {
            return Err(CommitError::CursorMoved(cursor.chain.clone()));
        }
        if let Some(fork) = blocks.above {
            chain::delete_blocks_above(conn, chain, fork).await?;
            asset_opening::delete_above(conn, chain, fork).await?;
            safe_look::delete_above(conn, chain, fork).await?;
            safe_state::doubt_above(conn, chain, fork, now).await?;
        }
        if let Some((first, last)) = blocks.forgotten {
            chain::delete_blocks(conn, chain, first, last).await?;
        }
        chain::mark_traced(conn, chain, &blocks.traced).await?;
        chain::insert_blocks(conn, chain, &blocks.connected).await?;
        asset::write(conn, chain, &changes.assets, now).await?;
        asset_opening::insert(conn, chain, &changes.asset_openings).await?;
        transfer::insert(conn, chain, &changes.transfers).await?;
        transfer::update(conn, &changes.updates, now).await?;
        let commit = cursor.journal.commit;
        transfer::insert_entries(conn, &changes.entries, &changes.transfers, commit, now).await?;
        journal::insert(conn, chain, changes.journal.as_slice()).await?;
        balance::write(conn, &changes.balances, now).await?;
        let histories = watch::write(conn, chain, &cursor.head, &changes.watches, now).await?;
        let numbers = registration::insert_wallets(conn, &changes.wallets, now).await?;
        let watch = |new: &NewWallet| NewWatch {
            key: (new.tenant, chain, new.address),
            wallet: new.id,
            from_block: None,
        };
        let watches: Vec<NewWatch> = changes.wallets.iter().map(watch).collect();
        if !registration::insert_watches(conn, &watches, &numbers, now).await? {
            let why = "the Safe was registered meanwhile".to_owned();
            return Err(StoreError::Stale(why).into());
        }
        if !changes.safes.is_empty() {
            let tenants = changes.safes.iter().map(|proof| proof.tenant);
            let told = changes.events.iter().map(|event| event.tenant);
            safe::hold_tenants(conn, &tenants.chain(told).collect()).await?;
        }
        for proof in &changes.safes {
            safe::write_proof(conn, proof, now).await?;
        }
        for change in &changes.deployments {
            safe::write(conn, chain, change).await?;
        }
        safe_look::write(conn, chain, &changes.looks).await?;
        safe_state::write(conn, chain, &changes.safe_states, now).await?;
        let opened = changes.watches.opened.iter().map(|(_, address)| *address);
        safe_state::watched_from_now(conn, chain, opened, now).await?;
        if cursor.settled.at.number > from.settled.at.number {
            safe_look::look_at_settled(conn, chain, cursor.settled.at.number, now).await?;
        }
        event::append(conn, &self.ids, now, &changes.events).await?;
        Ok((tx, Written { histories }))
    }
}
