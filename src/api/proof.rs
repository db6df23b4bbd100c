//! `GET /v1/wallets/{locator}/proof`: a balance with what shows it to somebody who trusts nobody here.
//!
//! It is the one request for which nodes are asked. They are asked behind everything else, for a few proofs at a time,
//! and for so many of a tenant in a minute; a proof that was just made is given again.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use axum::extract::State;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use utoipa::{IntoParams, ToSchema};

use super::{
    App,
    answer::Json,
    auth::Caller,
    cache::Cache,
    error::{Code, Failures, Problem},
    key::Scope,
    locator::Locator,
    past::Watched,
    request::{Fields, Named, Params},
};
use crate::{
    chain::{
        Address, AssetKey, BalanceProof, BalanceQuery, BlockRef, ChainName, Place, Priority,
        ProofSource, Proven, Provers, SourceError, StorageProof, Unprovable,
    },
    clock::Millis,
    id::TenantId,
    ledger::past::Way,
    model::{Asset, Cursor, Wallet},
    store::{Conn, StoreError, chain, history::past},
    view::{AmountView, AssetView, BlockView},
};

/// Proofs for which nodes are asked at once.
const AT_ONCE: usize = 4;
/// Proofs of a tenant for which nodes are asked in a minute.
const PER_MINUTE: u32 = 60;
/// Proofs that are kept for those who ask again, and for how long: some 10 KB each.
const KEPT: usize = 512;
const KEPT_FOR: Duration = Duration::from_mins(1);
/// Transfers that are looked at for others who hold the same, and how many of those are named.
const LOOKED_AT: i64 = 100;
const OTHERS: usize = 7;

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ReadParams {
    /// A symbol, a contract address or a CAIP-19 id.
    #[param(example = "usdc", required = true)]
    asset: Option<String>,
    /// The chain that is meant, where the asset is on several on which the wallet is watched.
    #[param(example = "base")]
    chain: Option<String>,
    /// After this block; the newest settled one if left out. Nodes keep the states of the newest blocks only, unless
    /// they are archives.
    block: Option<String>,
}

/// A balance, and what leads to it from the hash of a block.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = BalanceProof)]
pub struct ProofView {
    #[schema(value_type = String)]
    pub wallet_id: crate::id::WalletId,
    pub address: String,
    pub chain: String,
    pub asset: AssetView,
    /// What the proof shows that the address has after the block.
    pub balance: AmountView,
    pub block: BlockView,
    /// Whether the block has settled here.
    pub settled: bool,
    /// Whether the block is one that Tidemark has followed and remembers. If not, its hash is what a node calls that of
    /// the block at this height.
    pub anchored: bool,
    /// The block's header as it is hashed, RLP in hexadecimal digits.
    pub header: String,
    /// The account that the proof is of: the wallet's, or the token's contract.
    pub account: String,
    /// The nodes from the header's state root to the account, as `eth_getProof` gives them.
    pub account_proof: Vec<String>,
    /// The word of the contract's storage that is the balance, as `eth_getProof` gives it; empty for the native coin.
    pub storage_proof: Vec<StorageProofView>,
    /// Why it is that word; null for the native coin.
    pub place: Option<PlaceView>,
    /// How all of it is checked, step by step, and what it does not show. `tidemark verify-proof` does so without a node.
    pub check: Vec<String>,
}

/// A word of a contract's storage.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = StorageProof)]
pub struct StorageProofView {
    pub key: String,
    pub value: String,
    pub proof: Vec<String>,
}

/// Where a token's contract keeps balances: found out by asking a node, and no part of what is proven.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = StoragePlace)]
pub struct PlaceView {
    /// `solidity`: the key is keccak256 of the address and the slot, 32 bytes each; `vyper`: the slot comes first;
    /// `solady`: keccak256 of the address, 8 zero bytes and 0x87a211a2.
    #[schema(value_type = String, example = "solidity")]
    pub layout: &'static str,
    /// The slot of the mapping.
    pub slot: String,
    /// So many of the word's lowest bits are the balance.
    pub bits: u16,
}

