//! What counts as under way: the requests of an endpoint, by which it is balanced, and the streams of an HTTP/2
//! connection.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use super::endpoint::Endpoint;

/// A stream of an HTTP/2 connection, counted while this lives.
pub(crate) struct Stream {
    streams: Arc<AtomicUsize>,
    _under_way: UnderWay,
}

impl Stream {
    pub(super) fn new(streams: Arc<AtomicUsize>, under_way: UnderWay) -> Self {
        streams.fetch_add(1, Ordering::Relaxed);
        Self { streams, _under_way: under_way }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A request under way to an endpoint, counted while this lives.
pub(super) struct UnderWay(pub(super) Arc<Endpoint>);

impl UnderWay {
    pub(super) fn new(endpoint: &Arc<Endpoint>) -> Self {
        endpoint.in_flight.fetch_add(1, Ordering::Relaxed);
        Self(endpoint.clone())
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}
