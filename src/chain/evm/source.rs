//! [`EvmSource`]: an EVM chain behind [`Source`].

use std::{path::Path, sync::Arc, time::Duration};

use async_trait::async_trait;
use serde::de::IgnoredAny;
use tokio::sync::watch;

use super::{
    coin::Coin,
    decode, errors,
    fetch::Reader,
    json::{self, Quantity},
    logs::{self, Spans},
    proof::{self, Places},
    state::{self, Known},
    trace::Tracer,
    verify::Checker,
    ws::Subscription,
};
use crate::{
    amount::Amount,
    chain::{
        Address, Announced, AssetKey, BalanceProof, BalanceQuery, Block, BlockRef, Certainty,
        ChainBalance, DailyUse, Family, Header, LogIndex, ProofSource, Proven, SafeRejection,
        SafeSource, SafeState, Senders, SettlementTag, Source, SourceError, TokenFacts,
        TokenSource, TraceAbility, TxId, TxLookup, Unprovable, Watching,
        certainty::agreed,
        rpc::{Call, Dialect, Endpoint, Failure, Listener, Pool, SetupError, Slim, fields_of},
    },
    config::ChainConfig,
    metrics::Metrics,
};

pub(in crate::chain) static DIALECT: Dialect = Dialect {
    identity: "eth_chainId",
    caip2: |answer| Ok(super::caip2(answer.parse::<Quantity>()?.0)),
    classify: errors::classify,
};

/// An EVM chain, by its JSON-RPC endpoints.
pub struct EvmSource {
    pub(super) pool: Pool,
    reader: Reader,
    pub(super) tracer: Tracer,
    known: Known,
    places: Places,
    spans: Spans,
    announced: watch::Sender<Option<Announced>>,
    listener: Option<Listener<Subscription>>,
}

