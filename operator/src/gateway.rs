//! What the operator knows of one fleet while it runs: its proxies, what they acknowledged, their load.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use crds::fleet::Drain;
use planner::{
    FleetRef, FleetView, Ledger, Millis, ProxyView,
    rebalance::{self, Share},
    scale::{self, Decision, Scaler},
};
use snapshot::{
    Entry, Hash, Key, Kind, Snapshot,
    proto::{Hello, Nack, OperatorMessage, Rebalance, operator_message::Message, resource},
};

use crate::{
    event::ProxyWhat,
    fleet::{Observation, Sign},
    load::{self, Load},
    push::{Outbox, Published},
};

/// After the fleet grew, shares are compared for this long, this often.
const REBALANCES_FOR: Duration = Duration::from_secs(60);
const REBALANCES_EVERY: Duration = Duration::from_secs(2);
/// A proxy retires its excess until this long after the growth. Each comparison corrects the one before, so the time it
/// asks for shrinks with what is left: 10 s at first, 4 s after 6 s, and never less than 3 s, within which the effect of
/// the last one is seen.
const BALANCED_WITHIN: Duration = Duration::from_secs(10);
const SHORTEST_RETIREMENT: Duration = Duration::from_secs(3);

/// One fleet.
#[derive(Default)]
pub struct Gateway {
    /// Recent load, as the scaler sees it.
    pub scaler: Scaler,
    /// What proxies acknowledged and refused.
    pub ledger: Ledger,
    /// What is published.
    pub published: Option<Arc<Published>>,
    /// Resources that are published in an older form, and why.
    pub rolled_back: BTreeMap<Key, Nack>,
    /// Listeners that are not served, and why.
    pub withheld: BTreeMap<Key, String>,
    /// How its proxies leave, as last planned: a fleet that is deleted leaves by it.
    pub drain: Drain,
    /// The last decision.
    pub decision: Option<Decision>,
    /// What there is of it.
    pub observation: Observation,
    attached: BTreeMap<String, Attached>,
    loads: BTreeMap<String, Load>,
    growth: Growth,
}

/// A proxy with an open stream.
struct Attached {
    session: u64,
    pid: u32,
    admin: String,
    ready: bool,
    draining: bool,
    /// What it acknowledged last; `None`: nothing, or not as a whole.
    revision: Option<Hash>,
    outbox: Outbox,
}

/// When the fleet last grew.
#[derive(Default)]
struct Growth {
    ready: usize,
    at: Option<Instant>,
    compared: Option<Instant>,
}

/// One proxy, for people.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct ProxyInfo {
    /// Its name.
    pub name: String,
    /// Its process.
    pub pid: Option<u32>,
    /// Where its admin port listens; `None`: it has not attached.
    pub admin: Option<String>,
    /// Serves by its own word, with an open stream.
    pub ready: bool,
    /// Its pod is Ready; `None`: it is no pod.
    pub pod_ready: Option<bool>,
    /// What it acknowledged last.
    pub revision: Option<Hash>,
    /// Leaving.
    pub draining: bool,
}

impl Gateway {
    /// A fleet of which an earlier operator left what proxies refused.
    pub fn with_ledger(ledger: Ledger) -> Self {
        Self { ledger, ..Self::default() }
    }

    /// Takes up what a proxy's stream brought. True when a resource was refused that was not before.
    pub fn take(&mut self, session: u64, name: &str, what: ProxyWhat, now: Millis) -> bool {
        match what {
            ProxyWhat::Attached { hello, outbox } => return self.attach(session, name, &hello, outbox, now),
            // The end of a stream that another has replaced is no news.
            _ if self.attached.get(name).is_none_or(|a| a.session != session) => return false,
            ProxyWhat::Ack { published, nacks, ready } => {
                let (own, refused): (Vec<_>, Vec<_>) = nacks.into_iter().partition(is_own_trouble);
                if let Some(attached) = self.attached.get_mut(name) {
                    for Nack { key, message, .. } in &own {
                        tracing::warn!(proxy = name, key, message, "a proxy can't serve this yet");
                    }
                    attached.ready = ready;
                    attached.revision = own.is_empty().then_some(published.revision);
                }
                return self.ledger.acknowledge(&published.snapshot, &refused);
            }
            ProxyWhat::Load(window) => {
                if let Some(attached) = self.attached.get_mut(name) {
                    attached.draining |= window.draining;
                }
                if self.loads.entry(name.to_owned()).or_default().take(&window) {
                    self.scaler.observe(name, &window, now);
                }
            }
            ProxyWhat::Detached => {
                self.attached.remove(name);
            }
        }
        false
    }

