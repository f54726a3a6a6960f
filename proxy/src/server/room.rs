//! How many client connections there may be: of all clients, as many as descriptors suffice for; of one, as many as the
//! fleet says.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use tokio::sync::Notify;

use crate::descriptors::KEPT;

/// What the process has open before the first client comes: streams, the control runtime, the admin port.
const OF_PROCESS: usize = 24;
/// What a worker's runtime takes.
const OF_WORKER: usize = 8;

/// Counts the client connections of all workers, WebSockets among them.
pub(super) struct Room {
    open: AtomicUsize,
    most: AtomicUsize,
    /// Descriptors for clients, upstreams and listeners together.
    descriptors: usize,
    left: Notify,
    told: AtomicBool,
    /// Connections of each client, of those alone that were bounded as they came.
    clients: Mutex<HashMap<IpAddr, u32>>,
}

impl Room {
    /// With `limit` descriptors for the whole process.
    pub(super) fn new(limit: usize, workers: usize) -> Self {
        let room = Self {
            open: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
            descriptors: limit.saturating_sub(KEPT + OF_PROCESS + workers * OF_WORKER),
            left: Notify::new(),
            told: AtomicBool::new(false),
            clients: Mutex::default(),
        };
        room.note_listening(0);
        room
    }

    /// So many sockets listen. Of what is left each connection takes two: its own, and one to an upstream.
    pub(super) fn note_listening(&self, sockets: usize) {
        self.most.store((self.descriptors.saturating_sub(sockets) / 2).max(1), Ordering::Relaxed);
        self.left.notify_waiters();
    }

    /// Connections that are open.
    pub(super) fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Connections that there may be. Accept loops that wait side by side may each exceed it by one.
    pub(super) fn most(&self) -> usize {
        self.most.load(Ordering::Relaxed)
    }

    /// Whether there is room for no more.
    pub(super) fn is_full(&self) -> bool {
        self.open() >= self.most()
    }

    /// Whether nobody was told that it is full since it was last half empty.
    pub(super) fn is_news(&self) -> bool {
        !self.told.swap(true, Ordering::Relaxed)
    }

    /// Waits until there is room.
    pub(super) async fn free(&self) {
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
    pub(super) fn enter(self: &Arc<Self>, peer: IpAddr, most: Option<u32>) -> Option<Live> {
        let client = match most {
            None => None,
            Some(most) => {
                let client = client(peer);
                let mut clients = self.clients();
                let count = clients.entry(client).or_default();
                if *count >= most {
                    return None;
                }
                *count += 1;
                Some(client)
            }
        };
        self.open.fetch_add(1, Ordering::Relaxed);
        Some(Live { room: Arc::clone(self), client })
    }

    fn clients(&self) -> MutexGuard<'_, HashMap<IpAddr, u32>> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One connection, counted. See [`Room::enter`].
pub(super) struct Live {
    room: Arc<Room>,
    client: Option<IpAddr>,
}

impl Drop for Live {
    fn drop(&mut self) {
        if let Some(client) = self.client {
            let mut clients = self.room.clients();
            if let Some(count) = clients.get_mut(&client) {
                *count -= 1;
                if *count == 0 {
                    clients.remove(&client);
                }
            }
        }
        let (before, most) = (self.room.open.fetch_sub(1, Ordering::Relaxed), self.room.most());
        if before >= most {
            self.room.left.notify_waiters();
        }
        if before <= most / 2 {
            self.room.told.store(false, Ordering::Relaxed);
        }
    }
}

/// Who is one client: an address, of IPv6 the network that one household or machine has all of.
pub(super) fn client(peer: IpAddr) -> IpAddr {
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

    fn room(most: usize) -> Arc<Room> {
        Arc::new(Room::new(KEPT + OF_PROCESS + OF_WORKER + 2 * most, 1))
    }

    #[tokio::test]
    async fn who_waits_is_let_in_when_another_leaves() {
        let room = room(3);
        assert_eq!(room.most(), 3);
        room.note_listening(2);
        assert_eq!(room.most(), 2);
        let peer = IpAddr::from([192, 0, 2, 1]);
        let first = room.enter(peer, None).unwrap();
        assert!(!room.is_full());
        let _second = room.enter(peer, None).unwrap();
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
        let enter = |peer: &str| room.enter(peer.parse().unwrap(), Some(2));
        let _first = enter("192.0.2.1").unwrap();
        let second = enter("::ffff:192.0.2.1").unwrap();
        assert!(enter("192.0.2.1").is_none() && enter("192.0.2.2").is_some());
        drop(second);
        let _third = enter("192.0.2.1").unwrap();
        let _six = (enter("2001:db8::1").unwrap(), enter("2001:db8::ffff:1").unwrap());
        assert!(enter("2001:db8::2").is_none() && enter("2001:db8:0:1::2").is_some());
        // One that was not bounded as it came counts for none.
        assert!(room.enter([192, 0, 2, 1].into(), None).is_some());
        drop((_first, _third));
        assert_eq!(room.clients().len(), 1);
    }
}
