//! What the chain's own state says, taken over: settlement with its proof, adjustments, frozen holdings.

use std::{collections::BTreeSet, time::Instant};

use super::{
    Applier, ApplyError, ChainInfo, MatchedBlock, REMEMBERED_BELOW_SETTLED, Work, book::Book,
};
use crate::{
    amount::Amount,
    chain::{Address, AssetKey, Holding, Kind, Ordinal, TxId},
    id::WalletId,
    ledger::{Direction, Position, Status},
    metrics::Metrics,
    proof::{self, Verdict},
    store::{
        Conn,
        chain::{self, BlockPoint, Cursor},
        proof::{self as proof_store, Claim},
        transfer::{self, TransferRow},
        watch,
    },
};

/// A balance that differed from the chain's own figure.
#[derive(Clone, Copy, Debug)]
struct Drift {
    claim: Claim,
    at: u64,
    position: Position,
    chain: Amount,
    booked: bool,
}

/// What one transaction compared, told once it is durable.
#[derive(Debug, Default)]
pub(super) struct Comparisons {
    count: u64,
    drifts: Vec<Drift>,
}

impl Applier {
    /// Settles up to `settled`, a block at or below the cursor's head, and takes over what the chain itself
    /// says after exactly that block of the balances that settle: one transaction, so that no settled figure
    /// is ever seen that was known to be wrong.
    pub async fn settle(
        &self,
        cursor: &Cursor,
        settled: BlockPoint,
        figures: &[(Claim, Holding)],
    ) -> Result<Cursor, ApplyError> {
        let started = Instant::now();
        let next = Cursor { settled, ..cursor.clone() };
        let mut work = self.work(cursor, &next).await?;
        self.settle_in(&mut work, settled, REMEMBERED_BELOW_SETTLED).await?;
        work.book.prove(&mut work.tx.conn(), settled, figures).await?;
        self.finish(work, "settle").await?;
        self.observe("settle", started);
        Ok(next)
    }

    /// Settles within a transaction; of the blocks below the settled one, so many heights stay remembered.
    pub(super) async fn settle_in(
        &self,
        work: &mut Work,
        settled: BlockPoint,
        remembered: u64,
    ) -> Result<(), ApplyError> {
        work.book.settle(&mut work.tx.conn(), settled.at.number).await?;
        let floor = settled.at.number.saturating_sub(remembered);
        Ok(chain::delete_blocks_below(&mut work.tx.conn(), &self.chain.name, floor).await?)
    }

    /// Takes over what the chain itself says of balances after exactly the cursor's settled block.
    pub async fn prove(
        &self,
        cursor: &Cursor,
        figures: &[(Claim, Holding)],
    ) -> Result<(), ApplyError> {
        let mut work = self.work(cursor, cursor).await?;
        work.book.prove(&mut work.tx.conn(), cursor.settled, figures).await?;
        self.finish(work, "prove").await
    }
}

impl Book {
    /// Compares balances with the chain's own figures after the settled block `at`, and books what differs.
    /// Each wallet is compared on its own, whoever shares its address.
    async fn prove(
        &mut self,
        conn: &mut Conn<'_>,
        at: BlockPoint,
        figures: &[(Claim, Holding)],
    ) -> Result<(), ApplyError> {
        for (claim, holding) in figures {
            let position = self.balance(conn, claim.wallet_id, claim.asset).await?.row.position;
            let verdict = proof::judge(position, holding.total);
            // A correction above this block may tell of the same money: when it settles, all is compared.
            if verdict != Verdict::Equal
                && proof_store::is_unfinished(conn, &self.chain.name, claim, at.at.number).await?
            {
                continue;
            }
            self.comparisons.count += 1;
            let adjustment = match verdict {
                Verdict::Credit(amount) => Some((Direction::In, amount, "untraced_credit")),
                Verdict::Debit(amount) => Some((Direction::Out, amount, "untraced_debit")),
                Verdict::Equal | Verdict::Unbookable => None,
            };
            if let Some((direction, amount, reason)) = adjustment {
                self.adjust(conn, at, claim, direction, amount, reason).await?;
            }
            if verdict != Verdict::Equal {
                self.comparisons.drifts.push(Drift {
                    claim: *claim,
                    at: at.at.number,
                    position,
                    chain: holding.total,
                    booked: adjustment.is_some(),
                });
            }
            self.set_frozen(conn, claim.wallet_id, claim.asset, holding.frozen).await?;
        }
        Ok(())
    }

