//! Upstream endpoints, balancing and connection pools.

mod endpoint;

pub use endpoint::{Endpoint, Endpoints, Protocol};
