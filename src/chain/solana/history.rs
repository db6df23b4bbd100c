//! What moved for one owner in the past, from the signatures that a node lists for the owner's accounts.
//!
//! No list has everything: a transfer into a token account names its owner nowhere, so the account's own list
//! is needed, of those that were closed since, too. The lists asked for are the owner's, those of the token
//! accounts of today, those of the associated accounts, open or not, and those of every account that any of
//! these transactions shows to have been the owner's. Each list must then be without gaps: what an account has before
//! a transaction is what the one before in its list left it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::atomic::Ordering,
};

use solana_pubkey::Pubkey;
use spl_associated_token_account_interface::address::get_associated_token_address_with_program_id as associated;

use super::{
    TOKEN, TOKEN_2022, decode,
    json::{AtSlot, Head, Keyed, Listed, PastTransaction, TokenAccount, TokenBalance, Transaction},
    memo,
    source::Inner,
    verify,
};
use crate::chain::{
    Address, Block, BlockRef, Family, Header, HistoryBlock, Movement,
    rpc::{Answer, Call, Endpoint, Failure},
};

/// Signatures that a node lists at once.
const PAGE: usize = 1000;
/// Transactions of one history at most; a longer one is refused rather than half kept.
const LONGEST: usize = 200_000;

/// A transaction's place: its slot, and its signature.
type Place = (u64, String);

/// The lists of one owner's accounts, each oldest first, and the transactions in them.
#[derive(Default)]
struct Lists {
    places: HashMap<Address, Vec<Place>>,
    answers: BTreeMap<Place, Answer>,
}

impl Inner {
    /// The movements of `owner` in the blocks from `from` to `to`, oldest first.
    pub async fn history(
        &self,
        node: &Endpoint,
        owner: Address,
        tokens: &[Address],
        from: u64,
        to: BlockRef,
    ) -> Result<Vec<HistoryBlock>, Failure> {
        let mut lists = Lists::default();
        let mut wanted: BTreeSet<Address> = self.accounts_of(node, owner, tokens).await?;
        wanted.insert(owner);
        while let Some(account) = wanted.pop_first() {
            if lists.places.contains_key(&account) {
                continue;
            }
            let places = self.signatures(node, account, from, to.number).await?;
            let unknown: Vec<Place> = places
                .iter()
                .filter(|place| !lists.answers.contains_key(*place))
                .cloned()
                .collect();
            if lists.answers.len() + unknown.len() > LONGEST {
                return Err(Failure::Refused(format!(
                    "the history has more than {LONGEST} transactions: begin it at a later block"
                )));
            }
            for (place, answer) in self.transactions(node, unknown).await? {
                wanted.extend(token_accounts(&answer, owner)?);
                lists.answers.insert(place, answer);
            }
            lists.places.insert(account, places);
        }
        for (account, places) in &lists.places {
            without_gaps(*account, places, &lists.answers).inspect_err(|failure| {
                if let Failure::Untrusted { check, .. } = failure {
                    self.count(check);
                }
            })?;
        }
        let slots: BTreeSet<u64> = lists.answers.keys().map(|(slot, _)| *slot).collect();
        let headers = self.headers(node, slots).await?;
        if headers.get(&to.number).is_some_and(|header| header.at != to) {
            return Err(Failure::NotThere(format!("slot {} holds another block", to.number)));
        }
        let mut history_blocks: BTreeMap<u64, HistoryBlock> = BTreeMap::new();
        for ((slot, _), answer) in &lists.answers {
            let Some(header) = headers.get(slot) else { continue };
            let past = history_blocks.entry(*slot).or_insert_with(|| HistoryBlock::empty(*header));
            past.movements.extend(movements(answer, *header, owner)?);
        }
        Ok(history_blocks.into_values().filter(|past| !past.movements.is_empty()).collect())
    }

