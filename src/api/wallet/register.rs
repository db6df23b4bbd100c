//! `POST /v1/wallets`: the wish to watch an address. The chains' followers fulfil it.

use std::{collections::BTreeMap, sync::Arc};

use axum::{extract::State, http::StatusCode, response::Response};
use serde::Deserialize;
use utoipa::ToSchema;

use super::{LONGEST_NICKNAME, LONGEST_REFERENCE};
use crate::{
    api::{
        App,
        auth::Caller,
        error::{Code, Failures, Problem},
        key::Scope,
        locator::canonical,
        request::{Fields, Payload},
        write::{self, Answer, Write},
    },
    chain::{Address, ChainName, Family},
    clock::Millis,
    event::{EventType, EventWallet, NewEvent},
    id::{AccountId, TenantId, WalletId},
    model::{NewWallet, WalletKind},
    store::{
        self, Conn, StoreError,
        account::{self, LocatorKind},
        wallet,
    },
    view::{WalletData, WalletView},
};

const LONGEST_EXTERNAL_ID: usize = 256;
const LONGEST_LOCATOR: usize = 320;
const MOST_CHAINS: usize = 64;

/// An address to watch.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = NewWallet)]
pub struct WalletBody {
    #[schema(required, example = "0x742D35CC6634C0532925a3B844Bc9E7595F2bD18")]
    address: Option<String>,
    /// Names of configured chains, all of one family.
    #[serde(default)]
    #[schema(required, example = json!(["ethereum", "base"]))]
    chains: Vec<String>,
    /// The owner; made if it is new.
    account: Option<AccountBody>,
    client_reference_id: Option<String>,
    nickname: Option<String>,
    /// Makes it the account's primary wallet of this family.
    #[serde(default)]
    is_primary: bool,
    /// The first block, per chain, whose movements count; without it only the future does.
    #[serde(default)]
    #[schema(example = json!({"ethereum": 19_000_000}))]
    from_block: BTreeMap<String, u64>,
    #[schema(ignore)]
    safe: Option<serde_json::Value>,
    #[schema(ignore)]
    deployment: Option<serde_json::Value>,
}

/// The owner of a wallet. The locators name the account besides its external id.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = NewAccount)]
pub struct AccountBody {
    #[schema(example = "player-12345")]
    external_id: String,
    email: Option<String>,
    user_id: Option<String>,
    phone_number: Option<String>,
    x: Option<String>,
}

struct Owner {
    external_id: String,
    locators: Vec<(LocatorKind, String)>,
}

/// A request that is valid as far as can be told without the store.
struct Register {
    address: Address,
    family: Family,
    /// With the first block whose movements count, if not only the future does.
    chains: BTreeMap<ChainName, Option<u64>>,
    owner: Option<Owner>,
    client_reference_id: Option<String>,
    nickname: Option<String>,
    is_primary: bool,
}

impl Register {
    fn check(app: &App, body: WalletBody) -> Result<Self, Problem> {
        if body.safe.is_some() || body.deployment.is_some() {
            let field = if body.safe.is_some() { "safe" } else { "deployment" };
            return Err(Problem::field(
                Code::InvalidRequest,
                field,
                "is not supported here by this version: track the Safe's deployment with \
                 POST /v1/safe-deployments",
            ));
        }
        let mut fields = Fields::default();
        if body.address.is_none() {
            fields.refuse("address", "is missing");
        }
        if body.chains.is_empty() {
            fields.refuse("chains", "must name at least one chain");
        }
        if body.chains.len() > MOST_CHAINS {
            fields.refuse("chains", format!("may name {MOST_CHAINS} chains at most"));
        }
        fields.text("nickname", body.nickname.as_deref(), LONGEST_NICKNAME);
        fields.text("clientReferenceId", body.client_reference_id.as_deref(), LONGEST_REFERENCE);
        if body.is_primary && body.account.is_none() {
            fields.refuse("isPrimary", "needs an account");
        }
        let owner = body.account.map(|account| owner(&mut fields, account));
        let mut chains = BTreeMap::new();
        let mut family = None;
        for (n, name) in body.chains.iter().enumerate() {
            let field = format!("chains[{n}]");
            let config = app.chain(&field, name)?;
            if *family.get_or_insert(config.family) != config.family {
                fields.refuse(
                    field,
                    format!("is of another family ({}): register it separately", config.family),
                );
            } else if chains.insert(config.name.clone(), None).is_some() {
                fields.refuse(field, "is named twice");
            }
        }
        for (name, block) in &body.from_block {
            let field = format!("fromBlock.{name}");
            match chains.get_mut(name.as_str()) {
                None => fields.refuse(field, "is not among the chains of this request"),
                Some(_) if i64::try_from(*block).is_err() => {
                    fields.refuse(field, "is higher than any block");
                }
                Some(from) => *from = Some(*block),
            }
        }
        fields.finish()?;
        let (Some(family), Some(text)) = (family, body.address) else {
            return Err(Problem::internal("a checked request lacks its fields"));
        };
        let address = family
            .parse_address(&text)
            .map_err(|error| Problem::field(Code::InvalidAddress, "address", error.to_string()))?;
        Ok(Self {
            address,
            family,
            chains,
            owner,
            client_reference_id: body.client_reference_id,
            nickname: body.nickname,
            is_primary: body.is_primary,
        })
    }

