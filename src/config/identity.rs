//! Which chain it is: its EIP-155 id or its genesis hash, and the CAIP-2 id made of it.

use super::{
    ConfigError,
    check::whole,
    known::{KnownChain, KnownId},
    raw::Whole,
};
use crate::chain::{BlockHash, Family, Identity};

/// The EIP-155 id (0 where there is none) and the CAIP-2 id.
pub(super) fn identity(
    key: &str,
    name: &str,
    family: Family,
    chain_id: Option<Whole>,
    genesis: Option<&str>,
    known: Option<&KnownChain>,
) -> Result<(u64, String), ConfigError> {
    let named_by = family.identity();
    let (foreign, given) = match named_by {
        Identity::Genesis { .. } => ("chain_id", chain_id.is_some()),
        Identity::ChainId { .. } => ("genesis", genesis.is_some()),
    };
    if given {
        return Err(ConfigError::invalid(
            format!("{key}.{foreign}"),
            format!("does not belong to a chain of the family {family}"),
            format!("Remove it; such a chain is named by {}", named_by.key()),
        ));
    }
    let id = known.map(|chain| chain.id);
    let key = format!("{key}.{}", named_by.key());
    match named_by {
        Identity::ChainId { caip2, advice } => {
            let known = match id {
                Some(KnownId::ChainId(id)) => Some(id),
                _ => None,
            };
            let id = number(&key, name, chain_id, known, advice)?;
            Ok((id, caip2(id)))
        }
        Identity::Genesis { caip2, advice } => {
            let known = match id {
                Some(KnownId::Genesis(genesis)) => Some(genesis),
                _ => None,
            };
            let genesis = genesis_hash(&key, name, family, genesis, known, advice)?;
            Ok((0, caip2(&genesis)))
        }
    }
}

fn number(
    key: &str,
    name: &str,
    written: Option<Whole>,
    known: Option<u64>,
    advice: &str,
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
            advice,
        )),
    }
}

fn genesis_hash(
    key: &str,
    name: &str,
    family: Family,
    written: Option<&str>,
    known: Option<&str>,
    advice: &str,
) -> Result<BlockHash, ConfigError> {
    if let (Some(written), Some(known)) = (written, known)
        && written != known
    {
        return Err(ConfigError::invalid(
            key,
            format!("{written:?} is not the genesis hash of {name}, which is {known}"),
            "Remove it, or give your chain another name",
        ));
    }
    let Some(text) = written.or(known) else {
        return Err(ConfigError::invalid(
            key,
            "is missing, and no chain of this name is built in",
            advice,
        ));
    };
    family.parse_block_hash(text).ok_or_else(|| {
        ConfigError::invalid(key, format!("{text:?} is not the hash of a block"), advice)
    })
}
