//! The ends of histories that were found by an index of logs, compared with the chain's own figures.
//!
//! An index can be incomplete without a word. But if what was found leads from the watch's opening balances down to
//! those that the chain had before the first block that counts, nothing is missing that would make a difference.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use tokio_util::task::AbortOnDropHandle;

use super::super::{Follower, TurnError};
use crate::{
    amount::Amount,
    chain::{
        Address, AssetKey, BalanceQuery, ChainBalance, ChainName, HistoryMethod, Priority, Source,
        SourceError,
    },
    ledger::{backfill::Participant, changes::HistoryEnd},
    model::{AssetNo, Cursor, HistoryStatus, WalletNo},
    store::{asset as asset_store, participant, transfer as transfer_store},
    task::joined,
};

/// Histories proven at once.
const AT_ONCE: i64 = 200;
/// After a round in which a node could not answer.
const PAUSE: Duration = Duration::from_secs(15);

/// The proofs that are due, a few at a time and all in turn.
pub(super) struct Proofs {
    /// Whether there may be ends that were not compared yet.
    due: bool,
    /// The last wallet of this round.
    after: WalletNo,
    /// Whether a node could not answer in this round.
    failed: bool,
    /// Not before then.
    rests: Option<Instant>,
    running: Option<AbortOnDropHandle<Compared>>,
}

impl Default for Proofs {
    fn default() -> Self {
        Self { due: true, after: WalletNo(0), failed: false, rests: None, running: None }
    }
}

impl Proofs {
    /// Scans moved on that find histories in this way.
    pub fn look_again(&mut self, method: HistoryMethod) {
        self.due |= method == HistoryMethod::Logs;
    }
}

/// What a comparison came to.
struct Compared {
    ends: Vec<HistoryEnd>,
    /// Whether it must be tried again for others.
    failed: bool,
}

/// A history, and with what it begins if it is complete.
struct Claim {
    wallet: WalletNo,
    address: Address,
    /// The block with whose balances its watch began.
    opened: u64,
    held: Vec<(AssetKey, Amount)>,
}

/// Claims by the block after which they hold.
type Claims = BTreeMap<u64, Vec<Claim>>;

/// What the chain says to a claim.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Answer {
    Proven,
    Contradicted,
    /// No node has the state of that block any more.
    Nobody,
}

impl Follower {
    /// Takes over what was compared, or begins to compare; whether something was committed.
    pub(super) async fn prove_ends(&mut self, cursor: &Cursor) -> Result<bool, TurnError> {
        if let Some(running) = self.backfill.proofs.running.take() {
            if !running.is_finished() {
                self.backfill.proofs.running = Some(running);
                return Ok(false);
            }
            let compared = running.await;
            let Compared { ends, failed } =
                joined(compared).unwrap_or(Compared { ends: Vec::new(), failed: true });
            self.backfill.proofs.failed |= failed;
            if !ends.is_empty() {
                self.end_histories(cursor, &ends).await?;
                return Ok(true);
            }
        }
        let proofs = &self.backfill.proofs;
        if proofs.due && proofs.rests.is_none_or(|until| until <= Instant::now()) {
            self.begin_proof(cursor).await?;
        }
        Ok(false)
    }

    async fn begin_proof(&mut self, cursor: &Cursor) -> Result<(), TurnError> {
        let tokens: Vec<AssetKey> = self.tokens().into_iter().map(AssetKey::Token).collect();
        let after = self.backfill.proofs.after;
        let mut session = self.committer.db.read().await?;
        let conn = &mut session.conn();
        let unproven = participant::unproven(conn, cursor.no, after, AT_ONCE).await?;
        let Some(last) = unproven.last() else {
            let proofs = &mut self.backfill.proofs;
            proofs.due = after != WalletNo(0);
            proofs.rests = proofs.failed.then(|| Instant::now() + PAUSE);
            proofs.after = WalletNo(0);
            proofs.failed = false;
            return Ok(());
        };
        self.backfill.proofs.after = last.watch.wallet;
        let wallets: Vec<WalletNo> = unproven.iter().map(|one| one.watch.wallet).collect();
        let mut openings: HashMap<WalletNo, Vec<_>> = HashMap::new();
        for opening in transfer_store::openings(conn, cursor.no, &wallets).await? {
            openings.entry(opening.wallet).or_default().push(opening);
        }
        let assets = asset_store::by_keys(conn, cursor.no, &tokens).await?;
        drop(session);
        let assets: HashMap<AssetNo, AssetKey> =
            assets.into_iter().map(|asset| (asset.no, asset.key)).collect();
        let mut claims = Claims::new();
        for Participant { watch, from_block, opened, .. } in unproven {
            let mut held: HashMap<AssetKey, Amount> =
                tokens.iter().map(|token| (*token, Amount::ZERO)).collect();
            for opening in openings.remove(&watch.wallet).unwrap_or_default() {
                let Some(key) = assets.get(&opening.asset) else { continue };
                if opening.block.number > opened.number {
                    // It began to count later than the watch: its past was not looked for.
                    held.remove(key);
                } else if let Some(sum) = held.get_mut(key) {
                    *sum = sum.checked_add(opening.amount).unwrap_or(Amount::MAX);
                }
            }
            let (wallet, address) = (watch.wallet, watch.address);
            let (opened, held) = (opened.number, held.into_iter().collect());
            let claim = Claim { wallet, address, opened, held };
            claims.entry(from_block.saturating_sub(1)).or_default().push(claim);
        }
        let (source, wake_up) = (Arc::clone(&self.source), Arc::clone(&self.wake_up));
        let chain = self.config.name.clone();
        let compared = Priority::Background.scope(async move {
            let compared = compare(&chain, source.as_ref(), claims).await;
            wake_up.notify_one();
            compared
        });
        self.backfill.proofs.running = Some(AbortOnDropHandle::new(tokio::spawn(compared)));
        Ok(())
    }
}

