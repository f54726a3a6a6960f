//! The choice of endpoints of a Service: those that are ready; without one, those that leave and still serve. Without
//! these too, those that were ready last are tried on. Pods that turn unready all together seldom fail all together: more
//! often who asks them fails (a node that was cut off, a probe of what all of them depend on), and to send requests nowhere
//! is the worst that can be made of it.
//!
//! Tried is only what was ready once, and what nobody took away: no pod that was told to leave, so that a Service scaled to
//! nothing has nothing; nothing that is listed no more beside others that are new; and what vanished, only for a short time,
//! and not while another namespace has its address.

use std::{
    cell::OnceCell,
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use snapshot::{Key, proto};

use super::permitted::{Judged, Suspects};
use crate::{
    LastReady, Millis,
    last_ready::{KnownEndpoint, Last},
    model::{Model, Service, ServicePort, SlicePort, State},
    world::ObjectRef,
};

/// The time for which endpoints that vanished are tried: an address that is free is soon given to someone else.
const VANISHED_GRACE: Duration = Duration::from_secs(10);
/// Most addresses of one port that are remembered after they vanished.
const MAX_VANISHED: usize = 1024;

/// An endpoint as slices have it.
struct Listed<'m> {
    state: State,
    zone: &'m str,
    /// Whether no Service selects it.
    by_hand: bool,
    /// A slice that names it.
    slice: &'m str,
}

/// The endpoints of one port of a Service.
#[derive(Clone, Debug, Default)]
pub(super) struct Chosen {
    /// The endpoints that requests go to, as far as the fleet permits them.
    pub(super) endpoints: Vec<Judged>,
    /// Whether none of them is usable by what slices say: where readiness is strict, requests go to none.
    pub(super) tried: bool,
    /// The state of the Service, when no endpoint is ready.
    pub(super) unready: Option<Unready>,
}

/// The state of a Service without a ready endpoint.
#[derive(Clone, Copy, Debug)]
pub(super) enum Unready {
    /// The number of those that were told to leave, and serve still.
    Leaving(usize),
    /// The number of those that are listed, unready.
    Listed(usize),
}

/// Chooses, and remembers.
pub(super) struct Choice<'m> {
    model: &'m Model,
    suspects: Suspects<'m>,
    /// `None`: nothing is known yet, so whatever there is may have been ready.
    last: Option<&'m LastReady>,
    now: Millis,
    next: LastReady,
    until: Option<Millis>,
    /// The namespaces of each address that any slice lists.
    owners: OnceCell<BTreeMap<IpAddr, BTreeSet<&'m str>>>,
}

impl<'m> Choice<'m> {
    pub(super) fn new(model: &'m Model, last: Option<&'m LastReady>, now: Millis) -> Self {
        Self {
            model,
            suspects: Suspects::new(model),
            last,
            now,
            next: LastReady::default(),
            until: None,
            owners: OnceCell::new(),
        }
    }

    /// The memory for the next plan, and when it changes by itself.
    pub(super) fn finish(self) -> (LastReady, Option<Millis>) {
        (self.next, self.until)
    }

    /// The endpoints of a port.
    pub(super) fn of(&mut self, key: &Key, object: &ObjectRef, service: &Service, port: &ServicePort) -> Chosen {
        let listed = self.listed(object, service, port);
        let known = self.known(key, &object.namespace, &listed);
        let usable = listed.iter().filter(|(_, listed)| matches!(listed.state, State::Ready | State::Leaving));
        let usable: Vec<_> = usable
            .map(|(address, listed)| {
                self.judged(*address, Some(listed), listed.by_hand, listed.state == State::Leaving)
            })
            .collect();
        let chosen = if usable.is_empty() {
            let tried =
                known.iter().map(|(address, known)| self.judged(*address, listed.get(address), known.by_hand, false));
            let endpoints = of_one_family(service, tried.collect());
            let ends = known.values().filter_map(|known| known.gone);
            let ends = ends.map(|gone| Millis(gone.0 + VANISHED_GRACE.as_millis() as u64));
            self.until = self.until.into_iter().chain(ends).min();
            let there = listed.values().filter(|listed| listed.state == State::Unready).count();
            Chosen { tried: !endpoints.is_empty(), endpoints, unready: Some(Unready::Listed(there)) }
        } else {
            let ready = listed.values().any(|listed| listed.state == State::Ready);
            let endpoints = of_one_family(service, usable);
            let unready = (!ready).then_some(Unready::Leaving(endpoints.len()));
            Chosen { endpoints, tried: false, unready }
        };
        self.next.0.insert(key.clone(), known);
        chosen
    }

