//! The text beside a payment: what the Memo program was called with.
//!
//! A block is read without its instructions, so the few transactions that pay a watched address and name the
//! Memo program are asked for by themselves.

use std::sync::atomic::Ordering;

use super::{
    MEMO,
    json::{Full, Instruction},
    source::Inner,
};
use crate::chain::{
    Block, BlockRef, Family, Movement, TxId,
    rpc::{Call, Endpoint, Failure},
};

/// Gives the payments of a transaction their memo.
pub(super) fn write(block: &mut Block, tx: TxId, memo: Option<String>) {
    let paid = |movement: &&mut Movement| movement.tx == tx && movement.carries_memo();
    for movement in block.movements.iter_mut().filter(paid) {
        movement.memo.clone_from(&memo);
    }
}

impl Inner {
    /// The memos of transactions of one block, one per transaction, in order; several of one transaction
    /// stand in lines.
    pub async fn memos(
        &self,
        node: &Endpoint,
        at: BlockRef,
        txs: &[TxId],
    ) -> Result<Vec<Option<String>>, Failure> {
        let version = self.version.load(Ordering::Relaxed);
        let calls: Vec<Call> = txs
            .iter()
            .map(|tx| {
                let signature = Family::Solana.format_tx(tx);
                Call::new(
                    "getTransaction",
                    format!(
                        r#"["{signature}",{{"encoding":"json","commitment":"confirmed","maxSupportedTransactionVersion":{version}}}]"#
                    ),
                )
            })
            .collect();
        let answers = node.batch(&calls).await?;
        answers
            .into_iter()
            .map(|answer| {
                let full = answer?.parse::<Option<Full>>()?;
                let full = full.filter(|full| full.slot == at.number);
                let full = full.ok_or_else(|| {
                    Failure::NotThere("the transaction is not in that block".to_owned())
                })?;
                Ok(text(&full))
            })
            .collect()
    }
}

/// The memos in the order of execution, those of inner instructions among them.
pub(super) fn text(full: &Full) -> Option<String> {
    let message = &full.transaction.message;
    let mut keys: Vec<&str> = message.account_keys.iter().map(String::as_str).collect();
    let meta = full.meta.as_ref();
    if let Some(loaded) = meta.and_then(|meta| meta.loaded_addresses.as_ref()) {
        keys.extend(loaded.writable.iter().chain(&loaded.readonly).map(String::as_str));
    }
    let inner = meta.and_then(|meta| meta.inner_instructions.as_deref()).unwrap_or_default();
    let in_order = message.instructions.iter().enumerate().flat_map(|(index, instruction)| {
        let called = inner.iter().filter(move |inner| inner.index == index);
        std::iter::once(instruction).chain(called.flat_map(|inner| &inner.instructions))
    });
    let memos: Vec<String> = in_order.filter_map(|instruction| memo(&keys, instruction)).collect();
    (!memos.is_empty()).then(|| memos.join("\n"))
}

/// What the Memo program was called with; it takes UTF-8 only. U+0000 is left out: PostgreSQL cannot hold it.
fn memo(keys: &[&str], instruction: &Instruction) -> Option<String> {
    let program = keys.get(instruction.program_id_index)?;
    if !MEMO.contains(program) {
        return None;
    }
    let bytes = bs58::decode(&instruction.data).into_vec().ok()?;
    Some(String::from_utf8_lossy(&bytes).replace('\0', ""))
}
