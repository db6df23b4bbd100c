//! The past of a watch: its opening balance explained by what led to it.
//!
//! A watch begins with the balances of its first block, at once. Where history was asked for, it is looked up
//! meanwhile and put in place of that opening: an older and smaller opening, and the transfers since, settled
//! like their blocks. The sum stays the same, so nothing that has happened since is touched.

use std::collections::BTreeMap;

use super::{
    Applier, ApplyError,
    book::{Book, ledger_error},
};
use crate::{
    amount::Amount,
    chain::{AssetKey, Header, Kind, Movement, Ordinal, Past, TxId},
    ledger::{Direction, Effect, LedgerError, Status},
    store::{
        Conn,
        backfill::{self, HistoryStatus, HistoryWish},
        chain::Cursor,
        transfer::{self, TransferRow},
    },
};

impl Applier {
    /// Books the past of a watch, or says that it cannot be had (`None`). Gives how it ended; nothing is
    /// changed if the watch has begun anew meanwhile.
    pub async fn backfill(
        &self,
        cursor: &Cursor,
        wish: &HistoryWish,
        past: Option<&[Past]>,
    ) -> Result<HistoryStatus, ApplyError> {
        let status = match past {
            Some(past) => match self.try_backfill(cursor, wish, past).await {
                Err(ApplyError::Ledger { context, error }) => {
                    tracing::error!(
                        chain = %self.chain.name,
                        wallet = %wish.watch.wallet_id,
                        context,
                        error = %error,
                        "the history does not lead to the opening balance: it is not booked"
                    );
                    HistoryStatus::Incomplete
                }
                done => return done,
            },
            None => HistoryStatus::Incomplete,
        };
        let mut work = self.work(cursor, cursor).await?;
        let (name, now) = (&self.chain.name, work.book.now);
        backfill::decide(&mut work.tx.conn(), name, wish, status, now).await?;
        self.finish(work, "history").await?;
        Ok(status)
    }

    async fn try_backfill(
        &self,
        cursor: &Cursor,
        wish: &HistoryWish,
        past: &[Past],
    ) -> Result<HistoryStatus, ApplyError> {
        let mut work = self.work(cursor, cursor).await?;
        let (name, now, status) = (&self.chain.name, work.book.now, HistoryStatus::Complete);
        if !backfill::decide(&mut work.tx.conn(), name, wish, status, now).await? {
            return Ok(HistoryStatus::Wanted);
        }
        work.book.history(&mut work.tx.conn(), wish, past).await?;
        self.finish(work, "history").await?;
        Ok(status)
    }
}

/// One asset's part of a history.
#[derive(Default)]
struct Part {
    gained: Vec<TransferRow>,
    lost: Vec<TransferRow>,
    /// What the watch began with.
    openings: Vec<TransferRow>,
}

fn sum(rows: &[TransferRow]) -> Option<Amount> {
    rows.iter().try_fold(Amount::ZERO, |sum, row| sum.checked_add(row.amount))
}

impl Part {
    /// What there was before it all; `None` if the parts contradict each other.
    fn before(&self) -> Option<Amount> {
        sum(&self.openings)?.checked_add(sum(&self.lost)?)?.checked_sub(sum(&self.gained)?)
    }
}

impl Book {
    async fn history(
        &mut self,
        conn: &mut Conn<'_>,
        wish: &HistoryWish,
        past: &[Past],
    ) -> Result<(), ApplyError> {
        let watch = &wish.watch;
        let Some(first) = past.first().map(|past| past.header) else { return Ok(()) };
        let mut parts: BTreeMap<AssetKey, Part> = BTreeMap::new();
        for Past { header, movements } in past {
            for movement in movements {
                for (who, direction) in
                    [(movement.to, Direction::In), (movement.from, Direction::Out)]
                {
                    if who != Some(watch.address) {
                        continue;
                    }
                    let leg = self.leg(conn, header, movement, watch, direction).await?;
                    if leg.counted {
                        let found = parts.entry(leg.asset).or_default();
                        let legs = match direction {
                            Direction::In => &mut found.gained,
                            Direction::Out => &mut found.lost,
                        };
                        legs.push(leg);
                    }
                }
            }
        }
        let name = self.chain.name.clone();
        let openings = transfer::openings(conn, watch.wallet_id, &name).await?;
        for row in openings {
            if row.block != wish.opened {
                // The asset began to count later than the watch: its opening holds at another block.
                parts.remove(&row.asset);
            } else if let Some(part) = parts.get_mut(&row.asset) {
                part.openings.push(row);
            }
        }
        for (asset, part) in parts {
            self.replace_opening(conn, wish, &first, asset, part).await?;
        }
        Ok(())
    }

    async fn replace_opening(
        &mut self,
        conn: &mut Conn<'_>,
        wish: &HistoryWish,
        first: &Header,
        asset: AssetKey,
        part: Part,
    ) -> Result<(), ApplyError> {
        let earlier = part.before().ok_or_else(|| ApplyError::Ledger {
            context: format!("history of wallet {}", wish.watch.wallet_id),
            error: LedgerError::Inconsistent,
        })?;
        let Part { mut gained, mut lost, mut openings } = part;
        if !earlier.is_zero() {
            // The state before the first movement is the state after its block's parent.
            let movement = Movement {
                tx: TxId::from(first.parent.hash.0),
                ordinal: Ordinal::OpeningSettled(first.parent.number),
                kind: Kind::Opening,
                asset,
                from: None,
                to: Some(wish.watch.address),
                amount: earlier,
                memo: None,
            };
            let header = Header { at: first.parent, ..*first };
            let row = self.leg(conn, &header, &movement, &wish.watch, Direction::In).await?;
            gained.insert(0, row);
        }
        // What raises the balance first, so that no sum falls below zero on the way.
        for row in gained.iter_mut().chain(&mut lost) {
            self.book_connect(conn, row).await?;
            self.book_settle(conn, row).await?;
        }
        for row in &mut openings {
            if row.status != Status::Settled {
                return Err(ledger_error(row, Effect::Unsettle, LedgerError::Inconsistent));
            }
            self.effect(conn, row, Effect::Unsettle).await?;
            self.effect(conn, row, Effect::Disconnect).await?;
            row.status = Status::Orphaned;
            row.settled_at = None;
            row.orphaned_at = Some(self.now);
            row.reason = Some("explained_by_history".to_owned());
            transfer::update_transfer(conn, row).await?;
        }
        Ok(())
    }
}
