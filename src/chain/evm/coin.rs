//! How a chain's native coin, and some tokens, move without a `Transfer` log or a transaction's value:
//! each chain's own ways.

use std::collections::HashSet;

use alloy::primitives::{Address as EvmAddress, B256, address, b256};

use super::state::evm;
use crate::config::{ChainConfig, TokenConfig};

/// What a chain's blocks say of its native coin and of tokens that wrap it.
#[derive(Debug)]
pub(super) struct Coin {
    /// Where each movement of it is logged.
    pub logs: NativeLogs,
    /// Whether the block's beneficiary earns what transactions pay above the base fee.
    pub pays_beneficiary: bool,
    /// The tokens that are made and destroyed by `Deposit` and `Withdrawal`, without a `Transfer`.
    pub wrapping: HashSet<EvmAddress>,
    /// The tokens that are destroyed by `DestroyedBlackFunds`, without a `Transfer`.
    pub destroying: HashSet<EvmAddress>,
    /// The system's own call in each block of an OP-stack chain, which moves nothing.
    pub l1_attributes: EvmAddress,
}

/// The logs in which a chain tells each movement of its native coin: those of a transaction's value, of calls and
/// of creations. Fees and rewards are not among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NativeLogs {
    pub address: EvmAddress,
    pub topic: B256,
    /// The places of sender and recipient among the topics.
    pub sides: (usize, usize),
    /// The word of the data that says how much.
    pub word: usize,
}

/// EIP-7708: a log in the shape of a token's, where the chain has them.
const EIP_7708: NativeLogs = NativeLogs {
    address: address!("fffffffffffffffffffffffffffffffffffffffe"),
    topic: super::decode::TRANSFER,
    sides: (1, 2),
    word: 0,
};

/// Polygon: `LogTransfer(token, from, to, amount, ...)` of its native contract.
const POLYGON: NativeLogs = NativeLogs {
    address: address!("0000000000000000000000000000000000001010"),
    topic: b256!("e6497e3ee548a3372136af2fcb0696db31fc6cf20260707645068bd3fe97f3c4"),
    sides: (2, 3),
    word: 0,
};

/// Chains that are known to pay what is above the base fee to the block's beneficiary: Ethereum, its test networks
/// Sepolia, Holesky and Hoodi, and Anvil. Elsewhere it may go to a contract of the validators (BNB), to nobody
/// (Avalanche) or to an account of the network (Arbitrum): there the comparison with the chain's balances tells.
const PAID_BENEFICIARIES: [u64; 5] = [1, 11_155_111, 17_000, 560_048, 31_337];

impl Coin {
    pub fn new(config: &ChainConfig) -> Self {
        let of = |which: fn(&TokenConfig) -> bool| {
            let tokens = config.tokens.iter().filter(|token| which(token));
            tokens.filter_map(|token| evm(token.contract).ok()).collect()
        };
        Self {
            logs: if matches!(config.chain_id, 137 | 80_002) { POLYGON } else { EIP_7708 },
            pays_beneficiary: PAID_BENEFICIARIES.contains(&config.chain_id),
            wrapping: of(|token| token.wraps_native),
            destroying: of(|token| token.destroys_funds),
            l1_attributes: address!("4200000000000000000000000000000000000015"),
        }
    }
}
