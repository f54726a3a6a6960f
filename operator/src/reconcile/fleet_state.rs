//! The runtime state of one fleet: its proxies, their acknowledgements, their load.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use crds::fleet::Drain;
use planner::{
    FleetRef, FleetView, Ledger, Millis, ProxyView,
    publish::{self, Claims},
    rebalance::{self, Share},
    rollout::Answers,
    scale::{self, Decision, Scaler},
};
use snapshot::{
    Hash, Key, Kind, Snapshot,
    proto::{Hello, LoadWindow, Nack, OperatorMessage, Rebalance, operator_message::Message},
};

use crate::{
    fleet::{Observation, ProxyReport},
    push::published::{Outbox, Published},
    reason::is_own_trouble,
    reconcile::{
        event::ProxyWhat,
        load::{self, Load},
    },
};

mod refusals;
mod rolling;
mod withheld;

pub use self::{
    refusals::{RefusalShown, Scope},
    rolling::Rolling,
};

/// After the fleet grew, shares are compared for this long, this often.
const REBALANCE_PERIOD: Duration = Duration::from_secs(60);
const REBALANCE_INTERVAL: Duration = Duration::from_secs(2);
/// A proxy retires its excess until this long after the growth. Each comparison corrects the one before, so the time it
/// asks for shrinks with what is left: 10 s at first, 4 s after 6 s, and never less than 3 s, within which the effect of
/// the last one is seen.
const BALANCED_WITHIN: Duration = Duration::from_secs(10);
const MIN_RETIREMENT: Duration = Duration::from_secs(3);

/// The runtime state of one fleet.
#[derive(Default)]
pub struct FleetState {
    /// Recent load, as the scaler sees it.
    pub scaler: Scaler,
    /// The acknowledgements of proxies, and the refusals of the fleet.
    pub ledger: Ledger,
    /// The published snapshot, which all proxies are to run.
    pub published: Option<Arc<Published>>,
    /// The progress of its rollout.
    pub rolling: Rolling,
    /// Resources that are published in an older form, and why.
    pub rolled_back: BTreeMap<Key, Nack>,
    /// Listeners that are not served, and why.
    pub withheld: BTreeMap<Key, String>,
    /// How its proxies leave, as last planned: a fleet that is deleted leaves by it.
    pub drain: Drain,
    /// The last decision.
    pub decision: Option<Decision>,
    /// The observed state of the fleet.
    pub observation: Observation,
    attached: BTreeMap<String, Attached>,
    loads: BTreeMap<String, Load>,
    policies: load::Policies,
    /// The responses that each proxy counted since it began.
    answers: BTreeMap<String, Answers>,
    growth: Growth,
}

/// A proxy with an open stream.
struct Attached {
    session: u64,
    pid: u32,
    admin: String,
    ready: bool,
    draining: bool,
    /// The revision that the proxy acknowledged last; `None`: none, or not as a whole.
    revision: Option<Hash>,
    /// The revision that the proxy took last, whether as a whole or not.
    taken: Option<Hash>,
    acknowledged: Option<Arc<Published>>,
    /// The refusals of the proxy, since when; before its first acknowledgement, those of what an operator before
    /// pushed.
    claims: Claims,
    claims_since: Option<Millis>,
    said: Vec<Nack>,
    /// Whether the proxy lacks something, which says nothing of the content.
    own_trouble: bool,
    /// The kinds that the proxy does not know: it is sent none of them.
    unknown: Vec<Kind>,
    outbox: Outbox,
}

/// When the fleet last grew.
#[derive(Default)]
struct Growth {
    ready: usize,
    at: Option<Instant>,
    compared: Option<Instant>,
}

/// A proxy as it is shown to people.
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
    /// The revision that the proxy acknowledged last.
    pub revision: Option<Hash>,
    /// Leaving.
    pub draining: bool,
}

impl FleetState {
    /// A fleet of which an earlier operator left what proxies refused.
    pub fn with_ledger(ledger: Ledger) -> Self {
        Self { ledger, ..Self::default() }
    }

