//! Webhook endpoints and their secrets.

use std::{sync::Arc, time::Duration};

use axum::{extract::State, http::StatusCode, response::Response};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};
use url::Url;
use utoipa::{IntoParams, ToSchema};

use super::{
    App,
    answer::Json,
    auth::Caller,
    error::{Code, Failures, Problem},
    event::types,
    key::Scope,
    page::{Page, Window},
    request::{Fields, Named, Params, Payload},
    write::{self, Answer, Write},
};
use crate::{
    clock::Millis,
    delivery::{DisabledReason, EndpointStatus},
    id::{EndpointId, TenantId},
    random::Random,
    store::{
        Conn, delivery,
        endpoint::{self, EndpointRow},
        key,
    },
    webhook,
};

const MOST_ENDPOINTS: i64 = 100;
const MOST_PATTERNS: usize = 50;
const LONGEST_URL: usize = 2048;
const LONGEST_DESCRIPTION: usize = 256;
const DEFAULT_OVERLAP: u64 = 24 * 60 * 60;
const LONGEST_OVERLAP: u64 = 7 * 24 * 60 * 60;

/// Where a tenant wants its events.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = WebhookEndpoint)]
pub struct EndpointView {
    #[schema(value_type = String)]
    pub id: EndpointId,
    pub url: String,
    pub events: Vec<String>,
    pub description: Option<String>,
    /// One delivery at a time per wallet, in the order of its events.
    pub ordered: bool,
    /// `enabled` or `disabled`.
    #[schema(value_type = String, example = "enabled")]
    pub status: EndpointStatus,
    /// `gone` (it answered 410) or `failing` (for too long without a success).
    #[schema(value_type = Option<String>)]
    pub disabled_reason: Option<DisabledReason>,
    #[schema(value_type = Option<String>, format = DateTime)]
    pub disabled_at: Option<Millis>,
    /// Since when every attempt has failed.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub failing_since: Option<Millis>,
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Millis,
    #[schema(value_type = String, format = DateTime)]
    pub updated_at: Millis,
}

impl From<&EndpointRow> for EndpointView {
    fn from(row: &EndpointRow) -> Self {
        Self {
            id: row.id,
            url: row.url.clone(),
            events: row.events.clone(),
            description: row.description.clone(),
            ordered: row.ordered,
            status: if row.disabled_at.is_some() {
                EndpointStatus::Disabled
            } else {
                EndpointStatus::Enabled
            },
            disabled_reason: row.disabled_reason,
            disabled_at: row.disabled_at,
            failing_since: row.failing_since,
            created_at: row.created_at,
            updated_at: row.updated_at,
        }
    }
}

/// A new endpoint with its secret, which is shown this once.
#[derive(Debug, Serialize, ToSchema)]
pub struct NewEndpointView {
    #[serde(flatten)]
    pub endpoint: EndpointView,
    /// For the HMAC of Standard Webhooks.
    #[schema(example = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")]
    pub secret: String,
}

/// A new secret, which is shown this once.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretView {
    #[schema(value_type = String)]
    pub id: EndpointId,
    pub secret: String,
    /// Until then deliveries are signed with the older secrets too.
    #[schema(value_type = String, format = DateTime)]
    pub previous_expires_at: Millis,
}

/// Where events are to be sent.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = NewWebhookEndpoint)]
pub struct EndpointBody {
    #[schema(example = "https://consumer.example/hook")]
    url: String,
    /// Types or patterns of events.
    #[schema(example = json!(["deposit.*"]))]
    events: Vec<String>,
    description: Option<String>,
    /// One delivery at a time per wallet, in the order of its events.
    #[serde(default)]
    ordered: bool,
}

fn new_secret(random: &Random) -> String {
    format!("whsec_{}", STANDARD.encode(random.bytes::<32>()))
}

pub(super) fn not_found(id: &str) -> Problem {
    Problem::new(
        Code::WebhookEndpointNotFound,
        format!("No webhook endpoint has the id '{id}'. List them with GET /v1/webhook-endpoints."),
    )
}

pub(super) fn parse_id(id: &str) -> Result<EndpointId, Problem> {
    id.parse().map_err(|_| not_found(id))
}

pub(super) async fn find(
    conn: &mut Conn<'_>,
    tenant: TenantId,
    id: EndpointId,
) -> Result<EndpointRow, Problem> {
    endpoint::by_id(conn, tenant, id).await?.ok_or_else(|| not_found(&id.to_string()))
}

