//! Endpoints with their load, across pushes: the same address is the same endpoint as long as any cluster names it.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU64, AtomicUsize},
    },
};

/// The protocols that endpoints speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2 with prior knowledge, in clear text.
    H2c,
}

/// An upstream address, with its load.
#[derive(Debug)]
pub struct Endpoint {
    /// Number unique within the process, never reused: the pools' key.
    pub id: u64,
    /// Where it listens.
    pub address: SocketAddr,
    /// Protocol of the endpoint.
    pub protocol: Protocol,
    /// Requests under way to it, from all workers.
    pub in_flight: AtomicUsize,
}

/// The endpoints that some cluster names.
#[derive(Default)]
pub struct Endpoints {
    by_address: Mutex<HashMap<(SocketAddr, Protocol), Weak<Endpoint>>>,
}

impl Endpoints {
    /// The endpoint of an address; called while a configuration is compiled, never on the request path.
    pub fn endpoint(&self, address: SocketAddr, protocol: Protocol) -> Arc<Endpoint> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let mut by_address = self.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(endpoint) = by_address.get(&(address, protocol)).and_then(Weak::upgrade) {
            return endpoint;
        }
        // Only when it would grow: 100,000 new endpoints are not 100,000 passes over all.
        if by_address.len() == by_address.capacity() {
            by_address.retain(|_, endpoint| endpoint.strong_count() > 0);
        }
        let id = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let endpoint = Arc::new(Endpoint { id, address, protocol, in_flight: AtomicUsize::new(0) });
        by_address.insert((address, protocol), Arc::downgrade(&endpoint));
        endpoint
    }
}
