//! Safes from before 1.3.0, whose logs do not tell how they were set up: the call of the factory does.
//!
//! It is what the transaction asks for, and proves nothing: it says whom to look for.

use alloy::primitives::Address;

use super::{addresses_of, releases::made_by, word_as_u64};
use crate::chain::evm::json::Transaction;

/// `createProxy(address,bytes)`, `createProxyWithNonce(address,bytes,uint256)`, and
/// `createProxyWithCallback(address,bytes,uint256,address)`.
const CREATIONS: [[u8; 4]; 3] =
    [[0x61, 0xb6, 0x9a, 0xbd], [0x16, 0x88, 0xf0, 0xb9], [0xd1, 0x8a, 0xf5, 0x4d]];
/// `setup` of 1.0.0, and that of all later versions.
const SETUPS: [[u8; 4]; 2] = [[0xa9, 0x7a, 0xb1, 0x8a], [0xb6, 0x3e, 0x80, 0x0d]];

/// The owners that a transaction sets up a Safe with, if it calls a factory from before 1.3.0 itself.
pub(in crate::chain::evm) fn owners(tx: &Transaction<'_>) -> Vec<Address> {
    let factory = tx.to.and_then(made_by).filter(|release| release.is_silent());
    let read = || addresses_of(&initializer(&tx.input?.hex()?.to_vec()?)?);
    factory.and_then(|_| read()).unwrap_or_default()
}

/// The arguments of the setup that a new proxy is called with.
fn initializer(input: &[u8]) -> Option<Vec<u8>> {
    let arguments = after(input, &CREATIONS)?;
    let at = usize::try_from(word_as_u64(arguments, 32)?).ok()?;
    let length = usize::try_from(word_as_u64(arguments, at)?).ok()?;
    let call = arguments.get(at.checked_add(32)?..)?.get(..length)?;
    after(call, &SETUPS).map(<[u8]>::to_vec)
}

/// What follows one of these selectors.
fn after<'a>(input: &'a [u8], selectors: &[[u8; 4]]) -> Option<&'a [u8]> {
    let (selector, arguments) = input.split_first_chunk()?;
    selectors.contains(selector).then_some(arguments)
}
