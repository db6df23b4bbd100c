//! `GET /v1/chains/{chain}/safe-config`: which Safes are known on a chain, and which of their contracts stand there.

use std::sync::Arc;

use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    App,
    answer::Json,
    auth::Caller,
    error::{Code, Failures, Problem},
    key::Scope,
    request::Named,
};
use crate::{
    chain::{Address, Family, SafeContract, SafeRelease, SafeRole},
    ledger::known::HashMap,
    store::safe_contract,
};

/// The Safes that are known on a chain.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = SafeConfig)]
pub struct SafeConfigView {
    pub chain: String,
    /// The oldest first.
    pub releases: Vec<SafeReleaseView>,
}

/// One deployment of one version.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = SafeRelease)]
pub struct SafeReleaseView {
    #[schema(example = "1.4.1")]
    pub version: String,
    /// `canonical`, or `eip155` for the second place of 1.3.0.
    pub deployment: String,
    pub factory: Option<SafeContractView>,
    pub singleton: Option<SafeContractView>,
    pub singleton_l2: Option<SafeContractView>,
    pub fallback_handlers: Vec<SafeContractView>,
    /// keccak256 of the code of its proxies, of each build that is in use.
    pub proxy_code_hashes: Vec<String>,
}

#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = SafeContract)]
pub struct SafeContractView {
    pub address: String,
    /// keccak256 of its code; null where that is not known.
    pub code_hash: Option<String>,
    /// Whether that code stands at the address, as last read: once a day. Null before, and where the hash is not known.
    pub deployed: Option<bool>,
}

/// The code that was read at each address.
type Read = HashMap<Address, Option<Vec<u8>>>;

fn hash(code: [u8; 32]) -> String {
    format!("0x{}", hex::encode(code))
}

impl SafeContractView {
    fn new(contract: &SafeContract, family: Family, read: &Read) -> Self {
        let stands = |code: [u8; 32]| {
            read.get(&contract.address).map(|found| found.as_deref() == Some(&code[..]))
        };
        Self {
            address: family.format_address(&contract.address),
            code_hash: contract.code.map(hash),
            deployed: contract.code.and_then(stands),
        }
    }
}

impl SafeReleaseView {
    fn new(release: &SafeRelease, family: Family, read: &Read) -> Self {
        let of = |role: SafeRole| {
            let own = release.contracts.iter().filter(move |contract| contract.role == role);
            own.map(|contract| SafeContractView::new(contract, family, read))
        };
        Self {
            version: release.version.to_owned(),
            deployment: release.deployment.to_owned(),
            factory: of(SafeRole::Factory).next(),
            singleton: of(SafeRole::Singleton).next(),
            singleton_l2: of(SafeRole::SingletonL2).next(),
            fallback_handlers: of(SafeRole::FallbackHandler).collect(),
            proxy_code_hashes: release.proxies.iter().copied().map(hash).collect(),
        }
    }
}

/// Which Safes are known on a chain
///
/// A proxy with another code, or with another singleton, is not taken for a Safe.
#[utoipa::path(get, path = "/v1/chains/{chain}/safe-config", tag = "safe deployments",
    params(("chain" = String, Path, description = "The name of a configured chain.")),
    responses((status = 200, body = SafeConfigView), Failures),
    security(("apiKey" = []), ("bearer" = [])))]
pub(super) async fn read(
    State(app): State<Arc<App>>,
    caller: Caller,
    Named(chain): Named,
) -> Result<Json<SafeConfigView>, Problem> {
    caller.need(Scope::WalletsRead)?;
    let config = app.chain("chain", &chain)?;
    if config.family != Family::WITH_SAFES {
        let detail = "has no Safes: name an EVM chain";
        return Err(Problem::field(Code::InvalidRequest, "chain", detail));
    }
    let (family, name) = (config.family, &config.name);
    let read = app
        .reads
        .read(|mut session| async move {
            Ok::<_, Problem>(safe_contract::of(&mut session.conn(), name).await?)
        })
        .await?;
    let releases = family.safe_releases();
    let view = |release: &SafeRelease| SafeReleaseView::new(release, family, &read);
    Ok(Json(SafeConfigView {
        chain: name.to_string(),
        releases: releases.iter().map(view).collect(),
    }))
}
