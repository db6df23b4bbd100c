//! A connection to PostgreSQL: what it is told first, and that no statement on it waits for ever.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures::{FutureExt as _, Stream, StreamExt as _, future::BoxFuture, stream::BoxStream};
use sqlx::{
    AssertSqlSafe, Connection as _, Describe, Either, Error, Execute, Executor, PgConnection,
    Postgres, SqlStr,
    postgres::{PgConnectOptions, PgQueryResult, PgRow, PgStatement, PgTypeInfo},
};

use super::{
    liveness::{Backend, Liveness},
    outage::Cause,
    pool::Pooled,
};

/// What each session is told first: to plan by the text of a statement and by its indexes.
///
/// Every statement of the store is written for an index on each side (a test reads their plans). A database that
/// is new has no statistics, and a plan that was made then, with tables that seemed to hold nothing, is kept and
/// run when they hold millions: reading a table or an index from end to end, sorting what an index has in order,
/// or hashing all of a table for a join, must not look cheap at any time, nor does an index that leads to more rows because they lie side by side. One plan per statement, whatever its values: the one that the test has read. And without
/// `jit`: what cannot do without such a step is priced so high that PostgreSQL would compile it first.
const PLANS: &str = "
    SET enable_seqscan = off; SET enable_bitmapscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off;
    SET random_page_cost = 1; SET plan_cache_mode = force_generic_plan; SET jit = off";

/// How the server notices that this process is gone, and lets go what it has locked: by keepalive, by what is sent
/// and not acknowledged, and while it works on a statement.
const PEER: &str = "
    SET tcp_keepalives_idle = 10; SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 3;
    SET tcp_user_timeout = '15s'; SET client_connection_check_interval = '5s'";

/// How long a session of the daemon may take. No statement of its takes minutes: one that does never ends.
const LIMITS: &str = "SET statement_timeout = '5min'; SET lock_timeout = '5s'";

/// A transaction that does nothing for so long belongs to a process that sleeps or was cut off.
const IDLE: Duration = Duration::from_secs(8);

const WHO: &str = "
    SELECT pid, CAST(EXTRACT(EPOCH FROM backend_start) * 1000000 AS BIGINT) FROM pg_stat_activity
    WHERE pid = pg_backend_pid()";

/// How sessions are opened.
#[derive(Clone)]
pub struct SessionOptions {
    pub connect: PgConnectOptions,
    liveness: Arc<Liveness>,
    /// Milliseconds that a transaction may do nothing; `None` for a command, which may take its time.
    idle: Option<u128>,
}

impl SessionOptions {
    /// For a daemon whose leases last so long: what a process that sleeps has locked is free before they have run out.
    /// `None` for a command, which may take its time.
    pub fn new(connect: PgConnectOptions, lease: Option<Duration>) -> Self {
        let liveness = Liveness::new(connect.clone());
        let idle = lease.map(|lease| IDLE.min(lease * 4 / 5).as_millis());
        Self { connect, liveness: Arc::new(liveness), idle }
    }

    /// The same without a limit to what a statement may take.
    pub fn unlimited(&self) -> Self {
        Self::new(self.connect.clone(), None)
    }

    pub async fn close(&self) {
        self.liveness.close().await;
    }
}

/// A connection to PostgreSQL. A statement on it gets its answer, or an error when there will be none.
pub struct Session {
    connection: PgConnection,
    state: State,
}

struct State {
    backend: Backend,
    liveness: Arc<Liveness>,
    /// A statement was begun, and its end not seen.
    busy: bool,
    /// A transaction was begun, and its end not seen.
    open: bool,
    /// It does not answer any more.
    dead: bool,
    /// How often any of them had failed when this one gave its last sign of life.
    failures: u32,
    /// How often the server had been left when this was opened.
    left: u32,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Session")
    }
}

impl Session {
    pub async fn begin(&mut self, begin: &'static str) -> Result<(), Error> {
        self.state.open = true;
        sqlx::raw_sql(begin).execute(&mut *self).await.map(|_| ())
    }

    pub async fn commit(&mut self) -> Result<(), Error> {
        sqlx::raw_sql("COMMIT").execute(&mut *self).await?;
        self.state.open = false;
        Ok(())
    }

    #[cfg(test)]
    pub fn connection(&mut self) -> &mut PgConnection {
        &mut self.connection
    }

    /// Work of someone who wants the connection itself.
    pub async fn run<T>(
        &mut self,
        work: impl for<'c> FnOnce(&'c mut PgConnection) -> BoxFuture<'c, Result<T, Error>>,
    ) -> Result<T, Error> {
        let Self { connection, state } = self;
        state.busy = true;
        state.answer(work(connection)).await
    }
}

impl Pooled for Session {
    type Options = SessionOptions;

    /// What was lost on the way is sent again by the next try sooner than by TCP.
    const OPENING: Duration = Duration::from_secs(3);
    const CLEANING: Duration = Duration::from_secs(1);

