//! What an honest node says of the recorded chain.

use serde_json::{Value, json};

use super::{empty_block, mixed_block, mixed_receipts};
pub(super) use crate::chain::rpc::testing::{Node, Reply};

/// The recorded chain, as an honest node shows it.
pub(super) fn honest(method: &str, params: &Value) -> Reply {
    let receipts_of = &mixed_block()["hash"];
    Reply::Result(match (method, &params[0]) {
        ("eth_chainId", _) => json!("0x7a69"),
        ("eth_getBlockByNumber", at) if at == "0x1" => mixed_block(),
        ("eth_getBlockByNumber", at) if at == "0x2" || at == "latest" => empty_block(),
        ("eth_getBlockByHash", hash) if *hash == mixed_block()["hash"] => mixed_block(),
        ("eth_getBlockByHash", hash) if *hash == empty_block()["hash"] => empty_block(),
        ("eth_getBlockReceipts", hash) if hash == receipts_of => mixed_receipts(),
        ("eth_getBlockReceipts", hash) if *hash == empty_block()["hash"] => json!([]),
        ("eth_getTransactionReceipt", tx) => mixed_receipts()
            .as_array()
            .and_then(|all| all.iter().find(|receipt| receipt["transactionHash"] == *tx).cloned())
            .unwrap_or(Value::Null),
        ("eth_getTransactionByHash", tx) => mixed_block()["transactions"]
            .as_array()
            .and_then(|all| all.iter().find(|one| one["hash"] == *tx).cloned())
            .unwrap_or(Value::Null),
        _ => Value::Null,
    })
}
