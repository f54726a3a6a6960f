//! Slots for connections, of which there are few. When all are taken, the holder of the most slots loses one, so no single
//! holder can starve the others, as long as there are fewer holders than slots.
//!
//! The holder of an unauthenticated connection is its address, which loses its oldest slot: that connection may have been
//! silent since it came. One whose peer is known has a holder within a group, such as a fleet within its namespace, and the
//! youngest slot is lost: what served before goes on.

use std::{
    collections::BTreeMap,
    future::poll_fn,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use futures::FutureExt as _;
use tokio::sync::oneshot;

/// A bounded number of slots, and their holders.
#[derive(Clone, Debug)]
pub struct ConnectionSlots<K: Ord> {
    most: usize,
    taken: Arc<Mutex<Taken<K>>>,
}

#[derive(Debug)]
struct Taken<K> {
    next: u64,
    count: usize,
    /// The slots of each holder, the oldest first. Dropping a sender notifies the connection that it was evicted.
    of: BTreeMap<K, BTreeMap<u64, oneshot::Sender<()>>>,
}

impl<K: Ord + Clone> ConnectionSlots<K> {
    /// `most` slots, at least one.
    pub fn new(most: usize) -> Self {
        let taken = Taken { next: 0, count: 0, of: BTreeMap::new() };
        Self { most: most.max(1), taken: Arc::new(Mutex::new(taken)) }
    }
}

impl ConnectionSlots<IpAddr> {
    /// Takes a slot: a free one, or the oldest of the address that has most.
    pub fn take(&self, address: IpAddr) -> Slot<IpAddr> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.count >= self.most {
            let most = taken.of.iter().max_by_key(|(_, slots)| slots.len());
            let oldest = most.and_then(|(address, slots)| Some((*address, *slots.keys().next()?)));
            if let Some((address, number)) = oldest {
                taken.free(&address, number);
            }
        }
        taken.give(address.to_canonical(), &self.taken)
    }
}

impl<K: Ord + Clone> ConnectionSlots<K> {
    /// Takes a slot: a free one, or the youngest of the group that has most, of its largest holder. `None` when that is the
    /// very holder that asks, or has no more.
    pub fn claim(&self, holder: &K, group: impl Fn(&K) -> &str) -> Option<Slot<K>> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.count >= self.most {
            let (holder, number) = taken.youngest_of_most(holder, group)?;
            taken.free(&holder, number);
        }
        Some(taken.give(holder.clone(), &self.taken))
    }
}

impl<K: Ord + Clone> Taken<K> {
    /// The slot to be given up for one more of `newcomer`, which counts as if it were there already: of equals it is that
    /// one that gives way, so that nobody is ended for who has as much.
    fn youngest_of_most(&self, newcomer: &K, group: impl Fn(&K) -> &str) -> Option<(K, u64)> {
        let own = group(newcomer);
        let mut counts: BTreeMap<&K, usize> = BTreeMap::from([(newcomer, 1)]);
        let mut groups: BTreeMap<&str, usize> = BTreeMap::from([(own, 1)]);
        for (holder, slots) in &self.of {
            *counts.entry(holder).or_default() += slots.len();
            *groups.entry(group(holder)).or_default() += slots.len();
        }
        let (most, _) = groups.iter().max_by_key(|(name, count)| (**count, **name == own))?;
        let holders = counts.iter().filter(|(holder, _)| group(holder) == *most);
        let (largest, _) = holders.max_by_key(|(holder, count)| (**count, **holder == newcomer))?;
        let youngest = self.of.get(*largest)?.keys().next_back()?;
        (*largest != newcomer).then(|| ((*largest).clone(), *youngest))
    }
}

impl<K: Ord + Clone> Taken<K> {
    fn give(&mut self, holder: K, all: &Arc<Mutex<Taken<K>>>) -> Slot<K> {
        let (sender, evicted) = oneshot::channel();
        let number = self.next;
        self.next += 1;
        self.count += 1;
        self.of.entry(holder.clone()).or_default().insert(number, sender);
        Slot { holder, number, evicted, taken: Arc::clone(all) }
    }

    fn free(&mut self, holder: &K, number: u64) {
        let Some(slots) = self.of.get_mut(holder) else { return };
        if slots.remove(&number).is_some() {
            self.count -= 1;
        }
        if slots.is_empty() {
            self.of.remove(holder);
        }
    }
}

/// A slot; dropping it frees it.
#[derive(Debug)]
pub struct Slot<K: Ord + Clone> {
    holder: K,
    number: u64,
    evicted: oneshot::Receiver<()>,
    taken: Arc<Mutex<Taken<K>>>,
}

