//! One follower per chain: from the node's blocks to the ledger, without a gap.
//!
//! It owns the chain's cursor: every block is the child of the one before, by hash; a mismatch leads to the
//! common ancestor and one rollback; a mismatch at the settled block halts the chain. It knows no chain
//! family. Announcements only wake it: what it does is decided from the cursor and the node's answers.

mod backfill;
mod begin;
mod canary;
mod catch_up;
mod confirm;
mod decide;
mod deployments;
mod doubts;
mod early;
pub(crate) mod figures;
mod lacking;
mod lease;
mod matching;
mod metrics;
mod pace;
mod prefetch;
mod quarantine;
mod quorum;
mod registrations;
mod reorg;
mod safe_contracts;
mod safe_states;
mod safes;
mod settle;
mod sweep;
#[cfg(test)]
mod tests;
mod tokens;
mod traces;
mod unable;
mod walk;
mod watched;

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant},
};

use decide::Relation;
use lacking::Lacking;
use sweep::Sweep;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use watched::Watched;

use crate::{
    chain::{
        Announced, AssetKey, BalanceQuery, Block, BlockRef, Certainty, Priority, Source,
        SourceError,
    },
    clock::Clock,
    commit::{CommitError, Committed, Committer},
    config::ChainConfig,
    ledger::{
        Refused,
        known::{Figures, MatchedBlock},
    },
    metrics::Metrics,
    model::{Asset, BalanceRef, BlockPoint, Cursor},
    obstacle::Obstacles,
    registry::Watchlist,
    retry::{Backoff, StoreRetry},
    store::StoreError,
};

/// A node is asked this often before its contradiction to the settled block halts the chain.
const CONTRADICTIONS_TO_HALT: u32 = 3;
/// Between two such questions; announcements would otherwise bring them all within a moment.
const CONTRADICTION_PAUSE: Duration = Duration::from_millis(500);
/// How often a halted chain looks whether somebody has rewound it.
const HALTED_POLL: Duration = Duration::from_secs(2);

/// Follows one chain until it is told to stop.
pub struct Follower {
    config: Arc<ChainConfig>,
    source: Arc<dyn Source>,
    committer: Committer,
    watchlist: Watchlist,
    watched: Watched,
    metrics: Metrics,
    clock: Clock,
    wake_up: Arc<Notify>,
    obstacles: Obstacles,
    /// What the store has, as far as it is known; `None` after any doubt.
    cursor: Option<Cursor>,
    silence: lease::Silence,
    tracked: deployments::Tracked,
    lookups: deployments::Lookups,
    judging: safes::Judging,
    looking: safe_states::Looking,
    /// Whether the chain was asked what it says of the configured tokens.
    tokens_checked: bool,
    opener: registrations::Opener,
    /// Tokens that are set aside, and whether one was released that does not count yet.
    quarantined: Vec<Asset>,
    released: bool,
    /// The configured assets that are not set aside.
    money: HashSet<AssetKey>,
    backfill: backfill::Backfill,
    sweep: Sweep,
    /// Differences from the chain's own figures that are not confirmed yet.
    doubts: doubts::Doubts,
    stopped: confirm::Stopped,
    canary: canary::Canary,
    early: early::Early,
    quorum: quorum::Quorum,
    /// Balances of pieces that settled on the way, to be compared when the last of them settles.
    owed: Vec<BalanceRef>,
    /// How often in a row the balances of a settlement could not be read.
    unproven: u32,
    /// The balances that the next settlement waits for.
    reading: Option<settle::Reading>,
    traces: traces::Traces,
    contradictions: u32,
    contradicted_at: Option<Instant>,
    contradiction_pause: Duration,
}

/// Why a turn ended early, by what to do.
#[derive(Debug, thiserror::Error)]
enum TurnError {
    /// Try again after a pause.
    #[error("{0}")]
    Retry(String),
    /// The node could not answer; what is known of the store still holds. Try again after a pause.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// Set the token aside that is the cause, and go on.
    #[error(transparent)]
    Unbookable(Refused),
    /// The configuration says what is not so: nothing is followed until a person has corrected it.
    #[error("{0}")]
    Misconfigured(String),
    /// Stop the chain until a person acts.
    #[error("{0}")]
    Halt(String),
    /// The chain is halted already.
    #[error("halted: {0}")]
    Halted(String),
    /// Wait until the other one gives it back, or says nothing any more.
    #[error("another daemon follows this chain")]
    Elsewhere,
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<CommitError> for TurnError {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Store(error) => Self::Store(error),
            CommitError::CursorMoved(_) | CommitError::Short(_) | CommitError::Unconfirmed(_) => {
                Self::Retry(error.to_string())
            }
            CommitError::Refused(refused) if refused.culprit.is_some() => Self::Unbookable(refused),
            CommitError::Refused(refused) => Self::halt_for(&refused),
        }
    }
}