    fn attach(&mut self, session: u64, name: &str, hello: &Hello, outbox: Outbox, now: Millis) -> bool {
        match self.observation.proxies.get(name).map(|proxy| proxy.pid) {
            Some(Some(pid)) if pid != hello.pid => {
                // An earlier operator was killed at the very moment it started this one. Without its outbox, its stream
                // ends.
                tracing::error!(name, pid = hello.pid, other = pid, "two proxies have one name: end the first by hand");
                return false;
            }
            Some(_) => {}
            None => tracing::warn!(name, pid = hello.pid, "a proxy attached that this operator did not start"),
        }
        // Another process under the same name: the load of the former says nothing of this one.
        if self.attached.get(name).is_some_and(|former| former.pid != hello.pid) {
            self.forget(name);
        }
        let attached = Attached {
            session,
            pid: hello.pid,
            admin: hello.admin_address.clone(),
            // What it serves may be outdated; its first acknowledgement follows in milliseconds.
            ready: hello.ready,
            draining: hello.draining,
            revision: Hash::from_slice(&hello.revision),
            outbox,
        };
        self.attached.insert(name.to_owned(), attached);
        let mut news = false;
        for nack in hello.nacks.iter().filter(|nack| !is_own_trouble(nack)) {
            if let (Ok(key), Some(hash)) = (nack.key.parse(), Hash::from_slice(&nack.hash)) {
                news |= self.ledger.nacked.insert((key, hash), nack.clone()).is_none();
            }
        }
        let load = self.loads.entry(name.to_owned()).or_default();
        for window in &hello.windows {
            if load.take(window) {
                self.scaler.observe(name, window, now);
            }
        }
        news
    }

    fn forget(&mut self, name: &str) {
        self.loads.remove(name);
        self.scaler.forget(name);
    }

    /// Takes up what there is of the fleet; forgets proxies that are gone.
    pub fn observed(&mut self, observation: Observation) {
        self.observation = observation;
        let gone = |name: &&String| !self.observation.proxies.contains_key(*name) && !self.attached.contains_key(*name);
        let gone: Vec<String> = self.loads.keys().filter(gone).cloned().collect();
        gone.iter().for_each(|name| self.forget(name));
    }

    /// What is known of its proxies, for their fleet.
    pub fn signs(&self, now: Millis) -> BTreeMap<String, Sign> {
        let rate = |name: &String| self.loads.get(name).and_then(|load| load.rate(now)).unwrap_or_default();
        let sign = |(name, a): (&String, &Attached)| {
            let connections = self.loads.get(name).map_or(0, Load::connections);
            let ready = a.ready && !a.draining;
            (name.clone(), Sign { ready, rate: rate(name), connections, admin: a.admin.clone() })
        };
        self.attached.iter().map(sign).collect()
    }

    /// What may be published of what is desired: without what proxies refused, and without what can't run yet.
    pub fn publishable(&mut self, fleet: &FleetRef, desired: &Snapshot) -> Snapshot {
        self.ledger.retain(desired);
        let (mut snapshot, rolled_back) = planner::publish(desired, &self.ledger);
        for (key, Nack { field, message, .. }) in &rolled_back {
            if !self.rolled_back.contains_key(key) {
                tracing::warn!(%fleet, %key, field, message, "refused by a proxy, rolled back");
            }
        }
        self.rolled_back = rolled_back;
        withhold(&mut snapshot, &self.observation.closed_ports());
        self.withheld = self.withheld(desired, &snapshot);
        snapshot
    }

    /// Why desired listeners are not served: left out of the snapshot, or without any certificate in it.
    fn withheld(&self, desired: &Snapshot, snapshot: &Snapshot) -> BTreeMap<Key, String> {
        let refusal = |key: &Key| self.rolled_back.get(key).map(|nack| format!("{}: {}", nack.field, nack.message));
        let closed = |port: u32| self.observation.problems.iter().find(|p| p.port.map(u32::from) == Some(port));
        let why = |(key, entry): (&Key, &Entry)| {
            let Some(resource::Kind::Listener(listener)) = entry.kind() else { return None };
            let why = if snapshot.entry(key).is_none() {
                closed(listener.port).map(|problem| problem.message.clone()).or_else(|| refusal(key))
            } else if listener.tls {
                let keys: Vec<Key> = listener.certificates.iter().filter_map(|key| key.parse().ok()).collect();
                let none = keys.iter().all(|key| snapshot.entry(key).is_none());
                none.then(|| keys.iter().find_map(|key| Some(format!("{key}: {}", refusal(key)?))))?
            } else {
                return None;
            };
            Some((key.clone(), why.unwrap_or_else(|| "it is not published".to_owned())))
        };
        desired.of_kind(Kind::Listener).filter_map(why).collect()
    }

