//! Proofs that somebody controls an address: a message to sign, and the check of its signature.
//!
//! A challenge is good for one use by its tenant until it expires. A signature that is refused does not use
//! it up. No node is asked, so contracts (EIP-1271) cannot prove anything here.

use std::{sync::Arc, time::Duration};

use axum::{extract::State, http::StatusCode, response::Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    App,
    auth::Caller,
    error::{Code, Failures, Problem},
    key::Scope,
    request::{Fields, Named, Payload},
    write::{self, Answer, Write},
};
use crate::{
    chain::{
        Address, ChainName, Family, SignatureError,
        sign_in::{self, Domain, Network, Nonce, SignIn, Statement, Uri},
    },
    clock::Millis,
    id::{ChallengeId, TenantId, WalletId},
    model::WalletKind,
    store::{
        Conn,
        ownership::{self, Challenge},
        wallet::{self, WalletFilter},
    },
};

/// Wallets refuse to sign what was issued longer ago than about that.
const DEFAULT_LIFETIME: u64 = 10 * 60;
const LONGEST_LIFETIME: u64 = 24 * 60 * 60;

/// Who is to prove what to whom.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = NewOwnershipChallenge)]
pub struct ChallengeBody {
    /// It need not be registered.
    #[schema(example = "0x742D35CC6634C0532925a3B844Bc9E7595F2bD18")]
    address: String,
    /// A configured chain. The message names it.
    #[schema(example = "base")]
    chain: String,
    /// The host of the page that asks for the signature, with its port if it has one; wallets compare.
    #[schema(example = "app.example")]
    domain: String,
    /// What the signature is for; `https://` and the domain if left out.
    #[schema(example = "https://app.example/login")]
    uri: Option<String>,
    /// What the user is told: one line of up to 500 characters, in the alphabet of EIP-4361.
    statement: Option<String>,
    /// 1 to 86400; 600 if left out.
    expires_in_seconds: Option<u64>,
}

/// The fields of a message, as a wallet's `signIn` takes them (`solana:signIn` of the wallet standard): it
/// builds the same text of them.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = OwnershipSignIn)]
pub struct SignInView {
    pub domain: String,
    pub address: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub statement: Option<String>,
    pub uri: String,
    #[schema(example = "1")]
    pub version: &'static str,
    #[schema(example = "mainnet")]
    pub chain_id: String,
    pub nonce: String,
    #[schema(value_type = String, format = DateTime)]
    pub issued_at: Millis,
    #[schema(value_type = String, format = DateTime)]
    pub expiration_time: Millis,
}

impl From<&SignIn> for SignInView {
    fn from(said: &SignIn) -> Self {
        Self {
            domain: said.domain.to_string(),
            address: said.address.clone(),
            statement: said.statement.as_ref().map(ToString::to_string),
            uri: said.uri.to_string(),
            version: sign_in::VERSION,
            chain_id: said.network.id().to_owned(),
            nonce: said.nonce.to_string(),
            issued_at: said.issued_at,
            expiration_time: said.expires_at,
        }
    }
}

/// A message that the owner of the address is to sign.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = OwnershipChallenge)]
pub struct ChallengeView {
    #[schema(value_type = String, example = "own_2xKjF9mQb7vN4hL1pR3w8t")]
    pub id: ChallengeId,
    pub address: String,
    pub chain: String,
    /// To be signed byte for byte: EIP-4361 by `personal_sign` (EIP-191), or Sign-In With Solana.
    pub message: String,
    /// What the message says.
    pub sign_in: SignInView,
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Millis,
    /// From then on it is refused.
    #[schema(value_type = String, format = DateTime)]
    pub expires_at: Millis,
}

/// The signature of a challenge's message.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = OwnershipSignature)]
pub struct VerifyBody {
    /// EVM: r, s and v (0, 1, 27 or 28), 65 bytes in hexadecimal digits after 0x. Solana: 64 bytes in base58
    /// or base64.
    signature: String,
}

/// A proof that somebody controls an address.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = OwnershipProof)]
pub struct ProofView {
    /// The challenge's.
    #[schema(value_type = String)]
    pub id: ChallengeId,
    pub address: String,
    pub chain: String,
    /// Always true: what is not verified is answered with a problem.
    pub verified: bool,
    #[schema(value_type = String, format = DateTime)]
    pub verified_at: Millis,
    /// The wallet of this address: the one on this chain if there is one, else one on other chains.
    #[schema(value_type = Option<String>)]
    pub wallet_id: Option<WalletId>,
}

