//! Where a chain begins that was never followed.

use super::{Follower, TurnError};
use crate::{
    chain::{Header, Settlement},
    model::Cursor,
};

/// How many heights in a row may be without a block before the search for one is given up.
const MAX_EMPTY_HEIGHTS: u64 = 1000;
/// Blocks below its head that a chain remembers as it begins.
const REMEMBERED_AT_FIRST: usize = 128;

impl Follower {
    pub(super) async fn begin(&mut self) -> Result<Cursor, TurnError> {
        let newest = self.source.head().await?;
        let head = match self.config.start_block {
            Some(start) if start <= newest.at.number => {
                self.at_or_below(start.saturating_sub(1)).await?
            }
            Some(start) => {
                return Err(TurnError::Retry(format!(
                    "the chain has not reached block {start} yet"
                )));
            }
            None => newest,
        };
        let settled = match self.config.settlement {
            Settlement::Tag(tag) => self.source.settled(tag).await?,
            Settlement::Confirmations(depth) => {
                Some(self.at_or_below(newest.at.number.saturating_sub(depth)).await?)
            }
        };
        let settled = match settled {
            Some(settled) if settled.at.number < head.at.number => settled,
            Some(_) => head,
            // Nothing is settled yet: the chain's first block is as safe as can be.
            None => self.at_or_below(0).await?,
        };
        let between = self.ancestors(&head, &settled).await?;
        let cursor = self.committer.begin(&head, &settled, &between).await?;
        tracing::info!(
            chain = %self.config.name,
            block.number = head.at.number,
            settled.number = settled.at.number,
            "begun"
        );
        Ok(cursor)
    }

    /// The newest blocks between two, so that the first reorg goes back to one of them and no further: the lowest
    /// first. Fewer if the node changes branches meanwhile.
    async fn ancestors(&self, head: &Header, settled: &Header) -> Result<Vec<Header>, TurnError> {
        let mut ancestors = Vec::new();
        let mut lowest = *head;
        while lowest.parent.number > settled.at.number && ancestors.len() < REMEMBERED_AT_FIRST {
            let header = self.source.header_at(lowest.parent.number).await?;
            let Some(header) = header.filter(|header| header.at == lowest.parent) else { break };
            ancestors.push(header);
            lowest = header;
        }
        ancestors.reverse();
        Ok(ancestors)
    }

    /// The node's block at that height, or the next one below where heights can stay empty.
    async fn at_or_below(&self, number: u64) -> Result<Header, TurnError> {
        let lowest = if self.config.family.skips_heights() {
            number.saturating_sub(MAX_EMPTY_HEIGHTS)
        } else {
            number
        };
        for number in (lowest..=number).rev() {
            if let Some(header) = self.source.header_at(number).await? {
                return Ok(header);
            }
        }
        Err(TurnError::Retry(format!("the node has no block {number}")))
    }
}