    async fn account(
        &self,
        app: &App,
        tenant: TenantId,
        conn: &mut Conn<'_>,
        now: Millis,
    ) -> Result<Option<AccountId>, Problem> {
        let Some(owner) = &self.owner else { return Ok(None) };
        let id = account::ensure(conn, app.ids.next(), tenant, &owner.external_id, now).await?;
        for (kind, value) in &owner.locators {
            let named = account::ensure_locator(conn, tenant, id, *kind, value).await?;
            if named != id {
                return Err(Problem::field(
                    Code::ExternalIdExists,
                    &format!("account.{kind}"),
                    format!(
                        "names another account already ({named}): use that account's externalId"
                    ),
                ));
            }
        }
        Ok(Some(id))
    }
}

fn owner(fields: &mut Fields, account: AccountBody) -> Owner {
    fields.text("account.externalId", Some(&account.external_id), LONGEST_EXTERNAL_ID);
    let given = [
        (LocatorKind::Email, account.email),
        (LocatorKind::UserId, account.user_id),
        (LocatorKind::PhoneNumber, account.phone_number),
        (LocatorKind::X, account.x),
    ];
    let mut locators = Vec::new();
    for (kind, value) in given {
        let Some(value) = value else { continue };
        let field = format!("account.{kind}");
        fields.text(&field, Some(&value), LONGEST_LOCATOR);
        let is_email = value.split_once('@').is_some_and(|(a, b)| !a.is_empty() && !b.is_empty());
        if kind == LocatorKind::Email && !is_email {
            fields.refuse(field, "is not an e-mail address");
        }
        locators.push((kind, canonical(kind, &value)));
    }
    Owner { external_id: account.external_id, locators }
}

impl Write for Register {
    const NAME: &'static str = "wallet_create";

    async fn apply(
        &self,
        app: &App,
        tenant: TenantId,
        conn: &mut Conn<'_>,
        now: Millis,
    ) -> Result<Answer, Problem> {
        if self.is_primary {
            // Demoting others takes their rows: first the tenant's, as the ledger does.
            store::key::lock_tenant(conn, tenant).await?;
        }
        let account_id = self.account(app, tenant, conn, now).await?;
        let id: WalletId = app.ids.next();
        let new = NewWallet {
            id,
            tenant: store::event::tenant_no(conn, tenant).await?,
            tenant_id: tenant,
            account_id,
            family: self.family,
            address: self.address,
            kind: WalletKind::Eoa,
            client_reference_id: self.client_reference_id.clone(),
            nickname: self.nickname.clone(),
            is_primary: self.is_primary,
        };
        let no = wallet::insert(conn, &new, now).await?;
        for (chain, from) in &self.chains {
            let chain_no = store::chain::ensure(conn, chain).await?;
            if !wallet::request_watch(conn, no, &new, chain_no, *from, now).await? {
                return Err(exists(tenant, conn, chain, &self.address, self.family).await?);
            }
        }
        if let (true, Some(account)) = (self.is_primary, account_id) {
            account::lock(conn, tenant, account, now).await?;
            wallet::demote_others(conn, tenant, account, self.family, id, now).await?;
        }
        let row = wallet::by_id(conn, tenant, id).await?;
        let row = row.ok_or_else(|| StoreError::corrupt("a wallet vanished as it was made"))?;
        let view = WalletView::from(&row);
        let answer = Answer::new(StatusCode::CREATED, &view)?;
        let data = WalletData { wallet: view };
        let kind = EventType::WalletCreated;
        let of = Some(EventWallet::No(no));
        let event = NewEvent::data(new.tenant, of, kind, &[id.0.as_bytes()], now, &data);
        let event = event.map_err(Problem::internal)?;
        store::event::append(conn, &app.ids, now, &[event]).await?;
        Ok(answer)
    }

    fn committed(&self, app: &App) {
        app.metrics.events_total.with_label_values(&[EventType::WalletCreated.as_str()]).inc();
        self.chains.keys().for_each(|chain| app.wake.chain(chain));
        app.wake.deliveries();
    }
}

async fn exists(
    tenant: TenantId,
    conn: &mut Conn<'_>,
    chain: &ChainName,
    address: &Address,
    family: Family,
) -> Result<Problem, Problem> {
    let existing = wallet::watching(conn, tenant, chain, address)
        .await?
        .ok_or_else(|| StoreError::Collision("a watch came and went".to_owned()))?;
    let detail = format!(
        "{} is registered on {chain} already, as {existing}. Use that wallet, or delete it first.",
        family.format_address(address)
    );
    Ok(Problem { existing: Some(existing), ..Problem::new(Code::WalletExists, detail) })
}

/// Register a wallet
///
/// The wallet is `pending` until the chain's follower has read its opening balance at a block; from that
/// block on nothing is missed. `wallet.created` is told at once, `wallet.activated` when it begins.
#[utoipa::path(post, path = "/v1/wallets", tag = "wallets",
    params(("Idempotency-Key" = String, Header, description = "1 to 128 of A-Z a-z 0-9 _ . : -")),
    request_body = WalletBody,
    responses((status = 201, body = WalletView), Failures),
    security(("apiKey" = []), ("bearer" = [])))]
pub async fn create(
    State(app): State<Arc<App>>,
    caller: Caller,
    payload: Payload,
) -> Result<Response, Problem> {
    let tenant = caller.need(Scope::WalletsWrite)?;
    payload.idempotency_key()?;
    let register = Register::check(&app, payload.parse()?)?;
    write::post(&app, tenant, &payload, &register).await
}
