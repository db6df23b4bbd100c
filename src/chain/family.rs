//! The families of chains. This list is the one place outside a family's own folder that names them.

use std::{ops::Deref, path::Path, sync::Arc};

use super::{
    Address, AddressError, AssetKey, BalanceProof, BlockHash, HistoryMethod, NoProof, PlanError,
    PlannedSafe, Proven, SafePlan, SafeRelease, Settlement, SetupError, SignatureError, Source,
    TxId, evm::Evm, sign_in::Network, solana::Solana,
};
use crate::{
    config::{ChainConfig, NativeCoin, Verification},
    metrics::Metrics,
    string_enum::string_enum,
};

string_enum! {
    /// A kind of chain. It is its [`Rules`]: `family.parse_address(text)`.
    Family {
        Evm = "evm",
        Solana = "solana",
    }
}

impl Family {
    /// Families that are known by name and not built yet.
    pub const TO_COME: &[&str] = &["tron"];
    /// The one family whose chains have Safes.
    pub const WITH_SAFES: Self = Self::Evm;

    /// An asset's CAIP-19 id. `caip2` names its chain, `slip44` is the coin type of the native coin.
    #[must_use]
    pub fn caip19(self, caip2: &str, slip44: u32, asset: &AssetKey) -> String {
        match asset {
            AssetKey::Native => format!("{caip2}/slip44:{slip44}"),
            AssetKey::Token(contract) => {
                format!("{caip2}/{}:{}", self.token_namespace(), self.format_address(contract))
            }
        }
    }

    /// The inverse of [`Family::caip19`]: the family, the chain's CAIP-2 id, and the asset.
    #[must_use]
    pub fn parse_caip19(text: &str) -> Option<(Self, &str, AssetKey)> {
        let (caip2, asset) = text.split_once('/')?;
        let (namespace, reference) = asset.split_once(':')?;
        let family = Self::ALL.iter().copied().find(|family| family.network(caip2).is_some())?;
        let key = match namespace {
            "slip44" => reference.parse::<u32>().ok().map(|_| AssetKey::Native)?,
            token if token == family.token_namespace() => {
                AssetKey::Token(family.parse_address(reference).ok()?)
            }
            _ => return None,
        };
        Some((family, caip2, key))
    }
}

impl Deref for Family {
    type Target = dyn Rules;

    fn deref(&self) -> &Self::Target {
        match self {
            Self::Evm => &Evm,
            Self::Solana => &Solana,
        }
    }
}

/// What others than its source must know of a family.
pub trait Rules: Send + Sync {
    /// Reads an address as a user writes it, with the family's checksum where there is one.
    ///
    /// # Errors
    /// See [`AddressError`].
    fn parse_address(&self, text: &str) -> Result<Address, AddressError>;

    /// Whether a text that is no address of the family is meant as one.
    fn resembles_address(&self, _text: &str) -> bool {
        false
    }

    /// The address as the family writes it.
    fn format_address(&self, address: &Address) -> String;

    /// Reads a transaction id; `None` when it has not the family's form.
    fn parse_tx(&self, text: &str) -> Option<TxId>;

    /// The transaction id as the family writes it.
    fn format_tx(&self, tx: &TxId) -> String;

    /// Reads a block hash; `None` when it has not the family's form.
    fn parse_block_hash(&self, text: &str) -> Option<BlockHash>;

    /// The block hash as the family writes it.
    fn format_block_hash(&self, hash: &BlockHash) -> String;

    /// What names a chain of the family.
    fn identity(&self) -> Identity;

    /// The CAIP-19 namespace of tokens.
    fn token_namespace(&self) -> &'static str;

    /// The chain as the family's sign-in messages name it; `None` if `caip2` names none of its chains.
    fn network(&self, caip2: &str) -> Option<Network>;

    /// Whether an address can sign at all.
    ///
    /// # Errors
    /// [`AddressError::NoKey`] for an address that has no key of its own.
    fn check_signer(&self, address: &Address) -> Result<(), AddressError>;

    /// Checks that the owner of `address` signed `message`; `signature` is as the family's wallets give it.
    ///
    /// # Errors
    /// See [`SignatureError`].
    fn verify_signature(
        &self,
        address: &Address,
        message: &str,
        signature: &str,
    ) -> Result<(), SignatureError>;

    /// What a proof of a balance shows, if its block is on the chain.
    ///
    /// # Errors
    /// What in it does not hold.
    fn check_proof(&self, _proof: &BalanceProof) -> Result<Proven, NoProof> {
        Err(NoProof("blocks of this family of chains do not commit to balances"))
    }

    /// How somebody checks a proof who trusts nobody, step by step, and what it does not show.
    fn how_to_check(&self, _proof: &BalanceProof) -> Vec<String> {
        Vec::new()
    }

    /// Where a Safe will stand that is deployed as planned.
    ///
    /// # Errors
    /// There cannot be one.
    fn place_of(&self, _plan: &SafePlan) -> Result<PlannedSafe, PlanError> {
        Err(PlanError::Version("an EVM chain".to_owned()))
    }

    /// Safe's own contracts, as far as they are known; the oldest version first.
    fn safe_releases(&self) -> Vec<SafeRelease> {
        Vec::new()
    }

    /// Whether a height can stay without a block for ever, as Solana's skipped slots do.
    fn skips_heights(&self) -> bool {
        false
    }

    /// What the configuration need not say.
    fn defaults(&self) -> Defaults;

    /// How thoroughly a node's answers can be checked.
    fn verifications(&self) -> &'static [Verification];

    /// How the past of an address can be looked for, the usual way first.
    fn history_methods(&self) -> &'static [HistoryMethod];

    /// Whether blocks of the family settle in that way.
    ///
    /// # Errors
    /// What they settle by instead.
    fn check_settlement(&self, _settlement: Settlement) -> Result<(), &'static str> {
        Ok(())
    }

    /// The source of one of its chains. Nothing is asked of the nodes yet. What our own code fails to read is
    /// kept below the folder `data`.
    ///
    /// # Errors
    /// Without endpoints, or with a URL or header that cannot be used.
    fn source(
        &self,
        chain: &ChainConfig,
        metrics: &Metrics,
        data: &Path,
    ) -> Result<Arc<dyn Source>, SetupError>;
}

/// What names a chain: a key of its configuration, whose value becomes its CAIP-2 id.
#[derive(Clone, Copy, Debug)]
pub enum Identity {
    /// `chain_id`: a number.
    ChainId { caip2: fn(u64) -> String, advice: &'static str },
    /// `genesis`: the hash of its first block.
    Genesis { caip2: fn(&BlockHash) -> String, advice: &'static str },
}

impl Identity {
    /// The key in the configuration.
    #[must_use]
    pub const fn key(&self) -> &'static str {
        match self {
            Self::ChainId { .. } => "chain_id",
            Self::Genesis { .. } => "genesis",
        }
    }
}

/// What the configuration of a chain need not say.
#[derive(Clone, Debug)]
pub struct Defaults {
    /// Of a chain that is not known by its name.
    pub native: NativeCoin,
    /// Blocks fetched by one request and committed by one transaction while catching up.
    pub batch_blocks: u64,
    /// Calls in one JSON-RPC batch.
    pub max_batch: u64,
    /// Addresses that the sweep looks at in a minute.
    pub sweep_per_minute: u64,
}
