//! What a step has to know of the store, loaded before it decides.

use std::collections::{BTreeMap, BTreeSet};

use super::worthless::Worthless;
use crate::{
    amount::Amount,
    chain::{
        Address, AssetKey, BalanceQuery, BlockRef, ChainBalance, Header, Kind, Movement, Ordinal,
        SafeCandidate, TxId,
    },
    clock::Millis,
    id::{Naming, TransferId, WalletId},
    model::{
        AdoptSafes, Asset, AssetNo, Balance, ChainInfo, Deployment, Direction, SafeOnChain,
        TenantNo, Transfer, WalletNo, WalletRef, Watch, ordinal_bytes,
    },
};

/// The maps of a step. Their keys are chosen by strangers, so the hash has a seed of this process; the standard
/// library's hash is several times as slow.
pub type HashMap<K, V> = std::collections::HashMap<K, V, foldhash::fast::RandomState>;
/// As [`HashMap`].
pub type HashSet<K> = std::collections::HashSet<K, foldhash::fast::RandomState>;

/// Watches by address; several wallets can share one.
pub type Watches = HashMap<Address, Vec<Watch>>;

/// The part of the store that a step can touch.
#[derive(Clone, Debug, Default)]
pub struct Known {
    pub watches: Watches,
    /// Balances that have a row; others are empty.
    pub balances: HashMap<(WalletNo, AssetNo), Balance>,
    /// By what they are on the chain; one that is missing was never seen.
    pub assets: HashMap<AssetKey, Asset>,
    pub unsettled: Unsettled,
}

/// Transfers that a block may hold again: those that are pending or orphaned, by wallet and mark. Two can have
/// one mark, so the place on the chain is compared as well.
#[derive(Clone, Debug, Default)]
pub struct Unsettled(HashMap<(WalletNo, i64), Vec<Transfer>>);

impl FromIterator<Transfer> for Unsettled {
    fn from_iter<I: IntoIterator<Item = Transfer>>(transfers: I) -> Self {
        let mut all = Self::default();
        for transfer in transfers {
            all.0.entry((transfer.wallet, transfer.id.mark())).or_default().push(transfer);
        }
        all
    }
}

impl Unsettled {
    /// The same movement as `side`, to the same wallet.
    #[must_use]
    pub fn same(&self, side: &Transfer) -> Option<&Transfer> {
        if self.0.is_empty() {
            return None;
        }
        let found = self.0.get(&(side.wallet, side.id.mark()))?;
        found.iter().find(|known| same_movement(known, side))
    }
}

/// Whether both are one movement, whichever block holds it.
#[must_use]
pub fn same_movement(a: &Transfer, b: &Transfer) -> bool {
    a.wallet == b.wallet
        && a.tx == b.tx
        && a.ordinal == b.ordinal
        && a.direction == b.direction
        && a.asset == b.asset
}

/// A block reduced to what touches a watched address.
#[derive(Clone, Debug)]
pub struct MatchedBlock {
    pub header: Header,
    pub movements: Vec<Movement>,
    /// What of them is not recorded.
    pub worthless: Worthless,
    /// Safes that a known factory made in it and that somebody waits for: the chain's state is read later.
    pub safes: Vec<ClaimedSafe>,
    /// Watched Safes that ran in it, as their logs say.
    pub ran: Vec<Address>,
    /// Tracked transactions of this block.
    pub tracked: Vec<TxId>,
    /// Watched holdings whose terms may have changed without a movement, as the chain has them now.
    pub touched: Vec<(BalanceQuery, ChainBalance)>,
    /// Whether nobody has told yet what moved inside its transactions.
    pub untraced: bool,
}

/// A Safe that a known factory made and that somebody waits for, as its logs claim it.
#[derive(Clone, Debug)]
pub struct ClaimedSafe {
    pub claim: SafeCandidate,
    /// How many of the same block that the same owner or transaction led to come before it: nobody's many keep
    /// another one's few waiting.
    pub rank: u32,
}

