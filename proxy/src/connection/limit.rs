//! How many client connections there may be: of all clients, as many as descriptors suffice for; of one, as many as the
//! fleet says, and as many as its share of the descriptors suffices for.
//!
//! A connection counts for two: its own descriptor, and that of a connection to an upstream, which a request of
//! HTTP/1.1 or a WebSocket takes. What one of HTTP/2 asks for at once may take many more, and these count one by one
//! (`Held`).

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use tokio::sync::Notify;

use crate::fd_limit::RESERVED;

/// Descriptors that the process has open before the first client comes: streams, the control runtime, the admin port.
const PROCESS_DESCRIPTORS: usize = 24;
/// Descriptors that a worker's runtime takes.
const WORKER_DESCRIPTORS: usize = 8;
/// Descriptors that a client's connection counts for: its own, and one to an upstream.
const CONNECTION_DESCRIPTORS: usize = 2;

/// Counts the client connections of all workers, WebSockets among them.
pub(crate) struct ConnectionLimit {
    open: AtomicUsize,
    most: AtomicUsize,
    /// Descriptors for clients and upstreams together.
    shared: AtomicUsize,
    /// Descriptors for clients, upstreams and listeners together.
    descriptors: usize,
    left: Notify,
    told: AtomicBool,
    /// Holdings by client.
    clients: Mutex<HashMap<IpAddr, Arc<Held>>>,
}

/// The share of one client.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Share {
    /// Connections; `None`: any number.
    pub(crate) connections: Option<u32>,
    /// Percent of the descriptors.
    pub(crate) descriptors: u32,
}

/// The holdings of one client, by all of its connections.
#[derive(Debug, Default)]
pub(crate) struct Held {
    connections: AtomicUsize,
    /// Connections to upstreams that requests by HTTP/2 have.
    upstreams: AtomicUsize,
}

impl Held {
    fn descriptors(&self) -> usize {
        CONNECTION_DESCRIPTORS * self.connections.load(Ordering::Relaxed) + self.upstreams.load(Ordering::Relaxed)
    }
}

impl ConnectionLimit {
    /// A limit of connections in a process that may have `limit` descriptors.
    pub(crate) fn new(limit: usize, workers: usize) -> Self {
        let room = Self {
            open: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
            shared: AtomicUsize::new(0),
            descriptors: limit.saturating_sub(RESERVED + PROCESS_DESCRIPTORS + workers * WORKER_DESCRIPTORS),
            left: Notify::new(),
            told: AtomicBool::new(false),
            clients: Mutex::default(),
        };
        room.note_listening(0);
        room
    }

    /// So many sockets listen. Clients and upstreams share what is left.
    pub(crate) fn note_listening(&self, sockets: usize) {
        let shared = self.descriptors.saturating_sub(sockets);
        self.shared.store(shared, Ordering::Relaxed);
        self.most.store((shared / CONNECTION_DESCRIPTORS).max(1), Ordering::Relaxed);
        self.left.notify_waiters();
    }

    /// Connections that are open.
    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Connections that there may be. Accept loops that wait side by side may each exceed it by one.
    pub(crate) fn most(&self) -> usize {
        self.most.load(Ordering::Relaxed)
    }

    /// Whether there is room for no more.
    pub(crate) fn is_full(&self) -> bool {
        self.open() >= self.most()
    }

    /// Whether nobody was told that it is full since it was last half empty.
    pub(crate) fn is_news(&self) -> bool {
        !self.told.swap(true, Ordering::Relaxed)
    }

    /// Waits until there is room.
    pub(crate) async fn free(&self) {
        loop {
            // Before looking, so that one that leaves meanwhile is noticed.
            let left = self.left.notified();
            if !self.is_full() {
                return;
            }
            left.await;
        }
    }

    /// Counts a connection for as long as the answer lives. `None`: its client has as many as it may have.
    pub(crate) fn enter(self: &Arc<Self>, peer: IpAddr, share: Share) -> Option<ConnectionPermit> {
        let (client, most) = (client(peer), self.descriptors_of(share));
        let mut clients = self.clients();
        let held = Arc::clone(clients.entry(client).or_default());
        let connections = held.connections.load(Ordering::Relaxed);
        let has_all = share.connections.is_some_and(|most| connections >= most as usize);
        // The first is let in, however little there is.
        if connections > 0 && (has_all || held.descriptors() + CONNECTION_DESCRIPTORS > most) {
            return None;
        }
        held.connections.fetch_add(1, Ordering::Relaxed);
        drop(clients);
        self.open.fetch_add(1, Ordering::Relaxed);
        Some(ConnectionPermit { room: Arc::clone(self), client, held, most })
    }

    fn descriptors_of(&self, share: Share) -> usize {
        let (shared, percent) = (self.shared.load(Ordering::Relaxed), share.descriptors as usize);
        match percent {
            100.. => usize::MAX,
            // In two parts: there may be no limit to how many there are.
            percent => shared / 100 * percent + shared % 100 * percent / 100,
        }
    }