async fn compare(chain: &ChainName, source: &dyn Source, claims: Claims) -> Compared {
    let mut compared = Compared { ends: Vec::new(), failed: false };
    for (before, claims) in claims {
        let answers = match ask(source, before, &claims).await {
            Ok(answers) => answers,
            Err(error) => {
                tracing::warn!(
                    %chain,
                    block.number = before,
                    histories = claims.len(),
                    error = %error,
                    "the ends of histories could not be compared yet, trying again"
                );
                compared.failed = true;
                continue;
            }
        };
        for (Claim { wallet, address, opened, .. }, answer) in claims.into_iter().zip(answers) {
            let (status, covered_from) = match answer {
                Answer::Proven => (HistoryStatus::Complete, None),
                // Some of it is there, and nothing says that it is all.
                Answer::Contradicted | Answer::Nobody => {
                    (HistoryStatus::Incomplete, Some(opened + 1))
                }
            };
            if answer == Answer::Contradicted {
                tracing::error!(
                    %chain,
                    wallet.no = wallet.0,
                    block.number = before,
                    "what the index of logs shows of a wallet's past does not lead to what the chain says it had: \
                     the history is incomplete; history = \"blocks\" finds more"
                );
            }
            if answer == Answer::Nobody {
                tracing::warn!(
                    %chain,
                    wallet.no = wallet.0,
                    block.number = before,
                    "no node has the state that would prove a history found by the index of logs: it counts as \
                     incomplete; add an archive node"
                );
            }
            compared.ends.push(HistoryEnd { wallet, address, status, covered_from });
        }
    }
    compared
}

/// Whether the chain had what the ledger says after the block `before`, for each claim.
async fn ask(
    source: &dyn Source,
    before: u64,
    claims: &[Claim],
) -> Result<Vec<Answer>, SourceError> {
    let answer = |holds| if holds { Answer::Proven } else { Answer::Contradicted };
    // Before a chain's first transaction nobody has a token.
    if before == 0 {
        let none = |claim: &Claim| claim.held.iter().all(|(_, amount)| amount.is_zero());
        return Ok(claims.iter().map(|claim| answer(none(claim))).collect());
    }
    let header = source.header_at(before).await?;
    let header = header.ok_or_else(|| SourceError::NotThere(format!("block {before}")))?;
    let queries: Vec<BalanceQuery> = claims
        .iter()
        .flat_map(|claim| {
            let address = claim.address;
            claim.held.iter().map(move |(asset, _)| BalanceQuery { address, asset: *asset })
        })
        .collect();
    let figures = match source.balances_at(header.at, &queries).await {
        Ok(figures) if figures.len() == queries.len() => figures,
        Ok(_) => {
            let detail = "the node left out balances".to_owned();
            return Err(SourceError::Unavailable { detail, retry_after: None });
        }
        Err(SourceError::NotThere(_)) => return Ok(vec![Answer::Nobody; claims.len()]),
        Err(error) => return Err(error),
    };
    let mut figures = figures.into_iter();
    // A contract that was not there yet gives no figure, and nobody had anything of it.
    let holds = |claim: &Claim| {
        let own: Vec<ChainBalance> = figures.by_ref().take(claim.held.len()).collect();
        claim.held.iter().zip(own).all(|((_, amount), figure)| *amount == figure.total)
    };
    Ok(claims.iter().map(holds).map(answer).collect())
}
