//! What is in a scripted block, and what is held after it.

use super::*;

/// What becomes of blocks that are asked for by their hashes.
#[derive(Debug, Default)]
pub(in crate::follow::tests) struct ByHash {
    /// How many were asked for.
    pub asked: u32,
    /// None is given.
    pub refused: bool,
    /// What is read of those of a height: so much in each movement.
    pub amounts: HashMap<u64, u64>,
}

impl ByHash {
    pub fn alter(&self, mut block: Block) -> Block {
        if let Some(amount) = self.amounts.get(&block.header.at.number) {
            block.movements.iter_mut().for_each(|movement| movement.amount = (*amount).into());
        }
        block
    }
}

/// How a second endpoint differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::follow::tests) enum Second {
    Same,
    /// Another block at each height.
    OtherBranch,
    /// This many blocks fewer are settled.
    Behind(u64),
}

pub(super) fn balances(state: &State, at: BlockRef, queries: &[BalanceQuery]) -> Vec<Amount> {
    let mut sums: BTreeMap<(Address, AssetKey), i128> = BTreeMap::new();
    for header in state.chain.iter().take_while(|header| header.at.number <= at.number) {
        for payment in &state.all[&header.at.hash].1 {
            let amount = i128::from(payment.amount);
            if let Some(from) = payment.from {
                *sums.entry((from, payment.asset)).or_default() -= amount;
            }
            if let Some(to) = payment.to {
                *sums.entry((to, payment.asset)).or_default() += amount;
            }
        }
    }
    queries
        .iter()
        .map(|query| {
            let sum = sums.get(&(query.address, query.asset)).copied().unwrap_or_default();
            Amount::from(u64::try_from(sum).expect("an honest history"))
        })
        .collect()
}

pub(super) fn tx(number: u64) -> TxId {
    let mut bytes = [0xaa; 32];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    TxId::from(bytes)
}

pub(super) fn shown<'a>(state: &State, hash: &BlockHash, payments: &'a [Payment]) -> &'a [Payment] {
    if state.hidden.contains(hash) { &[] } else { payments }
}

/// A header as it is on the branch below a height.
pub(super) fn branch(mut header: Header, below: u64) -> Header {
    if header.at.number < below {
        header.at.hash.0[31] ^= 1;
        header.parent.hash.0[31] ^= 1;
    }
    header
}

pub(super) fn block(
    state: &State,
    hash: &BlockHash,
    header: Header,
    payments: &[Payment],
) -> Block {
    let internal = state.internal.contains(hash);
    let is_shown = |payment: &&Payment| !internal || payment.asset != AssetKey::Native;
    let fact = |payment: &Payment| TxFact {
        tx: tx(payment.tx),
        sender: payment.from.unwrap_or(Address::from([1; 20])),
        nonce: None,
        success: true,
    };
    let logged = state.logged.get(hash).into_iter().flatten();
    Block {
        movements: payments.iter().filter(is_shown).map(movement).chain(logged.cloned()).collect(),
        transactions: payments.iter().map(fact).collect(),
        traced: if internal { Traced::Not } else { Traced::Whole },
        ..Block::empty(header)
    }
}

fn movement(payment: &Payment) -> Movement {
    Movement {
        tx: tx(payment.tx),
        ordinal: Ordinal::Tx,
        kind: Kind::Transfer,
        asset: payment.asset,
        from: payment.from,
        to: payment.to,
        amount: Amount::from(payment.amount),
        memo: None,
    }
}

/// What only a trace of the block shows.
pub(super) fn calls(state: &State, hash: &BlockHash) -> Vec<Movement> {
    let payments = state.all.get(hash).filter(|_| state.internal.contains(hash));
    let native = |payment: &&Payment| payment.asset == AssetKey::Native;
    let call = |payment: &Payment| Movement {
        ordinal: Ordinal::Trace(vec![0]),
        kind: Kind::Internal,
        ..movement(payment)
    };
    let told = payments.into_iter().flat_map(|(_, all)| all.iter().filter(native).map(call));
    let mut calls: Vec<Movement> = told.collect();
    if let Some((_, to)) = state.overflowing.filter(|(block, _)| block == hash) {
        let one = Payment { tx: 1, from: None, to: Some(to), asset: AssetKey::Native, amount: 0 };
        let at = |step| Ordinal::Trace(vec![7, step]);
        let call = |step| Movement { ordinal: at(step), amount: Amount::MAX, ..call(&one) };
        calls.extend([call(0), call(1)]);
    }
    calls
}

impl Scripted {
    /// The blocks since `from` in which an address gained or lost something, once for each time.
    pub fn heights_of(&self, address: Address, from: u64) -> Vec<u64> {
        self.heights(address, from, |_| true)
    }

    /// The same, of one asset.
    pub fn heights_of_asset(&self, address: Address, asset: AssetKey, from: u64) -> Vec<u64> {
        self.heights(address, from, |other| other == asset)
    }

    fn heights(&self, address: Address, from: u64, of: impl Fn(AssetKey) -> bool) -> Vec<u64> {
        let state = self.state.lock();
        let mut heights = Vec::new();
        for header in state.chain.iter().filter(|header| header.at.number >= from) {
            for payment in &state.all[&header.at.hash].1 {
                if payment.amount > 0 && of(payment.asset) {
                    let sides = [payment.from, payment.to].into_iter().flatten();
                    let touched = sides.filter(|side| *side == address).count();
                    heights.extend(std::iter::repeat_n(header.at.number, touched));
                }
            }
        }
        heights
    }
}

#[async_trait]
impl LogIndex for Scripted {
    async fn blocks_with_transfers(
        &self,
        tokens: &[Address],
        addresses: &[Address],
        from: u64,
        to: u64,
    ) -> Result<Vec<BlockRef>, SourceError> {
        let state = self.call()?;
        let concerns = |payment: &Payment| {
            let token = tokens.iter().any(|token| payment.asset == AssetKey::Token(*token));
            let owner = |who: Option<Address>| who.is_some_and(|who| addresses.contains(&who));
            token && (owner(payment.from) || owner(payment.to))
        };
        let found = state.chain.iter().rev().filter(|header| {
            (from..=to).contains(&header.at.number)
                && !state.unindexed.contains(&header.at.number)
                && state.all[&header.at.hash].1.iter().any(concerns)
        });
        Ok(found.map(|header| header.at).collect())
    }

    async fn blocks_of(&self, at: &[BlockRef]) -> Result<Vec<Block>, SourceError> {
        let mut state = self.call()?;
        state.read.extend(at.iter().map(|at| (at.number, at.number)));
        Ok(at
            .iter()
            .map(|at| {
                let (header, payments) = &state.all[&at.hash];
                block(&state, &at.hash, *header, payments)
            })
            .collect())
    }
}
