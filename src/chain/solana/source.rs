//! [`SolanaSource`]: a Solana cluster behind [`Source`].

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU64},
    },
};

use async_trait::async_trait;
use tokio::sync::watch;

use super::{
    errors,
    fetch::Commitment,
    memo,
    state::{MintFacts, Mints, Recent},
    ws::Subscription,
};
use crate::{
    chain::{
        Address, AddressIndex, Announced, BalanceQuery, Block, BlockRef, Certainty, ChainBalance,
        ChainName, DailyUse, Family, Header, HistoryBlock, SettlementTag, Source, SourceError,
        TokenFacts, TokenSource, Watching,
        certainty::agreed,
        rpc::{Decoder, Dialect, Endpoint, Failure, Listener, Pool, SetupError},
    },
    config::{ChainConfig, Verification},
    metrics::Metrics,
};

pub(in crate::chain) static DIALECT: Dialect = Dialect {
    identity: "getGenesisHash",
    caip2: |answer| Ok(super::caip2(answer.parse::<&str>()?)),
    classify: errors::classify,
};

/// The newest version of transactions whose blocks are asked for from the start (SIMD-0385).
const TRANSACTION_VERSION: u8 = 1;

/// A Solana cluster, by its JSON-RPC endpoints.
pub struct SolanaSource {
    pub(super) pool: Pool,
    inner: Inner,
    announced: watch::Sender<Option<Announced>>,
    listener: Option<Listener<Subscription>>,
}

/// What the questions to an endpoint share.
pub(super) struct Inner {
    pub chain: ChainName,
    pub verification: Verification,
    pub metrics: Metrics,
    /// Learnt: the newest version of transactions that nodes want to be told is understood.
    pub version: AtomicU8,
    /// The newest slot that a node has named.
    pub newest: AtomicU64,
    pub mints: Mints,
    pub recent: Recent,
    pub decoder: Arc<Decoder>,
}

impl Inner {
    /// One more answer that did not pass a check.
    pub fn count(&self, check: &str) {
        self.metrics
            .verification_failures_total
            .with_label_values(&[self.chain.as_str(), check])
            .inc();
    }

    pub fn counted<T>(&self, result: Result<T, Failure>) -> Result<T, Failure> {
        if let Err(Failure::Untrusted { check, .. }) = &result {
            self.count(check);
        }
        result
    }
}

impl SolanaSource {
    /// Makes the clients; nothing is asked of the nodes yet.
    ///
    /// # Errors
    /// Without endpoints, or with a URL or header that cannot be used.
    pub fn new(config: &ChainConfig, metrics: Metrics) -> Result<Self, SetupError> {
        // The process has one provider of cryptography; whoever comes first installs it.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let pool = Pool::new(config, &DIALECT, &metrics)?;
        Ok(Self {
            listener: Listener::new(config, Subscription::new(config, &metrics), pool.decoder())?,
            announced: watch::Sender::new(None),
            inner: Inner {
                chain: config.name.clone(),
                verification: config.verification,
                metrics,
                version: AtomicU8::new(TRANSACTION_VERSION),
                newest: AtomicU64::new(0),
                mints: Mints::default(),
                recent: Recent::default(),
                decoder: Arc::clone(pool.decoder()),
            },
            pool,
        })
    }

    /// Keeps, below the data folder, what our own code fails to read, and what is used of the endpoints' budgets.
    pub fn keep_in(&self, data: &Path) {
        self.pool.keep_in(data);
    }
}

#[async_trait]
impl Source for SolanaSource {
    fn family(&self) -> Family {
        Family::Solana
    }

    async fn head(&self) -> Result<Header, SourceError> {
        self.pool
            .newest(|node| async move { self.inner.newest(&node, Commitment::Confirmed).await })
            .await
    }

    /// Both words mean finalized: Solana knows no level between.
    async fn settled(&self, _tag: SettlementTag) -> Result<Option<Header>, SourceError> {
        let header = self
            .pool
            .ask(|node| async move { self.inner.newest(&node, Commitment::Finalized).await })
            .await?;
        Ok(Some(header))
    }

    async fn settled_by_each(&self, _tag: SettlementTag) -> Result<Vec<Header>, SourceError> {
        let asked = |node: Arc<Endpoint>| async move {
            self.inner.newest(&node, Commitment::Finalized).await
        };
        self.pool.ask_several(asked).await
    }

