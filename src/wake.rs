//! Wake-ups between tasks of one process. Only hints: whoever is woken reads the store, which is the truth.

use std::{collections::BTreeMap, sync::Arc};

use tokio::sync::Notify;

use crate::chain::ChainName;

/// One wake-up per follower, one for the webhook dispatcher.
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

    /// Wakes a chain's follower: there is a registration to open or close, or a deployment to track.
    pub fn chain(&self, chain: &ChainName) {
        if let Some(wake_up) = self.chains.get(chain) {
            wake_up.notify_one();
        }
    }

    /// What a chain's follower waits for; never notified for a chain that is not configured.
    #[must_use]
    pub fn chain_wake_up(&self, chain: &ChainName) -> Arc<Notify> {
        self.chains.get(chain).cloned().unwrap_or_default()
    }

    /// Wakes the webhook dispatcher: there are new deliveries.
    pub fn deliveries(&self) {
        self.deliveries.notify_one();
    }

    /// What the webhook dispatcher waits for.
    #[must_use]
    pub fn deliveries_wake_up(&self) -> Arc<Notify> {
        Arc::clone(&self.deliveries)
    }
}
