//! Which chain it is: its EIP-155 id or its genesis hash, and the CAIP-2 id made of it.

use super::{
    ConfigError,
    check::whole,
    known::{KnownChain, KnownId},
    raw::Whole,
};
use crate::chain::{BlockHash, Family};

/// The key that says which chain it is.
pub(super) fn id_key(family: Family) -> &'static str {
    if family == Family::Solana { "genesis" } else { "chain_id" }
}

/// The EIP-155 id (0 where there is none) and the CAIP-2 id.
pub(super) fn identity(
    key: &str,
    name: &str,
    family: Family,
    chain_id: Option<Whole>,
    genesis: Option<&str>,
    known: Option<&KnownChain>,
) -> Result<(u64, String), ConfigError> {
    let (foreign, given) = match family {
        Family::Solana => ("chain_id", chain_id.is_some()),
        Family::Evm | Family::Tron => ("genesis", genesis.is_some()),
    };
    if given {
        return Err(ConfigError::invalid(
            format!("{key}.{foreign}"),
            format!("does not belong to a chain of the family {family}"),
            format!("Remove it; such a chain is named by {}", id_key(family)),
        ));
    }
    let id = known.map(|chain| chain.id);
    if family == Family::Solana {
        let genesis = genesis_hash(&format!("{key}.genesis"), name, genesis, id)?;
        return Ok((0, solana_caip2(&genesis)));
    }
    let id = match id {
        Some(KnownId::Eip155(id)) => Some(id),
        _ => None,
    };
    let id = eip155(&format!("{key}.chain_id"), name, chain_id, id)?;
    Ok((id, format!("eip155:{id}")))
}

fn eip155(
    key: &str,
    name: &str,
    written: Option<Whole>,
    known: Option<u64>,
) -> Result<u64, ConfigError> {
    match (written, known) {
        (None, Some(known)) => Ok(known),
        (Some(Whole(id)), Some(known)) if id != known => Err(ConfigError::invalid(
            key,
            format!("{id} is not the chain id of {name}, which is {known}"),
            "Remove it, or give your chain another name",
        )),
        (Some(id), _) => whole(key, id, 1..=i64::MAX.unsigned_abs()),
        (None, None) => Err(ConfigError::invalid(
            key,
            "is missing, and no chain of this name is built in",
            "Write the chain's EIP-155 id: the endpoints are checked against it",
        )),
    }
}

fn genesis_hash(
    key: &str,
    name: &str,
    written: Option<&str>,
    known: Option<KnownId>,
) -> Result<BlockHash, ConfigError> {
    let known = match known {
        Some(KnownId::SolanaGenesis(genesis)) => Some(genesis),
        _ => None,
    };
    if let (Some(written), Some(known)) = (written, known)
        && written != known
    {
        return Err(ConfigError::invalid(
            key,
            format!("{written:?} is not the genesis hash of {name}, which is {known}"),
            "Remove it, or give your chain another name",
        ));
    }
    let advice =
        "Write what the node's getGenesisHash answers: the endpoints are checked against it";
    let Some(text) = written.or(known) else {
        return Err(ConfigError::invalid(
            key,
            "is missing, and no chain of this name is built in",
            advice,
        ));
    };
    Family::Solana.parse_block_hash(text).ok_or_else(|| {
        ConfigError::invalid(key, format!("{text:?} is not a hash in base58"), advice)
    })
}

/// CAIP-30: the first 32 characters of the genesis hash.
fn solana_caip2(genesis: &BlockHash) -> String {
    crate::chain::solana::caip2(&Family::Solana.format_block_hash(genesis))
}
