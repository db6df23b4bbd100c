//! Safes: what a receipt claims of them, and what the chain's state proves.
//!
//! Anyone can emit `ProxyCreation` and `SafeSetup`. A claim names an address worth a look; the proof is the
//! proxy's code, the singleton in its slot 0, and the owners and the threshold that it answers with.
//!
//! Whether anything beside the owners can spend, the state alone does not tell: modules are a linked list, and
//! code that ran in the proxy's own storage (another singleton at first, a delegate call while it was set up) can
//! enable one without linking it. So the logs of a proxy that a known factory made are read for that, too.
//! Before 1.3.0 the logs tell nothing of a setup: what the call of the factory was given claims the owners then, and
//! no Safe of these versions is called plain.

mod early;
mod plan;
mod releases;

use std::collections::HashMap;

use alloy::primitives::{Address as EvmAddress, B256, b256, keccak256};

use self::releases::{SETUPS, is_fallback_handler, is_proxy, made_by, version_of};
pub(super) use self::{early::owners as early_owners, plan::place, releases::all as releases};
use super::{
    decode::address as plain,
    json::{Hex, Log, Receipt},
};
use crate::chain::{
    Address, SafeCandidate, SafePlugs, SafeRejection, SafeState, TxId,
    rpc::{Answer, Call, Failure},
};

/// `ProxyCreation(address)` of the versions before 1.3.0: it indexes nothing, and names no singleton.
const EARLY_PROXY_CREATION: B256 =
    b256!("a38789425dbeee0239e16ff2d2567e31720127fbc6430758c1a4efc6aef29f80");
/// `ProxyCreation(address,address)`: 1.3.0 indexes nothing, later versions the proxy.
const PROXY_CREATION: B256 =
    b256!("4f51faf6c4561ff95f067657e43439f0f856d97c04d9ec9070a6199ad418e235");
/// `SafeSetup(address indexed,address[],uint256,address,address)`.
const SAFE_SETUP: B256 = b256!("141df868a6331af528e38c83b7aa03edc19be66e37ae67f9285bf4f8e3c6a1a8");

/// `ChangedMasterCopy(address)`: 1.4.1 indexes nothing.
const CHANGED_MASTER_COPY: B256 =
    b256!("75e41bc35ff1bf14d81d1d2f649c0084a0f974f9289c803ec9898eeec4c8d0b8");

/// Gas for a question: enough for [`SafeState::MOST_OWNERS`], and not for an answer that is too large to take.
const GAS: &str = "0x2dc6c0";

const GET_OWNERS: &str = "0xa0e67e2b";
const GET_THRESHOLD: &str = "0xe75235b8";
/// `getModulesPaginated(0x1, 16)`: from the beginning of the list, sixteen.
const GET_MODULES: &str = "0xcc2f8452\
    0000000000000000000000000000000000000000000000000000000000000001\
    0000000000000000000000000000000000000000000000000000000000000010";

/// Where the singletons keep what is plugged into a Safe; the guard of modules since 1.5.0.
fn guards() -> [B256; 2] {
    [keccak256("guard_manager.guard.address"), keccak256("module_manager.module_guard.address")]
}

fn fallback_handler() -> B256 {
    keccak256("fallback_manager.handler.address")
}

/// What a receipt claims of one proxy.
#[derive(Default)]
struct Claims {
    factory: Option<EvmAddress>,
    /// How often it was set up.
    setups: usize,
    owners: Vec<Address>,
    /// Whether code of anybody else may have run in it.
    other_code: bool,
}

impl Claims {
    fn created(&mut self, factory: EvmAddress, singleton: Option<EvmAddress>) {
        self.factory = Some(factory);
        self.takes(singleton);
    }

    /// By a factory that does not log how.
    fn created_early(&mut self, factory: EvmAddress, owners: &[EvmAddress]) {
        self.factory = Some(factory);
        self.other_code = true;
        if self.setups == 0 {
            self.owners = owners.iter().copied().map(plain).collect();
        }
    }

