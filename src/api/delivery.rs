//! Deliveries to one endpoint: what was tried, a test, and sending again.

use std::sync::Arc;

use axum::{extract::State, http::StatusCode, response::Response};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::{
    App,
    answer::Json,
    auth::Caller,
    endpoint::{find, parse_id},
    error::{Code, Failures, Problem},
    event::types,
    key::Scope,
    page::{Page, Window},
    request::{Fields, Named, Params, Payload},
    write::{self, Answer, Write},
};
use crate::{
    clock::Millis,
    delivery::{Attempt, DeliveryStatus, DisabledReason},
    event::{EventType, NewEvent},
    id::{DeliveryId, EndpointId, EventId, TenantId, WalletId},
    store::{
        Conn, StoreError,
        delivery::{self, DeliveryRow, NewDelivery},
        endpoint::EndpointRow,
        event, feed, key,
    },
};

const MOST_REPLAYED: usize = 10_000;
/// Events of any type in the time of one replay: they are all looked at, while the tenant's feed waits.
const MOST_READ: i64 = 100_000;

/// One event on its way to one endpoint.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Delivery)]
pub struct DeliveryView {
    #[schema(value_type = String)]
    pub id: DeliveryId,
    #[schema(value_type = String)]
    pub event_id: EventId,
    #[schema(value_type = String, example = "deposit.pending")]
    pub event_type: EventType,
    #[schema(value_type = Option<String>)]
    pub wallet_id: Option<WalletId>,
    pub sequence: Option<i64>,
    /// `pending`, `delivered` or `failed`.
    #[schema(value_type = String, example = "delivered")]
    pub status: DeliveryStatus,
    /// The next try; null when it is over.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub next_attempt_at: Option<Millis>,
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Millis,
    #[schema(value_type = Option<String>, format = DateTime)]
    pub finished_at: Option<Millis>,
    pub attempts: Vec<AttemptView>,
}

/// One attempt to deliver.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AttemptView {
    pub attempt: i64,
    #[schema(value_type = String, format = DateTime)]
    pub started_at: Millis,
    pub latency_ms: i64,
    /// Null where no answer came.
    pub status_code: Option<i64>,
    pub error: Option<String>,
}

impl From<Attempt> for AttemptView {
    fn from(attempt: Attempt) -> Self {
        Self {
            attempt: attempt.number,
            started_at: attempt.started_at,
            latency_ms: attempt.latency_ms,
            status_code: attempt.status_code,
            error: attempt.error,
        }
    }
}

impl From<DeliveryRow> for DeliveryView {
    fn from(row: DeliveryRow) -> Self {
        Self {
            id: row.id,
            event_id: row.event_id,
            event_type: row.event_type,
            wallet_id: row.wallet_id,
            sequence: row.sequence,
            status: row.status,
            next_attempt_at: (row.status == DeliveryStatus::Pending).then_some(row.next_attempt_at),
            created_at: row.created_at,
            finished_at: row.finished_at,
            attempts: row.attempts.into_iter().map(AttemptView::from).collect(),
        }
    }
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ListParams {
    /// `pending`, `delivered` or `failed`.
    status: Option<String>,
    /// 1 to 200; 50 if left out.
    limit: Option<String>,
    /// The nextCursor of the page before.
    cursor: Option<String>,
}

/// Deliveries to an endpoint
///
/// The newest first, each with its attempts.
#[utoipa::path(get, path = "/v1/webhook-endpoints/{id}/deliveries", tag = "webhooks",
    params(("id" = String, Path, description = "whe_…"), ListParams),
    responses((status = 200, body = Page<DeliveryView>), Failures),
    security(("apiKey" = []), ("bearer" = [])))]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    caller: Caller,
    Named(id): Named,
    Params(params): Params<ListParams>,
) -> Result<Json<Page<DeliveryView>>, Problem> {
    let tenant = caller.need(Scope::WebhooksWrite)?;
    let id = parse_id(&id)?;
    let mut fields = Fields::default();
    let window = Window::read(&mut fields, params.limit.as_deref(), params.cursor.as_deref());
    let status = fields.word(
        "status",
        params.status.as_deref(),
        DeliveryStatus::ALL,
        DeliveryStatus::as_str,
    );
    fields.finish()?;
    let mut tx = app.db.snapshot().await?;
    let mut conn = tx.conn();
    find(&mut conn, tenant, id).await?;
    let before = window.before.map(DeliveryId);
    let rows = delivery::list(&mut conn, tenant, id, status, before, window.fetch()).await?;
    Ok(Json(window.page(rows, |row| row.id.0, DeliveryView::from)))
}

