//! The text beside a payment: what the Memo program was called with.
//!
//! A block is read without its instructions, so the few transactions that pay a watched address and name the
//! Memo program are asked for by themselves.

use std::sync::atomic::Ordering;

use super::{
    MEMO,
    json::{Instructed, Instruction},
    source::Inner,
};
use crate::chain::{
    Block, BlockRef, Family, Movement, TxId,
    rpc::{Call, Endpoint, Failure},
};

/// Gives the payments of a transaction their memo.
pub(super) fn write(block: &mut Block, tx: TxId, memo: Option<&str>) {
    let paid = |movement: &&mut Movement| movement.tx == tx && movement.carries_memo();
    for movement in block.movements.iter_mut().filter(paid) {
        movement.memo = memo.map(str::to_owned);
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
                        r#"["{signature}",{{"encoding":"jsonParsed","commitment":"confirmed","maxSupportedTransactionVersion":{version}}}]"#
                    ),
                )
            })
            .collect();
        let answers = node.batch(&calls).await?;
        answers
            .into_iter()
            .map(|answer| {
                let answer = answer?;
                let tx = answer.parse::<Option<Instructed<'_>>>()?;
                let tx = tx.filter(|tx| tx.slot == at.number).ok_or_else(|| {
                    Failure::NotThere("the transaction is not in that block".to_owned())
                })?;
                Ok(text(&tx))
            })
            .collect()
    }
}

/// The memos in the order of execution, those of inner instructions among them.
pub(super) fn text(tx: &Instructed<'_>) -> Option<String> {
    let inner = tx.meta.as_ref().and_then(|meta| meta.inner_instructions.as_deref());
    let inner = inner.unwrap_or_default();
    let top_level = tx.transaction.message.instructions.iter().enumerate();
    let in_order = top_level.flat_map(|(index, instruction)| {
        let called = inner.iter().filter(move |inner| inner.index == index);
        std::iter::once(instruction).chain(called.flat_map(|inner| &inner.instructions))
    });
    let memos: Vec<String> = in_order.filter_map(memo).collect();
    (!memos.is_empty()).then(|| memos.join("\n"))
}

/// What the Memo program was called with; it takes UTF-8 only. U+0000 is left out: PostgreSQL cannot hold it.
fn memo(instruction: &Instruction<'_>) -> Option<String> {
    let Instruction { program_id, parsed: Some(text) } = instruction else { return None };
    if !MEMO.contains(program_id) {
        return None;
    }
    let text: String = serde_json::from_str(text.get()).ok()?;
    Some(text.replace('\0', ""))
}
