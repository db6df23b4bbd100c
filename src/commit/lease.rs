//! The lease of the chain: whoever holds it follows the chain, and nobody else's commits change anything.

use super::Committer;
use crate::{
    model::ChainNo,
    store::{StoreError, lease},
};

/// Who follows chains, for the store.
#[derive(Clone, Debug)]
pub struct Holder {
    /// Told apart from all others, and the same after a restart.
    pub name: String,
    /// Whether there can be others: they are shown signs of life then.
    pub is_shared: bool,
}

impl Holder {
    /// The only process of the store.
    #[must_use]
    pub fn alone() -> Self {
        Self { name: "alone".to_owned(), is_shared: false }
    }
}

impl Committer {
    /// The same for a daemon among several.
    #[must_use]
    pub fn held_by(self, holder: Holder) -> Self {
        Self { holder, ..self }
    }

    #[must_use]
    pub fn holder(&self) -> &Holder {
        &self.holder
    }

    /// The number under which this holder follows the chain from now on; `None` while another one does.
    ///
    /// # Errors
    /// [`StoreError`] of the engine.
    pub async fn win(&self, chain: ChainNo) -> Result<Option<i64>, StoreError> {
        self.db
            .run_tx("lease_win", |mut tx| async move {
                let epoch = lease::win(&mut tx.conn(), chain, &self.holder.name).await?;
                Ok((tx, epoch))
            })
            .await
    }

    /// `false` if another one has won the chain.
    ///
    /// # Errors
    /// [`StoreError`] of the engine.
    pub async fn renew(&self, chain: ChainNo, epoch: i64) -> Result<bool, StoreError> {
        self.db
            .run_tx("lease_renew", |mut tx| async move {
                let held = lease::renew(&mut tx.conn(), chain, epoch).await?;
                Ok((tx, held))
            })
            .await
    }

    /// Another one need not wait.
    ///
    /// # Errors
    /// [`StoreError`] of the engine.
    pub async fn give_back(&self, chain: ChainNo, epoch: i64) -> Result<(), StoreError> {
        self.db
            .run_tx("lease_give_back", |mut tx| async move {
                lease::give_back(&mut tx.conn(), chain, epoch).await?;
                Ok((tx, ()))
            })
            .await
    }
}
