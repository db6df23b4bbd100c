//! The well-known chains: what need not be written for them, each with the reason where it differs.
//!
//! Settlement is `finalized` for all: a careful exchange credits when the chain itself calls a block
//! irreversible, and stops when it no longer does. What stands behind the word differs and is told below.

use super::Verification;
use crate::chain::Family;

pub(super) struct KnownChain {
    pub name: &'static str,
    pub family: Family,
    pub id: KnownId,
    pub native: KnownNative,
    pub verification: Verification,
    /// Near the block time; where blocks are slow, a part of it, so that polling adds little to it.
    pub poll_interval_ms: u64,
    pub lag_limit_seconds: u64,
    /// About twice what settlement usually takes at most: what is longer is a stall.
    pub settlement_limit_seconds: u64,
    pub tokens: &'static [KnownToken],
}

/// The value of the key that names a chain of its family: see [`crate::chain::Identity`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum KnownId {
    ChainId(u64),
    /// The hash of the genesis block, as the family writes it.
    Genesis(&'static str),
}

pub(super) struct KnownNative {
    pub symbol: &'static str,
    pub name: &'static str,
    pub slip44: u32,
}

/// Contract, symbol, name, decimals.
pub(super) type KnownToken = (&'static str, &'static str, &'static str, u8);

const ETHER: KnownNative = KnownNative { symbol: "ETH", name: "Ether", slip44: 60 };
/// SLIP-44 has one coin type, 1, for the coins of all test networks.
const TEST_ETHER: KnownNative = KnownNative { symbol: "ETH", name: "Test Ether", slip44: 1 };

/// The chain of that name, if it is built in.
pub(super) fn find(name: &str) -> Option<&'static KnownChain> {
    CHAINS.iter().find(|chain| chain.name == name)
}

/// A contract that is the chain's native coin under another name: as a token it would count twice.
pub(super) fn is_native_contract(chain_id: u64, contract: &[u8]) -> bool {
    // Polygon and its test network Amoy log every native transfer from 0x…1010.
    matches!(chain_id, 137 | 80_002)
        && contract.strip_suffix(&[0x10, 0x10]).is_some_and(|rest| rest.iter().all(|&b| b == 0))
}

/// Contracts like WETH9, whose `deposit` and `withdraw` log no `Transfer`. Arbitrum's WETH
/// (0x82aF49447D8a07e3bd95BD0d56f35241523fBab1) is none of them: it logs its minting and burning as transfers.
const WRAPPING: &[(u64, &str)] = &[
    (1, "0xC02aaA39b223FE8D0A0e5C4F27eAD9083C756Cc2"),
    (10, "0x4200000000000000000000000000000000000006"),
    (8453, "0x4200000000000000000000000000000000000006"),
    (56, "0xbb4CdB9CBd36B01bD1cBaEBF2De08d9173bc095c"),
    (137, "0x0d500B1d8E8eF31E21C99d1Db9A6444d3ADf1270"),
    (43_114, "0xB31f66AA3C1e785363F0875A1B74E27b85FD66c7"),
    (1329, "0xE30feDd158A2e3b13e9badaeABaFc5516e95e8C7"),
    // The test networks of Optimism and Base have the same contract.
    (11_155_420, "0x4200000000000000000000000000000000000006"),
    (84_532, "0x4200000000000000000000000000000000000006"),
];

/// Whether a contract is known to wrap the chain's native coin without logging it as a transfer.
pub(super) fn wraps_native(chain_id: u64, contract: &str) -> bool {
    WRAPPING.iter().any(|(id, known)| *id == chain_id && contract.eq_ignore_ascii_case(known))
}

/// Contracts whose issuer takes what a blacklisted address holds, with a log of `DestroyedBlackFunds` and none of a
/// transfer. USDT is one on Ethereum only: the newer contracts on other chains log a transfer to nobody beside it, and
/// it would count twice.
///
/// What it issues and redeems is not told by a log that can be booked: `Issue(uint256)` and `Redeem(uint256)` change the
/// balance of the contract's owner, whom they do not name, and who calls through a contract of several signers. If the
/// owner is registered, the comparison with the chain's own balances books it as the block settles.
const DESTROYING: &[(u64, &str)] = &[(1, "0xdAC17F958D2ee523a2206206994597C13D831ec7")];

