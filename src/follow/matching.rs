//! What of a block concerns somebody.

use std::time::Instant;

use super::{Follower, TurnError};
use crate::{
    chain::{Address, Block, Traced},
    ledger::known::MatchedBlock,
};

impl Follower {
    /// What of some blocks touches a watched address or a tracked transaction.
    pub(super) async fn matched(&self, blocks: Vec<Block>) -> Result<Vec<MatchedBlock>, TurnError> {
        let started = Instant::now();
        let mut matched = Vec::with_capacity(blocks.len());
        for block in blocks {
            matched.push(self.match_one(block).await?);
        }
        self.metrics
            .apply_duration_seconds
            .with_label_values(&[self.config.name.as_str(), "match"])
            .observe(started.elapsed().as_secs_f64());
        Ok(matched)
    }

    async fn match_one(&self, mut block: Block) -> Result<MatchedBlock, TurnError> {
        {
            let watched = self.watchlist.read();
            block.retain_watched(|address| watched.contains(address));
        }
        let watched = |address: &Address| self.watchlist.read().contains(address);
        let block = self.source.completed(block, &watched).await?;
        let Block { header, mut movements, transactions, safes, ran, touched, traced, .. } = block;
        let worthless = {
            let watched = self.watchlist.read();
            self.cap(&mut movements, |address| watched.contains(address))
        };
        // Where the state after this block is gone, the comparison with the chain's state finds out later.
        let holdings = self.state(header.at, &touched).await?.unwrap_or_default();
        let touched = touched.into_iter().zip(holdings).collect();
        let tracked = self.tracked.among(&transactions);
        let safes = self.claimed(header.at, safes, &tracked);
        let untraced = traced == Traced::Not;
        Ok(MatchedBlock { header, movements, worthless, safes, ran, tracked, touched, untraced })
    }
}
