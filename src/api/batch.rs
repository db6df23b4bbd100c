//! Writes that many clients ask for at once. Those that wait while one transaction is committed share the
//! next one: its statements work on sets, and one durable commit answers all of them.
//!
//! To a client it is as if its write were alone. What refuses one leaves the others as they are, and what
//! fails all of them together is done again for each alone, so that one request fails only itself. While the store
//! does not work they are tried again, as long as a request may take: even a commit whose outcome nobody knows, since
//! the second one finds the first one's answers.

use std::{collections::BTreeSet, convert::Infallible, mem, panic::AssertUnwindSafe, sync::Arc};

use axum::response::Response;
use futures::FutureExt as _;
use tokio::sync::{
    mpsc::{self, error::TrySendError},
    oneshot,
};

use super::{
    App,
    error::{Code, Problem},
    layer::panic_text,
    request::Payload,
    write::{self, Answer, Done, in_progress},
};
use crate::{
    clock::Millis,
    event::NewEvent,
    id::TenantId,
    retry::StoreRetry,
    store::{Conn, event, idempotency},
};

/// Requests of one transaction. More would answer the first ones later and cost each hardly less.
const AT_ONCE: usize = 64;
/// Requests that wait at most. What comes on top is refused at once: it would be given up before its turn.
const WAITING: usize = 4096;

/// A write that is done for many requests in one go.
pub(super) trait WriteMany: Send + Sync + Sized + 'static {
    /// For the metrics.
    const NAME: &'static str;

    /// Decides all of `asked` and writes what is to be written. An error undoes all of it.
    fn apply_all(
        app: &App,
        conn: &mut Conn<'_>,
        now: Millis,
        asked: &[(TenantId, &Self)],
    ) -> impl Future<Output = Result<Written, Problem>> + Send;

    /// Called after the commit: wakes who waits for it.
    fn committed(&self, app: &App);
}

/// What came of writes that were asked for together.
#[derive(Default)]
pub(super) struct Written {
    /// One each, in their order. Nothing was written for one that is refused.
    pub answers: Vec<Result<Answer, Problem>>,
    /// What is told of them, in the same transaction.
    pub events: Vec<NewEvent>,
}

struct Asked<W> {
    key: idempotency::Key,
    hash: [u8; 32],
    write: W,
}

struct Waiting<W> {
    asked: Asked<W>,
    reply: oneshot::Sender<Result<Done, Problem>>,
}

type Reply = oneshot::Receiver<Result<Done, Problem>>;

/// Where requests of one kind wait for their turn.
#[derive(Debug)]
pub(super) struct Queue<W>(mpsc::Sender<Waiting<W>>);

/// The other end of a [`Queue`]: does what waits there.
pub(super) struct Worker<W> {
    queue: mpsc::Receiver<Waiting<W>>,
    /// Those with the key of another one that went first.
    later: Vec<Waiting<W>>,
    retry: StoreRetry,
}

pub(super) fn queue<W: WriteMany>() -> (Queue<W>, Worker<W>) {
    let (sender, receiver) = mpsc::channel(WAITING);
    let retry = StoreRetry::new(format!("requests of {}", W::NAME));
    (Queue(sender), Worker { queue: receiver, later: Vec::new(), retry })
}

impl<W: WriteMany> Queue<W> {
    /// Does a write once, or gives the answer of the time it was done. A client that gives up before its
    /// turn has come is forgotten.
    pub async fn post(
        &self,
        tenant: TenantId,
        payload: &Payload,
        write: W,
    ) -> Result<Response, Problem> {
        let key = (tenant, payload.idempotency_key()?.to_owned());
        let done = self.push(Asked { key, hash: payload.hash, write })?;
        Ok(done.await.map_err(|_| stopping())??.response())
    }

    fn push(&self, asked: Asked<W>) -> Result<Reply, Problem> {
        let (reply, done) = oneshot::channel();
        self.0.try_send(Waiting { asked, reply }).map_err(|error| match error {
            TrySendError::Closed(_) => stopping(),
            TrySendError::Full(_) => Problem::new(
                Code::Unavailable,
                "Too many requests of this kind wait already. Try again in a moment, with the same \
                 Idempotency-Key.",
            ),
        })?;
        Ok(done)
    }
}

fn stopping() -> Problem {
    Problem::new(Code::Unavailable, "The daemon is stopping. Try again.")
}

impl<W: WriteMany> Worker<W> {
    pub async fn run(mut self, app: Arc<App>) -> Infallible {
        loop {
            let batch = self.next().await;
            answer(&app, batch, &mut self.retry).await;
        }
    }

    /// Those that wait, at least one, each with a key of its own.
    async fn next(&mut self) -> Vec<Waiting<W>> {
        loop {
            let mut waiting = mem::take(&mut self.later);
            while waiting.len() < AT_ONCE
                && let Ok(one) = self.queue.try_recv()
            {
                waiting.push(one);
            }
            if waiting.is_empty() && self.queue.recv_many(&mut waiting, AT_ONCE).await == 0 {
                // Nobody can ask any more.
                std::future::pending::<()>().await;
            }
            waiting.retain(|one| !one.reply.is_closed());
            let mut keys = BTreeSet::new();
            let first = |one: &mut Waiting<W>| keys.insert(one.asked.key.clone());
            let batch: Vec<_> = waiting.extract_if(.., first).collect();
            self.later = waiting;
            if !batch.is_empty() {
                return batch;
            }
        }
    }
}

