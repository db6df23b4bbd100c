//! Tokens whose figures cannot be booked: they are set aside, and the chain goes on without them.

use prometheus::IntGauge;
use tokio::sync::watch;

use super::{Follower, Turn, TurnError};
use crate::{
    chain::{Address, Announced, AssetKey, Movement},
    ledger::{
        Refused,
        worthless::{self, Worthless},
    },
    model::{Asset, Cursor, QuarantineReason},
    store::asset,
};

impl TurnError {
    /// The chain stops until a person has looked.
    pub(super) fn halt_for(refused: &Refused) -> Self {
        Self::Halt(format!("the ledger refuses a block ({refused}); nothing of it is booked"))
    }
}

impl Follower {
    /// One turn. What a token's contract made unbookable sets the token aside, and the next turn does it again
    /// without the token.
    pub(super) async fn round(
        &mut self,
        announced: &mut watch::Receiver<Option<Announced>>,
    ) -> Result<Turn, TurnError> {
        match self.turn_and_release(announced).await {
            Err(TurnError::Unbookable(refused)) => {
                self.set_aside(&refused).await?;
                Ok(Turn::More)
            }
            other => other,
        }
    }

    async fn turn_and_release(
        &mut self,
        announced: &mut watch::Receiver<Option<Announced>>,
    ) -> Result<Turn, TurnError> {
        let turn = self.turn(announced).await?;
        self.look_for_released().await?;
        Ok(turn)
    }

    async fn set_aside(&mut self, refused: &Refused) -> Result<(), TurnError> {
        // Nothing is assumed after a failed commit.
        self.cursor = None;
        self.backfill.forget();
        let Some(culprit) = refused.culprit else { return Err(TurnError::halt_for(refused)) };
        let Some(cursor) = self.committer.cursor().await? else { return Ok(()) };
        if self.committer.lease().epoch().is_some_and(|epoch| epoch != cursor.epoch) {
            return Err(TurnError::Retry("somebody else follows this chain by now".into()));
        }
        let Some(asset) = self.committer.quarantine(&cursor, culprit).await? else {
            return Err(TurnError::halt_for(refused));
        };
        tracing::error!(
            chain = %self.config.name,
            asset = asset.caip19,
            symbol = asset.symbol,
            block.number = culprit.block,
            error = %refused,
            "a token is quarantined, because its figures cannot be booked: it no longer counts, and its balances stay \
             as they were; the way back is: tidemark assets release --chain {} --asset {}",
            self.config.name,
            asset.caip19
        );
        Ok(())
    }

    /// Reads which tokens are set aside.
    pub(super) async fn load_quarantined(&mut self, cursor: &Cursor) -> Result<(), TurnError> {
        let mut session = self.committer.db.read().await?;
        let listed = asset::listed_on(&mut session.conn(), cursor.no).await?;
        drop(session);
        let quarantined = listed.into_iter().filter(|asset| asset.quarantine.is_some());
        let before = std::mem::replace(&mut self.quarantined, quarantined.collect());
        // Two tokens can have one symbol: the gauge is how many are set aside under it.
        for asset in &before {
            self.gauge_quarantined(asset).set(0);
        }
        let by_hand = |asset: &Asset| {
            asset.quarantine.is_some_and(|aside| aside.reason == QuarantineReason::Operator)
        };
        let is_new =
            |asset: &&Asset| by_hand(asset) && before.iter().all(|known| known.key != asset.key);
        for asset in &self.quarantined {
            self.gauge_quarantined(asset).inc();
        }
        for asset in self.quarantined.iter().filter(is_new) {
            tracing::warn!(
                chain = %self.config.name,
                asset = asset.caip19,
                symbol = asset.symbol,
                "a token is quarantined by an operator: it does not count, and its balances stay as they were; the way \
                 back is: tidemark assets release --chain {} --asset {}",
                self.config.name,
                asset.caip19
            );
        }
        self.money = self.counting().into_iter().collect();
        Ok(())
    }

    /// Takes a token that somebody has released as newly configured. The chain does not wait for it.
    async fn look_for_released(&mut self) -> Result<(), TurnError> {
        let Some(cursor) = self.cursor.clone() else { return Ok(()) };
        if !self.quarantined.is_empty() {
            let before = self.quarantined.clone();
            self.load_quarantined(&cursor).await?;
            self.released |= before.iter().any(|asset| !self.is_set_aside(asset));
        }
        if !self.released {
            return Ok(());
        }
        match self.ready_assets(&cursor).await {
            Ok(cursor) => {
                tracing::info!(chain = %self.config.name, "a token was released from quarantine");
                self.cursor = Some(cursor);
                self.released = false;
                self.opener.look_again();
                Ok(())
            }
            Err(TurnError::Retry(why)) => {
                tracing::debug!(chain = %self.config.name, why, "a released token waits");
                // What failed may have been a commit.
                self.cursor = None;
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    fn is_set_aside(&self, asset: &Asset) -> bool {
        self.quarantined.iter().any(|other| other.key == asset.key)
    }

    /// The configured assets that are not set aside.
    pub(super) fn counting(&self) -> Vec<AssetKey> {
        let mut assets = self.config.assets();
        assets.retain(|key| self.quarantined.iter().all(|asset| asset.key != *key));
        assets
    }

    /// Takes from a block's movements what is no money, but for as much as is recorded.
    pub(super) fn cap(
        &self,
        movements: &mut Vec<Movement>,
        is_watched: impl Fn(&Address) -> bool,
    ) -> Worthless {
        let most = self.config.worthless_transfers;
        worthless::cap(movements, most, |key| self.money.contains(key), is_watched)
    }

    pub(super) fn gauge_quarantined(&self, asset: &Asset) -> IntGauge {
        let symbol = asset.symbol.as_deref().unwrap_or_default();
        let labels = [self.config.name.as_str(), symbol];
        self.metrics.assets_quarantined.with_label_values(&labels)
    }
}
