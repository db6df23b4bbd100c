//! [`Amount`] in the store: big endian without leading zeros in SQLite (nothing for zero), `NUMERIC(78,0)` in
//! PostgreSQL.
//!
//! The binary form of `NUMERIC` is documented only by the server's own `numeric_send`: four 16-bit fields
//! (digit count, weight, sign, scale), then base-10000 digits, most significant first.

use alloy::primitives::U256;
use sqlx::{
    Decode, Encode, Postgres, Sqlite, Type,
    encode::IsNull,
    error::BoxDynError,
    postgres::{PgArgumentBuffer, PgTypeInfo, PgValueFormat, PgValueRef, types::Oid},
    sqlite::{SqliteArgumentsBuffer, SqliteTypeInfo, SqliteValueRef},
};

use crate::amount::Amount;

const NUMERIC: PgTypeInfo = PgTypeInfo::with_oid(Oid(1700));
const BASE: u64 = 10_000;
const POSITIVE: u16 = 0;

impl Type<Sqlite> for Amount {
    fn type_info() -> SqliteTypeInfo {
        <[u8] as Type<Sqlite>>::type_info()
    }

    fn compatible(ty: &SqliteTypeInfo) -> bool {
        <[u8] as Type<Sqlite>>::compatible(ty)
    }
}

impl Encode<'_, Sqlite> for Amount {
    fn encode_by_ref(&self, buffer: &mut SqliteArgumentsBuffer) -> Result<IsNull, BoxDynError> {
        Encode::<Sqlite>::encode(self.get().to_be_bytes_trimmed_vec(), buffer)
    }
}

impl Decode<'_, Sqlite> for Amount {
    fn decode(value: SqliteValueRef<'_>) -> Result<Self, BoxDynError> {
        let bytes = <&[u8] as Decode<Sqlite>>::decode(value)?;
        let value = U256::try_from_be_slice(bytes).ok_or("an amount is longer than 32 bytes")?;
        Ok(Self::new(value))
    }
}

impl Type<Postgres> for Amount {
    fn type_info() -> PgTypeInfo {
        NUMERIC
    }
}

impl Encode<'_, Postgres> for Amount {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        let mut digits = Vec::new();
        let mut rest = self.get();
        while !rest.is_zero() {
            let (quotient, digit) = rest.div_rem(U256::from(BASE));
            digits.push(u16::try_from(digit)?);
            rest = quotient;
        }
        let weight = i16::try_from(digits.len())? - 1;
        buffer.extend_from_slice(&u16::try_from(digits.len())?.to_be_bytes());
        buffer.extend_from_slice(&weight.max(0).to_be_bytes());
        buffer.extend_from_slice(&POSITIVE.to_be_bytes());
        buffer.extend_from_slice(&0u16.to_be_bytes());
        for digit in digits.iter().rev() {
            buffer.extend_from_slice(&digit.to_be_bytes());
        }
        Ok(IsNull::No)
    }
}

impl Decode<'_, Postgres> for Amount {
    fn decode(value: PgValueRef<'_>) -> Result<Self, BoxDynError> {
        match value.format() {
            PgValueFormat::Binary => decode_numeric(value.as_bytes()?),
            PgValueFormat::Text => Ok(Self::new(U256::from_str_radix(value.as_str()?, 10)?)),
        }
    }
}

fn decode_numeric(bytes: &[u8]) -> Result<Amount, BoxDynError> {
    let mut words = bytes.chunks(2).map(|pair| pair.try_into().map(u16::from_be_bytes));
    let mut word =
        || -> Result<u16, BoxDynError> { Ok(words.next().ok_or("a NUMERIC is cut short")??) };
    let count = word()?;
    let weight = i32::from(i16::from_be_bytes(word()?.to_be_bytes()));
    let sign = word()?;
    let _scale = word()?;
    if sign != POSITIVE {
        return Err("an amount is negative or not a number".into());
    }
    let mut value = U256::ZERO;
    let overflow = "an amount exceeds 256 bits";
    for position in 0..i32::from(count) {
        let digit = word()?;
        if u64::from(digit) >= BASE {
            return Err("a NUMERIC has a digit out of range".into());
        }
        if position > weight {
            if digit != 0 {
                return Err("an amount has a fraction".into());
            }
            continue;
        }
        value = value.checked_mul(U256::from(BASE)).ok_or(overflow)?;
        value = value.checked_add(U256::from(digit)).ok_or(overflow)?;
    }
    // Trailing zero digits are not sent.
    if !value.is_zero() {
        for _ in i32::from(count)..=weight {
            value = value.checked_mul(U256::from(BASE)).ok_or(overflow)?;
        }
    }
    Ok(Amount::new(value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn round_trip(amount: Amount) -> Amount {
        let mut buffer = PgArgumentBuffer::default();
        let _ = Encode::<Postgres>::encode_by_ref(&amount, &mut buffer).expect("encodes");
        decode_numeric(&buffer).expect("decodes")
    }

    proptest! {
        #[test]
        fn every_amount_survives_the_numeric_form(limbs in any::<[u64; 4]>(), shift in 0usize..256) {
            let amount = Amount::new(U256::from_limbs(limbs) >> shift);
            prop_assert_eq!(round_trip(amount), amount);
        }
    }

    #[test]
    fn edges_survive_and_what_is_no_amount_is_refused() {
        for amount in [
            Amount::ZERO,
            Amount::from(1),
            Amount::from(10_000),
            Amount::from(100_000_000),
            Amount::new(U256::from(10).pow(U256::from(77))),
            Amount::MAX,
        ] {
            assert_eq!(round_trip(amount), amount);
        }
        let negative = [0, 1, 0, 0, 0x40, 0, 0, 0, 0, 1];
        let fraction = [0, 2, 0, 0, 0, 0, 0, 1, 0, 1, 0x13, 0x88];
        let too_large = [0, 1, 0, 20, 0, 0, 0, 0, 0, 1];
        for bytes in [&negative[..], &fraction, &too_large, &[0, 1]] {
            assert!(decode_numeric(bytes).is_err());
        }
    }
}
