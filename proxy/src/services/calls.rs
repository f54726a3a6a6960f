//! Calls under way, by service: how many there are at once is bounded, for each worker.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use snapshot::Key;
use tokio::sync::{Semaphore, SemaphorePermit};

/// Most calls of one worker that a service has to work on at once.
const MAX_CALLS: usize = 128;
/// Most calls of one worker that wait for a service to have room, which their clients' requests do.
const MAX_WAITING: usize = 1024;

/// The calls of one worker. A service is known by its cluster's key, whatever is pushed meanwhile.
#[derive(Default)]
pub(crate) struct Calls {
    by_service: Mutex<BTreeMap<Key, Line>>,
}

/// The calls of one service.
struct Line {
    turns: Arc<Semaphore>,
    /// Calls that are worked on, or wait.
    calls: usize,
}

/// A place among the calls of a service, for as long as this lives.
pub(super) struct Place {
    calls: Arc<Calls>,
    service: Key,
    turns: Arc<Semaphore>,
}

impl Calls {
    /// A place for one call more. `None`: as many wait as may.
    pub(super) fn enter(self: &Arc<Self>, service: &Key) -> Option<Place> {
        let mut by_service = self.lock();
        let line = by_service
            .entry(service.clone())
            .or_insert_with(|| Line { turns: Arc::new(Semaphore::new(MAX_CALLS)), calls: 0 });
        if line.calls >= MAX_CALLS + MAX_WAITING {
            return None;
        }
        line.calls += 1;
        Some(Place { calls: Arc::clone(self), service: service.clone(), turns: Arc::clone(&line.turns) })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Key, Line>> {
        self.by_service.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// The turn of this call, once it has come, for as long as the answer lives. (None is ever closed.)
    pub(super) async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        self.turns.acquire().await.ok()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut by_service = self.calls.lock();
        if let Some(line) = by_service.get_mut(&self.service) {
            line.calls -= 1;
            if line.calls == 0 {
                by_service.remove(&self.service);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use snapshot::Kind;

    use super::*;

    #[test]
    fn a_service_has_so_many_at_once_and_so_many_wait() {
        let calls = Arc::<Calls>::default();
        let key = |name: &str| Key::new(Kind::Cluster, "ns", name);
        let mut places: Vec<_> = (0..MAX_CALLS + MAX_WAITING).map(|_| calls.enter(&key("a/80")).unwrap()).collect();
        assert!(calls.enter(&key("a/80")).is_none(), "as many as may");
        assert!(calls.enter(&key("b/80")).is_some(), "another service has its own");
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
}
