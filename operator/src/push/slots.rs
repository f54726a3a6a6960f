//! Places for connections, of which there are few. When there is none left, whoever has most gives one up: so who has one
//! keeps it, whatever others do, as long as there are fewer of them than places.
//!
//! Of strangers nothing is known but the address, and the oldest is given up, which may have been silent since it came. Of
//! proxies it is known which fleet they belong to, and the youngest is given up: what served before goes on.

use std::{
    collections::BTreeMap,
    future::poll_fn,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use futures::FutureExt as _;
use planner::FleetRef;
use tokio::sync::oneshot;

/// So many places, and whose they are.
#[derive(Clone, Debug)]
pub(crate) struct Places<K: Ord> {
    most: usize,
    taken: Arc<Mutex<Taken<K>>>,
}

#[derive(Debug)]
struct Taken<K> {
    next: u64,
    count: usize,
    /// Of each holder, the oldest first. What is dropped here is told so.
    of: BTreeMap<K, BTreeMap<u64, oneshot::Sender<()>>>,
}

impl<K: Ord + Clone> Places<K> {
    /// `most` places, at least one.
    pub(crate) fn new(most: usize) -> Self {
        let taken = Taken { next: 0, count: 0, of: BTreeMap::new() };
        Self { most: most.max(1), taken: Arc::new(Mutex::new(taken)) }
    }
}

impl Places<IpAddr> {
    /// Takes a place: a free one, or the oldest of the address that has most.
    pub(crate) fn take(&self, address: IpAddr) -> Place<IpAddr> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.count >= self.most {
            let most = taken.of.iter().max_by_key(|(_, places)| places.len());
            let oldest = most.and_then(|(address, places)| Some((*address, *places.keys().next()?)));
            if let Some((address, number)) = oldest {
                taken.free(&address, number);
            }
        }
        taken.give(address.to_canonical(), &self.taken)
    }
}

impl Places<FleetRef> {
    /// Takes a place: a free one, or the youngest of the namespace that has most, of its largest fleet. `None` when that is
    /// the very fleet that asks, or has no more.
    pub(crate) fn claim(&self, fleet: &FleetRef) -> Option<Place<FleetRef>> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.count >= self.most {
            let (fleet, number) = taken.youngest_of_most(fleet)?;
            taken.free(&fleet, number);
        }
        Some(taken.give(fleet.clone(), &self.taken))
    }
}

impl Taken<FleetRef> {
    /// The place to be given up for one more of `newcomer`, which counts as if it were there already: of equals it is that
    /// one that gives way, so that nobody is ended for who has as much.
    fn youngest_of_most(&self, newcomer: &FleetRef) -> Option<(FleetRef, u64)> {
        let mut counts: BTreeMap<&FleetRef, usize> = BTreeMap::from([(newcomer, 1)]);
        let mut namespaces: BTreeMap<&str, usize> = BTreeMap::from([(newcomer.namespace.as_str(), 1)]);
        for (fleet, places) in &self.of {
            *counts.entry(fleet).or_default() += places.len();
            *namespaces.entry(&fleet.namespace).or_default() += places.len();
        }
        let (most, _) = namespaces.iter().max_by_key(|(name, count)| (**count, **name == newcomer.namespace))?;
        let fleets = counts.iter().filter(|(fleet, _)| fleet.namespace == **most);
        let (largest, _) = fleets.max_by_key(|(fleet, count)| (**count, **fleet == newcomer))?;
        let youngest = self.of.get(*largest)?.keys().next_back()?;
        (*largest != newcomer).then(|| ((*largest).clone(), *youngest))
    }
}

impl<K: Ord + Clone> Taken<K> {
    fn give(&mut self, holder: K, all: &Arc<Mutex<Taken<K>>>) -> Place<K> {
        let (sender, lost) = oneshot::channel();
        let number = self.next;
        self.next += 1;
        self.count += 1;
        self.of.entry(holder.clone()).or_default().insert(number, sender);
        Place { holder, number, lost, taken: Arc::clone(all) }
    }