/// Whether a contract is known to destroy what addresses hold without logging it as a transfer.
pub(super) fn destroys_funds(chain_id: u64, contract: &str) -> bool {
    DESTROYING.iter().any(|(id, known)| *id == chain_id && contract.eq_ignore_ascii_case(known))
}

pub(super) static CHAINS: &[KnownChain] = &[
    KnownChain {
        name: "ethereum",
        family: Family::Evm,
        id: KnownId::ChainId(1),
        native: ETHER,
        // Headers and receipts are the standard itself.
        verification: Verification::Full,
        // A quarter of the 12-second slot.
        poll_interval_ms: 3000,
        // Ten slots: some are missed.
        lag_limit_seconds: 120,
        // Two to three epochs of 6.4 minutes.
        settlement_limit_seconds: 2400,
        tokens: ETHEREUM,
    },
    KnownChain {
        name: "optimism",
        family: Family::Evm,
        id: KnownId::ChainId(10),
        native: ETHER,
        // Deposits (0x7e) and their receipts are hashed as the OP stack's specification says. What a transaction pays
        // for its data on L1 is the node's word.
        verification: Verification::Full,
        poll_interval_ms: 2000,
        lag_limit_seconds: 60,
        // When the batch on L1 is final: 20 to 30 minutes.
        settlement_limit_seconds: 3600,
        tokens: OPTIMISM,
    },
    KnownChain {
        name: "bnb",
        family: Family::Evm,
        id: KnownId::ChainId(56),
        native: KnownNative { symbol: "BNB", name: "BNB", slip44: 714 },
        // Fields of the header follow BNB's own forks, not Ethereum's; the bloom does not depend on them.
        // `finalized` is Parlia's fast finality; without attestations a node may say block 0 or none.
        verification: Verification::Bloom,
        poll_interval_ms: 450,
        lag_limit_seconds: 30,
        // Two seconds; without fast finality, 240 blocks.
        settlement_limit_seconds: 300,
        tokens: BNB,
    },
    KnownChain {
        name: "polygon",
        family: Family::Evm,
        id: KnownId::ChainId(137),
        native: KnownNative { symbol: "POL", name: "Polygon Ecosystem Token", slip44: 966 },
        // Before block 80,084,800 the logs of state sync are appended to the answers but stand neither in
        // the receipts' root nor in the bloom.
        // `finalized` is Heimdall's milestone: minutes, but in an outage (2025-09-10) it stands still, and
        // so must crediting. A number of confirmations is no answer here: 157 blocks went on 2023-02-22.
        verification: Verification::Links,
        poll_interval_ms: 2000,
        lag_limit_seconds: 60,
        // Two to eight minutes.
        settlement_limit_seconds: 960,
        tokens: POLYGON,
    },
    KnownChain {
        name: "base",
        family: Family::Evm,
        id: KnownId::ChainId(8453),
        native: ETHER,
        // As on optimism.
        verification: Verification::Full,
        poll_interval_ms: 2000,
        lag_limit_seconds: 60,
        // As on optimism, some 20 minutes.
        settlement_limit_seconds: 3600,
        tokens: BASE,
    },
    KnownChain {
        name: "arbitrum",
        family: Family::Evm,
        id: KnownId::ChainId(42_161),
        native: ETHER,
        // Headers and receipts are the standard itself; transactions of its own (0x64 to 0x6a) are hashed as its node
        // does it. Of the time before Nitro (block 22,207,817) they are not: for histories from there, `bloom`.
        verification: Verification::Full,
        // Blocks come every 250 ms; a batch a second is what its own guide for exchanges asks for.
        poll_interval_ms: 1000,
        lag_limit_seconds: 60,
        // When the batch on L1 is final: some 17 minutes.
        settlement_limit_seconds: 3600,
        tokens: ARBITRUM,
    },
    KnownChain {
        name: "avalanche",
        family: Family::Evm,
        id: KnownId::ChainId(43_114),
        // 9005 is the C-Chain's own coin type; 9000 is the X- and P-Chain's.
        native: KnownNative { symbol: "AVAX", name: "Avalanche", slip44: 9005 },
        // Since Helicon (ACP-194) a header's receipts root and bloom are those of the blocks that it
        // settles, not of its own transactions.
        verification: Verification::Links,
        poll_interval_ms: 1000,
        lag_limit_seconds: 60,
        // Seconds after a block was executed.
        settlement_limit_seconds: 120,
        tokens: AVALANCHE,
    },
    KnownChain {
        name: "sei",
        family: Family::Evm,
        id: KnownId::ChainId(1329),
        native: KnownNative { symbol: "SEI", name: "Sei", slip44: 19_000_118 },
        // A block's hash is Tendermint's: `links` is the least there is. Under Autobahn parent hash, receipts
        // root and transactions root are zero: such blocks cannot even be linked by parent, and are refused.
        verification: Verification::Links,
        poll_interval_ms: 400,
        lag_limit_seconds: 30,
        // A second.
        settlement_limit_seconds: 120,
        tokens: SEI,
    },
    KnownChain {
        name: "sepolia",
        family: Family::Evm,
        id: KnownId::ChainId(11_155_111),
        native: TEST_ETHER,
        verification: Verification::Full,
        poll_interval_ms: 3000,
        lag_limit_seconds: 300,
        // As on ethereum; test networks lose finality more easily.
        settlement_limit_seconds: 7200,
        tokens: SEPOLIA,
    },
    KnownChain {
        name: "optimism-sepolia",
        family: Family::Evm,
        id: KnownId::ChainId(11_155_420),
        native: TEST_ETHER,
        // As on optimism.
        verification: Verification::Full,
        poll_interval_ms: 2000,
        lag_limit_seconds: 300,
        settlement_limit_seconds: 7200,
        tokens: OPTIMISM_SEPOLIA,
    },
    KnownChain {
        name: "base-sepolia",
        family: Family::Evm,
        id: KnownId::ChainId(84_532),
        native: TEST_ETHER,
        // As on optimism.
        verification: Verification::Full,
        poll_interval_ms: 2000,
        lag_limit_seconds: 300,
        settlement_limit_seconds: 7200,
        tokens: BASE_SEPOLIA,
    },
    KnownChain {
        name: "arbitrum-sepolia",
        family: Family::Evm,
        id: KnownId::ChainId(421_614),
        native: TEST_ETHER,
        // As on arbitrum.
        verification: Verification::Full,
        poll_interval_ms: 1000,
        lag_limit_seconds: 300,
        settlement_limit_seconds: 7200,
        tokens: ARBITRUM_SEPOLIA,
    },
    KnownChain {
        name: "solana",
        family: Family::Solana,
        id: KnownId::Genesis("5eykt4UsFv8P8NJdTREpY1vzqKqZKvdpKuc147dw2N9d"),
        native: KnownNative { symbol: "SOL", name: "Solana", slip44: 501 },
        verification: Verification::Full,
        // A slot.
        poll_interval_ms: 400,
        lag_limit_seconds: 60,
        // 13 seconds.
        settlement_limit_seconds: 120,
        tokens: SOLANA,
    },
    KnownChain {
        name: "solana-devnet",
        family: Family::Solana,
        id: KnownId::Genesis("EtWTRABZaYq6iMfeYKouRu166VU2xqa1wcaWoxPkrZBG"),
        native: KnownNative { symbol: "SOL", name: "Test SOL", slip44: 1 },
        verification: Verification::Full,
        poll_interval_ms: 400,
        lag_limit_seconds: 300,
        settlement_limit_seconds: 600,
        tokens: SOLANA_DEVNET,
    },
];

