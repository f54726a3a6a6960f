//! Clusters: what requests are sent to, by the keys of a snapshot.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use snapshot::Key;

use super::endpoint::Endpoint;

/// A cluster's place: its endpoints change without touching the rules that name it.
pub struct ClusterSlot {
    /// The cluster's key.
    pub key: Key,
    /// `None`: the snapshot lacks it; requests get 500.
    pub cluster: ArcSwapOption<Cluster>,
}

/// Endpoints to balance over. Those that terminate are left out while others are there.
pub struct Cluster {
    /// Endpoints to choose from. Without any, requests get 503.
    pub endpoints: Vec<Arc<Endpoint>>,
}
