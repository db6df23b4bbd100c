//! What an endpoint's plan allows, as a chain's questions meet it.

use super::{
    config, endpoint,
    node::{Node, honest},
};
use crate::{
    chain::{Priority, Source as _, SourceError, evm::EvmSource},
    config::EndpointConfig,
    metrics::Metrics,
};

struct World {
    source: EvmSource,
    metrics: Metrics,
}

impl World {
    fn new(endpoints: Vec<EndpointConfig>) -> Self {
        let metrics = Metrics::new();
        let source = EvmSource::new(&config(endpoints), metrics.clone()).expect("a source");
        Self { source, metrics }
    }

    fn left(&self, endpoint: &str) -> i64 {
        let labels = ["anvil", endpoint, "day"];
        self.metrics.rpc_endpoint_budget_left.with_label_values(&labels).get()
    }
}

fn calls(node: &Node) -> usize {
    node.requests().iter().sum()
}

#[tokio::test]
async fn when_an_endpoints_budget_is_spent_another_is_asked_and_none_is_ill() {
    let (first, second) = (Node::start(honest).await, Node::start(honest).await);
    let mut planned = endpoint("planned", &first.url, 2);
    planned.max_requests_per_day = Some(10);
    let both = World::new(vec![planned.clone(), endpoint("free", &second.url, 1)]);
    assert_eq!(both.left("planned"), 10);
    for _ in 0..20 {
        both.source.head().await.expect("a head");
    }
    assert_eq!((calls(&first), calls(&second)), (10, 12), "each with its chain's id");
    assert_eq!(both.left("planned"), 0);
    let healthy =
        |name| both.metrics.rpc_endpoint_healthy.with_label_values(&["anvil", name]).get();
    assert_eq!((healthy("planned"), healthy("free")), (1, 1));

    // Calls in a batch count each, and a batch that does not fit is not sent.
    let third = Node::start(honest).await;
    planned.url = endpoint("planned", &third.url, 2).url;
    let alone = World::new(vec![planned]);
    alone.source.blocks(1, 7).await.expect("blocks");
    assert_eq!((calls(&third), alone.left("planned")), (9, 1));
    let error = alone.source.blocks(1, 2).await.expect_err("two calls more");
    assert!(matches!(error, SourceError::Unavailable { .. }), "{error}");
    assert!(error.to_string().contains("its budget of 10 calls is used up"), "{error}");
    alone.source.head().await.expect("one is left");
    assert_eq!(calls(&third), 10);
}

#[tokio::test]
async fn what_can_wait_is_asked_in_small_batches_where_there_is_a_pace() {
    let node = Node::start(honest).await;
    let mut paced = endpoint("one", &node.url, 1);
    paced.max_requests_per_second = Some(50);
    let world = World::new(vec![paced]);
    world.source.head().await.expect("a head");
    let before = node.requests().len();
    Priority::Background.scope(world.source.blocks(1, 12)).await.expect("blocks");
    assert_eq!(node.requests()[before..], [5, 5, 2, 1]);
    let before = node.requests().len();
    world.source.blocks(1, 12).await.expect("blocks");
    assert_eq!(node.requests()[before..], [12, 1]);
}
