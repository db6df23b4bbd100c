//! What a tenant reads over a store that something else fills.

use super::*;

/// A tenant's view of a store.
pub(crate) struct Reading {
    router: Router,
    key: String,
}

impl Reading {
    pub(crate) async fn new(db: &Db, chain: &ChainConfig, tenant: &str) -> Self {
        let clock = Clock::manual(NOW);
        let chains = BTreeMap::from([(chain.name.clone(), chain.clone())]);
        let api = Api {
            db: db.clone(),
            reads: Reads::new(db.clone()),
            provers: Provers::default(),
            ids: Ids::new(clock.clone()),
            random: Random::System,
            wake: Wake::new(chains.keys().cloned()),
            obstacles: Obstacles::default(),
            clock,
            metrics: Metrics::new(),
            config: Arc::new(Config { chains, ..config() }),
        };
        let scopes = [Scope::WalletsRead];
        let key = key::create(&api.db, &api.ids, &api.random, NOW, tenant, &scopes).await;
        Self { router: api.parts().0, key: key.expect("a key").1 }
    }

    /// The status and the body of an answer.
    pub(crate) async fn get(&self, path: &str) -> (u16, Value) {
        let request = World::request("GET", path, &self.key).body(Body::empty());
        let request = request.expect("a request");
        let response = self.router.clone().oneshot(request).await.expect("an answer");
        let status = response.status().as_u16();
        let bytes = to_bytes(response.into_body(), usize::MAX).await.expect("a body");
        (status, serde_json::from_slice(&bytes).expect("JSON"))
    }
}