struct Create {
    body: EndpointBody,
    secret: String,
}

impl Create {
    fn check(app: &App, body: EndpointBody) -> Result<Self, Problem> {
        let mut fields = Fields::default();
        match body.url.parse::<Url>() {
            _ if body.url.len() > LONGEST_URL => {
                fields.refuse("url", format!("may have {LONGEST_URL} characters at most"));
            }
            Ok(url) => {
                if let Err(reason) = webhook::url_allowed(&url, &app.config.webhooks) {
                    fields.refuse("url", reason);
                }
            }
            Err(error) => fields.refuse("url", format!("is not a URL: {error}")),
        }
        if body.events.is_empty() || body.events.len() > MOST_PATTERNS {
            fields.refuse("events", format!("must have 1 to {MOST_PATTERNS} types or patterns"));
        }
        types(&mut fields, "events", body.events.iter().map(String::as_str));
        fields.text("description", body.description.as_deref(), LONGEST_DESCRIPTION);
        fields.finish()?;
        Ok(Self { body, secret: new_secret(&app.random) })
    }
}

impl Write for Create {
    const NAME: &'static str = "webhook_endpoint_create";

    async fn apply(
        &self,
        app: &App,
        tenant: TenantId,
        conn: &mut Conn<'_>,
        now: Millis,
    ) -> Result<Answer, Problem> {
        key::lock_tenant(conn, tenant).await?;
        let have = endpoint::list(conn, tenant, None, MOST_ENDPOINTS).await?.len();
        if i64::try_from(have).unwrap_or(MOST_ENDPOINTS) >= MOST_ENDPOINTS {
            return Err(Problem::invalid(format!(
                "There may be {MOST_ENDPOINTS} webhook endpoints at most. Delete one first."
            )));
        }
        let row = EndpointRow {
            id: app.ids.next(),
            tenant_id: tenant,
            url: self.body.url.clone(),
            events: self.body.events.clone(),
            description: self.body.description.clone(),
            ordered: self.body.ordered,
            failing_since: None,
            disabled_at: None,
            disabled_reason: None,
            created_at: now,
            updated_at: now,
        };
        endpoint::insert(conn, &row).await?;
        endpoint::insert_secret(conn, row.id, &self.secret, now).await?;
        let view = NewEndpointView { endpoint: (&row).into(), secret: self.secret.clone() };
        Answer::new(StatusCode::CREATED, &view)
    }

    fn committed(&self, _: &App) {}
}

/// Create a webhook endpoint
///
/// The answer shows its secret, this once.
#[utoipa::path(post, path = "/v1/webhook-endpoints", tag = "webhooks",
    params(("Idempotency-Key" = String, Header, description = "1 to 128 of A-Z a-z 0-9 _ . : -")),
    request_body = EndpointBody,
    responses((status = 201, body = NewEndpointView), Failures),
    security(("apiKey" = []), ("bearer" = [])))]
pub(super) async fn create(
    State(app): State<Arc<App>>,
    caller: Caller,
    payload: Payload,
) -> Result<Response, Problem> {
    let tenant = caller.need(Scope::WebhooksWrite)?;
    payload.idempotency_key()?;
    let create = Create::check(&app, payload.parse()?)?;
    write::post(&app, tenant, &payload, &create).await
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ListParams {
    /// 1 to 200; 50 if left out.
    limit: Option<String>,
    /// The nextCursor of the page before.
    cursor: Option<String>,
}

/// List webhook endpoints
#[utoipa::path(get, path = "/v1/webhook-endpoints", tag = "webhooks", params(ListParams),
    responses((status = 200, body = Page<EndpointView>), Failures),
    security(("apiKey" = []), ("bearer" = [])))]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    caller: Caller,
    Params(params): Params<ListParams>,
) -> Result<Json<Page<EndpointView>>, Problem> {
    let tenant = caller.need(Scope::WebhooksWrite)?;
    let mut fields = Fields::default();
    let window = Window::read(&mut fields, params.limit.as_deref(), params.cursor.as_deref());
    fields.finish()?;
    let mut session = app.db.read().await?;
    let before = window.before.map(EndpointId);
    let rows = endpoint::list(&mut session.conn(), tenant, before, window.fetch()).await?;
    Ok(Json(window.page(rows, |row| row.id.0, |row| EndpointView::from(&row))))
}