    /// The owner's token accounts of today, and the associated accounts of the configured mints.
    async fn accounts_of(
        &self,
        node: &Endpoint,
        owner: Address,
        tokens: &[Address],
    ) -> Result<BTreeSet<Address>, Failure> {
        let mut accounts = BTreeSet::new();
        let calls = [TOKEN, TOKEN_2022].map(|program| {
            let owner = Family::Solana.format_address(&owner);
            Call::new(
                "getTokenAccountsByOwner",
                format!(
                    r#"["{owner}",{{"programId":"{program}"}},{{"encoding":"jsonParsed","commitment":"confirmed"}}]"#
                ),
            )
        });
        for answer in node.batch(&calls).await? {
            let answer = answer?;
            let AtSlot { value, .. } = answer.parse::<AtSlot<Vec<Keyed<TokenAccount>>>>()?;
            for keyed in value {
                accounts.insert(Address::from(decode::key(&keyed.pubkey)?));
            }
        }
        let owner = pubkey(&owner)?;
        for token in tokens {
            let Some(facts) = self.mint(node, *token).await? else { continue };
            let program = Pubkey::new_from_array(decode::key(facts.program)?);
            accounts
                .insert(Address::from(associated(&owner, &pubkey(token)?, &program).to_bytes()));
        }
        Ok(accounts)
    }

