//! What keeps chains from going on, as this process's followers last found it: `/readyz` tells it at once. It lasts no
//! longer than it is true; what outlives the process is in the store ([`crate::model::Cursor::halted`]).

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;

use crate::chain::ChainName;

/// The obstacles of all chains.
#[derive(Clone, Debug, Default)]
pub struct Obstacles(Arc<Mutex<HashMap<ChainName, String>>>);

impl Obstacles {
    /// What keeps a chain from going on, if anything is known to.
    #[must_use]
    pub fn of(&self, chain: &ChainName) -> Option<String> {
        self.0.lock().get(chain).cloned()
    }

    pub fn found(&self, chain: &ChainName, what: String) {
        self.0.lock().insert(chain.clone(), what);
    }

    pub fn gone(&self, chain: &ChainName) {
        self.0.lock().remove(chain);
    }
}