/// Read a webhook endpoint
#[utoipa::path(get, path = "/v1/webhook-endpoints/{id}", tag = "webhooks",
    params(("id" = String, Path, description = "whe_…")),
    responses((status = 200, body = EndpointView), Failures),
    security(("apiKey" = []), ("bearer" = [])))]
pub(super) async fn read(
    State(app): State<Arc<App>>,
    caller: Caller,
    Named(id): Named,
) -> Result<Json<EndpointView>, Problem> {
    let tenant = caller.need(Scope::WebhooksWrite)?;
    let id = parse_id(&id)?;
    let mut session = app.db.read().await?;
    Ok(Json((&find(&mut session.conn(), tenant, id).await?).into()))
}

struct Delete(EndpointId);

impl Write for Delete {
    const NAME: &'static str = "webhook_endpoint_delete";

    async fn apply(
        &self,
        _: &App,
        tenant: TenantId,
        conn: &mut Conn<'_>,
        now: Millis,
    ) -> Result<Answer, Problem> {
        // No delivery to it can be added meanwhile.
        key::lock_tenant(conn, tenant).await?;
        if !endpoint::delete(conn, tenant, self.0, now).await? {
            return Err(not_found(&self.0.to_string()));
        }
        endpoint::expire_secrets(conn, self.0, now).await?;
        delivery::fail_pending(conn, self.0, now).await?;
        Ok(Answer::empty())
    }

    fn committed(&self, _: &App) {}
}

/// Delete a webhook endpoint
///
/// Nothing more is sent to it.
#[utoipa::path(delete, path = "/v1/webhook-endpoints/{id}", tag = "webhooks",
    params(("id" = String, Path, description = "whe_…")),
    responses((status = 204, description = "It is deleted."), Failures),
    security(("apiKey" = []), ("bearer" = [])))]
pub(super) async fn delete(
    State(app): State<Arc<App>>,
    caller: Caller,
    Named(id): Named,
) -> Result<Response, Problem> {
    let tenant = caller.need(Scope::WebhooksWrite)?;
    write::change(&app, tenant, &Delete(parse_id(&id)?)).await
}

/// How a secret is rotated.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RotateBody {
    /// How long the older secrets sign too: 0 to 604800; 86400 if left out.
    overlap_seconds: Option<u64>,
}

struct Rotate {
    id: EndpointId,
    secret: String,
    overlap: Duration,
}

impl Write for Rotate {
    const NAME: &'static str = "webhook_secret_rotate";

    async fn apply(
        &self,
        _: &App,
        tenant: TenantId,
        conn: &mut Conn<'_>,
        now: Millis,
    ) -> Result<Answer, Problem> {
        let row = find(conn, tenant, self.id).await?;
        let previous_expires_at = now.plus(self.overlap);
        endpoint::expire_secrets(conn, row.id, previous_expires_at).await?;
        endpoint::insert_secret(conn, row.id, &self.secret, now).await?;
        let view = SecretView { id: row.id, secret: self.secret.clone(), previous_expires_at };
        Answer::new(StatusCode::OK, &view)
    }

    fn committed(&self, _: &App) {}
}

/// Rotate an endpoint's secret
///
/// The answer shows the new one, this once. The older ones sign too until they expire.
#[utoipa::path(post, path = "/v1/webhook-endpoints/{id}/rotate-secret", tag = "webhooks",
    params(("id" = String, Path, description = "whe_…"),
        ("Idempotency-Key" = String, Header, description = "1 to 128 of A-Z a-z 0-9 _ . : -")),
    request_body = RotateBody,
    responses((status = 200, body = SecretView), Failures),
    security(("apiKey" = []), ("bearer" = [])))]
pub(super) async fn rotate_secret(
    State(app): State<Arc<App>>,
    caller: Caller,
    Named(id): Named,
    payload: Payload,
) -> Result<Response, Problem> {
    let tenant = caller.need(Scope::WebhooksWrite)?;
    payload.idempotency_key()?;
    let body: RotateBody = payload.parse_or_default()?;
    let overlap = body.overlap_seconds.unwrap_or(DEFAULT_OVERLAP);
    if overlap > LONGEST_OVERLAP {
        return Err(Problem::field(
            Code::InvalidRequest,
            "overlapSeconds",
            format!("must be 0 to {LONGEST_OVERLAP}"),
        ));
    }
    let overlap = Duration::from_secs(overlap);
    let rotate = Rotate { id: parse_id(&id)?, secret: new_secret(&app.random), overlap };
    write::post(&app, tenant, &payload, &rotate).await
}
