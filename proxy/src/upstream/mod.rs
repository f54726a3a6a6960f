//! Upstream endpoints, balancing and connection pools.

mod balance;
mod endpoint;
mod pool;

pub use balance::pick;
pub use endpoint::{Endpoint, Endpoints, Protocol};
pub use pool::{ConnectError, Connecting, Lease, Pool, SendError};
