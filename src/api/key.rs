//! API keys: what they are made of and who may make them. The key is shown once; its hash is stored.

use sha2::{Digest as _, Sha256};

use crate::{
    clock::Millis,
    id::{Ids, KeyId},
    random::Random,
    store::{Db, StoreError, key},
    string_enum::string_enum,
};

const PREFIX: &str = "tmk_";
/// Base62 digits: 190 bits.
const DIGITS: usize = 32;

string_enum! {
    /// What a key allows.
    Scope {
        WalletsRead = "wallets:read",
        WalletsWrite = "wallets:write",
        WebhooksWrite = "webhooks:write",
        /// Everything.
        Admin = "admin",
    }
}

impl std::str::FromStr for Scope {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::parse(text).ok_or_else(|| {
            let words: Vec<&str> = Self::ALL.iter().map(|scope| scope.as_str()).collect();
            format!("'{text}' is not a scope: use {}", words.join(", "))
        })
    }
}

/// A new key. This is the only time that it is seen.
#[must_use]
pub fn generate(random: &Random) -> String {
    format!("{PREFIX}{}", random.alphanumeric(DIGITS))
}

/// What is stored of a key. A key is too long to be guessed, so a fast hash without salt serves.
#[must_use]
pub fn hash(key: &str) -> [u8; 32] {
    Sha256::digest(key).into()
}

/// Makes a key for the tenant of that name, and the tenant if there is none yet. Gives the key's id and
/// the key itself.
///
/// # Errors
/// [`StoreError`] of the engine.
pub async fn create(
    db: &Db,
    ids: &Ids,
    random: &Random,
    now: Millis,
    tenant: &str,
    scopes: &[Scope],
) -> Result<(KeyId, String), StoreError> {
    let scopes: Vec<&str> = scopes.iter().map(|scope| scope.as_str()).collect();
    let secret = generate(random);
    let id: KeyId = ids.next();
    let (hash, scopes) = (&hash(&secret), &scopes.join(" "));
    db.run_tx("key_create", |mut tx| async move {
        let mut conn = tx.conn();
        let tenant = key::ensure_tenant(&mut conn, ids.next(), tenant, now).await?;
        key::insert_key(&mut conn, id, tenant, hash, scopes, now).await?;
        Ok::<_, StoreError>((tx, ()))
    })
    .await?;
    Ok((id, secret))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_its_form_and_no_two_are_equal() {
        let key = generate(&Random::System);
        assert_eq!(key.len(), 36);
        assert!(key.starts_with("tmk_") && key[4..].chars().all(|c| c.is_ascii_alphanumeric()));
        assert_ne!(key, generate(&Random::System));
        assert!("wallets:delete".parse::<Scope>().is_err());
    }
}
