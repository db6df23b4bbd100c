//! `GET /v1/events`: the same events that webhooks deliver, in commit order.

use std::sync::Arc;

use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};

use super::{
    App,
    answer::Json,
    auth::Caller,
    error::{Code, Failures, Problem},
    key::Scope,
    page::read_limit,
    request::{Fields, Params},
};
use crate::{
    event::{self, EventType},
    id::{EventId, TenantId},
    store::{Conn, feed},
};

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ListParams {
    /// The id of an event: what came after it is listed. The whole feed if left out.
    after: Option<String>,
    /// The same as `after`: the nextCursor of the page before.
    cursor: Option<String>,
    /// 1 to 200; 50 if left out.
    limit: Option<String>,
    /// Types or patterns, separated by commas.
    #[param(example = "deposit.*")]
    r#type: Option<String>,
}

/// One page of the feed.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = EventPage)]
pub struct FeedView {
    #[schema(value_type = Vec<EventBody>)]
    pub data: Vec<Box<RawValue>>,
    /// Null at the end of the feed; go on later with the id of the newest event that you have.
    pub next_cursor: Option<String>,
}

/// An event, as webhooks deliver it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Event)]
pub struct EventBody {
    #[schema(example = "evt_0197Qm3kJ2pXvN4hL1pR3w")]
    pub id: String,
    #[serde(rename = "type")]
    #[schema(example = "deposit.pending")]
    pub kind: String,
    #[schema(format = DateTime)]
    pub timestamp: String,
    /// Counts a wallet's events from 1 without gaps.
    pub sequence: Option<i64>,
    #[schema(value_type = Object)]
    pub data: serde_json::Value,
}

/// The types that patterns take; an unknown pattern is an error of the field.
pub(super) fn types<'a>(
    fields: &mut Fields,
    field: &str,
    patterns: impl IntoIterator<Item = &'a str>,
) -> Vec<EventType> {
    let mut types = Vec::new();
    for pattern in patterns {
        if !event::is_pattern(pattern) {
            fields.refuse(
                field,
                format!("has '{pattern}', which names no event type: use deposit.pending, deposit.* or *"),
            );
        }
        types.extend(EventType::ALL.iter().filter(|kind| event::matches(pattern, **kind)));
    }
    types.sort();
    types.dedup();
    types
}

/// What a consumer does whose place in the feed is gone.
fn restarted() -> Problem {
    Problem::new(
        Code::FeedRestarted,
        "The feed does not have this event: it was deleted by its age, or the database was restored from a \
         backup. Read the feed from its beginning (leave 'after' out); an event that you had keeps its id, so \
         that you can tell it. Compare balances with GET /v1/wallets/{locator}/balances where events are gone.",
    )
}

/// The event feed
///
/// In commit order: an event never appears before one that you have read already.
#[utoipa::path(get, path = "/v1/events", tag = "events", params(ListParams),
    responses((status = 200, body = FeedView), Failures),
    security(("apiKey" = []), ("bearer" = [])))]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    caller: Caller,
    Params(params): Params<ListParams>,
) -> Result<Json<FeedView>, Problem> {
    let tenant = caller.need(Scope::WalletsRead)?;
    let mut fields = Fields::default();
    let limit = read_limit(&mut fields, params.limit.as_deref());
    let types = params.r#type.map(|text| types(&mut fields, "type", text.split(',')));
    if params.after.is_some() && params.cursor.is_some() {
        fields.refuse("cursor", "is the same as 'after': send one of them");
    }
    fields.finish()?;
    let after = match params.after.or(params.cursor) {
        Some(text) => Some((text.parse::<EventId>().map_err(|_| unknown(&text))?, text)),
        None => None,
    };
    let (after, types) = (&after, &types.unwrap_or_default());
    // A replica ends somewhere in the commit order and skips nothing before: what it does not have yet comes with a
    // later page. Of an event that it does not know, the primary is asked.
    let read = app.reads.snapshot(|mut tx| async move {
        let mut conn = tx.conn();
        let position = match after {
            Some((id, text)) => position(&mut conn, tenant, *id, text).await?,
            None => 0,
        };
        Ok::<_, Problem>(feed::after(&mut conn, tenant, position, types, limit + 1).await?)
    });
    let mut rows = read.await?;
    let limit = usize::try_from(limit).unwrap_or(0);
    let more = rows.len() > limit;
    rows.truncate(limit);
    let next_cursor = rows.last().filter(|_| more).map(|row| row.event.id.to_string());
    let data = rows.into_iter().map(|row| row.body).collect();
    Ok(Json(FeedView { data, next_cursor }))
}

fn unknown(text: &str) -> Problem {
    Problem::field(
        Code::InvalidRequest,
        "after",
        format!("is '{text}', which is no event of yours; leave it out to begin at the first"),
    )
}

/// Where an event stands in the feed.
async fn position(
    conn: &mut Conn<'_>,
    tenant: TenantId,
    id: EventId,
    text: &str,
) -> Result<i64, Problem> {
    match feed::event(conn, tenant, id).await? {
        Some(found) => Ok(found.event.position),
        None if feed::may_have_been(conn, tenant, id).await? => Err(restarted()),
        None => Err(unknown(text)),
    }
}