    /// Every living proxy.
    pub fn proxies(&self) -> Vec<ProxyInfo> {
        let info = |(name, proxy): (&String, &crate::fleet::Proxy)| {
            // A stream from before a crash belongs to another process.
            let attached = self.attached.get(name).filter(|a| proxy.pid.is_none_or(|pid| pid == a.pid));
            let draining = proxy.draining || attached.is_some_and(|a| a.draining);
            ProxyInfo {
                name: name.clone(),
                pid: proxy.pid,
                admin: attached.map(|a| a.admin.clone()),
                ready: attached.is_some_and(|a| a.ready) && !draining,
                pod_ready: proxy.pod_ready,
                revision: attached.and_then(|a| a.revision),
                draining,
            }
        };
        self.observation.proxies.iter().map(info).collect()
    }

    /// Every proxy that stays has attached, and acknowledged what is published.
    pub fn all_attached(&self) -> bool {
        let published = self.published.as_ref().map(|published| published.revision);
        let mut staying = self.observation.proxies.iter().filter(|(_, proxy)| !proxy.draining);
        staying.all(|(name, _)| {
            self.attached.get(name).is_some_and(|a| a.draining || (a.revision.is_some() && a.revision == published))
        })
    }

    /// Nothing is left of it.
    pub fn is_empty(&self) -> bool {
        self.observation == Observation::default() && self.attached.is_empty()
    }

    /// How many proxies are Ready.
    pub fn ready(&self) -> usize {
        self.proxies().iter().filter(|p| p.ready).count()
    }

    /// Replicas as the scaler counts them.
    pub fn replicas(&self) -> scale::Observed {
        let ready = u32::try_from(self.ready()).unwrap_or(u32::MAX);
        scale::Observed { current: self.observation.replicas, ready }
    }

    /// The fleet as its status is made of: there a pod is Ready when `kubectl get pods` says so.
    pub fn view(&self) -> FleetView {
        let proxy = |p: ProxyInfo| {
            let ready = p.pod_ready.unwrap_or(p.ready);
            ProxyView { name: p.name, ready, draining: p.draining, revision: p.revision }
        };
        FleetView {
            proxies: self.proxies().into_iter().map(proxy).collect(),
            replicas: Some(self.observation.replicas),
            decision: self.decision.clone(),
            published: self.published.as_ref().map(|p| p.revision),
            rolled_back: self.rolled_back.clone(),
            withheld: self.withheld.clone(),
            addresses: self.observation.addresses.clone(),
            policies: load::policies(self.loads.values()),
        }
    }

    /// Load of the last seconds.
    pub fn totals(&self, now: Millis) -> load::Totals {
        load::totals(self.loads.values(), now)
    }

    /// After the fleet grew, tells proxies that carry more than their share to let connections go.
    pub fn rebalance(&mut self, now: Instant, millis: Millis) {
        let proxies = self.proxies();
        let ready: Vec<&str> = proxies.iter().filter(|p| p.ready).map(|p| p.name.as_str()).collect();
        if ready.len() > self.growth.ready && self.growth.ready > 0 {
            (self.growth.at, self.growth.compared) = (Some(now), None);
        }
        self.growth.ready = ready.len();
        let Some(since) = self.growth.at.map(|at| now.duration_since(at)) else { return };
        if since > REBALANCES_FOR {
            self.growth.at = None;
            return;
        }
        if self.growth.compared.is_some_and(|last| now.duration_since(last) < REBALANCES_EVERY) {
            return;
        }
        self.growth.compared = Some(now);
        let share = |name: &&str| {
            let load = self.loads.get(*name);
            let rate = load.and_then(|load| load.rate(millis));
            ((*name).to_owned(), Share { rate, connections: load.map_or(0, Load::connections) })
        };
        let over = BALANCED_WITHIN.saturating_sub(since).max(SHORTEST_RETIREMENT);
        for (name, excess) in rebalance::excess(&ready.iter().map(share).collect()) {
            tracing::info!(proxy = name, excess, "connections move to others");
            let message = Message::Rebalance(Rebalance { excess, over_ms: over.as_millis() as u32 });
            if let Some(attached) = self.attached.get(&name) {
                // A full outbox: the next comparison comes in a moment.
                let _ = attached.outbox.try_send(OperatorMessage { message: Some(message) });
            }
        }
    }
}

/// A refusal that says something of one proxy, not of the content: the others serve it, so it stays published, and that
/// proxy tries again by itself.
pub(crate) fn is_own_trouble(nack: &Nack) -> bool {
    nack.reason == "PortUnavailable"
}

/// Takes out the listeners whose port could not be opened: proxies would refuse them, and a refusal stands.
fn withhold(snapshot: &mut Snapshot, ports: &BTreeSet<u16>) {
    let is_closed = |entry: &Entry| match entry.kind() {
        Some(resource::Kind::Listener(listener)) => ports.iter().any(|port| u32::from(*port) == listener.port),
        _ => false,
    };
    let closed = snapshot.of_kind(Kind::Listener).filter(|(_, entry)| is_closed(entry));
    let closed: Vec<Key> = closed.map(|(key, _)| key.clone()).collect();
    for key in closed {
        snapshot.remove(&key);
    }
}

#[cfg(test)]
mod tests;