    fn set_up(&mut self, log: &Log<'_>) {
        let data = log.data.to_vec().unwrap_or_default();
        let initializer = word(&data, 64).map(|word| EvmAddress::from_word(B256::from(*word)));
        let known = |to: &EvmAddress| to.is_zero() || SETUPS.contains(to);
        self.other_code |= !initializer.as_ref().is_some_and(known);
        self.setups += 1;
        if self.setups == 1 {
            self.owners = addresses(&data).unwrap_or_default();
        }
    }

    fn takes(&mut self, singleton: Option<EvmAddress>) {
        self.other_code |= singleton.and_then(version_of).is_none();
    }
}

/// What a successful transaction's receipt claims. `SafeSetup` comes before the `ProxyCreation` of the same
/// Safe; it may come alone, from a proxy that no known factory made or that was made earlier. `early` are the owners
/// that the transaction's call claims, see [`early_owners`].
pub(super) fn candidates(
    tx: TxId,
    early: &[EvmAddress],
    receipt: &Receipt<'_>,
    out: &mut Vec<SafeCandidate>,
) {
    let mut claims: Vec<(EvmAddress, Claims)> = Vec::new();
    let mut places: HashMap<EvmAddress, usize> = HashMap::new();
    let mut of = |safe: EvmAddress, claim: &mut dyn FnMut(&mut Claims)| {
        let place = *places.entry(safe).or_insert_with(|| {
            claims.push((safe, Claims::default()));
            claims.len() - 1
        });
        claim(&mut claims[place].1);
    };
    for log in &receipt.logs {
        match log.topics.as_slice() {
            [SAFE_SETUP, _initiator] => of(log.address, &mut |claims| claims.set_up(log)),
            [EARLY_PROXY_CREATION] if made_by(log.address).is_some() => {
                if let Some(proxy) = log.data.to_array() {
                    let proxy = EvmAddress::from_word(B256::from(proxy));
                    of(proxy, &mut |claims| claims.created_early(log.address, early));
                }
            }
            [PROXY_CREATION, indexed @ ..] if made_by(log.address).is_some() => {
                let data = log.data.to_vec().unwrap_or_default();
                let at = |at| word(&data, at).map(|word| EvmAddress::from_word(B256::from(*word)));
                let (proxy, singleton) = match indexed {
                    [proxy] => (Some(EvmAddress::from_word(*proxy)), at(0)),
                    [] => (at(0), at(32)),
                    _ => (None, None),
                };
                if let Some(proxy) = proxy {
                    of(proxy, &mut |claims| claims.created(log.address, singleton));
                }
            }
            [CHANGED_MASTER_COPY, indexed @ ..] => {
                let singleton = match indexed {
                    [singleton] => Some(EvmAddress::from_word(*singleton)),
                    _ => log.data.to_array().map(|word| EvmAddress::from_word(B256::from(word))),
                };
                of(log.address, &mut |claims| claims.takes(singleton));
            }
            _ => {}
        }
    }
    let claimed =
        claims.into_iter().filter(|(_, claims)| claims.factory.is_some() || claims.setups > 0);
    out.extend(claimed.map(|(safe, claims)| SafeCandidate {
        tx,
        address: plain(safe),
        factory: claims.factory.map(plain),
        plain: claims.setups == 1 && !claims.other_code,
        owners: claims.owners,
    }));
}