struct Create {
    chain: ChainName,
    family: Family,
    address: Address,
    network: Network,
    domain: Domain,
    uri: Uri,
    statement: Option<Statement>,
    nonce: Nonce,
    lifetime: Duration,
}

impl Create {
    fn check(app: &App, body: &ChallengeBody) -> Result<Self, Problem> {
        let config = app.chain("chain", &body.chain)?;
        let family = config.family;
        let network = family.network(&config.caip2).ok_or_else(|| {
            let message = format!("is of the family {family}, which has no sign-in message yet");
            Problem::field(Code::InvalidRequest, "chain", message)
        })?;
        let mut fields = Fields::default();
        let domain: Option<Domain> = fields.read("domain", Some(&body.domain));
        let uri = match body.uri.as_deref() {
            Some(text) => fields.read("uri", Some(text)),
            None => domain.as_ref().map(Uri::of),
        };
        let statement = fields.read("statement", body.statement.as_deref());
        let lifetime = body.expires_in_seconds.unwrap_or(DEFAULT_LIFETIME);
        if !(1..=LONGEST_LIFETIME).contains(&lifetime) {
            fields.refuse("expiresInSeconds", format!("must be 1 to {LONGEST_LIFETIME}"));
        }
        fields.finish()?;
        let (Some(domain), Some(uri)) = (domain, uri) else {
            return Err(Problem::internal("a checked request lacks its fields"));
        };
        let address = family
            .parse_address(&body.address)
            .and_then(|address| family.check_signer(&address).map(|()| address))
            .map_err(|error| Problem::field(Code::InvalidAddress, "address", error.to_string()))?;
        Ok(Self {
            chain: config.name.clone(),
            family,
            address,
            network,
            domain,
            uri,
            statement,
            nonce: app.random.with(|rng| Nonce::random(rng)),
            lifetime: Duration::from_secs(lifetime),
        })
    }
}

impl Write for Create {
    const NAME: &'static str = "ownership_challenge_create";

    async fn apply(
        &self,
        app: &App,
        tenant: TenantId,
        conn: &mut Conn<'_>,
        now: Millis,
    ) -> Result<Answer, Problem> {
        let wallets = wallet::matching(conn, tenant, &of(self.family, self.address, None)).await?;
        if wallets.iter().any(|wallet| wallet.kind == WalletKind::Safe) {
            return Err(contract("The address is a Safe, which has no key of its own."));
        }
        let said = SignIn {
            network: self.network.clone(),
            domain: self.domain.clone(),
            address: self.family.format_address(&self.address),
            statement: self.statement.clone(),
            uri: self.uri.clone(),
            nonce: self.nonce.clone(),
            issued_at: now,
            expires_at: now.plus(self.lifetime),
        };
        let row = Challenge {
            id: app.ids.next(),
            tenant_id: tenant,
            chain: self.chain.clone(),
            family: self.family,
            address: self.address,
            message: said.to_string(),
            created_at: now,
            expires_at: said.expires_at,
            verified_at: None,
        };
        ownership::insert(conn, &row).await?;
        let view = ChallengeView {
            id: row.id,
            address: said.address.clone(),
            chain: row.chain.to_string(),
            message: row.message,
            sign_in: (&said).into(),
            created_at: row.created_at,
            expires_at: row.expires_at,
        };
        Answer::new(StatusCode::CREATED, &view)
    }

    fn committed(&self, _: &App) {}
}

fn of(family: Family, address: Address, chain: Option<ChainName>) -> WalletFilter {
    let (address, family) = (Some(address), Some(family));
    WalletFilter { address, family, chain, ..WalletFilter::default() }
}

fn contract(why: &str) -> Problem {
    Problem::new(
        Code::ContractWalletUnsupported,
        format!(
            "{why} Only a contract's own code can judge its signatures (EIP-1271), and no node is asked \
             here: let an owner prove the address of a key instead."
        ),
    )
}

/// Make a message to be signed
///
/// It shows control of the address to whoever verifies the signature: once, until it expires.
#[utoipa::path(post, path = "/v1/ownership/challenges", tag = "ownership",
    params(("Idempotency-Key" = String, Header, description = "1 to 128 of A-Z a-z 0-9 _ . : -")),
    request_body = ChallengeBody,
    responses((status = 201, body = ChallengeView), Failures),
    security(("apiKey" = []), ("bearer" = [])))]