impl EvmSource {
    /// Makes the clients; nothing is asked of the nodes yet.
    ///
    /// # Errors
    /// Without endpoints, or with a URL or header that cannot be used.
    pub fn new(config: &ChainConfig, metrics: Metrics) -> Result<Self, SetupError> {
        // The process has one provider of cryptography; whoever comes first installs it.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let pool = Pool::new(config, &DIALECT, &metrics)?;
        let listener = Listener::new(config, Subscription::new(config, &metrics), pool.decoder())?;
        let tracer = Tracer::new(&config.name, &config.endpoints, pool.decoder(), &metrics);
        let checker = Checker {
            chain: config.name.clone(),
            chain_id: config.chain_id,
            verification: config.verification,
            metrics,
        };
        let read = [
            fields_of::<json::Block<IgnoredAny>>(),
            fields_of::<json::Transaction<'_>>(),
            fields_of::<json::Receipt<'_>>(),
            fields_of::<state::Place>(),
        ];
        // Their fields are few, and what else is in them has the names of those above.
        let inside = [
            ("transactions", fields_of::<json::Transaction<'_>>()),
            ("accessList", json::ACCESS),
            ("authorizationList", json::AUTHORIZATION),
            ("withdrawals", fields_of::<json::Withdrawal>()),
            ("logs", fields_of::<json::Log<'_>>()),
        ];
        let slim = Slim::new(pool.decoder(), &read, &inside);
        let reader = Reader {
            checker: Arc::new(checker),
            coin: Arc::new(Coin::new(config)),
            decoder: Arc::clone(pool.decoder()),
            slim: Arc::new(slim),
        };
        Ok(Self {
            reader,
            tracer,
            pool,
            listener,
            known: Known::new(config.name.clone()),
            places: Places::default(),
            spans: Spans::default(),
            announced: watch::Sender::new(None),
        })
    }

    /// Keeps, below the data folder, what our own code fails to read, and what is used of the endpoints' budgets.
    pub fn keep_in(&self, data: &Path) {
        self.pool.keep_in(data);
    }

    /// The block, if the signatures that are left in it are those of the senders.
    async fn proven(&self, block: Block) -> Result<Block, SourceError> {
        if block.senders.signed.is_empty() {
            return Ok(block);
        }
        let told_by = Arc::clone(&block.senders.told_by);
        let (what, checker) = (block.header.at.number, Arc::clone(&self.reader.checker));
        let proven = self.reader.decoder.run(format!("block {what}"), Vec::new(), move |_| {
            checker.senders(&block)?;
            Ok(Block { senders: Senders::default(), ..block })
        });
        proven.await.map_err(|failure| match failure {
            Failure::Bug(detail) => SourceError::Bug(detail),
            failure => {
                self.pool.refute(&told_by, &failure);
                SourceError::Refuted(failure.detail())
            }
        })
    }

    /// The header at that height.
    async fn numbered(
        &self,
        endpoint: Arc<Endpoint>,
        number: u64,
    ) -> Result<Option<Header>, Failure> {
        match self.header(&endpoint, &format!("{number:#x}")).await? {
            Some(header) if header.at.number != number => {
                Err(Failure::Invalid(format!("asked for block {number}, got another")))
            }
            header => Ok(header),
        }
    }

    /// A header by number or tag, verified.
    async fn header(&self, endpoint: &Endpoint, which: &str) -> Result<Option<Header>, Failure> {
        let call = Call::new("eth_getBlockByNumber", format!(r#"["{which}",false]"#));
        let answer = match endpoint.call(call).await {
            Ok(answer) => answer,
            Err(Failure::NotThere(_)) => return Ok(None),
            Err(failure) => return Err(failure),
        };
        self.reader.decoder.here(&format!("block {which}"), std::slice::from_ref(&answer), || {
            let block = answer.parse::<Option<json::Block<IgnoredAny>>>()?;
            let verified = block.map(|block| self.reader.checker.header(block)).transpose()?;
            Ok(verified.as_ref().map(decode::header))
        })
    }
}

#[async_trait]
impl Source for EvmSource {
    fn family(&self) -> Family {
        Family::Evm
    }

    async fn head(&self) -> Result<Header, SourceError> {
        self.pool
            .newest(|endpoint| async move {
                self.header(&endpoint, "latest")
                    .await?
                    .ok_or_else(|| Failure::Invalid("no latest block".to_owned()))
            })
            .await
    }

    async fn settled(&self, tag: SettlementTag) -> Result<Option<Header>, SourceError> {
        let header =
            self.pool.ask(|endpoint| async move { self.header(&endpoint, tag.as_str()).await });
        // A node that has settled nothing yet calls its first block settled, or knows of none.
        Ok(header.await?.filter(|header| header.at.number > 0))
    }

    async fn settled_by_each(&self, tag: SettlementTag) -> Result<Vec<Header>, SourceError> {
        let asked =
            |endpoint: Arc<Endpoint>| async move { self.header(&endpoint, tag.as_str()).await };
        let told = self.pool.ask_several(asked).await?.into_iter().flatten();
        Ok(told.filter(|header| header.at.number > 0).collect())
    }

    async fn header_at(&self, number: u64) -> Result<Option<Header>, SourceError> {
        self.pool.ask(|endpoint| self.numbered(endpoint, number)).await
    }

    async fn header_by_each(&self, number: u64) -> Result<Vec<Option<Header>>, SourceError> {
        self.pool.ask_several(|endpoint| self.numbered(endpoint, number)).await
    }

    async fn blocks(&self, from: u64, to: u64) -> Result<Vec<Block>, SourceError> {
        let read =
            |endpoint: Arc<Endpoint>| async move { self.reader.blocks(&endpoint, from, to).await };
        self.pool.ask(read).await
    }

    async fn block(&self, at: BlockRef) -> Result<Option<Block>, SourceError> {
        let read = |endpoint: Arc<Endpoint>| async move { self.reader.block(&endpoint, at).await };
        if_there(self.pool.ask(read).await)
    }

    async fn trace(&self, blocks: &mut [Block], patience: Duration) {
        self.tracer.trace(&self.pool, blocks, patience).await;
    }

    fn traces(&self) -> bool {
        self.tracer.can(&self.pool)
    }

    fn tracing(&self) -> Vec<TraceAbility> {
        self.tracer.abilities()
    }

    async fn complete(
        &self,
        mut block: Block,
        watched: Watching<'_>,
    ) -> Result<Block, SourceError> {
        block = self.proven(block).await?;
        self.resolve(&mut block, watched).await;
        Ok(block)
    }

    async fn balances_at(
        &self,
        at: BlockRef,
        queries: &[BalanceQuery],
    ) -> Result<Vec<ChainBalance>, SourceError> {
        self.pool
            .ask(|endpoint| async move {
                state::balances(&endpoint, &self.known, at, queries).await
            })
            .await
    }

    async fn balances_for_sure(
        &self,
        at: BlockRef,
        queries: &[BalanceQuery],
    ) -> Result<Vec<(ChainBalance, Certainty)>, SourceError> {
        let mut sure = vec![None; queries.len()];
        let natives: Vec<usize> =
            (0..queries.len()).filter(|&n| queries[n].asset == AssetKey::Native).collect();
        if !natives.is_empty() {
            let addresses: Vec<Address> = natives.iter().map(|&n| queries[n].address).collect();
            let asked = |endpoint: Arc<Endpoint>| {
                let addresses = &addresses;
                async move { proof::balances(&endpoint, at, addresses).await }
            };
            // Each proof stands for itself, whoever gave it. Without any, the endpoints' words remain.
            for answer in self.pool.ask_several(asked).await.unwrap_or_default() {
                for (&n, balance) in natives.iter().zip(answer) {
                    if let Some(units) = balance {
                        sure[n] = Some((Amount::new(units).into(), Certainty::Proven));
                    }
                }
            }
        }
        let open: Vec<usize> = (0..queries.len()).filter(|&n| sure[n].is_none()).collect();
        if !open.is_empty() {
            let rest: Vec<BalanceQuery> = open.iter().map(|&n| queries[n]).collect();
            let asked = |endpoint: Arc<Endpoint>| {
                let rest = &rest;
                async move { state::balances(&endpoint, &self.known, at, rest).await }
            };
            let figures = agreed(&self.pool.ask_several(asked).await?);
            for (n, figure) in open.into_iter().zip(figures) {
                sure[n] = Some(figure);
            }
        }
        Ok(sure.into_iter().flatten().collect())
    }

    fn safes(&self) -> Option<&dyn SafeSource> {
        Some(self)
    }

    fn log_index(&self) -> Option<&dyn LogIndex> {
        Some(self)
    }

    fn tokens(&self) -> Option<&dyn TokenSource> {
        Some(self)
    }

    fn ask_identity_again(&self) {
        self.pool.ask_identity_again();
    }

    fn proofs(&self) -> Option<&dyn ProofSource> {
        Some(self)
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
}

#[async_trait]
impl LogIndex for EvmSource {
    async fn blocks_with_transfers(
        &self,
        tokens: &[Address],
        addresses: &[Address],
        from: u64,
        to: u64,
    ) -> Result<Vec<BlockRef>, SourceError> {
        self.pool
            .ask(|endpoint| async move {
                logs::find(&endpoint, &self.spans, tokens, addresses, from, to).await
            })
            .await
    }

    async fn blocks_of(&self, at: &[BlockRef]) -> Result<Vec<Block>, SourceError> {
        self.pool.ask(|endpoint| async move { self.reader.blocks_of(&endpoint, at).await }).await
    }
}

#[async_trait]
impl ProofSource for EvmSource {
    /// What an endpoint lacks or gets wrong here is none of its faults: it still tells blocks well.
    async fn prove(
        &self,
        at: BlockRef,
        query: BalanceQuery,
        others: &[Address],
    ) -> Result<Result<(BalanceProof, Proven), Unprovable>, SourceError> {
        let endpoints = self.pool.well();
        let mut failures = Vec::with_capacity(endpoints.len());
        for endpoint in &endpoints {
            let proof = proof::prove(endpoint, &self.places, at, query, others);
            match self.pool.put(proof).await {
                Ok(answer) => return Ok(answer),
                Err(failure) => failures.push((endpoint, failure)),
            }
        }
        if failures.is_empty() {
            let detail = "every endpoint is left alone for a while".to_owned();
            return Err(SourceError::Unavailable { detail, retry_after: None });
        }
        let lacks = |failure: &Failure| matches!(failure, Failure::Unsupported(_));
        if failures.iter().all(|(_, failure)| lacks(failure)) {
            return Ok(Err(Unprovable::NoNode));
        }
        Err(self.pool.verdict(&failures))
    }

    async fn block_at(&self, number: u64) -> Result<Option<BlockRef>, SourceError> {
        Ok(self.header_at(number).await?.map(|header| header.at))
    }
}

#[async_trait]
impl SafeSource for EvmSource {
    async fn transaction(&self, tx: TxId) -> Result<Option<TxLookup>, SourceError> {
        let found = self
            .pool
            .ask(|endpoint| async move {
                let Reader { checker, slim, .. } = &self.reader;
                state::transaction(&endpoint, checker, slim, tx).await
            })
            .await;
        if_there(found)
    }

    async fn next_nonce(&self, sender: Address, at: BlockRef) -> Result<u64, SourceError> {
        self.pool
            .ask(|endpoint| async move { state::next_nonce(&endpoint, sender, at).await })
            .await
    }

    async fn safe_state(
        &self,
        address: Address,
        at: BlockRef,
    ) -> Result<Result<SafeState, SafeRejection>, SourceError> {
        self.pool
            .ask(|endpoint| async move { state::safe_state(&endpoint, address, at).await })
            .await
    }

    async fn singleton(
        &self,
        address: Address,
        at: BlockRef,
    ) -> Result<Option<Address>, SourceError> {
        self.pool
            .ask(|endpoint| async move { state::singleton(&endpoint, address, at).await })
            .await
    }

    async fn code_hashes(
        &self,
        addresses: &[Address],
        at: BlockRef,
    ) -> Result<Vec<Option<[u8; 32]>>, SourceError> {
        self.pool
            .ask(|endpoint| async move { state::code_hashes(&endpoint, addresses, at).await })
            .await
    }
}

#[async_trait]
impl TokenSource for EvmSource {
    async fn token_facts(&self, tokens: &[Address]) -> Result<Vec<TokenFacts>, SourceError> {
        self.pool
            .ask(|endpoint| async move { self.known.token_facts(&endpoint, tokens).await })
            .await
    }

    async fn opinions_of(&self, token: Address) -> Result<Vec<TokenFacts>, SourceError> {
        let asked = |endpoint: Arc<Endpoint>| async move {
            self.known.token_facts(&endpoint, &[token]).await
        };
        Ok(self.pool.ask_several(asked).await?.into_iter().flatten().collect())
    }
}

/// For questions where not having it is an answer.
fn if_there<T>(result: Result<T, SourceError>) -> Result<Option<T>, SourceError> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(SourceError::NotThere(_)) => Ok(None),
        Err(error) => Err(error),
    }
}