static ETHEREUM: &[KnownToken] = &[
    ("0xA0b86991c6218b36c1d19D4a2e9Eb0cE3606eB48", "USDC", "USD Coin", 6),
    ("0xdAC17F958D2ee523a2206206994597C13D831ec7", "USDT", "Tether USD", 6),
    ("0x6B175474E89094C44Da98b954EedeAC495271d0F", "DAI", "Dai Stablecoin", 18),
    ("0xC02aaA39b223FE8D0A0e5C4F27eAD9083C756Cc2", "WETH", "Wrapped Ether", 18),
    ("0x2260FAC5E5542a773Aa44fBCfeDf7C193bc2C599", "WBTC", "Wrapped BTC", 8),
    ("0xcbB7C0000aB88B473b1f5aFd9ef808440eed33Bf", "cbBTC", "Coinbase Wrapped BTC", 8),
    ("0x514910771AF9Ca656af840dff83E8264EcF986CA", "LINK", "ChainLink Token", 18),
    ("0x1aBaEA1f7C830bD89Acc67eC4af516284b1bC33c", "EURC", "Euro Coin", 6),
    ("0x6c3ea9036406852006290770BEdFcAbA0e23A0e8", "PYUSD", "PayPal USD", 6),
    ("0xdC035D45d973E3EC169d2276DDab16f1e407384F", "USDS", "USDS Stablecoin", 18),
    ("0x8292Bb45bf1Ee4d140127049757C2E0fF06317eD", "RLUSD", "Ripple USD", 18),
    ("0x8d0D000Ee44948FC98c9B98A4FA4921476f08B0d", "USD1", "World Liberty Financial USD", 18),
    ("0x1f9840a85d5aF5bf1D1762F925BDADdC4201F984", "UNI", "Uniswap", 18),
    ("0x7Fc66500c84A76Ad7e9c93437bFc5Ac33E2DDaE9", "AAVE", "Aave Token", 18),
    ("0x95aD61b0a150d79219dCF64E1E6Cc01f0B64C4cE", "SHIB", "Shiba Inu", 18),
    ("0x6982508145454Ce325dDbE47a25d4ec3d2311933", "PEPE", "Pepe", 18),
    ("0x455e53CBB86018Ac2B8092FdCd39d8444aFFC3F6", "POL", "Polygon Ecosystem Token", 18),
    ("0x45804880De22913dAFE09f4980848ECE6EcbAf78", "PAXG", "Paxos Gold", 18),
];

