//! What others than its source must know of the Solana family.

use std::{path::Path, sync::Arc};

use super::{SolanaSource, caip2, signature};
use crate::{
    chain::{
        Address, AddressError, BlockHash, Defaults, Family, HistoryMethod, Identity, Rules,
        Settlement, SettlementTag, SetupError, SignatureError, Source, TxId, base58,
        sign_in::Network,
    },
    config::{ChainConfig, NativeCoin, Verification},
    metrics::Metrics,
};

const ADDRESS_FORM: &str = "32 bytes in base58 are expected";

/// Solana and its clusters.
pub struct Solana;

impl Rules for Solana {
    /// An address is its length only: base58 as Solana uses it has no checksum.
    fn parse_address(&self, text: &str) -> Result<Address, AddressError> {
        let bytes = base58::decode_32(text)
            .ok_or(AddressError::Malformed { family: Family::Solana, expected: ADDRESS_FORM })?;
        if bytes == [0; 32] {
            return Err(AddressError::SystemProgram);
        }
        Ok(Address::from(bytes))
    }

    fn format_address(&self, address: &Address) -> String {
        match address.as_slice().try_into() {
            Ok(bytes) => base58::encode_32(bytes),
            Err(_) => format!("{address:?}"),
        }
    }

    fn parse_tx(&self, text: &str) -> Option<TxId> {
        base58::decode_64(text).map(TxId::from)
    }

    /// A signature has 64 bytes; what names a block's rewards has 32.
    fn format_tx(&self, tx: &TxId) -> String {
        let bytes = tx.as_slice();
        match (bytes.try_into(), bytes.try_into()) {
            (Ok(bytes), _) => base58::encode_64(bytes),
            (_, Ok(bytes)) => base58::encode_32(bytes),
            _ => format!("{tx:?}"),
        }
    }

    fn parse_block_hash(&self, text: &str) -> Option<BlockHash> {
        base58::decode_32(text).map(BlockHash)
    }

    fn format_block_hash(&self, hash: &BlockHash) -> String {
        base58::encode_32(&hash.0)
    }

    fn identity(&self) -> Identity {
        Identity::Genesis {
            caip2: |genesis| caip2(&base58::encode_32(&genesis.0)),
            advice: "Write what the node's getGenesisHash answers, in base58: the endpoints are checked \
                     against it",
        }
    }

    fn token_namespace(&self) -> &'static str {
        "token"
    }

    /// A public cluster has a word; any other one is a `localnet`.
    fn network(&self, caip2: &str) -> Option<Network> {
        let cluster = match caip2.strip_prefix("solana:")? {
            "5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp" => "mainnet",
            "EtWTRABZaYq6iMfeYKouRu166VU2xqa1" => "devnet",
            "4uhcVJyU9pJkvQyS88uRDiswHXSGkcZn" => "testnet",
            _ => "localnet",
        };
        Some(Network { account: "Solana", id: cluster.to_owned(), gap: "\n\n" })
    }

    /// An address that is not on the curve is derived by a program; the signatures of one of small order
    /// prove nothing.
    fn check_signer(&self, address: &Address) -> Result<(), AddressError> {
        match signature::key(address) {
            Some(key) if !key.is_weak() => Ok(()),
            _ => Err(AddressError::NoKey),
        }
    }

    /// `signature` is 64 bytes in base58 or base64.
    fn verify_signature(
        &self,
        address: &Address,
        message: &str,
        signature: &str,
    ) -> Result<(), SignatureError> {
        signature::verify(address, message, signature)
    }

    fn skips_heights(&self) -> bool {
        true
    }

    fn defaults(&self) -> Defaults {
        Defaults {
            native: NativeCoin {
                symbol: "SOL".to_owned(),
                name: "Solana".to_owned(),
                decimals: 9,
                slip44: 501,
            },
            // Its blocks are a thousand times fuller than a quiet EVM chain's.
            batch_blocks: 8,
            max_batch: 100,
            sweep_per_minute: 60,
        }
    }

    fn verifications(&self) -> &'static [Verification] {
        &[Verification::Full, Verification::Links]
    }

    fn history_methods(&self) -> &'static [HistoryMethod] {
        &[HistoryMethod::Signatures]
    }

    fn check_settlement(&self, settlement: Settlement) -> Result<(), &'static str> {
        match settlement {
            Settlement::Tag(SettlementTag::Finalized) => Ok(()),
            _ => Err("a block of Solana is confirmed and then finalized"),
        }
    }

    fn source(
        &self,
        chain: &ChainConfig,
        metrics: &Metrics,
        data: &Path,
    ) -> Result<Arc<dyn Source>, SetupError> {
        let source = SolanaSource::new(chain, metrics.clone())?;
        source.keep_in(data);
        Ok(Arc::new(source))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_32_bytes_in_base58_and_keeps_its_case() {
        let usdc = "EPjFWdd5AufqSSqeM2qN1xzybapC8G4wEGGkZwyTDt1v";
        let address = Solana.parse_address(usdc).expect("the mint of USDC");
        assert_eq!(Solana.format_address(&address), usdc);
        assert_ne!(Solana.parse_address(&usdc.replace('W', "w")), Ok(address));
        let system = "11111111111111111111111111111111";
        assert_eq!(Solana.parse_address(system), Err(AddressError::SystemProgram));
        for text in ["", "0", &usdc[3..], &format!("{usdc}1"), &usdc.replace('W', "0"), "0x12"] {
            assert!(
                matches!(Solana.parse_address(text), Err(AddressError::Malformed { .. })),
                "{text}"
            );
        }
    }

    #[test]
    fn a_transaction_is_named_by_its_signature_and_a_reward_by_its_block() {
        assert!(Solana.parse_tx("EPjFWdd5AufqSSqeM2qN1xzybapC8G4wEGGkZwyTDt1v").is_none());
        let signature = TxId::from([7; 64]);
        assert_eq!(Solana.parse_tx(&Solana.format_tx(&signature)), Some(signature));
        let block = BlockHash([9; 32]);
        assert_eq!(Solana.format_tx(&TxId::from(block.0)), Solana.format_block_hash(&block));
    }
}