    fn free(&mut self, holder: &K, number: u64) {
        let Some(places) = self.of.get_mut(holder) else { return };
        if places.remove(&number).is_some() {
            self.count -= 1;
        }
        if places.is_empty() {
            self.of.remove(holder);
        }
    }
}

/// A place; dropping it frees it.
#[derive(Debug)]
pub(crate) struct Place<K: Ord + Clone> {
    holder: K,
    number: u64,
    lost: oneshot::Receiver<()>,
    taken: Arc<Mutex<Taken<K>>>,
}

impl<K: Ord + Clone> Place<K> {
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

impl<K: Ord + Clone> Drop for Place<K> {
    fn drop(&mut self) {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).free(&self.holder, self.number);
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn address(last: u8) -> IpAddr {
        Ipv4Addr::new(10, 0, 0, last).into()
    }

    fn is_lost<K: Ord + Clone>(place: &mut Place<K>) -> bool {
        place.lost().now_or_never().is_some()
    }

    #[test]
    fn who_has_most_gives_one_up() {
        let places = Places::new(4);
        let mut own = places.take(address(1));
        let mut many: Vec<Place<IpAddr>> = (0..3).map(|_| places.take(address(2))).collect();
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
        let mut more: Vec<Place<IpAddr>> = (4..7).map(|last| places.take(address(last))).collect();
        assert!(!is_lost(&mut own) && !more.iter_mut().any(is_lost));
        drop((own, more));
        let taken = places.taken.lock().unwrap();
        assert!(taken.count == 0 && taken.of.is_empty(), "{taken:?}");
    }

    fn fleet(namespace: &str, name: &str) -> FleetRef {
        FleetRef { namespace: namespace.into(), name: name.into() }
    }

    #[test]
    fn a_fleet_of_thousands_leaves_the_places_of_others() {
        let places = Places::new(8);
        let mut crowd: Vec<_> = (0..8).filter_map(|_| places.claim(&fleet("crowd", "f"))).collect();
        assert_eq!(crowd.len(), 8, "what nobody else wants");
        assert!(places.claim(&fleet("crowd", "f")).is_none(), "it would only take its own");
        // Others come, to no more than what the crowd is left with; its youngest go.
        let mut others: Vec<_> = (0..6).filter_map(|_| places.claim(&fleet("shop", "f"))).collect();
        assert_eq!(others.len(), 4);
        assert_eq!(
            crowd.iter_mut().map(is_lost).collect::<Vec<_>>(),
            [false, false, false, false, true, true, true, true]
        );
        // Many fleets of one namespace are one neighbour.
        assert!((0..9).all(|i| places.claim(&fleet("crowd", &format!("f{i}"))).is_none_or(|mut place| {
            let own = is_lost(&mut place);
            own || !others.iter_mut().any(is_lost)
        })));
        let mut small = places.claim(&fleet("small", "f")).unwrap();
        assert!(!is_lost(&mut small));
        // What goes frees its place, once, also of one that was lost before.
        drop((crowd, others, small));
        let taken = places.taken.lock().unwrap();
        assert!(taken.count == 0 && taken.of.is_empty(), "{taken:?}");
    }

    #[test]
    fn within_a_namespace_the_largest_fleet_gives_way() {
        let places = Places::new(6);
        let mut large: Vec<_> = (0..6).filter_map(|_| places.claim(&fleet("ns", "large"))).collect();
        let mut small: Vec<_> = (0..4).filter_map(|_| places.claim(&fleet("ns", "small"))).collect();
        assert_eq!(small.len(), 3);
        assert_eq!(large.iter_mut().filter_map(|place| place.lost().now_or_never()).count(), 3);
        assert!(!small.iter_mut().any(is_lost));
    }
}