/// A disabled endpoint gets nothing, so asking for it would only seem to work.
async fn enabled(
    conn: &mut Conn<'_>,
    tenant: TenantId,
    id: EndpointId,
) -> Result<EndpointRow, Problem> {
    let row = find(conn, tenant, id).await?;
    if row.disabled_at.is_none() {
        return Ok(row);
    }
    Err(Problem {
        status: StatusCode::CONFLICT,
        ..Problem::invalid(format!(
            "{id} is disabled ({}): make a new endpoint.",
            row.disabled_reason.map_or("no reason is recorded", DisabledReason::as_str)
        ))
    })
}

/// What was put on its way.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TestView {
    #[schema(value_type = String)]
    pub event_id: EventId,
    #[schema(value_type = String)]
    pub delivery_id: DeliveryId,
}

struct Test(EndpointId);

impl Write for Test {
    const NAME: &'static str = "webhook_test";

    async fn apply(
        &self,
        app: &App,
        tenant: TenantId,
        conn: &mut Conn<'_>,
        now: Millis,
    ) -> Result<Answer, Problem> {
        enabled(conn, tenant, self.0).await?;
        let data = json!({ "endpointId": self.0, "message": "This is a test." });
        let no = event::tenant_no(conn, tenant).await?;
        let once: Uuid = app.ids.next();
        let test = NewEvent::data(no, None, EventType::Test, &[once.as_bytes()], now, &data);
        let test = test.map_err(Problem::internal)?;
        let missing = || StoreError::corrupt("the test that was just written is not there");
        let event_id = *test.ids().first().ok_or_else(missing)?;
        event::append(conn, &app.ids, now, &[test]).await?;
        let event = feed::event(conn, tenant, event_id).await?.ok_or_else(missing)?.event;
        let deliveries = [NewDelivery::new(self.0, &event)];
        let made = delivery::insert(conn, &app.ids, now, tenant, &deliveries).await?;
        let delivery_id = *made.first().ok_or_else(missing)?;
        Answer::new(StatusCode::ACCEPTED, &TestView { event_id, delivery_id })
    }

    fn committed(&self, app: &App) {
        app.metrics.events_total.with_label_values(&[EventType::Test.as_str()]).inc();
        app.wake.deliveries();
    }
}

/// Nothing needs to be said.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TestBody {}

/// Send a test event to an endpoint
///
/// An event of type `test` goes to this endpoint only, whatever it subscribes to.
#[utoipa::path(post, path = "/v1/webhook-endpoints/{id}/test", tag = "webhooks",
    params(("id" = String, Path, description = "whe_…"),
        ("Idempotency-Key" = String, Header, description = "1 to 128 of A-Z a-z 0-9 _ . : -")),
    responses((status = 202, body = TestView), Failures),
    security(("apiKey" = []), ("bearer" = [])))]
pub(super) async fn test(
    State(app): State<Arc<App>>,
    caller: Caller,
    Named(id): Named,
    payload: Payload,
) -> Result<Response, Problem> {
    let tenant = caller.need(Scope::WebhooksWrite)?;
    payload.idempotency_key()?;
    let TestBody {} = payload.parse_or_default()?;
    write::post(&app, tenant, &payload, &Test(parse_id(&id)?)).await
}

/// One event, or those of a span of time.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ReplayBody {
    /// One event; then nothing else is given.
    event_id: Option<String>,
    /// The first time that counts.
    #[schema(format = DateTime)]
    from: Option<String>,
    /// The first time that does not; now if left out.
    #[schema(format = DateTime)]
    to: Option<String>,
    /// Types or patterns; those of the endpoint if left out.
    events: Option<Vec<String>>,
}

/// How many deliveries were put on their way.
#[derive(Debug, Serialize, ToSchema)]
pub struct ReplayView {
    pub deliveries: usize,
}

/// Which events are to be sent again.
enum Selection {
    One(EventId),
    Span { from: Millis, to: Option<Millis>, types: Option<Vec<EventType>> },
}