fn hexadecimal(bytes: impl AsRef<[u8]>) -> String {
    alloy::hex::encode_prefixed(bytes)
}

impl From<&StorageProof> for StorageProofView {
    fn from(storage: &StorageProof) -> Self {
        Self {
            key: hexadecimal(storage.key),
            value: hexadecimal(storage.value),
            proof: storage.nodes.iter().map(hexadecimal).collect(),
        }
    }
}

impl From<Place> for PlaceView {
    fn from(place: Place) -> Self {
        let Place { layout, slot, bits } = place;
        Self { layout: layout.as_str(), slot: hexadecimal(slot), bits }
    }
}

/// A proof of a balance
///
/// What the address has after a block, with everything that leads to it from the block's hash: for whoever believes
/// neither you nor Tidemark nor a node, but knows that the block is on the chain. Only listed assets are proven, and of
/// tokens only those whose contract keeps each balance as a number in a place of its own: what a rebasing token says is
/// reckoned, so it is 422 `not_provable`, and so is everything on a chain whose blocks do not commit to balances.
///
/// 409 `state_pruned` where no node has the state of that block any more, 409 `not_covered` above the newest block. For
/// more than 60 new proofs of yours in a minute the answer is 429 `rate_limited`.
#[utoipa::path(get, path = "/v1/wallets/{locator}/proof", tag = "wallets",
    params(("locator" = String, Path, description = "wlt_…, an address, external:{id}, email:a@b.c:evm, …"),
        ReadParams),
    responses((status = 200, body = ProofView), Failures),
    security(("apiKey" = []), ("bearer" = [])))]
pub(super) async fn read(
    State(app): State<Arc<App>>,
    caller: Caller,
    Named(locator): Named,
    Params(params): Params<ReadParams>,
) -> Result<Json<ProofView>, Problem> {
    let tenant = caller.need(Scope::WalletsRead)?;
    let locator = Locator::parse(locator)?;
    let mut fields = Fields::default();
    let is_height = |number: &u64| *number <= BlockRef::MAX_HEIGHT;
    let block = params.block.as_deref().map(|text| text.parse().ok().filter(is_height));
    if block == Some(None) {
        fields.refuse("block", "must be the number of a block that a chain can have");
    }
    if params.asset.is_none() {
        fields.refuse("asset", "must be a symbol, a contract address or a CAIP-19 id");
    }
    fields.finish()?;
    let chain = params.chain.as_deref().map(|name| app.chain("chain", name).map(|c| &c.name));
    let (chain, token) = (chain.transpose()?, params.asset.unwrap_or_default());
    let index = app.asset_index().await?;
    let (locator, index, token) = (&locator, &index, &token);
    let read = app.reads.snapshot(|mut tx| async move {
        let conn = &mut tx.conn();
        let wallet = locator.resolve(conn, tenant).await?;
        let cursors = chain::cursors(conn).await?;
        let (asset, on) = index.meant(token, chain, Watched::of(&wallet, &cursors))?;
        Asked::read(conn, wallet, asset.clone(), on.cursor, block.flatten()).await
    });
    let asked = read.await?;
    let prove = app.proving.prove(tenant, app.clock.now(), &asked);
    let (proof, proven, anchored) = Priority::Background.scope(prove).await?;
    Ok(Json(asked.view(&proof, &proven, anchored)))
}

/// What is to be proven.
struct Asked {
    wallet: Wallet,
    asset: Asset,
    cursor: Cursor,
    number: u64,
    /// The block at that height, where it is remembered.
    block: Option<BlockRef>,
    /// Others who may hold the asset.
    others: Vec<Address>,
}

