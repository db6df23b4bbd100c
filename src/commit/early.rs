//! Small deposits become available before their block settles.

use super::{CommitError, Committed, Committer, Tries, load};
use crate::{
    ledger::{
        Known, early,
        known::{HashMap, HashSet},
        reconcile::Figure,
    },
    model::{BlockPoint, Cursor, TransferNo, WalletNo},
    store::{StoreError, balance, transfer},
};

/// Deposits that a tier may make available, and what a node has of their balances after the block `at`.
#[derive(Clone, Copy, Debug)]
pub struct Due<'a> {
    pub deposits: &'a [TransferNo],
    pub figures: &'a [Figure],
    pub at: BlockPoint,
}

impl Committer {
    /// Makes those of the deposits available that a tier allows; `None` if that are none.
    pub async fn advance(
        &self,
        cursor: &Cursor,
        due: Due<'_>,
    ) -> Result<Option<Committed>, CommitError> {
        let mut tries = Tries::new("advance", "settle");
        loop {
            let (known, considered) = self.step().for_advance(cursor, due).await?;
            let now = self.clock.now();
            let changes = early::advance(&self.chain, cursor, &known, considered, now)?;
            if changes.entries.is_empty() {
                return Ok(None);
            }
            if let Some(committed) = self.write(changes, &mut tries).await? {
                return Ok(Some(committed));
            }
        }
    }
}

impl load::Step<'_> {
    async fn for_advance(
        &self,
        cursor: &Cursor,
        due: Due<'_>,
    ) -> Result<(Known, early::Considered), StoreError> {
        let mut session = self.db.read().await?;
        let conn = &mut session.conn();
        let mut deposits = transfer::by_numbers(conn, due.deposits.iter().copied()).await?;
        deposits.sort_unstable_by_key(|row| (row.block.number, row.no));
        let above = transfer::pending_above(conn, cursor.no, due.at.at.number).await?;
        let wallets: Vec<WalletNo> = deposits.iter().map(|row| row.wallet).collect();
        let balances = balance::of_wallets(conn, cursor.no, &wallets).await?;
        let numbers = deposits.iter().map(|row| row.asset).collect();
        let assets = load::assets(conn, cursor, HashSet::default(), numbers).await?;
        let known = Known { balances, assets, ..Known::default() };
        let figures: HashMap<_, _> = due
            .figures
            .iter()
            .map(|figure| ((figure.balance.wallet, figure.balance.asset), figure.holding))
            .collect();
        Ok((known, early::Considered { deposits, figures, above }))
    }
}