// The symbols .e, .n and USDbC are bridged coins and never the issuer's own.
static OPTIMISM: &[KnownToken] = &[
    ("0x0b2C639c533813f4Aa9D7837CAf62653d097Ff85", "USDC", "USD Coin", 6),
    ("0x7F5c764cBc14f9669B88837ca1490cCa17c31607", "USDC.e", "USD Coin (bridged)", 6),
    ("0x94b008aA00579c1307B0EF2c499aD98a8ce58e58", "USDT", "Tether USD (bridged)", 6),
    ("0x01bFF41798a0BcF287b996046Ca68b395DbC1071", "USDT0", "USDT0", 6),
    ("0xDA10009cBd5D07dd0CeCc66161FC93D7c9000da1", "DAI", "Dai Stablecoin", 18),
    ("0x4200000000000000000000000000000000000006", "WETH", "Wrapped Ether", 18),
    ("0x68f180fcCe6836688e9084f035309E29Bf0A2095", "WBTC", "Wrapped BTC", 8),
    ("0x4200000000000000000000000000000000000042", "OP", "Optimism", 18),
    ("0x350a791Bfc2C21F9Ed5d10980Dad2e2638ffa7f6", "LINK", "ChainLink Token", 18),
];

// Here USDC and USDT are pegged by Binance and have 18 decimals, not 6.
static BNB: &[KnownToken] = &[
    ("0x8AC76a51cc950d9822D68b83fE1Ad97B32Cd580d", "USDC", "Binance-Peg USD Coin", 18),
    ("0x55d398326f99059fF775485246999027B3197955", "USDT", "Binance-Peg Tether USD", 18),
    ("0x1AF3F329e8BE154074D8769D1FFa4eE058B1DBc3", "DAI", "Binance-Peg Dai", 18),
    ("0xbb4CdB9CBd36B01bD1cBaEBF2De08d9173bc095c", "WBNB", "Wrapped BNB", 18),
    ("0x2170Ed0880ac9A755fd29B2688956BD959F933F8", "ETH", "Binance-Peg Ether", 18),
    ("0x7130d2A12B9BCbFAe4f2634d864A1Ee1Ce3Ead9c", "BTCB", "Binance-Peg BTCB", 18),
    ("0xc5f0f7b66764F6ec8C8Dff7BA683102295E16409", "FDUSD", "First Digital USD", 18),
    ("0xe9e7CEA3DedcA5984780Bafc599bD69ADd087D56", "BUSD", "Binance-Peg BUSD", 18),
];

