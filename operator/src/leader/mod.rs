//! Leader election: which of several operators leads, and that no other writes.
//!
//! - [`lease`]: the state machine over one Lease. [`election`]: reads and writes it.
//! - [`fencing`]: no write to the API server without the lease.

pub mod election;
pub mod fencing;
pub mod lease;