/// Whether the next turn should wait for a wake-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    Idle,
    More,
    /// The node shows a block as its head and does not have it yet: it is asked again after a growing pause.
    Lacking,
}

/// What the node announces.
type Announcements = watch::Receiver<Option<Announced>>;

/// Waits for an announcement, and leaves it to be taken; without end where nothing is announced.
async fn announcement(announced: &mut Announcements) {
    if announced.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
    announced.mark_changed();
}

impl Follower {
    #[must_use]
    pub fn new(
        config: Arc<ChainConfig>,
        source: Arc<dyn Source>,
        committer: Committer,
        watchlist: Watchlist,
        metrics: Metrics,
        clock: Clock,
        wake_up: Arc<Notify>,
    ) -> Self {
        metrics::begin_at_zero(&metrics, &config, source.safes().is_some());
        Self {
            sweep: Sweep::new(config.sweep_per_minute),
            doubts: doubts::Doubts::new(
                usize::try_from(config.differences.count).unwrap_or(usize::MAX),
            ),
            stopped: confirm::Stopped::default(),
            canary: canary::Canary::default(),
            early: early::Early::default(),
            quorum: quorum::Quorum::default(),
            owed: Vec::new(),
            config,
            source,
            committer,
            watchlist,
            watched: Watched::default(),
            metrics,
            clock,
            wake_up,
            obstacles: Obstacles::default(),
            cursor: None,
            silence: lease::Silence::new(),
            tracked: deployments::Tracked::default(),
            lookups: deployments::Lookups::default(),
            judging: None,
            looking: safe_states::Looking::default(),
            tokens_checked: false,
            opener: registrations::Opener::default(),
            quarantined: Vec::new(),
            released: false,
            money: HashSet::new(),
            backfill: backfill::Backfill::new(),
            unproven: 0,
            reading: None,
            traces: traces::Traces::default(),
            contradictions: 0,
            contradicted_at: None,
            contradiction_pause: CONTRADICTION_PAUSE,
        }
    }

    /// Tells there what keeps it from going on.
    #[must_use]
    pub fn telling(self, obstacles: Obstacles) -> Self {
        Self { obstacles, ..self }
    }

    /// Follows until `shutdown`. A sick node only delays its chain; a chain that must not go on halts alone.
    ///
    /// # Errors
    /// Only what no waiting mends: a store that is not what it should be.
    pub async fn run(mut self, shutdown: CancellationToken) -> Result<(), StoreError> {
        let (source, lease) = (Arc::clone(&self.source), Arc::clone(self.committer.lease()));
        let result = tokio::select! {
            () = shutdown.cancelled() => Ok(()),
            result = Box::pin(self.follow()) => result,
            never = lease::listen(&*source, &lease) => match never {},
        };
        self.give_back().await;
        result
    }

    async fn follow(&mut self) -> Result<(), StoreError> {
        let mut announced = self.source.announced();
        let mut trouble = Backoff::new(Duration::from_millis(200), Duration::from_secs(10));
        let mut store = StoreRetry::new(format!("follower of {}", self.config.name));
        let mut last_trouble = None;
        let mut lacking: Option<Lacking> = None;
        loop {
            let pause = match Box::pin(self.round(&mut announced)).await {
                Ok(turn) => {
                    store.succeeded();
                    if last_trouble.take().is_some() {
                        tracing::info!(chain = %self.config.name, "following again");
                        self.gauge_halted(0);
                    }
                    trouble.reset();
                    self.obstacles.gone(&self.config.name);
                    self.gauge_progress();
                    if turn != Turn::Lacking {
                        lacking = None;
                    }
                    match turn {
                        Turn::More => continue,
                        Turn::Idle => self.config.poll_interval,
                        Turn::Lacking => {
                            lacking.get_or_insert_with(Lacking::new).pause(&self.config)
                        }
                    }
                }
                Err(error) => {
                    // What was announced meanwhile is not to shorten the pause; the next one is.
                    announced.mark_unchanged();
                    // After a failed commit nothing is assumed: the cursor is read again.
                    if !matches!(error, TurnError::Source(_)) {
                        self.cursor = None;
                    }
                    let text = error.to_string();
                    self.tell_obstacle(&error);
                    let news = last_trouble.as_ref() != Some(&text);
                    let of_store = matches!(error, TurnError::Store(_) | TurnError::Halt(_));
                    if !of_store {
                        store.succeeded();
                    }
                    let pause = match error {
                        TurnError::Source(error) if unable::needs_a_person(&error) => {
                            if news {
                                self.ask_a_person(&error);
                            }
                            last_trouble = Some(text);
                            // Neither an announcement nor a registration shortens it.
                            tokio::time::sleep(unable::PAUSE).await;
                            continue;
                        }
                        TurnError::Source(_) if self.leave_for_silence().await => lease::LOOK,
                        TurnError::Retry(_)
                        | TurnError::Source(_)
                        | TurnError::Store(StoreError::Stale(_)) => {
                            if news {
                                tracing::warn!(chain = %self.config.name, error = %text, "cannot go on yet, trying again");
                            }
                            trouble.next_delay()
                        }
                        TurnError::Unbookable(_) => Duration::ZERO,
                        TurnError::Elsewhere => self.stand_by(news),
                        TurnError::Halt(reason) => match self.halt(&reason).await {
                            Ok(()) => HALTED_POLL,
                            // The next turns find the same again.
                            Err(error) => store.pause_after(error)?,
                        },
                        TurnError::Halted(_) => {
                            if news {
                                self.say_halted(&text);
                            }
                            HALTED_POLL
                        }
                        TurnError::Misconfigured(_) => {
                            self.say_misconfigured(&text, news);
                            trouble.next_delay()
                        }
                        TurnError::Store(error) => store.pause_after(error)?,
                    };
                    // A store that fails is told of once, whatever its words.
                    if !of_store {
                        last_trouble = Some(text);
                    }
                    pause
                }
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.wake_up.notified() => {}
                () = announcement(&mut announced) => {}
            }
        }
    }