// Not 0x…1010: that is the native coin again.
static POLYGON: &[KnownToken] = &[
    ("0x3c499c542cEF5E3811e1192ce70d8cC03d5c3359", "USDC", "USD Coin", 6),
    ("0x2791Bca1f2de4661ED88A30C99A7a9449Aa84174", "USDC.e", "USD Coin (bridged)", 6),
    ("0xc2132D05D31c914a87C6611C10748AEb04B58e8F", "USDT0", "USDT0", 6),
    ("0x8f3Cf7ad23Cd3CaDbD9735AFf958023239c6A063", "DAI", "Dai Stablecoin", 18),
    ("0x7ceB23fD6bC0adD59E62ac25578270cFf1b9f619", "WETH", "Wrapped Ether", 18),
    ("0x1BFD67037B42Cf73acF2047067bd4F2C47D9BfD6", "WBTC", "Wrapped BTC", 8),
    ("0x0d500B1d8E8eF31E21C99d1Db9A6444d3ADf1270", "WPOL", "Wrapped POL", 18),
];

static BASE: &[KnownToken] = &[
    ("0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913", "USDC", "USD Coin", 6),
    ("0xd9aAEc86B65D86f6A7B5B1b0c42FFA531710b6CA", "USDbC", "USD Base Coin (bridged)", 6),
    ("0x50c5725949A6F0c72E6C4a641F24049A917DB0Cb", "DAI", "Dai Stablecoin", 18),
    ("0x4200000000000000000000000000000000000006", "WETH", "Wrapped Ether", 18),
    ("0xcbB7C0000aB88B473b1f5aFd9ef808440eed33Bf", "cbBTC", "Coinbase Wrapped BTC", 8),
    ("0x60a3E35Cc302bFA44Cb288Bc5a4F316Fdb1adb42", "EURC", "Euro Coin", 6),
    ("0xfde4C96c8593536E31F229EA8f37b2ADa2699bb2", "USDT", "Tether USD (bridged)", 6),
];

static ARBITRUM: &[KnownToken] = &[
    ("0xaf88d065e77c8cC2239327C5EDb3A432268e5831", "USDC", "USD Coin", 6),
    ("0xFF970A61A04b1cA14834A43f5dE4533eBDDB5CC8", "USDC.e", "USD Coin (bridged)", 6),
    ("0xFd086bC7CD5C481DCC9C85ebE478A1C0b69FCbb9", "USDT0", "USDT0", 6),
    ("0xDA10009cBd5D07dd0CeCc66161FC93D7c9000da1", "DAI", "Dai Stablecoin", 18),
    ("0x82aF49447D8a07e3bd95BD0d56f35241523fBab1", "WETH", "Wrapped Ether", 18),
    ("0x2f2a2543B76A4166549F7aaB2e75Bef0aefC5B0f", "WBTC", "Wrapped BTC", 8),
    ("0x912CE59144191C1204E64559FE8253a0e49E6548", "ARB", "Arbitrum", 18),
    ("0xf97f4df75117a78c1A5a0DBb814Af92458539FB4", "LINK", "ChainLink Token", 18),
];

