//! Which deposits are small enough to become available before their block settles.

use crate::{amount::Amount, chain::AssetKey};

/// Deposits of an asset become available when their blocks lie `confirmations` blocks below the head, as long as what
/// is available that way of one balance, and has not settled, is no more than `up_to`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tier {
    pub asset: AssetKey,
    /// In base units.
    pub up_to: Amount,
    pub confirmations: u64,
}
