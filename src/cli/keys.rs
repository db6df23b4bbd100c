//! `tidemark keys`: make, list and revoke API keys.

use anyhow::{Context as _, ensure};

use crate::{
    api::key::{self, Scope},
    clock::Clock,
    config::Config,
    id::{Ids, KeyId},
    metrics::Metrics,
    random::Random,
    store::{Db, StoreError, key as rows},
};

const LONGEST_TENANT: usize = 128;

/// What is to be done with API keys.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum KeysCommand {
    /// Make a key and print it, this once.
    Create {
        /// Whose key; a new name makes a new tenant.
        #[arg(long)]
        tenant: String,
        /// What it allows: wallets:read, wallets:write, webhooks:write, admin.
        #[arg(long, value_delimiter = ',', required = true)]
        scopes: Vec<Scope>,
    },
    /// List keys, without the keys themselves.
    List {
        #[arg(long)]
        tenant: Option<String>,
    },
    /// End a key; daemons forget it within 5 seconds.
    Revoke {
        /// The key's id (`key_…`), as it was printed and as the list shows it.
        id: String,
    },
}

/// Carries out a command on the store that the configuration names.
///
/// # Errors
/// When the store cannot be used, or the command names what is not there.
pub async fn run(config: &Config, command: KeysCommand) -> anyhow::Result<()> {
    let db = Db::open(config.database_url.expose(), &Metrics::new()).await?;
    let done = carry_out(&db, &Clock::System, command).await;
    db.close().await;
    println!("{}", done?);
    Ok(())
}

async fn carry_out(db: &Db, clock: &Clock, command: KeysCommand) -> anyhow::Result<String> {
    match command {
        KeysCommand::Create { tenant, scopes } => create(db, clock, &tenant, &scopes).await,
        KeysCommand::List { tenant } => list(db, tenant.as_deref()).await,
        KeysCommand::Revoke { id } => revoke(db, clock, &id).await,
    }
}

async fn create(db: &Db, clock: &Clock, tenant: &str, scopes: &[Scope]) -> anyhow::Result<String> {
    ensure!(!scopes.is_empty(), "name at least one scope");
    let harmless = !tenant.trim().is_empty()
        && tenant.chars().count() <= LONGEST_TENANT
        && !tenant.chars().any(char::is_control);
    ensure!(harmless, "a tenant's name has 1 to {LONGEST_TENANT} characters");
    let ids = Ids::new(clock.clone());
    let (id, secret) = key::create(db, &ids, &Random::System, clock.now(), tenant, scopes)
        .await
        .context("the key could not be stored")?;
    eprintln!("{id} for {tenant}. The key is shown only now; keep it safe:");
    Ok(secret)
}

async fn list(db: &Db, tenant: Option<&str>) -> anyhow::Result<String> {
    let mut session = db.read().await?;
    let keys = rows::keys(&mut session.conn(), tenant).await?;
    if keys.is_empty() {
        return Ok("no keys".to_owned());
    }
    let line = |key: rows::KeyRow| {
        let state = match key.revoked_at {
            Some(at) => format!("revoked {at}"),
            None => "valid".to_owned(),
        };
        format!("{}  {}  {}  made {}  {state}", key.id, key.tenant_name, key.scopes, key.created_at)
    };
    Ok(keys.into_iter().map(line).collect::<Vec<_>>().join("\n"))
}

async fn revoke(db: &Db, clock: &Clock, id: &str) -> anyhow::Result<String> {
    let id: KeyId = id.parse().context("tidemark keys list shows the ids of keys")?;
    let now = clock.now();
    let revoked = db
        .run_tx("key_revoke", |mut tx| async move {
            let revoked = rows::revoke_key(&mut tx.conn(), id, now).await?;
            Ok::<_, StoreError>((tx, revoked))
        })
        .await?;
    ensure!(revoked, "there is no valid key {id}; see tidemark keys list");
    Ok(format!("{id} is revoked; running daemons refuse it within 5 seconds"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Millis;

    #[tokio::test]
    async fn a_key_is_made_listed_without_itself_and_revoked_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let url = format!("sqlite://{}", folder.path().join("t.db").display());
        let db = Db::open(&url, &Metrics::new()).await.expect("a store");
        let clock = Clock::manual(Millis(1_768_469_400_000));
        let scopes = vec![Scope::WalletsRead, Scope::WebhooksWrite];
        let create = KeysCommand::Create { tenant: "acme".to_owned(), scopes };
        let secret = carry_out(&db, &clock, create).await.expect("a key");
        let list = async || {
            let command = KeysCommand::List { tenant: Some("acme".to_owned()) };
            carry_out(&db, &clock, command).await.expect("a list")
        };
        let listed = list().await;
        assert!(listed.contains("wallets:read webhooks:write") && listed.ends_with("valid"));
        assert!(!listed.contains(&secret));
        let id = listed.split(' ').next().expect("an id").to_owned();
        let revoke = async || carry_out(&db, &clock, KeysCommand::Revoke { id: id.clone() }).await;
        revoke().await.expect("revoked");
        assert!(list().await.contains("revoked 2026-01-15"));
        assert!(revoke().await.is_err(), "it is revoked already");
        let empty = KeysCommand::Create { tenant: " ".to_owned(), scopes: vec![Scope::Admin] };
        assert!(carry_out(&db, &clock, empty).await.is_err());
    }
}
