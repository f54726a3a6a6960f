//! The input of the control loop: everything that can happen to the operator.

use std::sync::Arc;

use planner::FleetRef;
use snapshot::proto::{Hello, LoadWindow, Nack};
use tokio::sync::OwnedSemaphorePermit;

use crate::{
    push::published::{Outbox, Published},
    source::Latest,
};

/// An input of the loop in [`crate::reconcile`].
#[derive(Debug)]
pub enum Event {
    /// A change of the source's objects. The slot holds the whole latest world.
    WorldChanged(Latest),
    /// A message of a proxy.
    Proxy(ProxyEvent),
    /// A process began or ended, or sockets were opened: the fleets are worth a look.
    FleetChanged,
    /// A tick of the timer.
    Tick,
    /// The end of the operator, after the fleets have drained.
    Shutdown,
}

/// A message of a proxy's stream, or its beginning or end.
#[derive(Debug)]
pub struct ProxyEvent {
    /// The number of the stream: a proxy that redials has a new one, and the end of the old one then means nothing.
    pub session: u64,
    /// The fleet the proxy belongs to.
    pub fleet: Arc<FleetRef>,
    /// The proxy's name.
    pub proxy: Arc<str>,
    /// The message.
    pub what: ProxyWhat,
    /// Its part of what may wait for the loop, until it is taken up.
    pub room: Option<OwnedSemaphorePermit>,
}

/// The messages of a proxy's stream.
#[derive(Debug)]
pub enum ProxyWhat {
    /// The stream began.
    Attached {
        /// Its first message, less what the stream itself uses.
        hello: Box<Hello>,
        /// Takes messages to it.
        outbox: Outbox,
    },
    /// A push was acknowledged, or once more with fewer refusals.
    Ack {
        /// The snapshot that was offered. Of kinds that the proxy does not know it was sent nothing.
        published: Arc<Published>,
        /// The resources that the proxy refused.
        nacks: Vec<Nack>,
        /// Whether it is Ready.
        ready: bool,
    },
    /// Load of a window of time, as far as it is plausible.
    Load(LoadWindow),
    /// The stream ended.
    Detached,
}
