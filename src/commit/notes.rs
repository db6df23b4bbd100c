//! What a follower notes beside the ledger.

use super::Committer;
use crate::{
    chain::TraceAbility,
    model::Cursor,
    store::{StoreError, canary, chain},
};

impl Committer {
    /// Notes what the endpoints trace with, for the API of every daemon.
    pub async fn tell_tracing(
        &self,
        cursor: &Cursor,
        tracing: &[TraceAbility],
    ) -> Result<(), StoreError> {
        self.db
            .run_tx("tracing", |mut tx| async move {
                chain::write_tracing(&mut tx.conn(), cursor.no, cursor.epoch, tracing).await?;
                Ok((tx, ()))
            })
            .await
    }

    /// Remembers that this version of the daemon reads settled blocks as they were booked.
    pub async fn was_read_by(&self, cursor: &Cursor, version: &str) -> Result<(), StoreError> {
        self.db
            .run_tx("canary", |mut tx| async move {
                canary::was_read_by(&mut tx.conn(), cursor.no, cursor.epoch, version).await?;
                Ok((tx, ()))
            })
            .await
    }
}