    /// Takes up what a proxy's stream brought.
    pub fn take(&mut self, session: u64, name: &str, what: ProxyWhat, now: Millis) {
        match what {
            ProxyWhat::Attached { hello, outbox } => self.attach(session, name, *hello, outbox, now),
            // The end of a stream that another has replaced is no news.
            _ if self.attached.get(name).is_none_or(|a| a.session != session) => {}
            ProxyWhat::Ack { published, nacks, ready } => self.acknowledged(name, published, nacks, ready, now),
            ProxyWhat::Load(window) => {
                if let Some(attached) = self.attached.get_mut(name) {
                    attached.draining |= window.draining;
                }
                self.observe(name, window, now, now);
            }
            ProxyWhat::Detached => drop(self.attached.remove(name)),
        }
    }

    fn acknowledged(&mut self, name: &str, published: Arc<Published>, nacks: Vec<Nack>, ready: bool, now: Millis) {
        let Some(attached) = self.attached.get_mut(name) else { return };
        let (own, refused): (Vec<_>, Vec<_>) = nacks.into_iter().partition(is_own_trouble);
        if !attached.own_trouble {
            for Nack { key, message, .. } in own.iter().take(8) {
                tracing::warn!(proxy = name, key, message, "a proxy can't serve this yet");
            }
        }
        attached.ready = ready;
        attached.own_trouble = !own.is_empty();
        attached.revision = own.is_empty().then_some(published.revision);
        attached.taken = Some(published.revision);
        attached.claims = publish::claims(refused, &[&published.snapshot]);
        attached.claims_since = (!attached.claims.is_empty()).then(|| attached.claims_since.unwrap_or(now));
        attached.said = vec![];
        attached.acknowledged = Some(published);
    }

    fn attach(&mut self, session: u64, name: &str, hello: Hello, outbox: Outbox, now: Millis) {
        match self.observation.proxies.get(name).map(|proxy| proxy.pid) {
            Some(Some(pid)) if pid != hello.pid => {
                // An earlier operator was killed at the very moment it started this one. Without its outbox, its stream
                // ends.
                tracing::error!(name, pid = hello.pid, other = pid, "two proxies have one name: end the first by hand");
                return;
            }
            Some(_) => {}
            None => tracing::warn!(name, pid = hello.pid, "a proxy attached that this operator did not start"),
        }
        // Another process under the same name: the load of the former says nothing of this one.
        if self.attached.get(name).is_some_and(|former| former.pid != hello.pid) {
            self.forget(name);
        }
        let revision = Hash::from_slice(&hello.revision);
        let attached = Attached {
            session,
            pid: hello.pid,
            admin: hello.admin_address,
            // What it serves may be outdated; its first acknowledgement follows in milliseconds.
            ready: hello.ready,
            draining: hello.draining,
            revision,
            taken: revision,
            acknowledged: None,
            claims: Claims::new(),
            claims_since: None,
            said: hello.nacks.into_iter().filter(|nack| !is_own_trouble(nack)).collect(),
            own_trouble: false,
            unknown: Kind::unknown_to(&hello.features),
            outbox,
        };
        self.attached.insert(name.to_owned(), attached);
        let newest = hello.windows.iter().map(|window| window.start_unix_ms).max().unwrap_or_default();
        for window in hello.windows {
            // When it would have arrived, had the stream been open.
            let arrived = Millis(now.0.saturating_sub(newest.saturating_sub(window.start_unix_ms)));
            self.observe(name, window, arrived, now);
        }
    }

    /// Takes up a window of load: what is kept of it are sums.
    fn observe(&mut self, name: &str, mut window: LoadWindow, arrived: Millis, now: Millis) {
        let policies = std::mem::take(&mut window.policies);
        if !self.loads.entry(name.to_owned()).or_default().take(&window, arrived) {
            return;
        }
        self.scaler.observe(name, &window, now);
        let answers = self.answers.entry(name.to_owned()).or_default();
        answers.all = answers.all.saturating_add(window.admitted);
        answers.failed = answers.failed.saturating_add(window.failed.max(window.errors));
        let published = self.published.as_deref();
        let is_published = published.map(|p| move |key: &Key| p.snapshot.entry(key).is_some());
        let is_published = is_published.as_ref().map(|f| f as &dyn Fn(&Key) -> bool);
        self.policies.take(&policies, arrived, is_published);
    }