    fn clients(&self) -> MutexGuard<'_, HashMap<IpAddr, Arc<Held>>> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A permit for one connection, which counts while this lives. See [`ConnectionLimit::enter`].
pub(crate) struct ConnectionPermit {
    room: Arc<ConnectionLimit>,
    client: IpAddr,
    held: Arc<Held>,
    /// Descriptors that its client may hold.
    most: usize,
}

impl ConnectionPermit {
    /// The client's share, from which requests that run side by side take further descriptors.
    pub(crate) fn descriptors(&self) -> Descriptors {
        Descriptors { held: Arc::clone(&self.held), most: self.most }
    }
}

/// A client's share of the descriptors, as one of its connections found it.
#[derive(Clone, Debug)]
pub(crate) struct Descriptors {
    held: Arc<Held>,
    most: usize,
}

impl Descriptors {
    /// Counts one for as long as the answer lives; and whether the client may hold another one, for which each of its
    /// connections counts already.
    pub(crate) fn take(&self) -> (UpstreamPermit, bool) {
        let held = &self.held;
        let upstreams = held.upstreams.fetch_add(1, Ordering::Relaxed);
        let may = upstreams < held.connections.load(Ordering::Relaxed) || held.descriptors() <= self.most;
        (UpstreamPermit(Arc::clone(held)), may)
    }
}

/// A connection to an upstream on a client's behalf.
pub(crate) struct UpstreamPermit(Arc<Held>);

impl Drop for UpstreamPermit {
    fn drop(&mut self) {
        self.0.upstreams.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let mut clients = self.room.clients();
        // Under the lock, so that nobody enters by what is about to be forgotten.
        if self.held.connections.fetch_sub(1, Ordering::Relaxed) == 1 {
            clients.remove(&self.client);
        }
        drop(clients);
        let (before, most) = (self.room.open.fetch_sub(1, Ordering::Relaxed), self.room.most());
        if before >= most {
            self.room.left.notify_waiters();
        }
        if before <= most / 2 {
            self.room.told.store(false, Ordering::Relaxed);
        }
    }
}

/// The address by which a client is told from others: of IPv6 the network that one household or machine has all of.
pub(crate) fn client(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    const ANY: Share = Share { connections: None, descriptors: 100 };

    fn room(most: usize) -> Arc<ConnectionLimit> {
        Arc::new(ConnectionLimit::new(RESERVED + PROCESS_DESCRIPTORS + WORKER_DESCRIPTORS + 2 * most, 1))
    }

    #[tokio::test]
    async fn who_waits_is_let_in_when_another_leaves() {
        let room = room(3);
        assert_eq!(room.most(), 3);
        room.note_listening(2);
        assert_eq!(room.most(), 2);
        let peer = IpAddr::from([192, 0, 2, 1]);
        let first = room.enter(peer, ANY).unwrap();
        assert!(!room.is_full());
        let _second = room.enter(peer, ANY).unwrap();
        assert!(room.is_full() && room.is_news() && !room.is_news());
        let waits = async {
            room.free().await;
            assert!(!room.is_full());
        };
        let leaves = async {
            tokio::task::yield_now().await;
            drop(first);
        };
        timeout(Duration::from_secs(5), async { tokio::join!(waits, leaves) }).await.unwrap();
    }

    #[test]
    fn each_client_has_its_own_bound() {
        let room = room(100);
        let two = Share { connections: Some(2), ..ANY };
        let enter = |peer: &str| room.enter(peer.parse().unwrap(), two);
        let _first = enter("192.0.2.1").unwrap();
        let second = enter("::ffff:192.0.2.1").unwrap();
        assert!(enter("192.0.2.1").is_none() && enter("192.0.2.2").is_some());
        drop(second);
        let _third = enter("192.0.2.1").unwrap();
        let _six = (enter("2001:db8::1").unwrap(), enter("2001:db8::ffff:1").unwrap());
        assert!(enter("2001:db8::2").is_none() && enter("2001:db8:0:1::2").is_some());
        assert!(room.enter([192, 0, 2, 1].into(), ANY).is_some());
        drop((_first, _third));
        assert_eq!(room.clients().len(), 1);
    }

    #[test]
    fn each_client_has_its_share_of_the_descriptors() {
        // 200 descriptors: 40 for one client.
        let room = room(100);
        let enter = |peer: [u8; 4]| room.enter(peer.into(), Share { connections: None, descriptors: 20 });
        let mut first: Vec<_> = std::iter::from_fn(|| enter([192, 0, 2, 1])).collect();
        assert_eq!(first.len(), 20);
        let other = enter([192, 0, 2, 2]).unwrap();
        // What is asked for at once by one connection counts as well; by many, each may ask for one thing.
        let take = |of: &ConnectionPermit| {
            let descriptors = of.descriptors();
            std::iter::repeat_with(|| descriptors.take()).take_while(|(_, may)| *may).collect::<Vec<_>>()
        };
        assert_eq!(take(&first[0]).len(), 20);
        let taken = take(&other);
        assert_eq!(taken.len(), 38);
        assert!(enter([192, 0, 2, 2]).is_none());
        drop(taken);
        assert!(enter([192, 0, 2, 2]).is_some());
        first.pop();
        assert!(enter([192, 0, 2, 1]).is_some());
        drop((first, other));
        assert!(room.clients().is_empty());
        // A share of nearly nothing is one connection.
        let least = Share { connections: None, descriptors: 0 };
        let one = room.enter([192, 0, 2, 1].into(), least);
        assert!(one.is_some() && room.enter([192, 0, 2, 1].into(), least).is_none());
    }
}