    async fn header_by_each(&self, number: u64) -> Result<Vec<Option<Header>>, SourceError> {
        let asked = |node: Arc<Endpoint>| async move { self.inner.header_at(&node, number).await };
        self.pool.ask_several(asked).await
    }

    async fn header_at(&self, number: u64) -> Result<Option<Header>, SourceError> {
        self.pool.ask(|node| async move { self.inner.header_at(&node, number).await }).await
    }

    async fn blocks(&self, from: u64, to: u64) -> Result<Vec<Block>, SourceError> {
        self.pool.ask(|node| async move { self.inner.blocks(&node, from, to).await }).await
    }

    async fn block(&self, at: BlockRef) -> Result<Option<Block>, SourceError> {
        match self.pool.ask(|node| async move { self.inner.block(&node, at).await }).await {
            Ok(block) => Ok(Some(block)),
            Err(SourceError::NotThere(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn balances_at(
        &self,
        at: BlockRef,
        queries: &[BalanceQuery],
    ) -> Result<Vec<ChainBalance>, SourceError> {
        self.pool.ask(|node| async move { self.inner.balances(&node, at, queries).await }).await
    }

    async fn balances_for_sure(
        &self,
        at: BlockRef,
        queries: &[BalanceQuery],
    ) -> Result<Vec<(ChainBalance, Certainty)>, SourceError> {
        let asked =
            |node: Arc<Endpoint>| async move { self.inner.balances(&node, at, queries).await };
        // What is frozen is told of the newest state: two nodes may well differ in it.
        Ok(agreed(&self.pool.ask_several(asked).await?))
    }

    async fn complete(
        &self,
        mut block: Block,
        _watched: Watching<'_>,
    ) -> Result<Block, SourceError> {
        let txs = std::mem::take(&mut block.unread_memos);
        if txs.is_empty() {
            return Ok(block);
        }
        let (at, asked) = (block.header.at, &txs);
        let memos =
            self.pool.ask(|node| async move { self.inner.memos(&node, at, asked).await }).await?;
        for (tx, text) in txs.into_iter().zip(memos) {
            memo::write(&mut block, tx, text.as_deref());
        }
        Ok(block)
    }

    fn ask_identity_again(&self) {
        self.pool.ask_identity_again();
    }

    fn announced(&self) -> watch::Receiver<Option<Announced>> {
        self.announced.subscribe()
    }

    fn daily_use(&self) -> Vec<Arc<dyn DailyUse>> {
        self.pool.daily_use()
    }

    async fn listen(&self) {
        if let Some(listener) = &self.listener {
            listener.run(&self.announced).await;
        }
    }

    fn address_index(&self) -> Option<&dyn AddressIndex> {
        Some(self)
    }

    fn tokens(&self) -> Option<&dyn TokenSource> {
        Some(self)
    }
}

#[async_trait]
impl AddressIndex for SolanaSource {
    async fn history(
        &self,
        address: Address,
        tokens: &[Address],
        from: u64,
        to: BlockRef,
    ) -> Result<Vec<HistoryBlock>, SourceError> {
        self.pool
            .ask(|node| async move { self.inner.history(&node, address, tokens, from, to).await })
            .await
    }
}

#[async_trait]
impl TokenSource for SolanaSource {
    async fn token_facts(&self, tokens: &[Address]) -> Result<Vec<TokenFacts>, SourceError> {
        let asked = |node: Arc<Endpoint>| async move {
            let mut facts = Vec::with_capacity(tokens.len());
            for token in tokens {
                facts.push(of_mint(self.inner.mint(&node, *token).await?));
            }
            Ok(facts)
        };
        self.pool.ask(asked).await
    }

    async fn opinions_of(&self, token: Address) -> Result<Vec<TokenFacts>, SourceError> {
        let asked = |node: Arc<Endpoint>| async move {
            Ok(of_mint(self.inner.told_mint(&node, token).await?))
        };
        self.pool.ask_several(asked).await
    }
}

/// A mint has no name of its own: who wants one writes it into an account beside it.
fn of_mint(mint: Option<MintFacts>) -> TokenFacts {
    TokenFacts { decimals: mint.map(|mint| mint.decimals), ..TokenFacts::default() }
}
