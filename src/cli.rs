//! Stub.
pub mod keys;