    /// Endpoints of all slices. While slices are rewritten an address can stand in two: the better counts, and it is there
    /// by hand only when neither slice is Kubernetes' own.
    fn listed(&self, object: &ObjectRef, service: &Service, port: &ServicePort) -> BTreeMap<SocketAddr, Listed<'m>> {
        let slices = self.model.slices.get(&(object.namespace.clone(), object.name.clone()));
        let mut found: BTreeMap<SocketAddr, Listed<'_>> = BTreeMap::new();
        for slice in slices.into_iter().flatten() {
            let Some(number) = slice_port(port, &slice.ports) else { continue };
            let by_hand = !(service.selects && slice.managed);
            for endpoint in &slice.endpoints {
                let address = SocketAddr::new(endpoint.address, number);
                let (state, zone, slice) = (endpoint.state, endpoint.zone.as_str(), slice.name.as_str());
                let listed = found.entry(address).or_insert(Listed { state, zone, by_hand, slice });
                listed.state = listed.state.min(state);
                listed.by_hand &= by_hand;
            }
        }
        found
    }

    fn judged(&self, address: SocketAddr, listed: Option<&Listed<'_>>, by_hand: bool, terminating: bool) -> Judged {
        let zone = listed.map(|listed| listed.zone).unwrap_or_default().to_owned();
        let slice = listed.map(|listed| listed.slice).unwrap_or_default().to_owned();
        let endpoint = proto::Endpoint { address: address.to_string(), zone, terminating };
        Judged { address, endpoint, slice, doubt: self.suspects.doubt(address.ip(), by_hand) }
    }

    /// Endpoints that were ready once and were not taken away.
    fn known(&self, key: &Key, namespace: &str, listed: &BTreeMap<SocketAddr, Listed<'_>>) -> Last {
        let nothing = Last::new();
        let last = self.last.map(|last| last.0.get(key).unwrap_or(&nothing));
        let mut known = Last::new();
        let mut replaced = false;
        for (address, Listed { state, by_hand, .. }) in listed {
            let now = KnownEndpoint { gone: None, by_hand: *by_hand };
            match state {
                State::Ready => _ = known.insert(*address, now),
                State::Unready if last.is_none_or(|last| last.contains_key(address)) => {
                    _ = known.insert(*address, now);
                }
                State::Unready => replaced = true,
                State::Leaving | State::Left => {}
            }
        }
        let vanished = last.into_iter().flatten().filter(|(address, _)| !replaced && !listed.contains_key(address));
        let vanished = vanished.map(|(address, known)| {
            let gone = known.gone.map_or(self.now, |gone| gone.min(self.now));
            (*address, gone, known.by_hand)
        });
        let stays = |(address, gone, _): &(SocketAddr, Millis, bool)| {
            self.now.since(*gone) < VANISHED_GRACE && !self.is_of_another(address.ip(), namespace)
        };
        let vanished = vanished.filter(stays).take(MAX_VANISHED);
        known.extend(vanished.map(|(address, gone, by_hand)| (address, KnownEndpoint { gone: Some(gone), by_hand })));
        known
    }

    /// Whether another namespace has an address by now.
    fn is_of_another(&self, address: IpAddr, namespace: &str) -> bool {
        let owners = self.owners.get_or_init(|| {
            let mut owners: BTreeMap<IpAddr, BTreeSet<&str>> = BTreeMap::new();
            for ((namespace, _), slices) in &self.model.slices {
                for endpoint in slices.iter().flat_map(|slice| &slice.endpoints) {
                    owners.entry(endpoint.address).or_default().insert(namespace);
                }
            }
            owners
        });
        owners.get(&address).is_some_and(|owners| owners.iter().any(|owner| *owner != namespace))
    }
}

/// A pod of two families stands in slices of both, and is one backend: by its address of the Service's first family.
fn of_one_family(service: &Service, mut found: Vec<Judged>) -> Vec<Judged> {
    let first = |judged: &Judged| service.ipv6_first.is_none_or(|ipv6| judged.address.is_ipv6() == ipv6);
    if found.iter().any(first) {
        found.retain(first);
    }
    found
}

/// A slice's ports bear the names of the Service's. Slices written by hand sometimes don't: then the number decides.
fn slice_port(port: &ServicePort, ports: &[SlicePort]) -> Option<u16> {
    let named = ports.iter().find(|p| p.name == port.name);
    let found = named.or_else(|| ports.iter().find(|p| p.port.is_some() && p.port == port.target))?;
    found.port.or(port.target)
}
