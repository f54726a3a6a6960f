//! Places for connections of which nothing is known yet but the address. When there is none left, whoever has most gives
//! one up: so who has one keeps it, whatever others do, as long as there are fewer addresses than places.

use std::{
    collections::BTreeMap,
    future::poll_fn,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use futures::FutureExt as _;
use tokio::sync::oneshot;

/// So many places.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    most: usize,
    taken: Arc<Mutex<Taken>>,
}

#[derive(Debug, Default)]
struct Taken {
    next: u64,
    count: usize,
    /// Of each address, the oldest first. What is dropped here is told so.
    of: BTreeMap<IpAddr, BTreeMap<u64, oneshot::Sender<()>>>,
}

impl Places {
    /// `most` places, at least one.
    pub(crate) fn new(most: usize) -> Self {
        Self { most: most.max(1), taken: Arc::default() }
    }

    /// Takes a place: a free one, or the oldest of the address that has most.
    pub(crate) fn take(&self, address: IpAddr) -> Place {
        let address = address.to_canonical();
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.count >= self.most {
            let most = taken.of.iter().max_by_key(|(_, places)| places.len());
            let oldest = most.and_then(|(address, places)| Some((*address, *places.keys().next()?)));
            if let Some((address, number)) = oldest {
                taken.free(address, number);
            }
        }
        let (sender, lost) = oneshot::channel();
        let number = taken.next;
        taken.next += 1;
        taken.count += 1;
        taken.of.entry(address).or_default().insert(number, sender);
        Place { address, number, lost, taken: Arc::clone(&self.taken) }
    }
}

impl Taken {
    fn free(&mut self, address: IpAddr, number: u64) {
        let Some(places) = self.of.get_mut(&address) else { return };
        if places.remove(&number).is_some() {
            self.count -= 1;
        }
        if places.is_empty() {
            self.of.remove(&address);
        }
    }
}

/// A place; dropping it frees it.
#[derive(Debug)]
pub(crate) struct Place {
    address: IpAddr,
    number: u64,
    lost: oneshot::Receiver<()>,
    taken: Arc<Mutex<Taken>>,
}

impl Place {
    /// Comes back when another got it.
    pub(crate) async fn lost(&mut self) {
        poll_fn(|cx| self.poll_lost(cx)).await;
    }

    /// Whether another got it; else the task is woken when that happens.
    pub(crate) fn poll_lost(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // It says so once.
        if self.lost.is_terminated() { Poll::Ready(()) } else { self.lost.poll_unpin(cx).map(drop) }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).free(self.address, self.number);
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn address(last: u8) -> IpAddr {
        Ipv4Addr::new(10, 0, 0, last).into()
    }

    fn is_lost(place: &mut Place) -> bool {
        place.lost().now_or_never().is_some()
    }

    #[test]
    fn who_has_most_gives_one_up() {
        let places = Places::new(4);
        let mut own = places.take(address(1));
        let mut many: Vec<Place> = (0..3).map(|_| places.take(address(2))).collect();
        assert!(!is_lost(&mut own) && !many.iter_mut().any(is_lost));
        // A newcomer gets in, at the cost of the one that has three.
        let mut third = places.take("::ffff:10.0.0.3".parse().unwrap());
        assert!(is_lost(&mut many[0]) && !is_lost(&mut many[1]) && !is_lost(&mut many[2]));
        // However many more that one asks for, they are at its own cost.
        for _ in 0..100 {
            many.push(places.take(address(2)));
        }
        assert!(!is_lost(&mut own) && !is_lost(&mut third));
        assert_eq!(many.iter_mut().filter_map(|place| place.lost().now_or_never()).count(), many.len() - 2);
        // What goes frees its place, once.
        drop((many, third));
        let mut more: Vec<Place> = (4..7).map(|last| places.take(address(last))).collect();
        assert!(!is_lost(&mut own) && !more.iter_mut().any(is_lost));
        drop((own, more));
        let taken = places.taken.lock().unwrap();
        assert!(taken.count == 0 && taken.of.is_empty(), "{taken:?}");
    }
}
