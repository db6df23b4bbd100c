//! Work that one daemon does for all.

use std::time::Duration;

use crate::store::{Db, StoreError, lease};

/// The right to do a work, such as the retention.
#[derive(Clone, Debug)]
pub struct NamedLease {
    db: Db,
    work: &'static str,
    holder: String,
}

impl NamedLease {
    pub(super) fn new(db: Db, work: &'static str, holder: String) -> Self {
        Self { db, work, holder }
    }

    /// Makes this daemon the one that does the work, for so long; `false` while another one does it.
    ///
    /// # Errors
    /// [`StoreError`] of the engine.
    pub async fn win(&self, length: Duration) -> Result<bool, StoreError> {
        self.db
            .run_tx("lease_named", |mut tx| async move {
                let won = lease::win_named(&mut tx.conn(), self.work, &self.holder, length).await?;
                Ok::<_, StoreError>((tx, won))
            })
            .await
    }

    /// Lets another one do the work at once.
    ///
    /// # Errors
    /// [`StoreError`] of the engine; then the lease runs out by itself.
    pub async fn give_back(&self) -> Result<(), StoreError> {
        self.db
            .run_tx("lease_named", |mut tx| async move {
                lease::give_back_named(&mut tx.conn(), self.work, &self.holder).await?;
                Ok::<_, StoreError>((tx, ()))
            })
            .await
    }
}
