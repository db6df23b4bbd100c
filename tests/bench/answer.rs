//! What the daemon answers, as far as the benches look at it.

use serde::Deserialize;

#[derive(Deserialize)]
pub struct Balances {
    pub balances: Vec<Balance>,
}

#[derive(Deserialize)]
pub struct Balance {
    pub asset: Asset,
    pub available: Raw,
    pub pending: Raw,
    pub total: Raw,
}

#[derive(Deserialize)]
pub struct Asset {
    pub native: bool,
}

#[derive(Deserialize)]
pub struct Raw {
    pub raw: String,
}
