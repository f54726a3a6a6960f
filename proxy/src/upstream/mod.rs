//! Upstream endpoints, balancing and connection pools.

mod balance;
mod endpoint;
mod pool;

pub use balance::pick;
pub use endpoint::{Endpoint, Endpoints, Protocol};
pub(crate) use pool::SendError;
pub use pool::{ConnectError, Connecting, Lease, Pool};