    /// Books a difference as a transfer of its own, settled at once: the block that proves it is.
    async fn adjust(
        &mut self,
        conn: &mut Conn<'_>,
        at: BlockPoint,
        claim: &Claim,
        direction: Direction,
        amount: Amount,
        reason: &str,
    ) -> Result<(), ApplyError> {
        let (from, to) = match direction {
            Direction::In => (None, Some(claim.address)),
            Direction::Out => (Some(claim.address), None),
        };
        let mut row = TransferRow {
            id: self.ids.next(),
            wallet_id: claim.wallet_id,
            tenant_id: claim.tenant_id,
            chain: self.chain.name.clone(),
            tx: TxId::from(at.at.hash.0),
            ordinal: Ordinal::Proof(at.at.number, 1).to_string(),
            direction,
            asset: claim.asset,
            kind: Kind::Adjustment,
            status: Status::Pending,
            amount,
            from,
            to,
            counted: true,
            block: at.at,
            block_time: at.time,
            connections: 1,
            reason: Some(reason.to_owned()),
            memo: None,
            seen_at: self.now,
            settled_at: None,
            orphaned_at: None,
        };
        // The chain's figure at one block does not change, but nodes can disagree about it.
        let mut count = 1;
        while transfer::same_movement(conn, &row)
            .await?
            .is_some_and(|known| known.status != Status::Orphaned)
        {
            count += 1;
            row.ordinal = Ordinal::Proof(at.at.number, count).to_string();
        }
        self.book_connect(conn, &mut row).await?;
        self.book_settle(conn, &mut row).await?;
        self.tell(conn, &row).await
    }

    /// Takes over what the issuers of assets have frozen, as the chain's state has it after the block.
    pub(super) async fn freeze(
        &mut self,
        conn: &mut Conn<'_>,
        block: &MatchedBlock,
    ) -> Result<(), ApplyError> {
        let addresses: BTreeSet<Address> =
            block.touched.iter().map(|(query, _)| query.address).collect();
        if addresses.is_empty() {
            return Ok(());
        }
        let found = watch::open_by_address(conn, &self.chain.name, &addresses).await?;
        for (query, holding) in &block.touched {
            for watch in found.iter().filter(|watch| watch.address == query.address) {
                self.set_frozen(conn, watch.wallet_id, query.asset, holding.frozen).await?;
            }
        }
        Ok(())
    }

    async fn set_frozen(
        &mut self,
        conn: &mut Conn<'_>,
        wallet: WalletId,
        asset: AssetKey,
        frozen: Amount,
    ) -> Result<(), ApplyError> {
        let head = self.head;
        let balance = self.balance(conn, wallet, asset).await?;
        // Without a row there is nothing that could be frozen.
        let exists = balance.row.version > 0 || balance.changed_at.is_some();
        if exists && balance.row.frozen != frozen {
            balance.row.frozen = frozen;
            balance.changed_at = Some(head);
        }
        Ok(())
    }
}

impl Comparisons {
    /// Counts what was committed, and tells of each difference.
    pub(super) fn report(&self, info: &ChainInfo, metrics: &Metrics) {
        let name = info.name.as_str();
        metrics.reconciled_balances_total.with_label_values(&[name]).inc_by(self.count);
        for drift in &self.drifts {
            metrics.balance_drift_total.with_label_values(&[name]).inc();
            let Drift { claim, at, position, chain, booked } = drift;
            let (wallet, asset) = (claim.wallet_id, info.caip19(&claim.asset));
            if *booked {
                tracing::warn!(
                    chain = name,
                    %wallet,
                    asset,
                    block.number = at,
                    ledger = %position.settled,
                    figure = %chain,
                    "a balance differed from the chain's own figure: an adjustment was booked"
                );
            } else {
                tracing::error!(
                    chain = name,
                    %wallet,
                    asset,
                    block.number = at,
                    ledger = %position.settled,
                    outgoing = %position.outgoing,
                    figure = %chain,
                    "a balance differs from the chain's own figure by what cannot be booked while so much is \
                     on its way out: it stays as it is until the next comparison"
                );
            }
        }
    }
}