    /// An account's transactions of the slots from `from` to `to`, oldest first.
    async fn signatures(
        &self,
        node: &Endpoint,
        account: Address,
        from: u64,
        to: u64,
    ) -> Result<Vec<Place>, Failure> {
        let account = Family::Solana.format_address(&account);
        let mut places: Vec<Place> = Vec::new();
        let mut before: Option<Place> = None;
        let mut seen = 0;
        loop {
            let cursor = before
                .as_ref()
                .map_or_else(String::new, |(_, last)| format!(r#","before":"{last}""#));
            let params =
                format!(r#"["{account}",{{"limit":{PAGE},"commitment":"confirmed"{cursor}}}]"#);
            let answer = node.call(Call::new("getSignaturesForAddress", params)).await?;
            let page: Vec<Listed> = answer.parse()?;
            let full = page.len() >= PAGE;
            seen += page.len();
            // Else a node that turns in a circle would be asked for ever.
            let turns = page
                .last()
                .zip(before.as_ref())
                .is_some_and(|(now, (_, last))| now.signature == *last);
            if turns || seen > 2 * LONGEST {
                return Err(Failure::Invalid("a list of signatures without an end".to_owned()));
            }
            for listed in page {
                let newest_first = before.as_ref().is_none_or(|(slot, _)| listed.slot <= *slot);
                if !newest_first {
                    return Err(Failure::Invalid(
                        "signatures are not listed newest first".to_owned(),
                    ));
                }
                let place = (listed.slot, listed.signature);
                if (from..=to).contains(&place.0) {
                    places.push(place.clone());
                }
                before = Some(place);
            }
            let older = before.as_ref().is_some_and(|(slot, _)| *slot < from);
            if !full || older || places.len() > LONGEST {
                places.reverse();
                return Ok(places);
            }
        }
    }

    async fn transactions(
        &self,
        node: &Endpoint,
        places: Vec<Place>,
    ) -> Result<Vec<(Place, Answer)>, Failure> {
        let version = self.version.load(Ordering::Relaxed);
        let calls: Vec<Call> = places
            .iter()
            .map(|(_, signature)| {
                Call::new(
                    "getTransaction",
                    format!(
                        r#"["{signature}",{{"encoding":"jsonParsed","commitment":"confirmed","maxSupportedTransactionVersion":{version}}}]"#
                    ),
                )
            })
            .collect();
        let mut answers = Vec::with_capacity(places.len());
        for (place, answer) in places.into_iter().zip(node.batch(&calls).await?) {
            let answer = answer?;
            let slot = answer.parse::<Option<PastTransaction<'_>>>()?.map(|past| past.slot);
            if slot != Some(place.0) {
                return Err(Failure::NotThere(format!("the transaction {}", place.1)));
            }
            answers.push((place, answer));
        }
        Ok(answers)
    }

    async fn headers(
        &self,
        node: &Endpoint,
        slots: BTreeSet<u64>,
    ) -> Result<HashMap<u64, Header>, Failure> {
        let version = self.version.load(Ordering::Relaxed);
        let calls: Vec<Call> = slots
            .iter()
            .map(|slot| {
                Call::new(
                    "getBlock",
                    format!(
                        r#"[{slot},{{"encoding":"json","transactionDetails":"none","rewards":false,"commitment":"confirmed","maxSupportedTransactionVersion":{version}}}]"#
                    ),
                )
            })
            .collect();
        let answers = node.batch(&calls).await?;
        slots
            .into_iter()
            .zip(answers)
            .map(|(slot, answer)| {
                let answer = answer?;
                if answer.is_null() {
                    return Err(Failure::NotThere(format!("the block of slot {slot}")));
                }
                let head = verify::header(slot, answer.parse::<Head<'_>>()?)?;
                Ok((slot, decode::header(&head)?))
            })
            .collect()
    }
}

fn pubkey(address: &Address) -> Result<Pubkey, Failure> {
    Pubkey::try_from(address.as_slice())
        .map_err(|_| Failure::Refused("an address of another family".to_owned()))
}

fn transaction(answer: &Answer) -> Result<Transaction<'_>, Failure> {
    answer.parse::<PastTransaction<'_>>().map(Transaction::from)
}

/// The token accounts that a transaction shows as the owner's, before or after it.
fn token_accounts(answer: &Answer, owner: Address) -> Result<BTreeSet<Address>, Failure> {
    let tx = transaction(answer)?;
    let verified = verify::transaction(&tx)?;
    let sides = [&verified.meta.pre_token_balances, &verified.meta.post_token_balances];
    let mut accounts = BTreeSet::new();
    for held in sides.into_iter().flatten().flatten() {
        if Address::from(decode::key(held.owner)?) == owner
            && let Some(key) = tx.transaction.account_keys.get(held.account_index)
        {
            accounts.insert(Address::from(decode::key(key.pubkey)?));
        }
    }
    Ok(accounts)
}

/// The owner's movements of one transaction, with its memo.
fn movements(answer: &Answer, header: Header, owner: Address) -> Result<Vec<Movement>, Failure> {
    let tx = transaction(answer)?;
    let mut block = Block::empty(header);
    decode::transaction(&verify::transaction(&tx)?, &mut block)?;
    block.retain_watched(|address| *address == owner);
    for id in std::mem::take(&mut block.unread_memos) {
        memo::write(&mut block, id, memo::text(&answer.parse()?).as_deref());
    }
    Ok(block.movements)
}

/// Whether each transaction of an account's list begins with what the one before left the account.
fn without_gaps(
    account: Address,
    places: &[Place],
    answers: &BTreeMap<Place, Answer>,
) -> Result<(), Failure> {
    let text = Family::Solana.format_address(&account);
    let mut left: Option<(u64, Option<(String, u64)>)> = None;
    for place in places {
        let Some(answer) = answers.get(place) else { continue };
        let tx = transaction(answer)?;
        let verified = verify::transaction(&tx)?;
        let (keys, meta) = (&tx.transaction.account_keys, verified.meta);
        let Some(index) = keys.iter().position(|key| key.pubkey == text) else {
            return Err(Failure::untrusted(
                "history_complete",
                format!("the transaction {} does not name {text}", place.1),
            ));
        };
        let lamports = |list: &[u64]| list.get(index).copied().unwrap_or_default();
        let tokens = |list: &Option<Vec<TokenBalance<'_>>>| {
            let held = list.iter().flatten().find(|held| held.account_index == index)?;
            Some((held.mint.to_owned(), held.amount.amount))
        };
        // Token balances are only shown where a token program is named.
        let shows_tokens = keys.iter().any(|key| key.pubkey == TOKEN || key.pubkey == TOKEN_2022);
        if let Some((lamports_left, tokens_left)) = &left {
            let fits = *lamports_left == lamports(&meta.pre_balances)
                && (!shows_tokens || *tokens_left == tokens(&meta.pre_token_balances));
            if !fits {
                return Err(Failure::untrusted(
                    "history_complete",
                    format!("something between is missing before {} of {text}", place.1),
                ));
            }
        }
        let tokens_left = if shows_tokens {
            tokens(&meta.post_token_balances)
        } else {
            left.and_then(|(_, tokens)| tokens)
        };
        left = Some((lamports(&meta.post_balances), tokens_left));
    }
    Ok(())
}
