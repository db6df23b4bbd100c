use axum::http::StatusCode;
use futures::future::join_all;

use super::*;
use crate::{
    api::tests::World,
    store::{StoreError, key},
};

/// Makes a tenant of that name, or something else.
#[derive(Clone, Copy)]
enum Tricky {
    Make(&'static str),
    Refuse,
    Panic,
    Break,
}

impl WriteMany for Tricky {
    const NAME: &'static str = "test";

    async fn apply_all(
        app: &App,
        conn: &mut Conn<'_>,
        now: Millis,
        asked: &[(TenantId, &Self)],
    ) -> Result<Written, Problem> {
        let mut written = Written::default();
        for (_, one) in asked {
            written.answers.push(match one {
                Self::Make(name) => {
                    let id = key::ensure_tenant(conn, app.ids.next(), name, now).await?;
                    Ok(Answer::new(StatusCode::CREATED, &id)?)
                }
                Self::Refuse => Err(Problem::invalid("refused")),
                Self::Panic => panic!("on purpose"),
                Self::Break => return Err(StoreError::corrupt("on purpose").into()),
            });
        }
        Ok(written)
    }

    fn committed(&self, _: &App) {}
}

struct Stage {
    world: World,
    app: Arc<App>,
    tenant: TenantId,
    queue: Queue<Tricky>,
    worker: Worker<Tricky>,
}

impl Stage {
    async fn new() -> Self {
        Self::on(World::new().await).await
    }

    async fn on(world: World) -> Self {
        let (app, _) = world.api.clone().app();
        let hash = crate::api::key::hash(&world.acme);
        let mut session = world.api.db.read().await.expect("a session");
        let row = key::valid_key(&mut session.conn(), &hash).await.expect("rows").expect("a key");
        let (queue, worker) = super::queue();
        Self { app, tenant: row.tenant_id, queue, worker, world }
    }

    fn ask(&self, key: &str, write: Tricky) -> Result<Reply, Problem> {
        self.queue.push(Asked { key: (self.tenant, key.to_owned()), hash: [0; 32], write })
    }

    /// Asks for all of it before anything is done, then does it.
    async fn all(mut self, asked: &[(&str, Tricky)]) -> (World, Vec<Result<Done, Problem>>) {
        let mut waiting = Vec::new();
        for (key, write) in asked {
            waiting.push(self.ask(key, *write).expect("a place"));
        }
        let results = self.results(waiting).await;
        (self.world, results)
    }

    async fn results(&mut self, waiting: Vec<Reply>) -> Vec<Result<Done, Problem>> {
        let (_, none) = super::queue();
        let worker = std::mem::replace(&mut self.worker, none);
        let results = tokio::select! {
            results = join_all(waiting) => results,
            never = worker.run(Arc::clone(&self.app)) => match never {},
        };
        results.into_iter().map(|result| result.expect("an answer")).collect()
    }
}

fn committed(world: &World) -> u64 {
    let durations = &world.api.metrics.db_transaction_duration_seconds;
    durations.with_label_values(&["test"]).get_sample_count()
}

fn tell(result: &Result<Done, Problem>) -> &'static str {
    match result {
        Ok(Done::Now(_)) => "now",
        Ok(Done::Before(_)) => "before",
        Err(problem) => problem.code.as_str(),
    }
}

#[tokio::test]
async fn those_that_wait_share_a_transaction() {
    let stage = Stage::new().await;
    let keys: Vec<String> = (0..AT_ONCE + 10).map(|n| n.to_string()).collect();
    let asked: Vec<_> = keys.iter().map(|key| (key.as_str(), Tricky::Make("new"))).collect();
    let (world, results) = stage.all(&asked).await;
    assert!(results.iter().all(|result| tell(result) == "now"));
    assert_eq!(committed(&world), 2, "as many as are done at once, then the rest");
}

#[tokio::test]
async fn what_is_refused_is_refused_alone_and_can_be_asked_again() {
    let stage = Stage::new().await;
    let asked = [("a", Tricky::Make("a")), ("b", Tricky::Refuse), ("c", Tricky::Make("c"))];
    let (world, results) = stage.all(&asked).await;
    assert_eq!(results.iter().map(tell).collect::<Vec<_>>(), ["now", "invalid_request", "now"]);
    assert_eq!(committed(&world), 1);
    let stage = Stage::on(world).await;
    let asked = [("a", Tricky::Make("a")), ("b", Tricky::Make("b")), ("c", Tricky::Make("c"))];
    let (_, results) = stage.all(&asked).await;
    assert_eq!(results.iter().map(tell).collect::<Vec<_>>(), ["before", "now", "before"]);
}

#[tokio::test]
async fn what_breaks_the_transaction_fails_alone() {
    let stage = Stage::new().await;
    let asked = [
        ("a", Tricky::Make("a")),
        ("b", Tricky::Panic),
        ("c", Tricky::Break),
        ("d", Tricky::Make("d")),
    ];
    let (_, results) = stage.all(&asked).await;
    let told: Vec<_> = results.iter().map(tell).collect();
    assert_eq!(told, ["now", "internal", "internal", "now"]);
}

#[tokio::test]
async fn the_same_request_twice_is_done_once() {
    let stage = Stage::new().await;
    let asked = [("a", Tricky::Make("a")), ("a", Tricky::Make("a")), ("b", Tricky::Make("b"))];
    let (world, results) = stage.all(&asked).await;
    assert_eq!(results.iter().map(tell).collect::<Vec<_>>(), ["now", "before", "now"]);
    let bodies: Vec<_> = results
        .into_iter()
        .flatten()
        .map(|(Done::Now(answer) | Done::Before(answer))| answer.body().to_owned())
        .collect();
    assert_eq!(bodies[0], bodies[1]);
    assert_eq!(committed(&world), 2, "the repetition came after the first commit");
}

#[tokio::test]
async fn what_does_not_fit_in_the_queue_is_refused_at_once() {
    let stage = Stage::new().await;
    let waiting: Vec<_> = (0..WAITING)
        .map(|n| stage.ask(&n.to_string(), Tricky::Make("new")).expect("a place"))
        .collect();
    let refused = stage.ask("more", Tricky::Make("more")).expect_err("no place");
    assert_eq!(refused.code, Code::Unavailable);
    assert!(refused.detail.contains("Idempotency-Key"), "{}", refused.detail);
    drop(waiting);
}

#[tokio::test]
async fn a_client_that_has_gone_is_not_waited_for() {
    let mut stage = Stage::new().await;
    drop(stage.ask("gone", Tricky::Make("gone")).expect("a place"));
    let here = stage.ask("here", Tricky::Make("here")).expect("a place");
    let results = stage.results(vec![here]).await;
    assert_eq!(tell(&results[0]), "now");
    let mut session = stage.world.api.db.read().await.expect("a session");
    let gone = (stage.tenant, "gone".to_owned());
    let kept = idempotency::first_answers(&mut session.conn(), &[&gone]).await.expect("rows");
    assert!(kept.is_empty());
}