/// What a Safe logs when it executes something or changes. One of 1.0.0 logs no success.
const RUNS: &[B256] = &[
    SAFE_SETUP,
    CHANGED_MASTER_COPY,
    // AddedOwner, RemovedOwner, ChangedThreshold
    b256!("9465fa0c962cc76958e6373a993326400c1c94f8be2fe3a952adfa7f60b2ea26"),
    b256!("f8d49fc529812e9a7c5c50e69c20f0dccc0db8fa95c98bc58cc9a4f1c1299eaf"),
    b256!("610f7ff2b304ae8903c3de74c60c6ab1f7d6226b3f52c5161905bb5ad4039c93"),
    // EnabledModule, DisabledModule
    b256!("ecdf3a3effea5783a3c4c2140e677577666428d44ed9d474a0b3a4c9943f8440"),
    b256!("aab4fa2b463f581b2b32cb3b7e3b704b9ce37cc209b5fb4d77e593ace4054276"),
    // ChangedFallbackHandler, ChangedGuard, ChangedModuleGuard
    b256!("5ac6c46c93c8d0e53714ba3b53db3e7c046da994313d7ed0d192028bc7c228b0"),
    b256!("1151116914515bc0891ff9047a6cb32cf902546f83066499bcf8ba33d2353fa2"),
    b256!("cd1966d6be16bc0c030cc741a06c6e0efaf8d00de2c8b6a9e11827e125de8bb8"),
    // ExecutionSuccess, ExecutionFailure, ExecutionFailed of 1.0.0
    b256!("442e715f626346e8c54381002da614f62bee8d27386535b2521ec8540898556e"),
    b256!("23428b18acfb3ea64b08dc0c1d296ea9c09702c09083ca5272e64d115b687d23"),
    b256!("abfd711ecdd15ae3a6b3ad16ff2e9d81aec026a39d16725ee164be4fbf857a7c"),
    // ExecutionFromModuleSuccess, ExecutionFromModuleFailure
    b256!("6895c13664aa4f67288b25d7a21d7aaa34916e355fb9b6fae0a139a9085becb8"),
    b256!("acd2c8702804128fdb0db2bb49f6d127dd0181c13fd45dbfe16de0930e2bd375"),
];

/// Whose logs are those of a Safe that ran. What their arguments say, the state says as well, whichever of them are
/// indexed.
pub(super) fn ran(receipt: &Receipt<'_>) -> impl Iterator<Item = Address> {
    let is_run = |log: &&Log<'_>| log.topics.first().is_some_and(|topic| RUNS.contains(topic));
    receipt.logs.iter().filter(is_run).map(|log| plain(log.address))
}

