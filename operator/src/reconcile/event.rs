//! Everything that can happen to the operator, as one type.

use std::sync::Arc;

use planner::FleetRef;
use snapshot::proto::{Hello, LoadWindow, Nack};
use tokio::sync::OwnedSemaphorePermit;

use crate::{
    push::{Outbox, Published},
    source::Latest,
};

/// What the loop in [`crate::reconcile`] takes up.
#[derive(Debug)]
pub enum Event {
    /// The source has something else now: all of it is here, as of when it is taken.
    WorldChanged(Latest),
    /// A proxy said something.
    Proxy(ProxyEvent),
    /// A process began or ended, or sockets were opened: the fleets are worth a look.
    FleetChanged,
    /// Time passed.
    Tick,
    /// The operator is to end: drain the fleets first.
    Shutdown,
}

/// What a proxy's stream brought.
#[derive(Debug)]
pub struct ProxyEvent {
    /// Which stream: a proxy that redials has a new one, and the old one's end is then no news.
    pub session: u64,
    /// The fleet the proxy belongs to.
    pub fleet: Arc<FleetRef>,
    /// The proxy's name.
    pub proxy: Arc<str>,
    /// What happened.
    pub what: ProxyWhat,
    /// Its part of what may wait for the loop, until it is taken up.
    pub room: Option<OwnedSemaphorePermit>,
}

/// What happened on a proxy's stream.
#[derive(Debug)]
pub enum ProxyWhat {
    /// It began.
    Attached {
        /// Its first message, less what the stream itself uses.
        hello: Box<Hello>,
        /// Takes messages to it.
        outbox: Outbox,
    },
    /// A push was acknowledged, or once more with fewer refusals.
    Ack {
        /// What was pushed.
        published: Arc<Published>,
        /// What the proxy refused.
        nacks: Vec<Nack>,
        /// Whether it is Ready.
        ready: bool,
    },
    /// Load of a window of time, as far as it is plausible.
    Load(LoadWindow),
    /// The stream ended.
    Detached,
}
