//! What the calls inside a transaction moved of the native coin, from either shape in which nodes tell them: nested
//! (`callTracer`) or flat (`trace_transaction`).
//!
//! A call moves its value only if it succeeded, and each call around it. A DELEGATECALL, a CALLCODE and a STATICCALL
//! move nothing, whatever value they show. The call that the transaction itself is stands among the block's own
//! movements and is left out here.
//!
//! Arbitrum's nodes tell beside the calls what their own software moved before and after them. What it gave back after
//! them (the gas of a ticket's try that was not used, to whom the ticket names) is shown nowhere else.

use std::collections::BTreeMap;

use alloy::primitives::{Address as EvmAddress, B256, U256};
use serde::{Deserialize, de::IgnoredAny};
use serde_json::value::RawValue;

use crate::chain::rpc::Failure;

/// Calls of contracts that are built in, without value, are counted by one tracer and not by another: the place of
/// the others must be the same in both. No contract that somebody deployed has such an address.
const BUILT_IN_BELOW: u64 = 0x200;
/// Nested calls are looked through once for each level, at most so many times their own size in all: nobody nests
/// more than a few dozen levels, unless to keep us busy.
const MOST_LEVELS: usize = 128;
/// No block has more: each takes gas.
const MOST_TRANSACTIONS: usize = 1 << 20;
/// What is moved after the calls has its place behind all of them.
const AFTER_CALLS: u32 = u32::MAX;

/// One movement inside a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::chain::evm) struct Moved {
    /// The place of the call: which call of which call, from 0.
    pub path: Vec<u32>,
    pub from: EvmAddress,
    pub to: EvmAddress,
    pub wei: U256,
}

/// One call as `callTracer` tells it.
#[derive(Deserialize)]
struct Call<'a> {
    #[serde(rename = "type", borrow)]
    kind: &'a RawValue,
    from: Option<EvmAddress>,
    to: Option<EvmAddress>,
    value: Option<U256>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
    #[serde(borrow, default)]
    calls: Vec<&'a RawValue>,
    #[serde(borrow, rename = "afterEVMTransfers")]
    after: Option<&'a RawValue>,
}

/// What Arbitrum moves beside calls. A side is missing where money is made or taken away: as gas is bought and paid for.
#[derive(Deserialize)]
struct OwnTransfer {
    from: Option<EvmAddress>,
    to: Option<EvmAddress>,
    value: Option<U256>,
}

impl Call<'_> {
    fn failed(&self) -> bool {
        self.error.is_some_and(|error| !matches!(error.get(), "null" | "\"\""))
    }

    /// Whether its value changes hands.
    fn moves(&self) -> bool {
        matches!(
            self.kind.get(),
            r#""CALL""# | r#""CREATE""# | r#""CREATE2""# | r#""SELFDESTRUCT""#
        )
    }

    /// Whether it is one of those that not every tracer counts.
    fn is_uncounted(&self) -> bool {
        let built_in =
            |to: EvmAddress| U256::from_be_slice(to.as_slice()) < U256::from(BUILT_IN_BELOW);
        self.to.is_some_and(built_in)
            && self.value.unwrap_or_default().is_zero()
            && self.calls.is_empty()
    }
}

/// What a transaction's calls moved, in order, as `callTracer` tells it.
pub(in crate::chain::evm) fn nested(trace: &RawValue) -> Result<Vec<Moved>, Failure> {
    let mut moved = Vec::new();
    let mut room = trace.get().len().saturating_mul(MOST_LEVELS);
    let mut path: Vec<u32> = Vec::new();
    let mut after = Vec::new();
    // What is still to be read: how deep it stands, which of its siblings it is, and itself.
    let mut open = vec![(0usize, 0u32, read(trace, &mut room)?)];
    while let Some((depth, index, call)) = open.pop() {
        path.truncate(depth.saturating_sub(1));
        if depth > 0 {
            path.push(index);
        }
        if depth == 0 {
            after = given_back(&call);
        }
        if call.failed() {
            continue;
        }
        if let (true, false, Some(from), Some(to)) = (call.moves(), depth == 0, call.from, call.to)
        {
            push(&mut moved, &path, from, to, call.value.unwrap_or_default());
        }
        let mut counted = Vec::with_capacity(call.calls.len());
        for inner in &call.calls {
            let inner = read(inner, &mut room)?;
            if !inner.is_uncounted() {
                counted.push(inner);
            }
        }
        let places = (0u32..).zip(counted).map(|(index, call)| (depth + 1, index, call));
        let places: Vec<_> = places.collect();
        open.extend(places.into_iter().rev());
    }
    for (place, (from, to, wei)) in (0u32..).zip(after) {
        push(&mut moved, &[AFTER_CALLS, place], from, to, wei);
    }
    Ok(moved)
}

