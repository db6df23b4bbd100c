//! Safe deployments: track one by its transaction, and see what became of it.

use std::sync::Arc;

use axum::{extract::State, http::StatusCode, response::Response};
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

use super::{
    App,
    answer::Json,
    auth::Caller,
    error::{Code, Failures, Problem},
    key::Scope,
    page::{Page, Window},
    request::{Fields, Named, Params, Payload},
    write::{self, Answer, Write},
};
use crate::{
    chain::{ChainName, Family, TxId},
    clock::Millis,
    id::{SafeDeploymentId, TenantId},
    model::{Deployment, DeploymentStatus},
    store::{Conn, StoreError, chain, key, safe, safe_look},
    view::SafeDeploymentView,
};

/// Of one tenant and chain, not decided yet.
const MOST_UNDECIDED: i64 = 10_000;

/// The transaction that deploys a Safe.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = NewSafeDeployment)]
pub struct DeploymentBody {
    #[schema(example = "base")]
    chain: String,
    tx_hash: String,
}

struct Track {
    chain: ChainName,
    tx: TxId,
}

impl Write for Track {
    const NAME: &'static str = "safe_deployment_create";

    async fn apply(
        &self,
        app: &App,
        tenant: TenantId,
        conn: &mut Conn<'_>,
        now: Millis,
    ) -> Result<Answer, Problem> {
        key::lock_tenant(conn, tenant).await?;
        let row = if let Some(row) =
            safe::by_tx(conn, tenant, &self.chain, &self.tx).await?.into_iter().next()
        {
            row
        } else {
            let open = safe_look::undecided(conn, tenant, &self.chain, MOST_UNDECIDED).await?;
            if open >= MOST_UNDECIDED {
                return Err(Problem::new(
                    Code::LimitReached,
                    format!(
                        "{MOST_UNDECIDED} deployments on '{}' are pending or processing, which is the most there \
                         may be. Try again when some of them are completed or have failed.",
                        self.chain
                    ),
                ));
            }
            let id = app.ids.next();
            chain::ensure(conn, &self.chain).await?;
            safe::insert_by_hash(conn, id, tenant, &self.chain, &self.tx, now).await?;
            let row = safe::get(conn, tenant, id).await?;
            row.ok_or_else(|| StoreError::corrupt("a deployment vanished as it was made"))?
        };
        Answer::new(StatusCode::ACCEPTED, &SafeDeploymentView::new(&row, Family::WITH_SAFES))
    }

    fn committed(&self, app: &App) {
        app.wake.chain(&self.chain);
    }
}

/// Track the deployment of a Safe
///
/// The same transaction again gives the deployment that is there already. At most 10,000 of a chain can be pending
/// or processing at once.
#[utoipa::path(post, path = "/v1/safe-deployments", tag = "safe deployments",
    params(("Idempotency-Key" = String, Header, description = "1 to 128 of A-Z a-z 0-9 _ . : -")),
    request_body = DeploymentBody,
    responses((status = 202, body = SafeDeploymentView), Failures),
    security(("apiKey" = []), ("bearer" = [])))]
pub(super) async fn create(
    State(app): State<Arc<App>>,
    caller: Caller,
    payload: Payload,
) -> Result<Response, Problem> {
    let tenant = caller.need(Scope::WalletsWrite)?;
    payload.idempotency_key()?;
    track(&app, tenant, &payload, &payload.parse()?).await
}

/// Tracks the transaction that the request names.
pub(super) async fn track(
    app: &App,
    tenant: TenantId,
    payload: &Payload,
    body: &DeploymentBody,
) -> Result<Response, Problem> {
    let config = app.chain("chain", &body.chain)?;
    if config.family != Family::WITH_SAFES {
        return Err(Problem::field(
            Code::InvalidRequest,
            "chain",
            "has no Safes: name an EVM chain",
        ));
    }
    let tx = config.family.parse_tx(&body.tx_hash).ok_or_else(|| {
        Problem::field(
            Code::InvalidRequest,
            "txHash",
            "is not a transaction hash: 0x and 64 hexadecimal digits are expected",
        )
    })?;
    let track = Track { chain: config.name.clone(), tx };
    write::post(app, tenant, payload, &track).await
}

/// Read a Safe deployment
#[utoipa::path(get, path = "/v1/safe-deployments/{id}", tag = "safe deployments",
    params(("id" = String, Path, description = "sfd_…")),
    responses((status = 200, body = SafeDeploymentView), Failures),
    security(("apiKey" = []), ("bearer" = [])))]
pub(super) async fn read(
    State(app): State<Arc<App>>,
    caller: Caller,
    Named(id): Named,
) -> Result<Json<SafeDeploymentView>, Problem> {
    let tenant = caller.need(Scope::WalletsRead)?;
    let missing = || {
        Problem::new(
            Code::SafeDeploymentNotFound,
            format!(
                "No Safe deployment has the id '{id}'. List them with GET /v1/safe-deployments."
            ),
        )
    };
    let parsed = id.parse().map_err(|_| missing())?;
    let missing = &missing;
    let read = app.reads.read(|mut session| async move {
        safe::get(&mut session.conn(), tenant, parsed).await?.ok_or_else(missing)
    });
    Ok(Json(SafeDeploymentView::new(&read.await?, Family::WITH_SAFES)))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ListParams {
    chain: Option<String>,
    /// `pending`, `processing`, `completed` or `failed`.
    status: Option<String>,
    /// 1 to 200; 50 if left out.
    limit: Option<String>,
    /// The nextCursor of the page before.
    cursor: Option<String>,
}

/// List Safe deployments
///
/// The newest first.
#[utoipa::path(get, path = "/v1/safe-deployments", tag = "safe deployments", params(ListParams),
    responses((status = 200, body = Page<SafeDeploymentView>), Failures),
    security(("apiKey" = []), ("bearer" = [])))]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    caller: Caller,
    Params(params): Params<ListParams>,
) -> Result<Json<Page<SafeDeploymentView>>, Problem> {
    let tenant = caller.need(Scope::WalletsRead)?;
    let mut fields = Fields::default();
    let window = Window::read(&mut fields, params.limit.as_deref(), params.cursor.as_deref());
    let status = fields.word(
        "status",
        params.status.as_deref(),
        DeploymentStatus::ALL,
        DeploymentStatus::as_str,
    );
    fields.finish()?;
    let chain = params.chain.map(|name| app.chain("chain", &name).map(|c| &c.name)).transpose()?;
    let before = window.before.map(SafeDeploymentId);
    let fetch = window.fetch();
    let read = app.reads.read(|mut session| async move {
        safe::list(&mut session.conn(), tenant, chain, status, before, fetch).await
    });
    let rows = read.await?;
    let view = |row: Deployment| SafeDeploymentView::new(&row, Family::WITH_SAFES);
    Ok(Json(window.page(rows, |row| row.id.0, view)))
}