impl Asked {
    async fn read(
        conn: &mut Conn<'_>,
        wallet: Wallet,
        asset: Asset,
        cursor: Cursor,
        block: Option<u64>,
    ) -> Result<Self, Problem> {
        let number = block.unwrap_or(cursor.settled.at.number);
        let head = cursor.head.at.number;
        if number > head {
            let detail = format!(
                "Block {number} of {} is not there yet: the newest one is {head}. Ask for an older one, or leave \
                 'block' out for the newest settled one.",
                cursor.chain
            );
            return Err(Problem::new(Code::NotCovered, detail));
        }
        let remembered = chain::block_at_or_below(conn, cursor.no, number).await?;
        let known = [Some(cursor.settled), Some(cursor.head), remembered];
        let mut known = known.into_iter().flatten().map(|point| point.at);
        let block = known.find(|at| at.number == number);
        let others = match asset.key {
            AssetKey::Native => Vec::new(),
            AssetKey::Token(_) => others(conn, &wallet, &asset).await?,
        };
        Ok(Self { wallet, asset, cursor, number, block, others })
    }

    fn query(&self) -> BalanceQuery {
        BalanceQuery { address: self.wallet.address, asset: self.asset.key }
    }

    fn view(&self, proof: &BalanceProof, proven: &Proven, anchored: bool) -> ProofView {
        let Self { wallet, asset, cursor, .. } = self;
        let family = wallet.family;
        let account = match asset.key {
            AssetKey::Native => wallet.address,
            AssetKey::Token(contract) => contract,
        };
        ProofView {
            wallet_id: wallet.id,
            address: family.format_address(&wallet.address),
            chain: asset.chain.to_string(),
            asset: asset.into(),
            balance: AmountView::new(proven.amount, asset),
            block: BlockView {
                number: proven.at.number,
                hash: family.format_block_hash(&proven.at.hash),
                time: Millis::from_seconds(proven.time),
            },
            settled: proven.at.number <= cursor.settled.at.number,
            anchored,
            header: hexadecimal(&proof.header),
            account: family.format_address(&account),
            account_proof: proof.account.iter().map(hexadecimal).collect(),
            storage_proof: proof.storage.iter().map(StorageProofView::from).collect(),
            place: proof.storage.as_ref().map(|storage| storage.place.into()),
            check: family.how_to_check(proof),
        }
    }
}

/// With whom a wallet has exchanged an asset of late.
async fn others(
    conn: &mut Conn<'_>,
    wallet: &Wallet,
    asset: &Asset,
) -> Result<Vec<Address>, StoreError> {
    let span = past::span(conn, wallet.no, Way::Down, None, LOOKED_AT).await?;
    let rows = past::transfers(conn, wallet.no, asset.no, span).await?;
    let others: BTreeSet<Address> = rows.iter().filter_map(|row| row.counterparty).collect();
    Ok(others.into_iter().take(OTHERS).collect())
}

/// A proof, and whether its block is one that was followed here.
type Made = (Arc<BalanceProof>, Proven, bool);

/// Has nodes prove balances, within limits.
pub(super) struct Proving {
    provers: Provers,
    at_once: Semaphore,
    minute: Mutex<Minute>,
    kept: Cache<(ChainName, BlockRef, BalanceQuery), (Arc<BalanceProof>, Proven)>,
}

/// How many proofs each tenant has asked for in a minute.
#[derive(Default)]
struct Minute {
    number: i64,
    asked: HashMap<TenantId, u32>,
}

impl Minute {
    /// Takes one more; `false` if these are too many.
    fn take(&mut self, tenant: TenantId, now: Millis) -> bool {
        let number = now.seconds().div_euclid(60);
        if self.number != number {
            *self = Self { number, asked: HashMap::new() };
        }
        let asked = self.asked.entry(tenant).or_default();
        *asked = asked.saturating_add(1);
        *asked <= PER_MINUTE
    }
}

impl Proving {
    pub fn new(provers: Provers) -> Self {
        Self {
            provers,
            at_once: Semaphore::new(AT_ONCE),
            minute: Mutex::default(),
            kept: Cache::new(KEPT, KEPT_FOR),
        }
    }

