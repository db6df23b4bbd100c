//! Balances as after one block, from a node that only knows its newest state.
//!
//! A node answers about accounts as they are now, and says of which slot that is. What the blocks after the
//! wanted one have moved is taken back from it: exact, and provably so, because those blocks must link the
//! wanted block, by its hash, to the slot of the answer.
//!
//! Only the confirmed state is asked for. Of the finalized one a node may say an older slot than it is of:
//! token accounts are looked for in its newest root, which runs ahead of what it calls finalized.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, hash_map::Entry},
    sync::Arc,
};

use alloy::primitives::U256;
use parking_lot::Mutex;

use super::{
    TOKEN, TOKEN_2022,
    json::{AtSlot, Keyed, Lamports, Mint, Parsed, TokenAccount},
    source::Inner,
};
use crate::{
    amount::Amount,
    chain::{
        Address, AssetKey, BalanceQuery, Block, BlockRef, ChainBalance, Family,
        rpc::{Answer, Answers, Call, Endpoint, Failure},
    },
};

/// How many slots the state of a node may be ahead of the block that is asked about.
pub(super) const MAX_AHEAD: u64 = 96;
/// Blocks whose sums are kept, about a megabyte each on a busy cluster.
const REMEMBERED: usize = 96;
/// Accounts that `getMultipleAccounts` takes at once.
const ACCOUNTS_AT_ONCE: usize = 100;

/// What is remembered of a mint: neither ever changes.
#[derive(Clone, Copy, Debug)]
pub(super) struct MintFacts {
    pub decimals: u8,
    /// The token program that it belongs to.
    pub program: &'static str,
}

/// The mints that were asked for, as far as they exist.
#[derive(Default)]
pub(super) struct Mints(Mutex<HashMap<Address, MintFacts>>);

/// What one block moved, per address and asset: base units gained, less those lost. A Solana balance is below
/// 2^64, and a block moves each of them a few thousand times at most.
pub(super) struct Moved {
    at: BlockRef,
    parent: BlockRef,
    sums: HashMap<(Address, AssetKey), i128>,
}

/// The sums of blocks lately asked for, by slot.
#[derive(Default)]
pub(super) struct Recent(Mutex<BTreeMap<u64, Arc<Moved>>>);

impl Moved {
    fn new(block: &Block) -> Result<Self, Failure> {
        let mut sums: HashMap<(Address, AssetKey), i128> = HashMap::new();
        let overflow = || Failure::untrusted("amount_overflow", "an amount is over 64 bits");
        for movement in &block.movements {
            let amount = u64::try_from(movement.amount.get()).map_err(|_| overflow())?;
            for (who, change) in
                [(movement.to, i128::from(amount)), (movement.from, -i128::from(amount))]
            {
                if let Some(who) = who {
                    *sums.entry((who, movement.asset)).or_default() += change;
                }
            }
        }
        sums.retain(|_, change| *change != 0);
        sums.shrink_to_fit();
        Ok(Self { at: block.header.at, parent: block.header.parent, sums })
    }
}

/// The balance before `change`; `None` if there is no such balance.
fn undo(balance: Amount, change: i128) -> Option<Amount> {
    let amount = Amount::new(U256::from(change.unsigned_abs()));
    if change < 0 { balance.checked_add(amount) } else { balance.checked_sub(amount) }
}

