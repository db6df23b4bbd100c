//! A transfer as a page reads it. Each value of a row costs SQLite's driver an allocation in one thread and its end in
//! another, which was half of what a page of 200 took: all numbers come as one text.

use std::str::{FromStr, Split};

use sqlx::FromRow;

use crate::{
    amount::Amount,
    chain::{Address, BlockHash, BlockRef, TxId},
    clock::Millis,
    id::TransferId,
    model::{AssetNo, TenantNo, Transfer, TransferNo, WalletNo, read_ordinal},
    store::{StoreError, code},
};

#[derive(FromRow)]
pub(super) struct Listed {
    /// Divided by spaces, `-` for those that are null.
    numbers: String,
    id: TransferId,
    amount: Amount,
    counterparty: Option<Vec<u8>>,
    #[sqlx(try_from = "Vec<u8>")]
    tx: TxId,
    ordinal: Vec<u8>,
    #[sqlx(try_from = "Vec<u8>")]
    block_hash: BlockHash,
    reason: Option<String>,
    memo: Option<String>,
}

/// The start of a statement that reads [`Listed`]s.
macro_rules! select_listed {
    ($rest:literal) => {
        concat!(
            "SELECT concat_ws(' ', no, tenant_no, asset_no, direction, kind, status,
                              CASE WHEN counted THEN 1 ELSE 0 END, connection, block_number, block_time,
                              seen_at, COALESCE(CAST(settled_at AS TEXT), '-'),
                              COALESCE(CAST(orphaned_at AS TEXT), '-'),
                              COALESCE(CAST(omitted AS TEXT), '-'),
                              COALESCE(CAST(settled_by AS TEXT), '-')) AS numbers,
                    id, amount, counterparty, tx, ordinal, block_hash, reason, memo
             FROM transfer ",
            $rest
        )
    };
}
pub(super) use select_listed;

struct Numbers<'a>(Split<'a, char>);

impl Numbers<'_> {
    fn next<T: FromStr>(&mut self) -> Result<T, StoreError> {
        let number = self.0.next().and_then(|text| text.parse().ok());
        number.ok_or_else(|| StoreError::corrupt("the numbers of a transfer"))
    }

    fn optional<T: FromStr>(&mut self) -> Result<Option<T>, StoreError> {
        match self.0.next() {
            Some("-") => Ok(None),
            text => match text.and_then(|text| text.parse().ok()) {
                Some(number) => Ok(Some(number)),
                None => Err(StoreError::corrupt("the numbers of a transfer")),
            },
        }
    }
}

impl Listed {
    pub fn transfer(self, wallet: WalletNo) -> Result<Transfer, StoreError> {
        let mut numbers = Numbers(self.numbers.split(' '));
        // In the order of the statement.
        Ok(Transfer {
            no: TransferNo(numbers.next()?),
            tenant: TenantNo(numbers.next()?),
            asset: AssetNo(numbers.next()?),
            direction: code::read_direction(numbers.next()?)?,
            kind: code::read_kind(numbers.next()?)?,
            status: code::read_status(numbers.next()?)?,
            counted: numbers.next::<u8>()? == 1,
            connection: numbers.next()?,
            block: BlockRef { number: numbers.next()?, hash: self.block_hash },
            block_time: Millis(numbers.next()?),
            seen_at: Millis(numbers.next()?),
            settled_at: numbers.optional()?.map(Millis),
            orphaned_at: numbers.optional()?.map(Millis),
            omitted: numbers.optional()?,
            settled_by: numbers.optional()?.map(code::read_settled_by).transpose()?,
            id: self.id,
            wallet,
            tx: self.tx,
            ordinal: read_ordinal(&self.ordinal)
                .ok_or_else(|| StoreError::corrupt(format!("the ordinal of {}", self.id)))?,
            amount: self.amount,
            counterparty: self.counterparty.as_deref().and_then(Address::from_slice),
            reason: code::read_reason(self.reason)?,
            memo: self.memo,
        })
    }
}