impl<K: Ord + Clone> Slot<K> {
    /// Returns when another connection got the slot.
    pub async fn evicted(&mut self) {
        poll_fn(|cx| self.poll_evicted(cx)).await;
    }

    /// Polls whether another connection got the slot; else the task is woken when that happens.
    pub fn poll_evicted(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // It says so once.
        if self.evicted.is_terminated() { Poll::Ready(()) } else { self.evicted.poll_unpin(cx).map(drop) }
    }
}

impl<K: Ord + Clone> Drop for Slot<K> {
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

    fn is_evicted<K: Ord + Clone>(slot: &mut Slot<K>) -> bool {
        slot.evicted().now_or_never().is_some()
    }

    #[test]
    fn who_has_most_gives_one_up() {
        let slots = ConnectionSlots::new(4);
        let mut own = slots.take(address(1));
        let mut many: Vec<Slot<IpAddr>> = (0..3).map(|_| slots.take(address(2))).collect();
        assert!(!is_evicted(&mut own) && !many.iter_mut().any(is_evicted));
        // A newcomer gets in, at the cost of the one that has three.
        let mut third = slots.take("::ffff:10.0.0.3".parse().unwrap());
        assert!(is_evicted(&mut many[0]) && !is_evicted(&mut many[1]) && !is_evicted(&mut many[2]));
        // However many more that one asks for, they are at its own cost.
        for _ in 0..100 {
            many.push(slots.take(address(2)));
        }
        assert!(!is_evicted(&mut own) && !is_evicted(&mut third));
        assert_eq!(many.iter_mut().filter_map(|slot| slot.evicted().now_or_never()).count(), many.len() - 2);
        // What goes frees its slot, once.
        drop((many, third));
        let mut more: Vec<Slot<IpAddr>> = (4..7).map(|last| slots.take(address(last))).collect();
        assert!(!is_evicted(&mut own) && !more.iter_mut().any(is_evicted));
        drop((own, more));
        let taken = slots.taken.lock().unwrap();
        assert!(taken.count == 0 && taken.of.is_empty(), "{taken:?}");
    }

    /// A namespace and a name.
    type Fleet = (String, String);

    fn claim(slots: &ConnectionSlots<Fleet>, namespace: &str, name: &str) -> Option<Slot<Fleet>> {
        slots.claim(&(namespace.into(), name.into()), |(namespace, _)| namespace)
    }

    #[test]
    fn a_fleet_of_thousands_leaves_the_places_of_others() {
        let slots = ConnectionSlots::new(8);
        let mut crowd: Vec<_> = (0..8).filter_map(|_| claim(&slots, "crowd", "f")).collect();
        assert_eq!(crowd.len(), 8, "what nobody else wants");
        assert!(claim(&slots, "crowd", "f").is_none(), "it would only take its own");
        // Others come, to no more than what the crowd is left with; its youngest go.
        let mut others: Vec<_> = (0..6).filter_map(|_| claim(&slots, "shop", "f")).collect();
        assert_eq!(others.len(), 4);
        assert_eq!(
            crowd.iter_mut().map(is_evicted).collect::<Vec<_>>(),
            [false, false, false, false, true, true, true, true]
        );
        // Many fleets of one namespace are one neighbour.
        assert!((0..9).all(|i| claim(&slots, "crowd", &format!("f{i}")).is_none_or(|mut slot| {
            let own = is_evicted(&mut slot);
            own || !others.iter_mut().any(is_evicted)
        })));
        let mut small = claim(&slots, "small", "f").unwrap();
        assert!(!is_evicted(&mut small));
        // What goes frees its slot, once, also of one that was evicted before.
        drop((crowd, others, small));
        let taken = slots.taken.lock().unwrap();
        assert!(taken.count == 0 && taken.of.is_empty(), "{taken:?}");
    }

    #[test]
    fn within_a_namespace_the_largest_fleet_gives_way() {
        let slots = ConnectionSlots::new(6);
        let mut large: Vec<_> = (0..6).filter_map(|_| claim(&slots, "ns", "large")).collect();
        let mut small: Vec<_> = (0..4).filter_map(|_| claim(&slots, "ns", "small")).collect();
        assert_eq!(small.len(), 3);
        assert_eq!(large.iter_mut().filter_map(|slot| slot.evicted().now_or_never()).count(), 3);
        assert!(!small.iter_mut().any(is_evicted));
    }
}