/// What is known of the deployments that a step may touch.
#[derive(Clone, Debug, Default)]
pub struct KnownDeployments {
    /// All of the transactions that are tracked or set up a Safe.
    pub deployments: Vec<Deployment>,
    /// Open watches of the owners of found Safes.
    pub owners: Watches,
    /// Who watches the address of a Safe already.
    pub watching: HashMap<(TenantNo, Address), Watch>,
    /// The wallets of all these, as events show them.
    pub wallets: HashMap<WalletId, WalletRef>,
    /// What is known of these Safes on this chain.
    pub states: HashMap<Address, SafeOnChain>,
    /// How many Safes the owners have led to so far, by their wallets.
    pub found: HashMap<WalletId, u64>,
    /// Which Safes the tenants want in their owners' accounts.
    pub adopt: HashMap<TenantNo, AdoptSafes>,
}

/// A balance that the ledger cannot explain: more left at `block` than it knew of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Shortage {
    pub number: u64,
    pub address: Address,
    pub asset: AssetKey,
}

/// The chain's own figures where the ledger was short; `None` where no node has that state any more.
pub type Figures = BTreeMap<Shortage, Option<Amount>>;

/// What is known beside the chain's own figures when they are compared.
#[derive(Clone, Debug, Default)]
pub struct KnownProofs {
    /// Balances that a block above the compared one has begun or corrected: their settled part is not what
    /// the chain had at that block.
    pub unfinished: BTreeSet<(WalletNo, AssetNo)>,
    /// Transfers of the compared block that were booked before.
    pub booked: BTreeSet<(WalletNo, TransferId)>,
}

/// The id of a movement to one wallet: derived from what names the movement for ever, and the time of the block that
/// showed it first. A wallet's id says whose it is.
#[must_use]
pub fn transfer_id(
    chain: &ChainInfo,
    wallet: WalletId,
    movement: &Movement,
    direction: Direction,
    time: Millis,
) -> TransferId {
    Naming::new("transfer")
        .field(wallet.0.as_bytes())
        .field(chain.name.as_str().as_bytes())
        .field(movement.tx.as_slice())
        .field(&ordinal_bytes(&movement.ordinal))
        .field(direction.as_str().as_bytes())
        .field(movement.asset.as_bytes())
        .at(time)
}

/// What the transfers of a block can be found by if they were there before, adjustments of this block included.
pub fn marks<'a>(
    chain: &'a ChainInfo,
    watches: &'a Watches,
    at: BlockRef,
    movements: &'a [Movement],
) -> impl Iterator<Item = i64> + 'a {
    movements.iter().flat_map(move |movement| {
        let side = |address: Option<Address>, direction| {
            let watching = address.and_then(|address| watches.get(&address));
            watching.into_iter().flatten().map(move |watch| (watch, direction))
        };
        let sides = side(movement.from, Direction::Out).chain(side(movement.to, Direction::In));
        sides.flat_map(move |(watch, direction)| {
            let adjustment = (direction == Direction::Out)
                .then(|| adjustment(at, watch.address, movement.asset, Amount::ZERO));
            let own = Some(mark(chain, watch.wallet_id, movement, direction));
            let other =
                adjustment.map(|movement| mark(chain, watch.wallet_id, &movement, Direction::In));
            own.into_iter().chain(other)
        })
    })
}

/// What one movement to a wallet can be found by if it was there before.
#[must_use]
pub fn mark(chain: &ChainInfo, wallet: WalletId, movement: &Movement, direction: Direction) -> i64 {
    transfer_id(chain, wallet, movement, direction, Millis(0)).mark()
}

/// What must have come in before a block, because more left in it than was known of.
#[must_use]
pub fn adjustment(at: BlockRef, to: Address, asset: AssetKey, amount: Amount) -> Movement {
    let ordinal = Ordinal::Adjustment(at.number);
    untraced(at, ordinal, Kind::Adjustment, to, asset, amount)
}

/// The balance at a block where a watch begins; `settled`: the part that was irreversible then.
#[must_use]
pub fn opening(
    at: BlockRef,
    settled: bool,
    to: Address,
    asset: AssetKey,
    amount: Amount,
) -> Movement {
    let ordinal = if settled {
        Ordinal::OpeningSettled(at.number)
    } else {
        Ordinal::OpeningUnsettled(at.number)
    };
    untraced(at, ordinal, Kind::Opening, to, asset, amount)
}

fn untraced(
    at: BlockRef,
    ordinal: Ordinal,
    kind: Kind,
    to: Address,
    asset: AssetKey,
    amount: Amount,
) -> Movement {
    let tx = TxId::from(at.hash.0);
    Movement { tx, ordinal, kind, asset, from: None, to: Some(to), amount, memo: None }
}