    async fn open(options: &SessionOptions) -> Result<Self, Error> {
        let left = options.liveness.left();
        let mut connection = PgConnection::connect_with(&options.connect).await?;
        let limits = options.idle.map_or_else(String::new, |idle| {
            format!("{LIMITS}; SET idle_in_transaction_session_timeout = '{idle}ms'")
        });
        let told = AssertSqlSafe(format!("{PLANS};{limits}"));
        sqlx::raw_sql(told).execute(&mut connection).await?;
        // Not every system lets a server look after its peers. Whatever it refuses, we look ourselves.
        match sqlx::raw_sql(PEER).execute(&mut connection).await {
            Err(Error::Database(_)) | Ok(_) => {}
            Err(error) => return Err(error),
        }
        let (pid, since) = sqlx::query_as(WHO).persistent(false).fetch_one(&mut connection).await?;
        let state = State {
            backend: Backend { pid, since },
            liveness: Arc::clone(&options.liveness),
            busy: false,
            open: false,
            dead: false,
            failures: options.liveness.failures(),
            left,
        };
        Ok(Self { connection, state })
    }

    fn is_clean(&self) -> bool {
        let State { busy, open, dead, failures, left, .. } = self.state;
        let liveness = &self.state.liveness;
        !(busy || open || dead) && failures == liveness.failures() && left == liveness.left()
    }

    async fn clean(&mut self) -> Result<(), Error> {
        if self.state.dead || self.state.left != self.state.liveness.left() {
            return Err(Error::PoolClosed);
        }
        let failures = self.state.liveness.failures();
        if self.state.open {
            sqlx::raw_sql("ROLLBACK").execute(&mut self.connection).await?;
        } else {
            self.connection.ping().await?;
        }
        (self.state.open, self.state.busy) = (false, false);
        self.state.failures = failures;
        Ok(())
    }

    async fn close(self) {
        if !self.state.dead {
            // It is gone either way.
            let _ = self.connection.close().await;
        }
    }
}

impl State {
    async fn answer<T>(
        &mut self,
        answer: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let done = self.liveness.answer(self.backend, answer).await;
        match &done {
            Ok(_) => self.busy = false,
            Err(error) => self.failed(error),
        }
        done
    }

    /// A statement has failed.
    fn failed(&mut self, error: &Error) {
        match error {
            // After some errors the server hangs up: it is asked for a sign of life before the next statement.
            Error::Database(error) => {
                let outage = error.code().and_then(|state| Cause::of_sqlstate(&state));
                self.busy = outage.is_some();
                if self.busy {
                    self.liveness.failed();
                }
                if outage == Some(Cause::ReadOnly) {
                    self.liveness.leave();
                }
            }
            Error::Io(_) | Error::Tls(_) | Error::Protocol(_) => {
                self.dead = true;
                self.liveness.failed();
            }
            // Of what was asked or answered, not of the connection.
            _ => {}
        }
    }
}

type Rows<'e> = BoxStream<'e, Result<Either<PgQueryResult, PgRow>, Error>>;

/// Rows, as long as they come.
struct Answer<'e> {
    rows: Rows<'e>,
    state: &'e mut State,
    /// While the next one is waited for.
    silence: Option<BoxFuture<'static, Error>>,
}

impl Stream for Answer<'_> {
    type Item = Result<Either<PgQueryResult, PgRow>, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Self { rows, state, silence } = &mut *self;
        let next = match rows.poll_next_unpin(cx) {
            Poll::Ready(next) => next,
            Poll::Pending => {
                let silence = silence.get_or_insert_with(|| {
                    let (liveness, backend) = (Arc::clone(&state.liveness), state.backend);
                    async move { liveness.silence(backend).await }.boxed()
                });
                Some(Err(ready!(silence.poll_unpin(cx))))
            }
        };
        *silence = None;
        match &next {
            Some(Ok(_)) => {}
            Some(Err(error)) => state.failed(error),
            None => state.busy = false,
        }
        Poll::Ready(next)
    }
}

impl<'c> Executor<'c> for &'c mut Session {
    type Database = Postgres;

    fn fetch_many<'e, 'q: 'e, E>(self, query: E) -> Rows<'e>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        let Session { connection, state } = self;
        state.busy = true;
        let rows = connection.fetch_many(query);
        Answer { rows, state, silence: None }.boxed()
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, Result<Option<PgRow>, Error>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        let Session { connection, state } = self;
        state.busy = true;
        let row = connection.fetch_optional(query);
        async move { state.answer(row).await }.boxed()
    }

    fn prepare_with<'e>(
        self,
        sql: SqlStr,
        parameters: &'e [PgTypeInfo],
    ) -> BoxFuture<'e, Result<PgStatement, Error>>
    where
        'c: 'e,
    {
        let Session { connection, state } = self;
        state.busy = true;
        let prepared = connection.prepare_with(sql, parameters);
        async move { state.answer(prepared).await }.boxed()
    }

    fn describe<'e>(self, sql: SqlStr) -> BoxFuture<'e, Result<Describe<Postgres>, Error>>
    where
        'c: 'e,
    {
        let Session { connection, state } = self;
        state.busy = true;
        let described = connection.describe(sql);
        async move { state.answer(described).await }.boxed()
    }
}

#[cfg(test)]
mod tests;
