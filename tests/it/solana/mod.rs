//! Solana: whatever a transaction does, the ledger says what the validator says.

mod deposits;
mod faults;
mod frozen;
mod history;
mod hostile;
mod random;
mod rewards;
mod tokens;
mod transactions;
