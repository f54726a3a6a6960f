//! Calls under way, by service: how many there are at once is bounded, for each worker, and so is what one client has of
//! them, so that nobody's requests keep everybody else's from being asked about.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use snapshot::Key;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::connection::limit;

/// Most calls of one worker that a service has to work on at once.
const MAX_CALLS: usize = 128;
/// Most calls of one worker that wait for a service to have room, which their clients' requests do.
const MAX_WAITING: usize = 1024;
/// Most calls that a service has to work on for one client, and most that wait: half of all.
const MAX_CALLS_OF_CLIENT: usize = MAX_CALLS / 2;
const MAX_WAITING_OF_CLIENT: usize = MAX_WAITING / 2;

/// The calls of one worker. A service is known by its cluster's key, whatever is pushed meanwhile.
#[derive(Default)]
pub(crate) struct Calls {
    by_service: Mutex<BTreeMap<Key, Line>>,
}

/// The calls of one service.
struct Line {
    all: Turns,
    /// Those for each client that has some.
    clients: BTreeMap<IpAddr, Turns>,
}

/// Calls that take turns.
struct Turns {
    turns: Arc<Semaphore>,
    /// Calls that are worked on, or wait.
    calls: usize,
}

/// A place among the calls of a service, for as long as this lives.
pub(super) struct Place {
    calls: Arc<Calls>,
    service: Key,
    client: IpAddr,
    of_client: Arc<Semaphore>,
    of_all: Arc<Semaphore>,
}

impl Turns {
    fn new(at_once: usize) -> Self {
        Self { turns: Arc::new(Semaphore::new(at_once)), calls: 0 }
    }
}

impl Calls {
    /// A place for one call more on behalf of this client. `None`: as many wait as may, or as many of this client's.
    pub(super) fn enter(self: &Arc<Self>, service: &Key, client: IpAddr) -> Option<Place> {
        let client = limit::client(client);
        let mut by_service = self.lock();
        let line = by_service
            .entry(service.clone())
            .or_insert_with(|| Line { all: Turns::new(MAX_CALLS), clients: BTreeMap::new() });
        // One that is full has clients: what is made here never stays empty.
        if line.all.calls >= MAX_CALLS + MAX_WAITING {
            return None;
        }
        let own = line.clients.entry(client).or_insert_with(|| Turns::new(MAX_CALLS_OF_CLIENT));
        if own.calls >= MAX_CALLS_OF_CLIENT + MAX_WAITING_OF_CLIENT {
            return None;
        }
        (line.all.calls, own.calls) = (line.all.calls + 1, own.calls + 1);
        let [of_client, of_all] = [&*own, &line.all].map(|turns| Arc::clone(&turns.turns));
        Some(Place { calls: Arc::clone(self), service: service.clone(), client, of_client, of_all })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Key, Line>> {
        self.by_service.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// The turn of this call, once it has come, for as long as the answer lives. (None is ever closed.) Calls wait for those
    /// of their own client first: only as many as it may have at once stand in line with everybody else's.
    pub(super) async fn turn(&self) -> Option<[SemaphorePermit<'_>; 2]> {
        let of_client = self.of_client.acquire().await.ok()?;
        let of_all = self.of_all.acquire().await.ok()?;
        Some([of_client, of_all])
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut by_service = self.calls.lock();
        let Some(line) = by_service.get_mut(&self.service) else { return };
        if let Some(own) = line.clients.get_mut(&self.client) {
            own.calls -= 1;
            if own.calls == 0 {
                line.clients.remove(&self.client);
            }
        }
        line.all.calls -= 1;
        if line.all.calls == 0 {
            by_service.remove(&self.service);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use snapshot::Kind;

    use super::*;

    fn key(name: &str) -> Key {
        Key::new(Kind::Cluster, "ns", name)
    }

    fn client(number: usize) -> IpAddr {
        u32::try_from(number).unwrap().to_be_bytes().into()
    }

    #[test]
    fn a_service_has_so_many_at_once_and_so_many_wait() {
        let calls = Arc::<Calls>::default();
        let enter = |i| calls.enter(&key("a/80"), client(i));
        let mut places: Vec<_> = (0..MAX_CALLS + MAX_WAITING).map(|i| enter(i).unwrap()).collect();
        assert!(enter(0).is_none() && enter(9999).is_none(), "as many as may");
        assert!(calls.enter(&key("b/80"), client(0)).is_some(), "another service has its own");
        let last = places.pop().unwrap();
        let turns: Vec<_> = places[..MAX_CALLS].iter().map(|place| place.turn().now_or_never().unwrap()).collect();
        let mut waits = Box::pin(last.turn());
        assert!(waits.as_mut().now_or_never().is_none());
        drop(turns);
        assert!(waits.as_mut().now_or_never().is_some());
        drop(waits);
        drop((last, places));
        assert!(calls.lock().is_empty(), "what nobody calls is forgotten");
    }

    #[test]
    fn a_client_has_half_of_all_at_most() {
        let calls = Arc::<Calls>::default();
        // One network of IPv6 is one client.
        let greedy = |i: usize| format!("2001:db8::{i:x}").parse().unwrap();
        let half = (MAX_CALLS + MAX_WAITING) / 2;
        let places: Vec<_> = (0..half).map(|i| calls.enter(&key("a/80"), greedy(i)).unwrap()).collect();
        assert!(calls.enter(&key("a/80"), greedy(0)).is_none());
        let turns: Vec<_> = places.iter().map(|place| place.turn().now_or_never()).collect();
        assert_eq!(turns.iter().flatten().count(), MAX_CALLS_OF_CLIENT);
        // Whatever it has in line, the next one of somebody else's is worked on at once.
        let other = calls.enter(&key("a/80"), client(1)).unwrap();
        assert!(other.turn().now_or_never().is_some());
        drop(turns);
        drop((places, other));
        assert!(calls.lock().is_empty());
    }
}