impl Selection {
    fn check(body: &ReplayBody) -> Result<Self, Problem> {
        let mut fields = Fields::default();
        let id = fields.read("eventId", body.event_id.as_deref());
        let from = fields.time("from", body.from.as_deref());
        let to = fields.time("to", body.to.as_deref());
        let patterns = body.events.as_ref();
        let types = patterns.map(|p| types(&mut fields, "events", p.iter().map(String::as_str)));
        if body.event_id.is_some() && (body.from.is_some() || body.to.is_some() || types.is_some())
        {
            fields.refuse("eventId", "cannot be given together with from, to or events");
        } else if body.event_id.is_none() && body.from.is_none() {
            fields.refuse("from", "is missing (or give eventId)");
        }
        fields.finish()?;
        match (id, from) {
            (Some(id), _) => Ok(Self::One(id)),
            (None, Some(from)) => Ok(Self::Span { from, to, types }),
            (None, None) => Err(Problem::internal("a checked replay lacks its fields")),
        }
    }
}

struct Replay {
    id: EndpointId,
    selection: Selection,
}

impl Write for Replay {
    const NAME: &'static str = "webhook_replay";

    async fn apply(
        &self,
        app: &App,
        tenant: TenantId,
        conn: &mut Conn<'_>,
        now: Millis,
    ) -> Result<Answer, Problem> {
        // Retention deletes no event between its look-up and its delivery, and the endpoint stays open.
        key::lock_tenant(conn, tenant).await?;
        let row = enabled(conn, tenant, self.id).await?;
        let events = match &self.selection {
            Selection::One(id) => {
                let event = feed::event(conn, tenant, *id).await?.map(|row| row.event);
                vec![event.ok_or_else(|| {
                    Problem::new(
                        Code::EventNotFound,
                        format!("No event has the id '{id}'. List them with GET /v1/events."),
                    )
                })?]
            }
            Selection::Span { from, to, types: wanted } => {
                let own =
                    || types(&mut Fields::default(), "", row.events.iter().map(String::as_str));
                let mut wanted = wanted.clone().unwrap_or_else(own);
                wanted.retain(|kind| *kind != EventType::Test);
                let to = to.unwrap_or(Millis(i64::MAX));
                let most = i64::try_from(MOST_REPLAYED).unwrap_or(i64::MAX);
                let read = feed::count_between(conn, tenant, *from, to, MOST_READ + 1).await?;
                if read > MOST_READ {
                    return Err(Problem::invalid(format!(
                        "More than {MOST_READ} events of all types lie in that time: replay a shorter one."
                    )));
                }
                if wanted.is_empty() {
                    Vec::new()
                } else {
                    feed::between(conn, tenant, *from, to, &wanted, most + 1).await?
                }
            }
        };
        if events.len() > MOST_REPLAYED {
            return Err(Problem::invalid(format!(
                "More than {MOST_REPLAYED} events match: replay a shorter time or fewer types at once."
            )));
        }
        let deliveries: Vec<NewDelivery> =
            events.iter().map(|event| NewDelivery::new(self.id, event)).collect();
        delivery::insert(conn, &app.ids, now, tenant, &deliveries).await?;
        Answer::new(StatusCode::ACCEPTED, &ReplayView { deliveries: deliveries.len() })
    }

    fn committed(&self, app: &App) {
        app.wake.deliveries();
    }
}

/// Send events again
///
/// Each gets a new delivery with its old event id, so a consumer that has it already can tell.
#[utoipa::path(post, path = "/v1/webhook-endpoints/{id}/replay", tag = "webhooks",
    params(("id" = String, Path, description = "whe_…"),
        ("Idempotency-Key" = String, Header, description = "1 to 128 of A-Z a-z 0-9 _ . : -")),
    request_body = ReplayBody,
    responses((status = 202, body = ReplayView), Failures),
    security(("apiKey" = []), ("bearer" = [])))]
pub(super) async fn replay(
    State(app): State<Arc<App>>,
    caller: Caller,
    Named(id): Named,
    payload: Payload,
) -> Result<Response, Problem> {
    let tenant = caller.need(Scope::WebhooksWrite)?;
    payload.idempotency_key()?;
    let selection = Selection::check(&payload.parse()?)?;
    write::post(&app, tenant, &payload, &Replay { id: parse_id(&id)?, selection }).await
}