static AVALANCHE: &[KnownToken] = &[
    ("0xB97EF9Ef8734C71904D8002F8b6Bc66Dd9c48a6E", "USDC", "USD Coin", 6),
    ("0xA7D7079b0FEaD91F3e65f86E8915Cb59c1a4C664", "USDC.e", "USD Coin (bridged)", 6),
    ("0x9702230A8Ea53601f5cD2dc00fDBc13d4dF4A8c7", "USDt", "Tether USD", 6),
    ("0xc7198437980c041c805A1EDcbA50c1Ce5db95118", "USDT.e", "Tether USD (bridged)", 6),
    ("0xd586E7F844cEa2F87f50152665BCbc2C279D8d70", "DAI.e", "Dai Stablecoin (bridged)", 18),
    ("0x49D5c2BdFfac6CE2BFdB6640F4F80f226bc10bAB", "WETH.e", "Wrapped Ether (bridged)", 18),
    ("0xB31f66AA3C1e785363F0875A1B74E27b85FD66c7", "WAVAX", "Wrapped AVAX", 18),
    ("0x152b9d0FdC40C096757F570A51E494bd4b943E50", "BTC.b", "Bitcoin (bridged)", 8),
    ("0xC891EB4cbdEFf6e073e859e987815Ed1505c2ACD", "EURC", "Euro Coin", 6),
];

static SEI: &[KnownToken] = &[
    ("0xE30feDd158A2e3b13e9badaeABaFc5516e95e8C7", "WSEI", "Wrapped SEI", 18),
    ("0xe15fC38F6D8c56aF07bbCBe3BAf5708A2Bf42392", "USDC", "USD Coin", 6),
    ("0x9151434b16b9763660705744891fA906F660EcC5", "USDT0", "USDT0", 6),
    ("0x3894085Ef7Ff0f0aeDf52E2A2704928d1Ec074F1", "USDC.n", "USD Coin (Noble)", 6),
    ("0x160345fC359604fC6e70E3c5fAcbdE5F7A9342d8", "WETH", "Wrapped Ether (bridged)", 18),
];

// Of the test networks, the test coin of the issuer of USDC and the wrapped native coin.
static SEPOLIA: &[KnownToken] = &[
    ("0x1c7D4B196Cb0C7B01d743Fbc6116a902379C7238", "USDC", "USD Coin", 6),
    ("0xfFf9976782d46CC05630D1f6eBAb18b2324d6B14", "WETH", "Wrapped Ether", 18),
];

static OPTIMISM_SEPOLIA: &[KnownToken] = &[
    ("0x5fd84259d66Cd46123540766Be93DFE6D43130D7", "USDC", "USD Coin", 6),
    ("0x4200000000000000000000000000000000000006", "WETH", "Wrapped Ether", 18),
];

static BASE_SEPOLIA: &[KnownToken] = &[
    ("0x036CbD53842c5426634e7929541eC2318f3dCF7e", "USDC", "USD Coin", 6),
    ("0x4200000000000000000000000000000000000006", "WETH", "Wrapped Ether", 18),
];

static ARBITRUM_SEPOLIA: &[KnownToken] =
    &[("0x75faf114eafb1BDbe2F0316DF893fd58CE46AA4d", "USDC", "USD Coin", 6)];

// PYUSD and USDG are mints of Token-2022, the others of the Token program.
static SOLANA: &[KnownToken] = &[
    ("EPjFWdd5AufqSSqeM2qN1xzybapC8G4wEGGkZwyTDt1v", "USDC", "USD Coin", 6),
    ("Es9vMFrzaCERmJfrF4H2FYD4KCoNkY11McCe8BenwNYB", "USDT", "Tether USD", 6),
    ("2b1kV6DkPAnxd5ixfnxCpjxmKwqjjaYmCZfHsFu24GXo", "PYUSD", "PayPal USD", 6),
    ("2u1tszSeqZ3qBWF3uNGPFc8TzMk2tdiwknnRMWGWjGWH", "USDG", "Global Dollar", 6),
    ("USDSwr9ApdHk5bvJKMjzff41FfuX8bSxdKcR81vTwcA", "USDS", "USDS Stablecoin", 6),
    ("HzwqbKZw8HxMN6bF2yFZNrht3c2iXXzpKcFu7uBEDKtr", "EURC", "Euro Coin", 6),
    ("USD1ttGY1N17NEEHLmELoaybftRBUSErhqYiQzvEmuB", "USD1", "World Liberty Financial USD", 6),
    ("So11111111111111111111111111111111111111112", "wSOL", "Wrapped SOL", 9),
    ("7vfCXTUXx5WJV5JADk17DUJ4ksgau7utNKj4b963voxs", "WETH", "Ether (Wormhole)", 8),
    ("3NZ9JMVBmGAqocybic2c7LQCJScmgsAZ6vQqTDzcqmJh", "WBTC", "Wrapped BTC (Wormhole)", 8),
    ("JUPyiwrYJFskUPiHa7hkeR8VUtAeFoSYbKedZNsDvCN", "JUP", "Jupiter", 6),
    ("DezXAZ8z7PnrnRJjz3wXBoRgixCa6xjnB7YaB1pPB263", "BONK", "Bonk", 5),
    ("EKpQGSJtjMFqKZ9KQanSqYXRcF8fBopzLHYxdM65zcjm", "WIF", "dogwifhat", 6),
];