async fn answer<W: WriteMany>(app: &App, batch: Vec<Waiting<W>>, retry: &mut StoreRetry) {
    let (asked, replies): (Vec<_>, Vec<_>) =
        batch.into_iter().map(|one| (one.asked, one.reply)).unzip();
    let results = match attempt(app, &asked, retry).await {
        Ok(results) => results,
        // Somebody's fault, or a collision that does not end.
        Err(problem) if asked.len() > 1 && (problem.code == Code::Internal || problem.again) => {
            let mut results = Vec::with_capacity(asked.len());
            for one in asked.chunks(1) {
                let alone = attempt(app, one, retry).await;
                results.extend(alone.unwrap_or_else(|problem| vec![Err(problem)]));
            }
            results
        }
        Err(problem) => asked.iter().map(|_| Err(problem.clone())).collect(),
    };
    for (result, reply) in results.into_iter().zip(replies) {
        // Whoever has gone needs no answer.
        let _ = reply.send(result);
    }
}

/// Does all of `asked` in one transaction: one result each. A panic is an error of it, and so is a store that
/// takes longer than a request may.
async fn attempt<W: WriteMany>(
    app: &App,
    asked: &[Asked<W>],
    retry: &mut StoreRetry,
) -> Result<Vec<Result<Done, Problem>>, Problem> {
    let limit = app.config.server.request_timeout;
    let done = AssertUnwindSafe(transact(app, asked, retry)).catch_unwind();
    let (results, events) = match tokio::time::timeout(limit, done).await {
        Ok(Ok(done)) => done?,
        Ok(Err(panic)) => return Err(Problem::internal(panic_text(&*panic))),
        Err(_) => {
            return Err(Problem {
                cause: Some(format!("no commit within {} s", limit.as_secs_f64())),
                ..Problem::new(
                    Code::Unavailable,
                    "The store took too long. Try again in a moment, with the same Idempotency-Key.",
                )
            });
        }
    };
    for (one, result) in asked.iter().zip(&results) {
        if let Ok(Done::Now(_)) = result {
            one.write.committed(app);
        }
    }
    for kind in events.iter().flat_map(NewEvent::kinds) {
        app.metrics.events_total.with_label_values(&[kind.as_str()]).inc();
    }
    if !events.is_empty() {
        app.wake.deliveries();
    }
    Ok(results)
}

type Outcome = (Vec<Result<Done, Problem>>, Vec<NewEvent>);

async fn transact<W: WriteMany>(
    app: &App,
    asked: &[Asked<W>],
    retry: &mut StoreRetry,
) -> Result<Outcome, Problem> {
    loop {
        let done = app.db.run_tx(W::NAME, |mut tx| async move {
            let now = app.clock.now();
            let outcome = apply(app, &mut tx.conn(), now, asked).await?;
            Ok::<_, Problem>((tx, outcome))
        });
        match done.await {
            Err(problem) if problem.outage.is_some() => {
                let pause = retry.pause(problem.cause.as_deref().unwrap_or_default());
                tokio::time::sleep(pause).await;
            }
            done => {
                retry.succeeded();
                return done;
            }
        }
    }
}

async fn apply<W: WriteMany>(
    app: &App,
    conn: &mut Conn<'_>,
    now: Millis,
    asked: &[Asked<W>],
) -> Result<Outcome, Problem> {
    let requests = asked.iter().map(|one| (&one.key, &one.hash)).collect();
    let taken = idempotency::take(conn, requests, now, app.key_cutoff(now)).await?;
    let repeated: Vec<_> =
        asked.iter().map(|one| &one.key).filter(|key| !taken.contains(*key)).collect();
    let mut first = idempotency::first_answers(conn, &repeated).await?;
    let fresh = asked.iter().filter(|one| taken.contains(&one.key));
    let fresh: Vec<_> = fresh.map(|one| (one.key.0, &one.write)).collect();
    let Written { answers, events } = if fresh.is_empty() {
        Written::default()
    } else {
        W::apply_all(app, conn, now, &fresh).await?
    };
    let mut answers = answers.into_iter();
    let mut results = Vec::with_capacity(asked.len());
    for one in asked {
        results.push(if taken.contains(&one.key) {
            let answer = answers.next();
            answer.ok_or_else(|| Problem::internal("a write has no answer"))?.map(Done::Now)
        } else {
            let answer = first.remove(&one.key).ok_or_else(in_progress);
            answer.and_then(|answer| write::repeated(answer, &one.hash))
        });
    }
    let (mut kept, mut free) = (Vec::with_capacity(fresh.len()), Vec::new());
    for (one, result) in asked.iter().zip(&results) {
        match result {
            Ok(Done::Now(answer)) => kept.push((&one.key, answer.status(), answer.body())),
            Err(_) if taken.contains(&one.key) => free.push(&one.key),
            _ => {}
        }
    }
    idempotency::keep_answers(conn, &kept).await?;
    idempotency::give_back(conn, &free).await?;
    // Last, because it holds the tenants' feeds until commit.
    event::append(conn, &app.ids, now, &events).await?;
    Ok((results, events))
}

#[cfg(test)]
mod tests;
