//! Safes: what a receipt claims of them, and what the chain's state proves.
//!
//! Anyone can emit `ProxyCreation` and `SafeSetup`. A claim names an address worth a look; the proof is the
//! proxy's code, the singleton in its slot 0, and the owners and the threshold that it answers with.
//! Addresses and code hashes are those of the Safe deployments repository, for the versions from 1.3.0.

use alloy::primitives::{Address as EvmAddress, B256, address, b256, keccak256};

use super::{
    decode::address as plain,
    json::{Hex, Receipt},
};
use crate::chain::{
    Address, SafeCandidate, SafeRejection, SafeState, TxId,
    rpc::{Answer, Call, Failure},
};

/// `ProxyCreation(address,address)`: 1.3.0 indexes nothing, later versions the proxy.
const PROXY_CREATION: B256 =
    b256!("4f51faf6c4561ff95f067657e43439f0f856d97c04d9ec9070a6199ad418e235");
/// `SafeSetup(address indexed,address[],uint256,address,address)`.
const SAFE_SETUP: B256 = b256!("141df868a6331af528e38c83b7aa03edc19be66e37ae67f9285bf4f8e3c6a1a8");

const FACTORIES: &[EvmAddress] = &[
    address!("a6B71E26C5e0845f74c812102Ca7114b6a896AB2"), // 1.3.0
    address!("C22834581EbC8527d974F8a1c97E1bEA4EF910BC"), // 1.3.0 eip155
    address!("4e1DCf7AD4e460CfD30791CCC4F9c8a4f820ec67"), // 1.4.1
    address!("14F2982D601c9458F93bd70B218933A6f8165e7b"), // 1.5.0
];

/// keccak256 of a proxy's runtime code.
const PROXIES: &[B256] = &[
    b256!("b89c1b3bdf2cf8827818646bce9a8f6e372885f8c55e5c07acbd307cb133b000"), // 1.3.0
    b256!("d7d408ebcd99b2b70be43e20253d6d92a8ea8fab29bd3be7f55b10032331fb4c"), // 1.4.1
    b256!("4e381985ca68b3e5d27b4425fa581c19cf33146d3f887a3cfca96f55528ea46f"), // 1.5.0
];

const SINGLETONS: &[(EvmAddress, &str)] = &[
    (address!("d9Db270c1B5E3Bd161E8c8503c55cEABeE709552"), "1.3.0"),
    (address!("3E5c63644E683549055b9Be8653de26E0B4CD36E"), "1.3.0"), // L2
    (address!("69f4D1788e39c87893C980c06EdF4b7f686e2938"), "1.3.0"), // eip155
    (address!("fb1bffC9d739B8D520DaF37dF666da4C687191EA"), "1.3.0"), // eip155, L2
    (address!("41675C099F32341bf84BFc5382aF534df5C7461a"), "1.4.1"),
    (address!("29fcB43b46531BcA003ddC8FCB67FFE91900C762"), "1.4.1"), // L2
    (address!("Ff51A5898e281Db6DfC7855790607438dF2ca44b"), "1.5.0"),
    (address!("EdD160fEBBD92E350D4D398fb636302fccd67C7e"), "1.5.0"), // L2
];

/// Owners of a Safe at most. Safes of persons and firms have a few.
const MAX_OWNERS: usize = 256;
/// Gas for a question: enough for so many owners, and not for an answer that is too large to take.
const GAS: &str = "0x2dc6c0";

const GET_OWNERS: &str = "0xa0e67e2b";
const GET_THRESHOLD: &str = "0xe75235b8";

/// What a successful transaction's receipt claims. `SafeSetup` comes before the `ProxyCreation` of the same
/// Safe; it may come alone, from a proxy that no known factory made or that was made earlier.
pub(super) fn candidates(tx: TxId, receipt: &Receipt<'_>, out: &mut Vec<SafeCandidate>) {
    let first = out.len();
    for log in &receipt.logs {
        let (safe, factory, owners) = match log.topics.as_slice() {
            [SAFE_SETUP, _initiator] => {
                let owners = log.data.to_vec().and_then(|data| addresses(&data));
                (log.address, None, owners.unwrap_or_default())
            }
            [PROXY_CREATION, indexed @ ..] if FACTORIES.contains(&log.address) => {
                let proxy = match indexed {
                    [proxy] => Some(EvmAddress::from_word(*proxy)),
                    [] => log.data.to_array::<64>().and_then(|data| {
                        B256::try_from(&data[..32]).ok().map(EvmAddress::from_word)
                    }),
                    _ => None,
                };
                let Some(proxy) = proxy else { continue };
                (proxy, Some(plain(log.address)), Vec::new())
            }
            _ => continue,
        };
        let address = plain(safe);
        if let Some(known) = out[first..].iter_mut().find(|known| known.address == address) {
            known.factory = known.factory.or(factory);
            if known.owners.is_empty() {
                known.owners = owners;
            }
        } else {
            out.push(SafeCandidate { tx, address, factory, owners });
        }
    }
}