static SOLANA_DEVNET: &[KnownToken] =
    &[("So11111111111111111111111111111111111111112", "wSOL", "Wrapped SOL", 9)];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_known_token_is_written_with_its_checksum_and_once() {
        for chain in CHAINS {
            let (mut seen, mut symbols) = (BTreeSet::new(), BTreeSet::new());
            for (contract, symbol, name, decimals) in chain.tokens {
                assert!(symbols.insert(symbol), "two tokens are {symbol} on {}", chain.name);
                let family = chain.family;
                let address = family.parse_address(contract).expect(contract);
                assert_eq!(family.format_address(&address), *contract, "{}", chain.name);
                assert!(seen.insert(address), "{contract} stands twice on {}", chain.name);
                if let KnownId::ChainId(id) = chain.id {
                    assert!(!is_native_contract(id, address.as_slice()));
                }
                assert!(!symbol.is_empty() && !name.is_empty() && *decimals <= 18);
            }
        }
    }

    #[test]
    fn names_and_ids_of_known_chains_are_unique() {
        let names: BTreeSet<_> = CHAINS.iter().map(|chain| chain.name).collect();
        let ids: BTreeSet<_> = CHAINS.iter().map(|chain| chain.id).collect();
        assert_eq!((names.len(), ids.len()), (CHAINS.len(), CHAINS.len()));
    }

    #[test]
    fn each_table_of_what_logs_no_transfer_names_listed_tokens_of_known_chains() {
        for (id, contract) in WRAPPING.iter().chain(DESTROYING) {
            let chain = CHAINS.iter().find(|chain| chain.id == KnownId::ChainId(*id));
            let chain = chain.expect("a known chain");
            let token = chain.tokens.iter().find(|(listed, ..)| listed == contract);
            let (_, symbol, ..) = token.unwrap_or_else(|| panic!("{contract} on {}", chain.name));
            let wrapped = format!("W{}", chain.native.symbol);
            assert!(wraps_native(*id, contract) == (**symbol == wrapped), "{symbol}");
            assert_eq!(destroys_funds(*id, contract), *symbol == "USDT");
        }
    }

    #[test]
    fn less_than_everything_is_checked_only_where_a_chain_leaves_nothing_else() {
        let weaker = CHAINS.iter().filter(|chain| chain.verification != Verification::Full);
        let weaker: Vec<_> = weaker.map(|chain| (chain.name, chain.verification)).collect();
        let expected = [
            ("bnb", Verification::Bloom),
            ("polygon", Verification::Links),
            ("avalanche", Verification::Links),
            ("sei", Verification::Links),
        ];
        assert_eq!(weaker, expected);
    }

    #[test]
    fn dollar_coins_on_bnb_have_18_decimals_and_6_elsewhere() {
        for chain in CHAINS {
            for (_, symbol, _, decimals) in chain.tokens {
                if symbol.starts_with("USDC") || symbol.to_uppercase().starts_with("USDT") {
                    let expected = if chain.name == "bnb" { 18 } else { 6 };
                    assert_eq!(*decimals, expected, "{symbol} on {}", chain.name);
                }
            }
        }
    }
}
