//! What filters are made with, besides their own settings.

use std::sync::Arc;

use snapshot::Key;

use crate::{telemetry::Telemetry, upstream::ClusterSlot};

/// What lives longer than a configuration, for the filters that need it.
pub(crate) struct Parts<'a> {
    /// Counters.
    pub(crate) telemetry: &'a Telemetry,
    /// The slots of clusters, by their keys.
    pub(crate) slots: &'a mut dyn FnMut(&Key) -> Arc<ClusterSlot>,
}