    async fn prove(&self, tenant: TenantId, now: Millis, asked: &Asked) -> Result<Made, Problem> {
        let (chain, query) = (&asked.cursor.chain, asked.query());
        let nodes = self.provers.of(chain).ok_or_else(|| {
            let detail = format!(
                "The blocks of {chain} do not commit to balances: nobody can prove one to somebody who trusts no node."
            );
            Problem::new(Code::NotProvable, detail)
        })?;
        let kept = |at| self.kept.get(&(chain.clone(), at, query), now);
        if let Some((proof, proven)) = asked.block.and_then(kept) {
            return Ok((proof, proven, true));
        }
        if !self.minute.lock().take(tenant, now) {
            let detail = format!(
                "Nodes are asked for {PER_MINUTE} proofs of yours in a minute. Wait for the next one, or keep the proofs \
                 that you have: they stay true."
            );
            return Err(Problem::new(Code::RateLimited, detail));
        }
        // It is never closed.
        let _turn = self.at_once.acquire().await.map_err(Problem::internal)?;
        let at = match asked.block {
            Some(at) => at,
            None => node_block(nodes, asked).await?,
        };
        if let Some((proof, proven)) = kept(at) {
            return Ok((proof, proven, asked.block.is_some()));
        }
        let made = nodes.prove(at, query, &asked.others).await;
        let (proof, proven) =
            made.map_err(|error| failed(&error, asked))?.map_err(|why| refused(why, asked))?;
        let proof = Arc::new(proof);
        self.kept.put((chain.clone(), at, query), (Arc::clone(&proof), proven), now);
        Ok((proof, proven, asked.block.is_some()))
    }
}

/// The block that is not remembered, as a node says.
async fn node_block(nodes: &dyn ProofSource, asked: &Asked) -> Result<BlockRef, Problem> {
    let block = nodes.block_at(asked.number).await.map_err(|error| failed(&error, asked))?;
    block.ok_or_else(|| pruned(asked))
}

fn pruned(asked: &Asked) -> Problem {
    Problem::new(
        Code::StatePruned,
        format!(
            "No node of {} has the state of block {} (any more). Ask for a newer block, or leave 'block' out for the \
             newest settled one; the operator can add an archive node.",
            asked.cursor.chain, asked.number
        ),
    )
}

fn failed(error: &SourceError, asked: &Asked) -> Problem {
    match error {
        SourceError::NotThere(_) => pruned(asked),
        error => Problem {
            cause: Some(error.to_string()),
            ..Problem::new(
                Code::ChainUnavailable,
                format!(
                    "No node of {} gives a proof now. Try again in a moment.",
                    asked.cursor.chain
                ),
            )
        },
    }
}

fn refused(why: Unprovable, asked: &Asked) -> Problem {
    let chain = &asked.cursor.chain;
    let detail = match why {
        Unprovable::NoNode => format!(
            "No node of {chain} gives proofs (eth_getProof) that lead to the hashes of its blocks. The operator can add \
             one that does, if there are any."
        ),
        Unprovable::NoPlace => format!(
            "No place in the storage of {} was found that holds what the contract calls a balance: a rebasing token \
             reckons it, and others keep it in a way of their own. Its balances cannot be proven.",
            asked.asset.caip19
        ),
        Unprovable::Differs => format!(
            "The contract of {} calls the balance something else after block {} than what stands in its storage: that \
             is no proof.",
            asked.asset.caip19, asked.number
        ),
    };
    Problem::new(Code::NotProvable, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_gets_so_many_proofs_in_a_minute_and_takes_none_from_another() {
        let mut minute = Minute::default();
        let tenant = |n| TenantId(uuid::Uuid::from_u128(n));
        let now = Millis(600_000);
        let taken = (0..PER_MINUTE + 5).filter(|_| minute.take(tenant(1), now)).count();
        assert_eq!(u32::try_from(taken), Ok(PER_MINUTE));
        assert!(minute.take(tenant(2), now));
        assert!(!minute.take(tenant(1), Millis(659_999)));
        assert!(minute.take(tenant(1), Millis(660_000)));
        assert_eq!(minute.asked.len(), 1, "only those of the minute are remembered");
    }
}
