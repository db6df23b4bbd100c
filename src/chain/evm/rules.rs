//! What others than its source must know of the EVM family.

use std::{path::Path, sync::Arc};

use super::{EvmSource, caip2, proof, safe, signature};
use crate::{
    chain::{
        Address, AddressError, BalanceProof, BlockHash, Defaults, Family, HistoryMethod, Identity,
        NoProof, PlanError, PlannedSafe, Proven, Rules, SafePlan, SafeRelease, SetupError,
        SignatureError, Source, TxId, sign_in::Network,
    },
    config::{ChainConfig, NativeCoin, Verification},
    metrics::Metrics,
};

const ADDRESS_FORM: &str = "0x and 40 hexadecimal digits are expected";

/// Ethereum and the chains that are made like it.
pub struct Evm;

impl Rules for Evm {
    /// An address in one case passes; in mixed case EIP-55 must hold.
    fn parse_address(&self, text: &str) -> Result<Address, AddressError> {
        let malformed = || AddressError::Malformed { family: Family::Evm, expected: ADDRESS_FORM };
        let digits = text.strip_prefix("0x").ok_or_else(malformed)?;
        let bytes: [u8; 20] = fixed(text).ok_or_else(malformed)?;
        if bytes == [0; 20] {
            return Err(AddressError::Zero);
        }
        let has = |test: fn(&u8) -> bool| digits.as_bytes().iter().any(test);
        if has(u8::is_ascii_lowercase) && has(u8::is_ascii_uppercase) {
            let correct = alloy::primitives::Address::from(bytes).to_checksum(None);
            if correct != text {
                return Err(AddressError::Checksum { correct });
            }
        }
        Ok(Address::from(bytes))
    }

    fn resembles_address(&self, text: &str) -> bool {
        text.starts_with("0x")
    }

    /// In the mixed case of EIP-55.
    fn format_address(&self, address: &Address) -> String {
        match <[u8; 20]>::try_from(address.as_slice()) {
            Ok(bytes) => alloy::primitives::Address::from(bytes).to_checksum(None),
            Err(_) => format!("{address:?}"),
        }
    }

    fn parse_tx(&self, text: &str) -> Option<TxId> {
        fixed::<32>(text).map(TxId::from)
    }

    fn format_tx(&self, tx: &TxId) -> String {
        alloy::hex::encode_prefixed(tx.as_slice())
    }

    fn parse_block_hash(&self, text: &str) -> Option<BlockHash> {
        fixed(text).map(BlockHash)
    }

    fn format_block_hash(&self, hash: &BlockHash) -> String {
        alloy::hex::encode_prefixed(hash.0)
    }

    fn identity(&self) -> Identity {
        Identity::ChainId {
            caip2,
            advice: "Write the chain's EIP-155 id: the endpoints are checked against it",
        }
    }

    fn token_namespace(&self) -> &'static str {
        "erc20"
    }

    /// The EIP-155 number is the chain id of EIP-4361.
    fn network(&self, caip2: &str) -> Option<Network> {
        let id = caip2.strip_prefix("eip155:")?;
        Some(Network { account: "Ethereum", id: id.to_owned(), gap: "\n\n\n" })
    }

    /// An address does not show whether a contract is there.
    fn check_signer(&self, _address: &Address) -> Result<(), AddressError> {
        Ok(())
    }

    /// `signature` is r, s and v (0, 1, 27 or 28) in hexadecimal digits after 0x.
    fn verify_signature(
        &self,
        address: &Address,
        message: &str,
        signature: &str,
    ) -> Result<(), SignatureError> {
        signature::verify(address, message, signature)
    }

    fn check_proof(&self, proof: &BalanceProof) -> Result<Proven, NoProof> {
        proof::check(proof)
    }

    fn how_to_check(&self, proof: &BalanceProof) -> Vec<String> {
        proof::how_to_check(proof)
    }

    fn safe_releases(&self) -> Vec<SafeRelease> {
        safe::releases()
    }

    fn place_of(&self, plan: &SafePlan) -> Result<PlannedSafe, PlanError> {
        safe::place(plan)
    }

    fn defaults(&self) -> Defaults {
        Defaults {
            native: NativeCoin {
                symbol: "ETH".to_owned(),
                name: "Ether".to_owned(),
                decimals: 18,
                slip44: 60,
            },
            batch_blocks: 100,
            // Where there is no Multicall3, so many balances settle by one request.
            max_batch: 500,
            // A request answers hundreds of balances where Multicall3 is.
            sweep_per_minute: 600,
        }
    }

    fn verifications(&self) -> &'static [Verification] {
        &[Verification::Full, Verification::Bloom, Verification::Links]
    }

    fn history_methods(&self) -> &'static [HistoryMethod] {
        &[HistoryMethod::Blocks, HistoryMethod::Logs]
    }

    fn source(
        &self,
        chain: &ChainConfig,
        metrics: &Metrics,
        data: &Path,
    ) -> Result<Arc<dyn Source>, SetupError> {
        let source = EvmSource::new(chain, metrics.clone())?;
        source.keep_in(data);
        Ok(Arc::new(source))
    }
}

/// Exactly `N` bytes in hexadecimal digits after 0x.
fn fixed<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    hex::decode_to_slice(text.strip_prefix("0x")?, &mut bytes).ok()?;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mixed_case_address_must_keep_its_checksum() {
        let good = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed";
        let address = Evm.parse_address(good).expect("EIP-55's own example");
        assert_eq!(Evm.format_address(&address), good);
        assert_eq!(Evm.parse_address(&good.to_lowercase()), Ok(address));
        let wrong = good.replace("aAeb", "aaeb");
        assert_eq!(
            Evm.parse_address(&wrong),
            Err(AddressError::Checksum { correct: good.to_owned() })
        );
    }

    #[test]
    fn the_zero_address_and_other_families_texts_are_refused() {
        let zero = format!("0x{}", "0".repeat(40));
        assert_eq!(Evm.parse_address(&zero), Err(AddressError::Zero));
        for text in [
            "",
            "0x",
            "0x12",
            "TR7NHqjeKQxGTCi8q8ZY4pL8otSzgjLj6t",
            "5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
        ] {
            assert!(matches!(Evm.parse_address(text), Err(AddressError::Malformed { .. })));
        }
    }
}