/// What was given back after the calls, whether or not they failed. What goes from the sender is none of it: a try that
/// failed puts its value back into escrow.
fn given_back(call: &Call<'_>) -> Vec<(EvmAddress, EvmAddress, U256)> {
    let told =
        call.after.and_then(|after| serde_json::from_str::<Vec<OwnTransfer>>(after.get()).ok());
    let sides = |one: OwnTransfer| {
        let (from, to) = (one.from?, one.to?);
        let wei = one.value.filter(|wei| !wei.is_zero())?;
        (call.from != Some(from)).then_some((from, to, wei))
    };
    told.into_iter().flatten().filter_map(sides).collect()
}

fn read<'a>(text: &'a RawValue, room: &mut usize) -> Result<Call<'a>, Failure> {
    let text = text.get();
    *room = room.checked_sub(text.len()).ok_or_else(|| {
        Failure::TooLarge("the calls of a transaction are nested too deeply".to_owned())
    })?;
    serde_json::from_str(text)
        .map_err(|error| Failure::Invalid(format!("not a trace of calls: {error}")))
}

fn push(moved: &mut Vec<Moved>, path: &[u32], from: EvmAddress, to: EvmAddress, wei: U256) {
    if !wei.is_zero() && from != to {
        moved.push(Moved { path: path.to_vec(), from, to, wei });
    }
}

/// One call as `trace_transaction` and `trace_block` tell it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct FlatCall {
    action: Action,
    result: Option<Outcome>,
    error: Option<IgnoredAny>,
    #[serde(default)]
    trace_address: Vec<u32>,
    /// Missing for a reward, which belongs to no transaction.
    transaction_position: Option<u32>,
    block_hash: Option<B256>,
    #[serde(rename = "type")]
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Call,
    Create,
    #[serde(alias = "selfdestruct")]
    Suicide,
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Action {
    from: Option<EvmAddress>,
    to: Option<EvmAddress>,
    value: Option<U256>,
    call_type: Option<CallType>,
    /// The contract that destroys itself, and who gets what it had.
    address: Option<EvmAddress>,
    refund_address: Option<EvmAddress>,
    balance: Option<U256>,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum CallType {
    Call,
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
struct Outcome {
    /// The contract that was made.
    address: Option<EvmAddress>,
}

/// What the calls of each transaction of a block moved, as `trace_block` tells it.
pub(super) fn by_transaction(
    calls: Vec<FlatCall>,
    block: B256,
) -> Result<Vec<Vec<Moved>>, Failure> {
    let mut txs: BTreeMap<u32, Vec<FlatCall>> = BTreeMap::new();
    for call in calls {
        // By number a node gives the block that it has there now.
        if call.block_hash.is_some_and(|hash| hash != block) {
            return Err(Failure::NotThere(format!("the trace of block {block}")));
        }
        if let Some(position) = call.transaction_position {
            txs.entry(position).or_default().push(call);
        }
    }
    let last = txs.last_key_value().map_or(0, |(position, _)| position + 1);
    if last as usize > MOST_TRANSACTIONS {
        return Err(Failure::Invalid("a block with impossibly many transactions".to_owned()));
    }
    Ok((0..last).map(|at| txs.get(&at).map_or_else(Vec::new, |calls| flat(calls))).collect())
}

/// What a transaction's calls moved, in order. The calls inside one that failed say nothing of it themselves.
pub(super) fn flat(calls: &[FlatCall]) -> Vec<Moved> {
    let mut moved = Vec::new();
    let mut failed: Option<&[u32]> = None;
    let mut in_order: Vec<&FlatCall> = calls.iter().collect();
    in_order.sort_by(|a, b| a.trace_address.cmp(&b.trace_address));
    for call in in_order {
        let path = call.trace_address.as_slice();
        if failed.is_some_and(|failed| path.starts_with(failed)) {
            continue;
        }
        if call.error.is_some() {
            failed = Some(path);
            continue;
        }
        if path.is_empty() {
            continue;
        }
        let Action { from, to, value, call_type, address, refund_address, balance } = &call.action;
        let made = call.result.as_ref().and_then(|result| result.address);
        let sides = match call.kind {
            Kind::Call if *call_type == Some(CallType::Call) => (*from, *to, *value),
            Kind::Create => (*from, made, *value),
            Kind::Suicide => (*address, *refund_address, *balance),
            Kind::Call | Kind::Other => continue,
        };
        if let (Some(from), Some(to), Some(wei)) = sides {
            push(&mut moved, path, from, to, wei);
        }
    }
    moved
}