pub(super) async fn create(
    State(app): State<Arc<App>>,
    caller: Caller,
    payload: Payload,
) -> Result<Response, Problem> {
    let tenant = caller.need(Scope::WalletsWrite)?;
    payload.idempotency_key()?;
    let create = Create::check(&app, &payload.parse()?)?;
    write::post(&app, tenant, &payload, &create).await
}

struct Verify {
    id: ChallengeId,
    signature: String,
}

fn not_found(id: &str) -> Problem {
    Problem::new(
        Code::ChallengeNotFound,
        format!(
            "No challenge has the id '{id}', or it expired long ago. Make one with \
             POST /v1/ownership/challenges."
        ),
    )
}

fn used() -> Problem {
    Problem::new(
        Code::ChallengeUsed,
        "The challenge was verified before, and serves once. Repeat the request with its first \
         Idempotency-Key to get its answer again, or make a new challenge.",
    )
}

impl Verify {
    fn judge(&self, challenge: &Challenge) -> Result<(), Problem> {
        let Challenge { family, address, message, .. } = challenge;
        let Err(error) = family.verify_signature(address, message, &self.signature) else {
            return Ok(());
        };
        let invalid = |detail: String| Problem::new(Code::SignatureInvalid, detail);
        Err(match error {
            SignatureError::Malformed(_) => {
                Problem::field(Code::InvalidRequest, "signature", error.to_string())
            }
            SignatureError::Contract => contract("The signature is longer than one of a key."),
            SignatureError::Malleable => invalid(
                "The signature has the greater of its two values of s, which anybody can make of the other \
                 one. Send it as the wallet made it, with the lower one (EIP-2)."
                    .to_owned(),
            ),
            SignatureError::Wrong => invalid(format!(
                "The key of {} did not sign the challenge's message, byte for byte. If the address is a \
                 contract (EIP-1271), it cannot be verified here.",
                family.format_address(address)
            )),
        })
    }
}

impl Write for Verify {
    const NAME: &'static str = "ownership_challenge_verify";

    async fn apply(
        &self,
        _: &App,
        tenant: TenantId,
        conn: &mut Conn<'_>,
        now: Millis,
    ) -> Result<Answer, Problem> {
        let challenge = ownership::get(conn, tenant, self.id)
            .await?
            .ok_or_else(|| not_found(&self.id.to_string()))?;
        if challenge.verified_at.is_some() {
            return Err(used());
        }
        if now >= challenge.expires_at {
            return Err(Problem::new(
                Code::ChallengeExpired,
                format!(
                    "The challenge expired at {}. Make a new one with POST /v1/ownership/challenges.",
                    challenge.expires_at
                ),
            ));
        }
        self.judge(&challenge)?;
        if !ownership::use_up(conn, tenant, self.id, now).await? {
            return Err(used());
        }
        let Challenge { family, address, chain, .. } = challenge;
        let here = of(family, address, Some(chain.clone()));
        let mut wallets = wallet::matching(conn, tenant, &here).await?;
        if wallets.is_empty() {
            wallets = wallet::matching(conn, tenant, &of(family, address, None)).await?;
        }
        let view = ProofView {
            id: self.id,
            address: family.format_address(&address),
            chain: chain.to_string(),
            verified: true,
            verified_at: now,
            wallet_id: wallets.first().map(|wallet| wallet.id),
        };
        Answer::new(StatusCode::OK, &view)
    }

    fn committed(&self, _: &App) {}
}

/// Verify the signature of a challenge's message
///
/// A challenge serves once: a second time is `challenge_used`, but the same Idempotency-Key gets the first
/// answer again. A refused signature does not use it up. Contracts (EIP-1271) cannot be verified.
#[utoipa::path(post, path = "/v1/ownership/challenges/{id}/verify", tag = "ownership",
    params(("id" = String, Path, description = "own_…"),
        ("Idempotency-Key" = String, Header, description = "1 to 128 of A-Z a-z 0-9 _ . : -")),
    request_body = VerifyBody,
    responses((status = 200, body = ProofView), Failures),
    security(("apiKey" = []), ("bearer" = [])))]
pub(super) async fn verify(
    State(app): State<Arc<App>>,
    caller: Caller,
    Named(id): Named,
    payload: Payload,
) -> Result<Response, Problem> {
    let tenant = caller.need(Scope::WalletsWrite)?;
    payload.idempotency_key()?;
    let body: VerifyBody = payload.parse()?;
    let verify = Verify { id: id.parse().map_err(|_| not_found(&id))?, signature: body.signature };
    write::post(&app, tenant, &payload, &verify).await
}