    /// One round: take in what is new, open and close watches, settle; then, if nothing waits, sweep.
    async fn turn(&mut self, announced: &mut Announcements) -> Result<Turn, TurnError> {
        if self.leave().await {
            return Err(TurnError::Elsewhere);
        }
        if self.committer.lease().is_lost() {
            self.cursor = None;
        }
        let cursor = match self.cursor.clone() {
            Some(cursor) => cursor,
            None => self.load().await?,
        };
        self.cursor = Some(cursor.clone());
        self.canary(&cursor).await?;
        Box::pin(self.trace()).await?;
        let cursor = self.current()?;
        let (mut turn, unable) = match self.take_in(&cursor, announced).await {
            Ok(turn) => (turn, None),
            // A block that cannot be had holds nothing below it.
            Err(TurnError::Source(error)) if unable::needs_a_person(&error) => {
                (Turn::Idle, Some(error))
            }
            Err(error) => return Err(error),
        };
        // What settles does not wait for what begins: a node may lack the states that this needs.
        let cursor = self.current()?;
        let mut settled =
            Priority::Settlement.scope(Box::pin(self.settle(&cursor, announced))).await?;
        if turn == Turn::Idle && settled == Turn::Idle {
            let cursor = self.current()?;
            settled = Box::pin(self.advance(&cursor, announced)).await?;
        }
        let cursor = self.current()?;
        let registered = Priority::Background.scope(Box::pin(self.registrations(&cursor))).await?;
        self.forget().await?;
        if turn == Turn::Idle && (settled == Turn::More || registered == Turn::More) {
            turn = Turn::More;
        }
        if let Some(error) = unable {
            return Err(error.into());
        }
        let cursor = self.current()?;
        Priority::Background.scope(Box::pin(self.backfill(&cursor))).await?;
        if turn == Turn::Idle && !announced.has_changed().unwrap_or(false) {
            let cursor = self.current()?;
            if Priority::Background.scope(Box::pin(self.sweep(&cursor, announced))).await? {
                turn = Turn::More;
            }
        }
        Ok(turn)
    }

    /// Takes in what is new since `cursor`.
    async fn take_in(
        &mut self,
        cursor: &Cursor,
        announced: &mut Announcements,
    ) -> Result<Turn, TurnError> {
        let applied = cursor.head.at;
        if self.connect_announced(cursor, announced).await? {
            return Ok(Turn::Idle);
        }
        let head = self.head().await?;
        self.gauge_head(&head);
        Ok(match decide::relate(&applied, &head) {
            Relation::Same => Turn::Idle,
            Relation::Child => match self.source.block(head.at).await? {
                Some(block) => {
                    self.connect_one(cursor, block).await?;
                    Turn::Idle
                }
                None => Turn::Lacking,
            },
            Relation::Ahead => {
                Box::pin(self.catch_up(&head)).await?;
                let came = self.current()?.head.at != applied;
                if came { Turn::More } else { Turn::Lacking }
            }
            Relation::Behind => {
                if self.on_another_branch(cursor, &head).await? {
                    self.reorganize(cursor).await?;
                    Turn::More
                } else {
                    if head.at.number < cursor.settled.at.number {
                        self.source.ask_identity_again();
                    }
                    Turn::Idle
                }
            }
        })
    }

    fn current(&self) -> Result<Cursor, TurnError> {
        self.cursor.clone().ok_or_else(|| TurnError::Retry("the cursor is to be read again".into()))
    }

