//! Tokens that are set aside, and their way back.

use super::{CommitError, Committer, Tries};
use crate::{
    chain::AssetKey,
    ledger::{Culprit, quarantine},
    model::{Asset, Cursor, QuarantineReason},
    store::{StoreError, asset, balance},
};

/// How often a person's order is tried beside a follower that commits.
const ORDER_TRIES: u32 = 50;

impl Committer {
    /// Sets a token aside because a person wants it, at the newest block. `None` if it does not count as it is.
    ///
    /// # Errors
    /// [`CommitError::CursorMoved`] if whoever follows the chain was quicker each time.
    pub async fn set_aside(&self, key: AssetKey) -> Result<Option<Asset>, CommitError> {
        for _ in 0..ORDER_TRIES {
            let Some(cursor) = self.cursor().await? else { return Ok(None) };
            let mut session = self.db.read().await?;
            let known = asset::by_keys(&mut session.conn(), cursor.no, &[key]).await?;
            drop(session);
            let Some(token) = known.iter().find(|asset| asset.key == key) else { return Ok(None) };
            let (block, reason) = (cursor.head.at.number, QuarantineReason::Operator);
            let order = Culprit { token: token.no, block, reason };
            match self.quarantine(&cursor, order).await {
                Err(CommitError::CursorMoved(_)) => {}
                done => return done,
            }
        }
        Err(CommitError::CursorMoved(self.chain.name.clone()))
    }

    /// Sets a token aside, and tells the tenants who hold some of it. `None` if it does not count as it is.
    pub async fn quarantine(
        &self,
        cursor: &Cursor,
        culprit: Culprit,
    ) -> Result<Option<Asset>, CommitError> {
        let mut tries = Tries::new("quarantine", "quarantine");
        loop {
            let mut session = self.db.read().await?;
            let conn = &mut session.conn();
            let known = asset::by_numbers(conn, &[culprit.token]).await?.remove(&culprit.token);
            let holders = balance::tenants_holding(conn, culprit.token).await?;
            drop(session);
            let Some(before) = known else { return Ok(None) };
            let (info, now) = (&*self.chain, self.clock.now());
            let changes = quarantine::quarantine(info, cursor, &before, culprit, &holders, now)?;
            let Some(changes) = changes else { return Ok(None) };
            let after = changes.assets.first().map(|change| change.now().clone());
            if self.write(changes, &mut tries).await?.is_some() {
                return Ok(after);
            }
        }
    }

    /// Releases a token that is set aside: whoever follows the chain takes it as newly configured. `None` if there
    /// is no such token.
    pub async fn release(&self, key: AssetKey) -> Result<Option<Asset>, CommitError> {
        let Some(cursor) = self.cursor().await? else { return Ok(None) };
        let now = self.clock.now();
        self.db
            .run_tx("release", |mut tx| async move {
                let conn = &mut tx.conn();
                let known = asset::by_keys(conn, cursor.no, &[key]).await?;
                let before = known.iter().find(|asset| asset.key == key);
                let Some(change) = before.and_then(quarantine::released) else {
                    return Ok((tx, None));
                };
                asset::write(conn, cursor.no, std::slice::from_ref(&change), now).await?;
                Ok::<_, StoreError>((tx, Some(change.now().clone())))
            })
            .await
            .map_err(CommitError::from)
    }
}
