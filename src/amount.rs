//! Money as an integer of base units.
//!
//! [`Amount`] is an unsigned 256-bit number of the asset's smallest unit (wei, lamport, sun). Arithmetic
//! is checked: there is no operator that could wrap, and no float anywhere.

use std::fmt;

use alloy::primitives::U256;

/// An exact number of base units.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Amount(U256);

impl Amount {
    pub const ZERO: Self = Self(U256::ZERO);
    pub const MAX: Self = Self(U256::MAX);

    #[must_use]
    pub const fn new(value: U256) -> Self {
        Self(value)
    }

    #[must_use]
    pub const fn get(self) -> U256 {
        self.0
    }

    #[must_use]
    pub fn is_zero(self) -> bool {
        self.0.is_zero()
    }

    #[must_use]
    pub fn checked_add(self, other: Self) -> Option<Self> {
        self.0.checked_add(other.0).map(Self)
    }

    #[must_use]
    pub fn checked_sub(self, other: Self) -> Option<Self> {
        self.0.checked_sub(other.0).map(Self)
    }

    /// For sums that are only compared; money is never cut off.
    #[must_use]
    pub fn saturating_add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    #[must_use]
    pub fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    /// The amount in whole units of an asset with that many decimals, exact and without trailing zeros:
    /// 1500000 at 6 decimals is `1.5`.
    #[must_use]
    pub fn to_units(self, decimals: u8) -> String {
        in_units(&self.to_string(), decimals)
    }
}

/// The base units that a number of whole units is, as [`Amount::to_units`] writes it; `None` for what is no such number
/// of base units.
#[must_use]
pub fn from_units(text: &str, decimals: u8) -> Option<Amount> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let is_number = |digits: &str| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    let missing = usize::from(decimals).checked_sub(fraction.trim_end_matches('0').len())?;
    if !is_number(whole) || !is_number(fraction) {
        return None;
    }
    let digits = format!("{whole}{}{}", fraction.trim_end_matches('0'), "0".repeat(missing));
    digits.parse().ok().map(Amount::new)
}

/// [`Amount::to_units`] of the amount's digits.
#[must_use]
pub fn in_units(digits: &str, decimals: u8) -> String {
    let decimals = usize::from(decimals);
    let (whole, fraction) = digits.split_at(digits.len().saturating_sub(decimals));
    let zeros = decimals - fraction.len();
    let fraction = fraction.trim_end_matches('0');
    let whole = if whole.is_empty() { "0" } else { whole };
    if fraction.is_empty() {
        return whole.to_owned();
    }
    let mut out = String::with_capacity(whole.len() + 1 + zeros + fraction.len());
    out.push_str(whole);
    out.push('.');
    out.extend(std::iter::repeat_n('0', zeros));
    out.push_str(fraction);
    out
}

impl From<u64> for Amount {
    fn from(value: u64) -> Self {
        Self(U256::from(value))
    }
}

/// Decimal digits of the base units.
impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match u128::try_from(self.0) {
            // Nearly all amounts; a machine's own numbers are written much faster.
            Ok(small) => fmt::Display::fmt(&small, f),
            Err(_) => fmt::Display::fmt(&self.0, f),
        }
    }
}

impl fmt::Debug for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn units_are_exact_at_every_width() {
        assert_eq!(Amount::from(1_500_000).to_units(6), "1.5");
        assert_eq!(Amount::from(1).to_units(18), "0.000000000000000001");
        assert_eq!(Amount::from(10).to_units(0), "10");
        assert_eq!(Amount::ZERO.to_units(18), "0");
        assert_eq!(Amount::from(2_000_000).to_units(6), "2");
        let all = Amount::MAX.to_units(77);
        assert_eq!(all.replace('.', ""), U256::MAX.to_string());
        assert_eq!(Amount::from(5).to_units(255).len(), 257);
    }

    #[test]
    fn what_is_no_exact_number_of_base_units_is_refused() {
        assert_eq!(from_units("1000", 6), Some(Amount::from(1_000_000_000)));
        assert_eq!(from_units("0.10", 2), Some(Amount::from(10)));
        assert_eq!(from_units("5.000", 0), Some(Amount::from(5)));
        for bad in
            ["", ".", "1.", ".5", "-1", "+1", "1e3", "1,5", "1.0.0", " 1", "0x1", "0.0000001"]
        {
            assert_eq!(from_units(bad, 6), None, "{bad:?}");
        }
        assert_eq!(from_units(&"9".repeat(79), 0), None, "past 256 bits");
    }

    proptest! {
        #[test]
        fn an_amount_survives_its_whole_units(limbs in any::<[u64; 4]>(), shift in 0usize..256, decimals in 0u8..78) {
            let amount = Amount::new(U256::from_limbs(limbs) >> shift);
            prop_assert_eq!(from_units(&amount.to_units(decimals), decimals), Some(amount));
        }
    }
}
