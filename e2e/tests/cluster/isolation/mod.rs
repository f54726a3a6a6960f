//! Neighbours that cannot hurt each other, on a Kubernetes: what tenants, proxies and strangers may do, and what breaks.
//!
//! Each module holds one kind of harm: its header names the kind, its tests are examples of it that failed before.

mod breaks;
mod breaks_backends;
mod crashes;
mod endpoints;
pub(crate) mod rights;
mod tenants;