/// The questions whose answers [`judge`] needs, all about the same block (EIP-1898).
pub(super) fn questions(safe: EvmAddress, at: B256) -> [Call; 8] {
    let at = format!(r#"{{"blockHash":"{at}"}}"#);
    let call = |input: &str| {
        let call = format!(r#"[{{"to":"{safe:?}","data":"{input}","gas":"{GAS}"}},{at}]"#);
        Call::new("eth_call", call)
    };
    let slot = |name| slot(safe, name, &at);
    let [guard, module_guard] = guards();
    [
        Call::new("eth_getCode", format!(r#"["{safe:?}",{at}]"#)),
        slot(B256::ZERO),
        call(GET_OWNERS),
        call(GET_THRESHOLD),
        call(GET_MODULES),
        slot(guard),
        slot(module_guard),
        slot(fallback_handler()),
    ]
}

/// What is asked of a slot of the storage, at a block as [`super::state::at_block`] names it.
pub(super) fn slot(contract: EvmAddress, slot: B256, at: &str) -> Call {
    Call::new("eth_getStorageAt", format!(r#"["{contract:?}","{slot}",{at}]"#))
}

/// What the answers to [`questions`] prove.
pub(super) fn judge(
    answers: Vec<Result<Answer, Failure>>,
) -> Result<Result<SafeState, SafeRejection>, Failure> {
    let Ok([code, slot, owners, threshold, modules, guard, module_guard, handler]) =
        <[_; 8]>::try_from(answers)
    else {
        return Err(Failure::Invalid("an answer is missing".to_owned()));
    };
    let code = code?;
    let code = code.parse::<Hex<'_>>()?.to_vec().ok_or_else(malformed)?;
    if code.is_empty() {
        return Ok(Err(SafeRejection::NoCode));
    }
    if !is_proxy(keccak256(&code)) {
        return Ok(Err(SafeRejection::NotASafe));
    }
    let singleton = stored(slot)?;
    let Some(version) = version_of(singleton) else {
        return Ok(Err(SafeRejection::UnknownSingleton));
    };
    // A Safe up to 1.3.0 that was not set up reverts when it is asked for its owners.
    let (Some(owners), Some(threshold)) = (returned(owners)?, returned(threshold)?) else {
        return Ok(Err(SafeRejection::NotSetUp));
    };
    // What the proxy's storage holds was chosen by whoever deployed it: it is never the node's fault.
    let (Some(owners), Some(threshold)) = (addresses(&owners), word_as_u64(&threshold, 0)) else {
        return Ok(Err(SafeRejection::Malformed));
    };
    if threshold == 0 || owners.is_empty() {
        return Ok(Err(SafeRejection::NotSetUp));
    }
    if owners.len() > SafeState::MOST_OWNERS || threshold > owners.len() as u64 {
        return Ok(Err(SafeRejection::Malformed));
    }
    let modules = returned(modules)?;
    let (guard, module_guard, handler) = (stored(guard)?, stored(module_guard)?, stored(handler)?);
    let pure = modules.as_ref().is_some_and(|answer| no_modules(answer))
        && guard.is_zero()
        && module_guard.is_zero()
        && (handler.is_zero() || is_fallback_handler(handler));
    let plugs = SafePlugs {
        modules: modules.and_then(|answer| addresses(&answer)),
        guard: plugged(guard),
        module_guard: plugged(module_guard),
        fallback_handler: plugged(handler),
    };
    let singleton = plain(singleton);
    Ok(Ok(SafeState { version, singleton, owners, threshold, plugs, plain: pure }))
}

fn malformed() -> Failure {
    Failure::Invalid("not hexadecimal".to_owned())
}

/// What a slot names; nothing is zero.
pub(super) fn plugged(address: EvmAddress) -> Option<Address> {
    (!address.is_zero()).then(|| plain(address))
}

/// The address in a slot of the storage.
pub(super) fn stored(answer: Result<Answer, Failure>) -> Result<EvmAddress, Failure> {
    let slot = answer?.parse::<Hex<'_>>()?.to_array::<32>().ok_or_else(malformed)?;
    // More than an address is none that is known, and not zero.
    let (padding, address) = slot.split_at(12);
    Ok(if padding.iter().all(|byte| *byte == 0) {
        EvmAddress::from_slice(address)
    } else {
        EvmAddress::repeat_byte(0xff)
    })
}

/// Whether `(address[] page, address next)` is an empty list at its end. A setup that was never done leaves a
/// list without an end, and what assembled storage answers is anything.
fn no_modules(answer: &[u8]) -> bool {
    let end = word(answer, 32).map(|word| B256::from(*word));
    addresses(answer).is_some_and(|page| page.is_empty()) && end == Some(B256::with_last_byte(1))
}

/// What a call returned; `None` if it was reverted.
fn returned(answer: Result<Answer, Failure>) -> Result<Option<Vec<u8>>, Failure> {
    match answer {
        Ok(answer) => answer.parse::<Hex<'_>>()?.to_vec().map(Some).ok_or_else(malformed),
        Err(Failure::Reverted) => Ok(None),
        Err(failure) => Err(failure),
    }
}

/// The `address[]` that is the first value of ABI-encoded data.
fn addresses(data: &[u8]) -> Option<Vec<Address>> {
    Some(addresses_of(data)?.into_iter().map(plain).collect())
}

fn addresses_of(data: &[u8]) -> Option<Vec<EvmAddress>> {
    let offset = usize::try_from(word_as_u64(data, 0)?).ok()?;
    let count = usize::try_from(word_as_u64(data, offset)?).ok()?;
    let items = data.get(offset.checked_add(32)?..)?.get(..count.checked_mul(32)?)?;
    items
        .chunks_exact(32)
        .map(|word| {
            let (padding, address) = word.split_at(12);
            padding.iter().all(|byte| *byte == 0).then(|| EvmAddress::from_slice(address))
        })
        .collect()
}

/// The word that begins at that byte.
fn word(data: &[u8], at: usize) -> Option<&[u8; 32]> {
    data.get(at..at.checked_add(32)?)?.try_into().ok()
}

/// The word that begins at that byte, if it fits in 64 bits.
fn word_as_u64(data: &[u8], at: usize) -> Option<u64> {
    let (high, low) = word(data, at)?.split_at(24);
    if high.iter().any(|byte| *byte != 0) {
        return None;
    }
    Some(u64::from_be_bytes(low.try_into().ok()?))
}
