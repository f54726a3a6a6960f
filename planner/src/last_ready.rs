//! The memory of endpoints that were ready: a plan leaves it to the next world. `compile/endpoints.rs` chooses by it.

use std::{collections::BTreeMap, net::SocketAddr};

use snapshot::Key;

use crate::Millis;

/// The endpoints that were ready last, of each port of each Service that routes refer to; from one plan to the next.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LastReady(pub(crate) BTreeMap<Key, Last>);

/// The endpoints of one port.
pub(crate) type Last = BTreeMap<SocketAddr, KnownEndpoint>;

/// An endpoint that is remembered.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct KnownEndpoint {
    /// The time since which it is not listed any more; `None`: it is.
    pub(crate) gone: Option<Millis>,
    /// Whether no Service selected it.
    pub(crate) by_hand: bool,
}
