//! Numbers of rows. They are short where public ids are long, are made by the store that holds the row, and
//! never leave it: another copy of the store may number the same wallet differently.

macro_rules! numbers {
    ($($(#[$doc:meta])* $name:ident;)*) => { $(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub i64);
    )* };
}

numbers! {
    TenantNo;
    WalletNo;
    ChainNo;
    /// Of histories that are looked for together.
    ScanNo;
    /// Contains its chain's number: see [`AssetNo::nth`].
    AssetNo;
    /// Contains its chain's number: see [`TransferNo::nth`]. In the order in which transfers were booked.
    TransferNo;
}

/// Bits below the chain's number.
const ASSET_BITS: u32 = 32;
const TRANSFER_BITS: u32 = 44;

/// The `n`-th row of a chain. Only the chain's follower makes them, so the cursor's counter is enough.
fn nth(chain: ChainNo, bits: u32, n: u64) -> Option<i64> {
    let n = i64::try_from(n).ok().filter(|n| n >> bits == 0)?;
    Some((chain.0 << bits) | n)
}

impl AssetNo {
    /// The `n`-th asset of a chain; `None` past 2^32 of them.
    #[must_use]
    pub fn nth(chain: ChainNo, n: u64) -> Option<Self> {
        nth(chain, ASSET_BITS, n).map(Self)
    }

    /// The numbers that a chain's assets can have: the first, and the first that is too high.
    #[must_use]
    pub const fn of_chain(chain: ChainNo) -> (Self, Self) {
        (Self(chain.0 << ASSET_BITS), Self((chain.0 + 1) << ASSET_BITS))
    }

    #[must_use]
    pub const fn chain(self) -> ChainNo {
        ChainNo(self.0 >> ASSET_BITS)
    }
}

impl TransferNo {
    /// The `n`-th transfer of a chain; `None` past 2^44 of them.
    #[must_use]
    pub fn nth(chain: ChainNo, n: u64) -> Option<Self> {
        nth(chain, TRANSFER_BITS, n).map(Self)
    }

    /// The numbers that a chain's transfers can have: the first, and the first that is too high.
    #[must_use]
    pub const fn of_chain(chain: ChainNo) -> (Self, Self) {
        (Self(chain.0 << TRANSFER_BITS), Self((chain.0 + 1) << TRANSFER_BITS))
    }

    #[must_use]
    pub const fn chain(self) -> ChainNo {
        ChainNo(self.0 >> TRANSFER_BITS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_tells_its_chain_and_grows_with_each_row() {
        let chain = ChainNo(3);
        let (first, second) = (TransferNo::nth(chain, 0), TransferNo::nth(chain, 1));
        assert!(first < second);
        assert_eq!(second.map(TransferNo::chain), Some(chain));
        let (from, to) = AssetNo::of_chain(chain);
        assert_eq!(AssetNo::nth(chain, 0), Some(from));
        assert!(AssetNo::nth(chain, u64::from(u32::MAX)).is_some_and(|last| last < to));
        assert_eq!(AssetNo::nth(chain, 1 << 32), None, "it would be another chain's");
        assert_eq!(to.chain(), ChainNo(4));
    }
}