impl Inner {
    /// What the queries' addresses hold after exactly the block `at`.
    pub async fn balances(
        &self,
        node: &Endpoint,
        at: BlockRef,
        queries: &[BalanceQuery],
    ) -> Result<Vec<ChainBalance>, Failure> {
        let mut natives: BTreeSet<Address> = BTreeSet::new();
        let mut owners: BTreeSet<(Address, &'static str)> = BTreeSet::new();
        self.learn_mints(node, queries).await?;
        for query in queries {
            match query.asset {
                AssetKey::Native => {
                    natives.insert(query.address);
                }
                AssetKey::Token(mint) => {
                    // A mint that no node tells is looked for among what the owner has of both programs.
                    let program = self.known_mint(mint).map(|mint| mint.program);
                    let programs = program.map_or_else(|| vec![TOKEN, TOKEN_2022], |one| vec![one]);
                    owners.extend(programs.into_iter().map(|program| (query.address, program)));
                }
            }
        }
        let natives: Vec<Address> = natives.into_iter().collect();
        let chunks: Vec<&[Address]> = natives.chunks(ACCOUNTS_AT_ONCE).collect();
        let mut calls: Vec<Call> = chunks.iter().map(|chunk| lamports_of(chunk, at)).collect();
        calls.extend(owners.iter().map(|(owner, program)| tokens_of(owner, program, at)));
        let mut answers = node.batch(&calls).await?.into_iter();
        let mut held: HashMap<(Address, AssetKey), (ChainBalance, u64)> = HashMap::new();
        for chunk in chunks {
            let answer = next(&mut answers)?;
            let AtSlot { context, value } = answer.parse::<AtSlot<Vec<Option<Lamports>>>>()?;
            if value.len() != chunk.len() {
                return Err(Failure::Invalid("accounts were left out".to_owned()));
            }
            for (owner, account) in chunk.iter().zip(value) {
                let lamports = account.map_or(0, |account| account.lamports);
                let holding = ChainBalance::from(Amount::from(lamports));
                held.insert((*owner, AssetKey::Native), (holding, context.slot));
            }
        }
        // Which slot each owner's tokens of a program were read at, for those that the owner has none of.
        let mut read_at: HashMap<(Address, &'static str), u64> = HashMap::new();
        for (owner, program) in &owners {
            let answer = next(&mut answers)?;
            let AtSlot { context, value } = answer.parse::<AtSlot<Vec<Keyed<TokenAccount>>>>()?;
            read_at.insert((*owner, program), context.slot);
            for Keyed { account, .. } in value {
                add_token_account(&mut held, owner, &account.data.parsed.info, context.slot)?;
            }
        }
        let mut holdings = Vec::with_capacity(queries.len());
        let mut paths: HashMap<u64, Vec<Arc<Moved>>> = HashMap::new();
        for query in queries {
            let key = (query.address, query.asset);
            let nothing = || {
                let AssetKey::Token(mint) = query.asset else { return None };
                let slot = read_at.get(&(query.address, self.known_mint(mint)?.program))?;
                Some((ChainBalance::default(), *slot))
            };
            let Some((mut holding, slot)) = held.get(&key).copied().or_else(nothing) else {
                // The node does not tell its mint, and shows none of it: that is not the same as nothing held.
                holdings.push(ChainBalance { unreadable: true, ..ChainBalance::default() });
                continue;
            };
            let path = match paths.entry(slot) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(unknown) => unknown.insert(self.path(node, at, slot).await?),
            };
            for moved in path {
                let Some(change) = moved.sums.get(&key) else { continue };
                holding.total = undo(holding.total, *change).ok_or_else(|| {
                    self.count("state_and_blocks");
                    Failure::untrusted(
                        "state_and_blocks",
                        format!("a balance of slot {slot} is below what came in since"),
                    )
                })?;
            }
            holding.frozen = holding.frozen.min(holding.total);
            holdings.push(holding);
        }
        Ok(holdings)
    }

    /// What the blocks after `at` have moved, newest first, up to the block of the slot `to`.
    async fn path(
        &self,
        node: &Endpoint,
        at: BlockRef,
        to: u64,
    ) -> Result<Vec<Arc<Moved>>, Failure> {
        if to < at.number {
            return Err(Failure::Refused("the node has not reached the block yet".to_owned()));
        }
        if to == at.number {
            let header = self.header(node, to).await?;
            return if header.at == at { Ok(Vec::new()) } else { Err(other_branch(at)) };
        }
        if to - at.number > MAX_AHEAD {
            return Err(Failure::NotThere(format!(
                "the node's state is of slot {to}, too far above {}",
                at.number
            )));
        }
        let mut path = Vec::new();
        let mut wanted = BlockRef { number: to, hash: self.header(node, to).await?.at.hash };
        while wanted.number > at.number {
            let known = self.recent.0.lock().get(&wanted.number).cloned();
            let moved = match known.filter(|moved| moved.at == wanted) {
                Some(moved) => moved,
                None => self.moved(node, wanted).await?,
            };
            wanted = moved.parent;
            path.push(moved);
        }
        if wanted == at { Ok(path) } else { Err(other_branch(at)) }
    }

    async fn moved(&self, node: &Endpoint, at: BlockRef) -> Result<Arc<Moved>, Failure> {
        self.remember(&self.block(node, at).await?)
    }

    /// Keeps what a block near the head has moved: questions about the blocks below it will need it.
    pub fn remember(&self, block: &Block) -> Result<Arc<Moved>, Failure> {
        let moved = Arc::new(Moved::new(block)?);
        let mut recent = self.recent.0.lock();
        recent.insert(moved.at.number, Arc::clone(&moved));
        while recent.len() > REMEMBERED {
            recent.pop_first();
        }
        Ok(moved)
    }

    fn known_mint(&self, mint: Address) -> Option<MintFacts> {
        self.mints.0.lock().get(&mint).copied()
    }

    async fn learn_mints(&self, node: &Endpoint, queries: &[BalanceQuery]) -> Result<(), Failure> {
        let unknown: BTreeSet<Address> = queries
            .iter()
            .filter_map(|query| match query.asset {
                AssetKey::Token(mint) => Some(mint),
                AssetKey::Native => None,
            })
            .filter(|mint| self.known_mint(*mint).is_none())
            .collect();
        for mint in unknown {
            self.mint(node, mint).await?;
        }
        Ok(())
    }

    /// What the chain says of a mint; `None` if there is none at that address.
    pub async fn mint(&self, node: &Endpoint, mint: Address) -> Result<Option<MintFacts>, Failure> {
        if let Some(known) = self.known_mint(mint) {
            return Ok(Some(known));
        }
        let told = self.told_mint(node, mint).await?;
        if let Some(facts) = told {
            self.mints.0.lock().insert(mint, facts);
        }
        Ok(told)
    }

    /// What a node says of a mint, whatever is known of it.
    pub async fn told_mint(
        &self,
        node: &Endpoint,
        mint: Address,
    ) -> Result<Option<MintFacts>, Failure> {
        let text = Family::Solana.format_address(&mint);
        let params = format!(r#"["{text}",{{"encoding":"jsonParsed","commitment":"confirmed"}}]"#);
        let answer = node.call(Call::new("getAccountInfo", params)).await?;
        // Another kind of account has other fields, or none: it is no mint.
        let Ok(AtSlot { value: Some(account), .. }) =
            answer.parse::<AtSlot<Option<Parsed<Mint>>>>()
        else {
            return Ok(None);
        };
        let Some(program) = [TOKEN, TOKEN_2022].into_iter().find(|known| account.owner == *known)
        else {
            return Ok(None);
        };
        Ok(Some(MintFacts { decimals: account.data.parsed.info.decimals, program }))
    }
}

fn next(answers: &mut <Answers as IntoIterator>::IntoIter) -> Result<Answer, Failure> {
    answers.next().unwrap_or_else(|| Err(Failure::Invalid("an answer is missing".to_owned())))
}

fn other_branch(at: BlockRef) -> Failure {
    Failure::NotThere(format!("the node's chain does not contain the block of slot {}", at.number))
}

pub(super) fn add_token_account(
    held: &mut HashMap<(Address, AssetKey), (ChainBalance, u64)>,
    owner: &Address,
    account: &TokenAccount,
    slot: u64,
) -> Result<(), Failure> {
    let invalid = |what: &str| Failure::Invalid(format!("{what} of a token account"));
    let parse = |text: &str| Family::Solana.parse_address(text).ok();
    // The same program can hold accounts of the owner's for somebody else's tokens; the node was asked by owner.
    if parse(&account.owner).as_ref() != Some(owner) {
        return Err(invalid("another owner"));
    }
    let mint = parse(&account.mint).ok_or_else(|| invalid("the mint"))?;
    let amount: u64 = account.token_amount.amount.parse().map_err(|_| invalid("the amount"))?;
    let amount = Amount::from(amount);
    let (holding, _) =
        held.entry((*owner, AssetKey::Token(mint))).or_insert((ChainBalance::default(), slot));
    holding.total = holding.total.checked_add(amount).ok_or_else(|| invalid("the amount"))?;
    if account.state == "frozen" {
        holding.frozen = holding.frozen.checked_add(amount).ok_or_else(|| invalid("the amount"))?;
    }
    Ok(())
}

fn lamports_of(accounts: &[Address], at: BlockRef) -> Call {
    let list: Vec<String> = accounts
        .iter()
        .map(|account| format!(r#""{}""#, Family::Solana.format_address(account)))
        .collect();
    Call::new(
        "getMultipleAccounts",
        format!(
            r#"[[{}],{{"encoding":"base64","dataSlice":{{"offset":0,"length":0}},"commitment":"confirmed","minContextSlot":{}}}]"#,
            list.join(","),
            at.number
        ),
    )
}

fn tokens_of(owner: &Address, program: &str, at: BlockRef) -> Call {
    Call::new(
        "getTokenAccountsByOwner",
        format!(
            r#"["{}",{{"programId":"{program}"}},{{"encoding":"jsonParsed","commitment":"confirmed","minContextSlot":{}}}]"#,
            Family::Solana.format_address(owner),
            at.number
        ),
    )
}
