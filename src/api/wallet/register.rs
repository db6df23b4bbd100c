//! `POST /v1/wallets`: the request to watch an address. The chains' followers fulfil it.
//!
//! Registrations that come together are made together: read what is there, decide, write in sets.

mod decide;
mod safe;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use axum::{extract::State, http::StatusCode, response::Response};
use serde::Deserialize;
use utoipa::ToSchema;

use self::decide::{Asked, AskedChain, Deciding, Known, Refusal};
pub use self::safe::SafeBody;
use super::{LONGEST_NICKNAME, LONGEST_REFERENCE};
use crate::{
    api::{
        App,
        auth::Caller,
        batch::{WriteMany, Written},
        error::{Code, Failures, Problem},
        key::Scope,
        locator::canonical,
        request::{Fields, Payload},
        safe_deployment::{DeploymentBody, track},
        write::Answer,
    },
    chain::{Address, ChainName, Family},
    clock::Millis,
    event::{EventType, EventWallet, NewEvent},
    id::TenantId,
    model::{LocatorKind, SafeFacts},
    store::{self, Conn, StoreError, registration},
    view::{SafeDeploymentView, WalletData, WalletView},
};

const LONGEST_EXTERNAL_ID: usize = 256;
const LONGEST_LOCATOR: usize = 320;
const MOST_CHAINS: usize = 64;

