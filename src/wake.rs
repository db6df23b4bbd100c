//! Wake-ups between tasks of one process. Only hints: whoever is woken reads the store, which is the truth.

use std::{collections::BTreeMap, sync::Arc};

use tokio::sync::Notify;

use crate::chain::ChainName;

/// One bell per follower, one for the webhook dispatcher.
#[derive(Clone, Debug, Default)]
pub struct Wake {
    chains: Arc<BTreeMap<ChainName, Arc<Notify>>>,
    deliveries: Arc<Notify>,
}

impl Wake {
    #[must_use]
    pub fn new(chains: impl IntoIterator<Item = ChainName>) -> Self {
        let chains = chains.into_iter().map(|chain| (chain, Arc::default())).collect();
        Self { chains: Arc::new(chains), deliveries: Arc::default() }
    }

    /// There is a wish (a registration, a deployment to track) that the chain's follower should look at.
    pub fn chain(&self, chain: &ChainName) {
        if let Some(bell) = self.chains.get(chain) {
            bell.notify_one();
        }
    }

    /// The bell that [`Wake::chain`] rings; a fresh one for a chain that nobody rings.
    #[must_use]
    pub fn chain_bell(&self, chain: &ChainName) -> Arc<Notify> {
        self.chains.get(chain).cloned().unwrap_or_default()
    }

    /// There are new deliveries in the store.
    pub fn deliveries(&self) {
        self.deliveries.notify_one();
    }

    #[must_use]
    pub fn deliveries_bell(&self) -> Arc<Notify> {
        Arc::clone(&self.deliveries)
    }
}