    fn forget(&mut self, name: &str) {
        self.loads.remove(name);
        self.answers.remove(name);
        self.scaler.forget(name);
    }

    /// Takes up what there is of the fleet; forgets proxies that are gone.
    pub fn observed(&mut self, observation: Observation) {
        self.observation = observation;
        if self.observation.unknown {
            // Those that have a stream are there, as far as is known.
            let attached = self.attached.keys().map(|name| (name.clone(), crate::fleet::Proxy::default()));
            self.observation.proxies.extend(attached);
            self.observation.replicas = u32::try_from(self.observation.proxies.len()).unwrap_or(u32::MAX);
        }
        let gone = |name: &&String| !self.observation.proxies.contains_key(*name) && !self.attached.contains_key(*name);
        let gone: Vec<String> = self.loads.keys().filter(gone).cloned().collect();
        gone.iter().for_each(|name| self.forget(name));
    }

    /// The reports of its proxies, for their fleet.
    pub fn reports(&self, now: Millis) -> BTreeMap<String, ProxyReport> {
        let rate = |name: &String| self.loads.get(name).and_then(|load| load.rate(now)).unwrap_or_default();
        let report = |(name, a): (&String, &Attached)| {
            let connections = self.loads.get(name).map_or(0, Load::connections);
            let ready = a.ready && !a.draining;
            (name.clone(), ProxyReport { ready, rate: rate(name), connections, admin: a.admin.clone() })
        };
        self.attached.iter().map(report).collect()
    }

    /// The desired snapshot without what the fleet refuses, and without what can't run yet.
    pub fn publishable(&mut self, fleet: &FleetRef, desired: &Snapshot) -> Snapshot {
        let (mut snapshot, rolled_back) = planner::publish(desired, &self.ledger);
        for (key, Nack { field, message, .. }) in &rolled_back {
            if !self.rolled_back.contains_key(key) {
                tracing::warn!(%fleet, %key, field, message, "refused by proxies, rolled back");
            }
        }
        self.rolled_back = rolled_back;
        withheld::withhold(&mut snapshot, &self.observation.closed_ports());
        self.withheld = self.withheld(desired, &snapshot);
        snapshot
    }

    /// The living proxies, as they are shown to people.
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

    /// Whether nothing is left of the fleet.
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
    pub fn view(&self, now: Millis) -> FleetView {
        let proxy = |p: ProxyInfo| {
            let ready = p.pod_ready.unwrap_or(p.ready);
            let acknowledged = self.attached.get(&p.name).and_then(|attached| attached.acknowledged.as_ref());
            let content = acknowledged.filter(|published| Some(published.revision) == p.revision);
            let content = content.map(|published| published.snapshot.clone());
            let unknown = self.attached.get(&p.name).map(|attached| attached.unknown.clone()).unwrap_or_default();
            ProxyView { name: p.name, ready, draining: p.draining, revision: p.revision, content, unknown }
        };
        FleetView {
            settling: false,
            proxies: self.proxies().into_iter().map(proxy).collect(),
            replicas: Some(self.observation.replicas),
            decision: self.decision.clone(),
            published: self.published.as_ref().map(|p| p.revision),
            rolled_back: self.rolled_back.clone(),
            disagreeing: self.disagreeing(),
            halted: self.halted().map(str::to_owned),
            withheld: self.withheld.clone(),
            addresses: self.observation.addresses.clone(),
            policies: self.policies.sums(now),
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
        if since > REBALANCE_PERIOD {
            self.growth.at = None;
            return;
        }
        if self.growth.compared.is_some_and(|last| now.duration_since(last) < REBALANCE_INTERVAL) {
            return;
        }
        self.growth.compared = Some(now);
        let share = |name: &&str| {
            let load = self.loads.get(*name);
            let rate = load.and_then(|load| load.rate(millis));
            ((*name).to_owned(), Share { rate, connections: load.map_or(0, Load::connections) })
        };
        let over = BALANCED_WITHIN.saturating_sub(since).max(MIN_RETIREMENT);
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

#[cfg(test)]
mod tests;