/// The questions whose answers [`judge`] needs, all about the same block (EIP-1898).
pub(super) fn questions(safe: EvmAddress, at: B256) -> [Call; 4] {
    let at = format!(r#"{{"blockHash":"{at}"}}"#);
    let call = |input: &str| {
        let call = format!(r#"[{{"to":"{safe:?}","data":"{input}","gas":"{GAS}"}},{at}]"#);
        Call::new("eth_call", call)
    };
    [
        Call::new("eth_getCode", format!(r#"["{safe:?}",{at}]"#)),
        Call::new("eth_getStorageAt", format!(r#"["{safe:?}","{}",{at}]"#, B256::ZERO)),
        call(GET_OWNERS),
        call(GET_THRESHOLD),
    ]
}

/// What the answers to [`questions`] prove.
pub(super) fn judge(
    answers: Vec<Result<Answer, Failure>>,
) -> Result<Result<SafeState, SafeRejection>, Failure> {
    let Ok([code, slot, owners, threshold]) = <[_; 4]>::try_from(answers) else {
        return Err(Failure::Invalid("an answer is missing".to_owned()));
    };
    let malformed = || Failure::Invalid("not hexadecimal".to_owned());
    let code = code?;
    let code = code.parse::<Hex<'_>>()?.to_vec().ok_or_else(malformed)?;
    if code.is_empty() {
        return Ok(Err(SafeRejection::NoCode));
    }
    if !PROXIES.contains(&keccak256(&code)) {
        return Ok(Err(SafeRejection::NotASafe));
    }
    let slot = slot?;
    let slot = slot.parse::<Hex<'_>>()?.to_array::<32>().ok_or_else(malformed)?;
    let singleton = EvmAddress::from_word(B256::from(slot));
    let Some((singleton, version)) = SINGLETONS.iter().find(|(known, _)| *known == singleton)
    else {
        return Ok(Err(SafeRejection::UnknownSingleton));
    };
    // A Safe of 1.3.0 that was not set up reverts when it is asked for its owners.
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
    if owners.len() > MAX_OWNERS || threshold > owners.len() as u64 {
        return Ok(Err(SafeRejection::Malformed));
    }
    Ok(Ok(SafeState { version, singleton: plain(*singleton), owners, threshold }))
}

/// What a call returned; `None` if it was reverted.
fn returned(answer: Result<Answer, Failure>) -> Result<Option<Vec<u8>>, Failure> {
    match answer {
        Ok(answer) => answer
            .parse::<Hex<'_>>()?
            .to_vec()
            .map(Some)
            .ok_or_else(|| Failure::Invalid("not hexadecimal".to_owned())),
        Err(Failure::Reverted) => Ok(None),
        Err(failure) => Err(failure),
    }
}

/// The `address[]` that is the first value of ABI-encoded data.
fn addresses(data: &[u8]) -> Option<Vec<Address>> {
    let offset = usize::try_from(word_as_u64(data, 0)?).ok()?;
    let count = usize::try_from(word_as_u64(data, offset)?).ok()?;
    let items = data.get(offset.checked_add(32)?..)?.get(..count.checked_mul(32)?)?;
    items
        .chunks_exact(32)
        .map(|word| {
            let (padding, address) = word.split_at(12);
            if padding.iter().any(|byte| *byte != 0) {
                return None;
            }
            Address::from_slice(address)
        })
        .collect()
}

/// The word that begins at that byte, if it fits in 64 bits.
fn word_as_u64(data: &[u8], at: usize) -> Option<u64> {
    let word = data.get(at..at.checked_add(32)?)?;
    let (high, low) = word.split_at(24);
    if high.iter().any(|byte| *byte != 0) {
        return None;
    }
    Some(u64::from_be_bytes(low.try_into().ok()?))
}