    /// Reads where the chain stands, and which addresses are watched if that is not known; begins the chain if it never was.
    async fn load(&mut self) -> Result<Cursor, TurnError> {
        let mut cursor = self.leased().await?;
        if cursor.caip2 != self.config.caip2 {
            return Err(TurnError::Store(StoreError::Unusable(format!(
                "the database has followed {} under the name {}, the configuration says {}: give the new \
                 chain another name, or point database.url elsewhere",
                cursor.caip2, cursor.chain, self.config.caip2
            ))));
        }
        if let Some(reason) = &cursor.halted {
            return Err(TurnError::Halted(reason.clone()));
        }
        self.gauge_halted(0);
        self.reading = None;
        self.early.give_up();
        self.quorum.give_up();
        self.sweep.give_up();
        self.backfill.forget();
        self.load_watched(&cursor).await?;
        self.gauge_cursor(&cursor);
        self.tracked.forget();
        self.track(&cursor).await?;
        self.load_traces(&cursor).await?;
        self.load_quarantined(&cursor).await?;
        cursor = self.ready_assets(&cursor).await?;
        self.watched.moved(&cursor);
        self.opener.look_again();
        self.cursor = Some(cursor.clone());
        Ok(cursor)
    }

    /// The short way at the head: one request, one commit. `false` if it is not the announced block's turn.
    async fn connect_announced(
        &mut self,
        cursor: &Cursor,
        announced: &mut Announcements,
    ) -> Result<bool, TurnError> {
        // An announcement counts once: a node still gives an orphaned block by its hash, and connecting it
        // again after each reorg would never end.
        if !announced.has_changed().unwrap_or(false) {
            return Ok(false);
        }
        let Some(Announced { number, hash: Some(hash) }) = *announced.borrow_and_update() else {
            return Ok(false);
        };
        let at = BlockRef { number, hash };
        if at.number != cursor.head.at.number + 1 {
            return Ok(false);
        }
        let Some(block) = self.source.block(at).await? else { return Ok(false) };
        if block.header.parent != cursor.head.at {
            return Ok(false);
        }
        self.gauge_head(&block.header);
        self.connect_one(cursor, block).await?;
        Ok(true)
    }

    /// Commits one block that continues the cursor. What settles is the next step's matter.
    async fn connect_one(&mut self, cursor: &Cursor, block: Block) -> Result<(), TurnError> {
        let kept = self.kept(std::slice::from_ref(&block), 0);
        let matched = self.matched(vec![block]).await?;
        self.connect(cursor, &matched, cursor.settled).await?;
        self.connected(&matched, kept, cursor.settled.at.number);
        self.trace_next();
        Ok(())
    }

    /// Commits blocks that continue the cursor, and settles up to `settled`.
    async fn connect(
        &mut self,
        cursor: &Cursor,
        matched: &[MatchedBlock],
        settled: BlockPoint,
    ) -> Result<(), TurnError> {
        let mut figures = Figures::new();
        for _ in 0..=matched.len() {
            let traced = self.traces.done();
            match self.committer.connect(cursor, matched, settled, &figures, traced).await {
                Ok(committed) => {
                    self.traces.written();
                    self.committed(&committed);
                    return Ok(());
                }
                Err(CommitError::Short(short)) => {
                    for (shortage, at) in short {
                        let query =
                            BalanceQuery { address: shortage.address, asset: shortage.asset };
                        // The block proves that at least so much was there; of more, one node's word is no
                        // proof: without certainty, what is missing is found when the block settles. No block
                        // waits for a node that cannot tell.
                        let sure = self.source.balances_for_sure(at, &[query]).await;
                        let figure = sure.ok().and_then(|held| {
                            let (holding, certainty) = *held.first()?;
                            (certainty >= Certainty::Agreed).then_some(holding.total)
                        });
                        tracing::warn!(
                            chain = %self.config.name,
                            block.number = at.number,
                            "an address spends more than was seen to come in: booking an adjustment"
                        );
                        self.metrics
                            .balance_drift_total
                            .with_label_values(&[self.config.name.as_str()])
                            .inc();
                        figures.insert(shortage, figure);
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
        Err(TurnError::Retry("the chain's own figures did not cover what was spent".into()))
    }

    /// Takes over what was committed.
    fn committed(&mut self, committed: &Committed) {
        if !committed.closed.is_empty() {
            self.doubts.forget_addresses(&committed.closed);
            self.owed.retain(|balance| !committed.closed.contains(&balance.address));
        }
        self.watchlist.insert(committed.opened.iter().copied());
        self.watched.committed(committed);
        self.gauge_cursor(&committed.cursor);
        self.cursor = Some(committed.cursor.clone());
        if committed.requests {
            self.wake_up.notify_one();
        }
    }
}
