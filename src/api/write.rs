//! The API's own write transactions. A POST can be repeated: its first answer is kept in the transaction
//! of the write it tells of, so there is never a write without its answer, nor an answer without its write.

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use serde::Serialize;

use super::{
    App,
    error::{Code, Problem},
    request::Payload,
};
use crate::{
    clock::Millis,
    id::TenantId,
    store::{Conn, idempotency},
};

/// How often a key is asked for that somebody else has taken, before the client is told to wait.
const TRIES: u32 = 4;

/// What a write answers.
pub(super) struct Answer {
    status: StatusCode,
    body: String,
}

impl Answer {
    pub fn new(status: StatusCode, body: &impl Serialize) -> Result<Self, Problem> {
        let body = serde_json::to_string(body).map_err(Problem::internal)?;
        Ok(Self { status, body })
    }

    pub const fn empty() -> Self {
        Self { status: StatusCode::NO_CONTENT, body: String::new() }
    }

    fn response(self, replayed: bool) -> Response {
        if self.body.is_empty() {
            return self.status.into_response();
        }
        let mut response = (self.status, self.body).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if replayed {
            headers.insert("idempotency-replayed", HeaderValue::from_static("true"));
        }
        response
    }
}

/// A write that one request asks for. It may be done several times until it commits once.
pub(super) trait Write: Sync {
    /// For the metrics.
    const NAME: &'static str;

    fn apply(
        &self,
        app: &App,
        tenant: TenantId,
        conn: &mut Conn<'_>,
        now: Millis,
    ) -> impl Future<Output = Result<Answer, Problem>> + Send;

    /// Called after the commit: wakes who waits for it.
    fn committed(&self, app: &App);
}

/// Does a write once, or gives the answer of the time it was done.
pub(super) async fn post<W: Write>(
    app: &App,
    tenant: TenantId,
    payload: &Payload,
    write: &W,
) -> Result<Response, Problem> {
    let key = payload.idempotency_key()?;
    let hash = &payload.hash;
    for _ in 0..TRIES {
        let now = app.clock.now();
        let cutoff = now.minus(app.config.retention.idempotency_keys);
        let done = app.db.run_tx(W::NAME, |mut tx| async move {
            let mut conn = tx.conn();
            if !idempotency::take(&mut conn, tenant, key, hash, now, cutoff).await? {
                return Ok::<_, Problem>((tx, None));
            }
            let answer = write.apply(app, tenant, &mut conn, now).await?;
            let status = answer.status.as_u16();
            idempotency::keep_answer(&mut conn, tenant, key, status, &answer.body).await?;
            Ok((tx, Some(answer)))
        });
        if let Some(answer) = done.await? {
            write.committed(app);
            return Ok(answer.response(false));
        }
        if let Some(answer) = first_answer(app, tenant, key, hash).await? {
            return Ok(answer.response(true));
        }
        // Whoever had the key gave it up meanwhile.
    }
    Err(Problem::new(
        Code::IdempotencyInProgress,
        "The first request with this Idempotency-Key is still being executed. Send this one again in a \
         moment to get its answer.",
    ))
}

/// Does a write that is the same when it is done twice: a PATCH or a DELETE.
pub(super) async fn change<W: Write>(
    app: &App,
    tenant: TenantId,
    write: &W,
) -> Result<Response, Problem> {
    let done = app.db.run_tx(W::NAME, |mut tx| async move {
        let answer = write.apply(app, tenant, &mut tx.conn(), app.clock.now()).await?;
        Ok::<_, Problem>((tx, answer))
    });
    let answer = done.await?;
    write.committed(app);
    Ok(answer.response(false))
}

async fn first_answer(
    app: &App,
    tenant: TenantId,
    key: &str,
    hash: &[u8; 32],
) -> Result<Option<Answer>, Problem> {
    let mut session = app.db.read().await?;
    let Some(first) = idempotency::first_answer(&mut session.conn(), tenant, key).await? else {
        return Ok(None);
    };
    if first.request_hash != hash {
        return Err(Problem::new(
            Code::IdempotencyKeyReused,
            "This Idempotency-Key was used for another path or body not long ago. Use a new key for a new \
             request.",
        ));
    }
    let status = u16::try_from(first.status).ok().and_then(|s| StatusCode::from_u16(s).ok());
    let status = status.ok_or_else(|| Problem::internal("a kept answer has no status"))?;
    Ok(Some(Answer { status, body: first.body }))
}