/// An address to watch, or a Safe that may not be deployed yet.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = NewWallet)]
pub struct WalletBody {
    /// Either this or `safe`.
    #[schema(example = "0x742D35CC6634C0532925a3B844Bc9E7595F2bD18")]
    address: Option<String>,
    /// A Safe by what it will be made of: what is paid to it before it is deployed counts.
    safe: Option<SafeBody>,
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
    /// A Safe by the transaction that deploys it, and nothing else: as `POST /v1/safe-deployments`. Its wallet is made
    /// when the Safe is proven.
    deployment: Option<DeploymentBody>,
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

#[derive(Clone, Debug)]
struct Owner {
    external_id: String,
    locators: Vec<(LocatorKind, String)>,
}

/// A request that is valid as far as can be told without the store.
#[derive(Clone, Debug)]
pub(in crate::api) struct Register {
    address: Address,
    family: Family,
    /// A Safe, as it is planned.
    safe: Option<SafeFacts>,
    /// With the first block whose movements count, if not only the future does.
    chains: BTreeMap<ChainName, Option<u64>>,
    owner: Option<Owner>,
    client_reference_id: Option<String>,
    nickname: Option<String>,
    is_primary: bool,
}

impl WalletBody {
    /// Whether it asks for nothing, beside a deployment.
    fn is_empty(&self) -> bool {
        let Self {
            address,
            safe,
            chains,
            account,
            client_reference_id,
            nickname,
            is_primary,
            from_block,
            deployment: _,
        } = self;
        address.is_none()
            && safe.is_none()
            && chains.is_empty()
            && account.is_none()
            && client_reference_id.is_none()
            && nickname.is_none()
            && !is_primary
            && from_block.is_empty()
    }
}

impl Register {
    fn check(app: &App, body: WalletBody) -> Result<Self, Problem> {
        let mut fields = Fields::default();
        match (&body.address, &body.safe) {
            (None, None) => fields.refuse("address", "is missing: name an address or a safe"),
            (Some(_), Some(_)) => {
                fields.refuse("safe", "has an address of its own: leave `address` out");
            }
            _ => {}
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
        let (family, address, safe) = place(family, body.address, body.safe)?;
        Ok(Self {
            address,
            family,
            safe,
            chains,
            owner,
            client_reference_id: body.client_reference_id,
            nickname: body.nickname,
            is_primary: body.is_primary,
        })
    }
}

impl Register {
    fn refused(&self, refusal: &Refusal) -> Problem {
        match refusal {
            Refusal::Exists { chain, wallet } => {
                let detail = format!(
                    "{} is registered on {chain} already, as {wallet}. Use that wallet, or delete it \
                     first.",
                    self.family.format_address(&self.address)
                );
                Problem { existing: Some(*wallet), ..Problem::new(Code::WalletExists, detail) }
            }
            Refusal::NamesAnother { kind, account } => Problem::field(
                Code::ExternalIdExists,
                &format!("account.{kind}"),
                format!("names another account already ({account}): use that account's externalId"),
            ),
        }
    }
}

/// The address to watch, and what Safe it is to be.
fn place(
    family: Option<Family>,
    address: Option<String>,
    safe: Option<SafeBody>,
) -> Result<(Family, Address, Option<SafeFacts>), Problem> {
    match (family, address, safe) {
        (Some(family), None, Some(safe)) => {
            let (address, facts) = safe::planned(&safe, family)?;
            Ok((family, address, Some(facts)))
        }
        (Some(family), Some(text), None) => {
            let address = family.parse_address(&text).map_err(|error| {
                Problem::field(Code::InvalidAddress, "address", error.to_string())
            })?;
            Ok((family, address, None))
        }
        _ => Err(Problem::internal("a checked request lacks its fields")),
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

impl WriteMany for Register {
    const NAME: &'static str = "wallet_create";

    async fn apply_all(
        app: &App,
        conn: &mut Conn<'_>,
        now: Millis,
        asked: &[(TenantId, &Self)],
    ) -> Result<Written, Problem> {
        let (asked, known) = load(conn, asked).await?;
        let mut deciding = Deciding::new(known, &app.ids, now);
        let decided: Vec<_> = asked.iter().map(|one| deciding.register(one)).collect();
        let new = deciding.finish();
        if !new.primaries.is_empty() {
            // Demoting takes wallets' rows: first the tenants', as the ledger does.
            let tenants: BTreeSet<TenantId> = asked.iter().map(|one| one.tenant_id).collect();
            for tenant in tenants {
                store::key::lock_tenant(conn, tenant).await?;
            }
        }
        let numbers = registration::insert(conn, &new, now).await?;
        let mut written = Written::default();
        for (one, decided) in asked.iter().zip(decided) {
            written.answers.push(match decided {
                Ok(wallet) => {
                    let view = WalletView::from(&wallet);
                    let answer = Answer::new(StatusCode::CREATED, &view)?;
                    let of = numbers.get(&wallet.id).copied().map(EventWallet::No);
                    let (kind, named) = (EventType::WalletCreated, wallet.id.0.as_bytes());
                    let data = WalletData { wallet: view };
                    let event = NewEvent::data(one.tenant, of, kind, &[named], now, &data);
                    written.events.push(event.map_err(Problem::internal)?);
                    Ok(answer)
                }
                Err(refusal) => Err(one.register.refused(&refusal)),
            });
        }
        Ok(written)
    }

    fn committed(&self, app: &App) {
        self.chains.keys().for_each(|chain| app.wake.chain(chain));
    }
}

/// Reads what the store has of what is asked for.
async fn load<'a>(
    conn: &mut Conn<'_>,
    asked: &[(TenantId, &'a Register)],
) -> Result<(Vec<Asked<'a>>, Known), StoreError> {
    let tenants = asked.iter().map(|(tenant, _)| *tenant).collect();
    let tenants = registration::tenants(conn, &tenants).await?;
    let chains = asked.iter().flat_map(|(_, register)| register.chains.keys().cloned()).collect();
    let chains = registration::chains(conn, &chains).await?;
    let unnumbered = || StoreError::corrupt("a tenant or a chain without a number");
    let (mut all, mut watches) = (Vec::with_capacity(asked.len()), Vec::new());
    let (mut accounts, mut locators) = (BTreeSet::new(), BTreeSet::new());
    for &(tenant_id, register) in asked {
        let mut one = Asked {
            tenant: *tenants.get(&tenant_id).ok_or_else(unnumbered)?,
            tenant_id,
            chains: Vec::with_capacity(register.chains.len()),
            register,
        };
        for (name, &from_block) in &register.chains {
            let no = *chains.get(name).ok_or_else(unnumbered)?;
            let chain = AskedChain { no, name, from_block };
            watches.push(one.key(&chain));
            one.chains.push(chain);
        }
        if let Some(owner) = &register.owner {
            accounts.insert((tenant_id, owner.external_id.clone()));
            let named = owner.locators.iter();
            locators.extend(named.map(|(kind, value)| (tenant_id, *kind, value.clone())));
        }
        all.push(one);
    }
    let known = Known {
        watched: registration::watched(conn, &watches).await?,
        accounts: registration::accounts(conn, &accounts).await?,
        locators: registration::locators(conn, &locators).await?,
    };
    Ok((all, known))
}

/// Register a wallet
///
/// The wallet is `pending` until the chain's follower has read its opening balance at a block; from that
/// block on nothing is missed. `wallet.created` is told at once, `wallet.activated` when it begins.
#[utoipa::path(post, path = "/v1/wallets", tag = "wallets",
    params(("Idempotency-Key" = String, Header, description = "1 to 128 of A-Z a-z 0-9 _ . : -")),
    request_body = WalletBody,
    responses((status = 201, body = WalletView),
        (status = 202, body = SafeDeploymentView, description = "Of a `deployment`, which is tracked."), Failures),
    security(("apiKey" = []), ("bearer" = [])))]
pub async fn create(
    State(app): State<Arc<App>>,
    caller: Caller,
    payload: Payload,
) -> Result<Response, Problem> {
    let tenant = caller.need(Scope::WalletsWrite)?;
    payload.idempotency_key()?;
    let mut body: WalletBody = payload.parse()?;
    if let Some(deployment) = body.deployment.take() {
        if !body.is_empty() {
            let detail = "stands alone: the chain, the address and the wallet follow from it";
            return Err(Problem::field(Code::InvalidRequest, "deployment", detail));
        }
        return track(&app, tenant, &payload, &deployment).await;
    }
    let register = Register::check(&app, body)?;
    app.registrations.post(tenant, &payload, register).await
}
