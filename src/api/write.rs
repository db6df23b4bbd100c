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
    store::{
        Conn,
        idempotency::{self, FirstAnswer},
    },
};

/// What a write answers.
#[derive(Debug)]
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

    pub fn status(&self) -> u16 {
        self.status.as_u16()
    }

    pub fn body(&self) -> &str {
        &self.body
    }
}

/// An answer, by when its write was done.
#[derive(Debug)]
pub(super) enum Done {
    Now(Answer),
    /// For the first request with the same key.
    Before(Answer),
}

impl Done {
    pub fn response(self) -> Response {
        let (Answer { status, body }, repeated) = match self {
            Self::Now(answer) => (answer, false),
            Self::Before(answer) => (answer, true),
        };
        if body.is_empty() {
            return status.into_response();
        }
        let mut response = (status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if repeated {
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
    let key = &(tenant, payload.idempotency_key()?.to_owned());
    let hash = &payload.hash;
    let done = app.db.run_tx(W::NAME, |mut tx| async move {
        let mut conn = tx.conn();
        let now = app.clock.now();
        let cutoff = app.key_cutoff(now);
        if idempotency::take(&mut conn, vec![(key, hash)], now, cutoff).await?.is_empty() {
            let mut first = idempotency::first_answers(&mut conn, &[key]).await?;
            let first = first.remove(key).ok_or_else(in_progress)?;
            return Ok::<_, Problem>((tx, repeated(first, hash)?));
        }
        let answer = write.apply(app, tenant, &mut conn, now).await?;
        idempotency::keep_answers(&mut conn, &[(key, answer.status(), answer.body())]).await?;
        Ok((tx, Done::Now(answer)))
    });
    let done = done.await?;
    if let Done::Now(_) = &done {
        write.committed(app);
    }
    Ok(done.response())
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
    Ok(Done::Now(answer).response())
}

/// A key that is neither free nor has an answer: whoever had it gave it up in between.
pub(super) fn in_progress() -> Problem {
    Problem {
        again: true,
        ..Problem::new(
            Code::IdempotencyInProgress,
            "The first request with this Idempotency-Key is still being executed. Send this one again in \
             a moment to get its answer.",
        )
    }
}

/// The first answer, if it is one to the same request.
pub(super) fn repeated(first: FirstAnswer, hash: &[u8; 32]) -> Result<Done, Problem> {
    if first.request_hash != hash {
        return Err(Problem::new(
            Code::IdempotencyKeyReused,
            "This Idempotency-Key was used for another path or body not long ago. Use a new key for a new \
             request.",
        ));
    }
    let status = u16::try_from(first.status).ok().and_then(|s| StatusCode::from_u16(s).ok());
    let status = status.ok_or_else(|| Problem::internal("a kept answer has no status"))?;
    Ok(Done::Before(Answer { status, body: first.body }))
}
