//! Snapshot → [`Config`], incrementally: what did not change is taken over, so that its counters, connections and TLS
//! sessions stay, and a push costs what changed.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    ptr,
    sync::Arc,
    time::Instant,
};

use foldhash::fast::RandomState;
use rustls::{ServerConfig, crypto::aws_lc_rs, server::ProducesTickets};
use snapshot::{
    Entry, Hash, Key, Kind, Snapshot,
    check::{self, Unfit, reason},
    proto::{self, Attachment, resource},
    set::revision,
};

use super::{
    Config, Port, Settings,
    clusters::{Clusters, Update},
    consumers,
    policies::Policies,
    route,
    tls::{self, Certificate},
};
use crate::{
    Shared,
    clock::clock_us,
    router::{Candidate, Claim, Holders, Hosted, Router},
    upstream::ClusterSlot,
};

/// Compiles one snapshot after the other.
pub struct Compiler {
    shared: Arc<Shared>,
    clusters: Clusters,
    consumers: consumers::Known,
    routes: HashMap<Key, Arc<CompiledRoute>, RandomState>,
    /// Where routes are served: many are served in the same places.
    attachments: HashSet<Arc<[Attachment]>>,
    /// Namespaces by the hostnames that belong to them; the same allocation while nothing of that changes.
    holders: Arc<Holders>,
    certificates: HashMap<Key, Cached<Hash, Arc<Certificate>>>,
    ports: HashMap<u16, Cached<PortContent, Arc<Port>>>,
    tls: HashMap<u16, Cached<Hash, Arc<ServerConfig>>>,
    /// Session ticket keys, the same for all ports and all pushes, so that clients resume their sessions.
    tickets: Option<Arc<dyn ProducesTickets>>,
}

/// A route whose rules are compiled.
struct CompiledRoute {
    /// The route's content, and the policies that can apply to it.
    from: (Hash, Hash),
    /// Namespace of the route.
    namespace: Arc<str>,
    /// `namespace/name`.
    name: Box<str>,
    /// When it was created, ms.
    created_ms: i64,
    /// Where it is served.
    attachments: Arc<[Attachment]>,
    /// The ways to reach its rules.
    candidates: Box<[Arc<Candidate>]>,
    /// The clusters that it refers to.
    clusters: Box<[Arc<ClusterSlot>]>,
}

/// Something compiled, and what it was compiled from.
struct Cached<F, T> {
    from: F,
    value: T,
}

/// Hash of a port's listeners with their certificates, the routes of each, and whose the hostnames are.
type PortContent = (Hash, Vec<Routes>, Arc<Holders>);

/// The routes of one listener. The same compiled routes are the same allocations.
type Routes = Vec<Arc<CompiledRoute>>;

/// Everything compiled, ready to be swapped in.
pub struct Built {
    config: Config,
    updates: Vec<Update>,
}

impl Compiler {
    /// A compiler that has compiled nothing yet.
    pub fn new(shared: Arc<Shared>) -> Self {
        let tickets = aws_lc_rs::Ticketer::new();
        let tickets = tickets.inspect_err(|e| tracing::warn!("no TLS session tickets: {e}")).ok();
        Self {
            shared,
            clusters: Clusters::default(),
            consumers: consumers::Known::default(),
            routes: HashMap::default(),
            attachments: HashSet::new(),
            holders: Arc::default(),
            certificates: HashMap::new(),
            ports: HashMap::new(),
            tls: HashMap::new(),
            tickets,
        }
    }

    /// Checks one resource, also for what only compiling can tell, and keeps what was compiled for [`Compiler::build`].
    pub(crate) fn prepare(&mut self, key: &Key, entry: &Entry, policies: &Policies) -> Result<(), Unfit> {
        match key.kind() {
            Kind::Route => self.route(key, entry, policies).map(drop),
            Kind::Certificate => self.certificate(key, entry).map(drop),
            Kind::AccessPolicy => self.access_policy(key, entry),
            _ => checked(key, entry).map(drop),
        }
    }

    /// Compiles a snapshot whose resources were all prepared, and whose name is `revision`.
    pub(crate) fn build(&mut self, snapshot: &Snapshot, revision: Hash, policies: &Policies, epoch: u64) -> Built {
        let mut listeners: BTreeMap<u16, Vec<Listener<'_>>> = BTreeMap::new();
        let mut attached: HashMap<String, Routes> = HashMap::new();
        for (key, entry) in snapshot.of_kind(Kind::Listener) {
            if let Some(resource::Kind::Listener(listener)) = entry.kind() {
                let port = u16::try_from(listener.opened_port()).unwrap_or_default();
                attached.insert(listener.name.clone(), vec![]);
                listeners.entry(port).or_default().push(Listener { key, hash: entry.hash(), listener });
            }
        }
        self.routes.retain(|key, _| snapshot.entry(key).is_some());
        for (key, entry) in snapshot.of_kind(Kind::Route) {
            match self.route(key, entry, policies) {
                Ok(route) => {
                    for (i, Attachment { listener, .. }) in route.attachments.iter().enumerate() {
                        let again = route.attachments[..i].iter().any(|earlier| earlier.listener == *listener);
                        if let Some(routes) = attached.get_mut(listener).filter(|_| !again) {
                            routes.push(Arc::clone(&route));
                        }
                    }
                }
                // It was prepared with these very policies.
                Err(e) => tracing::error!("{key} does not compile any more: {e}"),
            }
        }
        let fleet = fleet(snapshot);
        // Without one, the defaults: what a message leaves out would be times of nothing.
        let settings = fleet.as_ref().map(Settings::from).unwrap_or_default();
        let held = fleet.map(|fleet| fleet.held).unwrap_or_default();
        let holders = Holders::new(self.routes.values().map(|route| route.claim()), &held);
        if holders != *self.holders {
            self.holders = Arc::new(holders);
        }
        let ports = listeners.iter().map(|(port, listeners)| (*port, self.port(*port, listeners, &attached, snapshot)));
        let ports: BTreeMap<u16, Arc<Port>> = ports.collect();
        let named = self.routes.values().flat_map(|route| &route.clusters);
        let updates = self.clusters.updates(snapshot, named, &self.shared.endpoints);
        self.attachments.retain(|attachments| Arc::strong_count(attachments) > 1);
        self.certificates.retain(|key, _| snapshot.entry(key).is_some());
        self.ports.retain(|port, _| ports.contains_key(port));
        self.tls.retain(|port, _| ports.contains_key(port));
        let consumers = self.consumers.table(snapshot);
        Built { config: Config { revision, epoch, settings, consumers, ports }, updates }
    }

    /// Puts what was compiled in place: requests see it from now on.
    pub fn swap(&self, built: Built) {
        // Clusters first, so that no request meets a new rule before its backends.
        built.updates.into_iter().for_each(Update::swap);
        let settings = &built.config.settings;
        self.shared.telemetry.configure(settings.access_log_level, settings.access_log_sampling);
        // As of now, whatever compiling took, and before requests meet a limit that is not in force.
        self.shared.limiters.take_effect(clock_us(Instant::now()));
        // Before requests meet a policy that knows others.
        self.shared.access.know(Arc::clone(&built.config.consumers));
        self.shared.config.store(Arc::new(built.config));
        self.shared.limiters.forget_unused();
        self.shared.access.forget_unused();
    }

    fn route(&mut self, key: &Key, entry: &Entry, policies: &Policies) -> Result<Arc<CompiledRoute>, Unfit> {
        let from = (entry.hash(), policies.fingerprint(key));
        if let Some(cached) = self.routes.get(key).filter(|c| c.from == from) {
            return Ok(Arc::clone(cached));
        }
        let content = checked(key, entry)?;
        let clusters = content.as_ref().map(|content| self.clusters.slots(content)).unwrap_or_default();
        let Some(resource::Kind::Route(route)) = content else {
            return Err(Unfit::new("", reason::WRONG_KIND, "is no route"));
        };
        let candidates = route::compile(&self.shared, &mut self.clusters, policies, key, &route)?;
        let compiled = Arc::new(CompiledRoute {
            from,
            namespace: key.namespace().into(),
            name: format!("{}/{}", key.namespace(), key.name()).into(),
            created_ms: route.created_ms,
            attachments: self.interned(route.attachments),
            candidates,
            clusters,
        });
        self.routes.insert(key.clone(), Arc::clone(&compiled));
        Ok(compiled)
    }

    fn access_policy(&mut self, key: &Key, entry: &Entry) -> Result<(), Unfit> {
        let Some(resource::Kind::AccessPolicy(policy)) = checked(key, entry)? else {
            return Err(Unfit::new("", reason::WRONG_KIND, "is no access policy"));
        };
        self.shared.access.policy(key, entry.hash(), &policy).map(drop)
    }

    /// The one copy of these attachments.
    fn interned(&mut self, attachments: Vec<Attachment>) -> Arc<[Attachment]> {
        if let Some(known) = self.attachments.get(attachments.as_slice()) {
            return Arc::clone(known);
        }
        let attachments: Arc<[_]> = attachments.into();
        self.attachments.insert(Arc::clone(&attachments));
        attachments
    }

    fn certificate(&mut self, key: &Key, entry: &Entry) -> Result<Arc<Certificate>, Unfit> {
        if let Some(cached) = self.certificates.get(key).filter(|c| c.from == entry.hash()) {
            return Ok(Arc::clone(&cached.value));
        }
        let Some(resource::Kind::Certificate(certificate)) = checked(key, entry)? else {
            return Err(Unfit::new("", reason::WRONG_KIND, "is no certificate"));
        };
        let value = Arc::new(Certificate::parse(&certificate)?);
        self.certificates.insert(key.clone(), Cached { from: entry.hash(), value: Arc::clone(&value) });
        Ok(value)
    }

    fn port(
        &mut self,
        port: u16,
        listeners: &[Listener<'_>],
        attached: &HashMap<String, Routes>,
        snapshot: &Snapshot,
    ) -> Arc<Port> {
        let routes: Vec<&[_]> =
            listeners.iter().map(|l| attached.get(&l.listener.name).map_or(&[][..], Vec::as_slice)).collect();
        let certificates =
            listeners.iter().flat_map(|l| &l.listener.certificates).filter_map(|k| k.parse::<Key>().ok());
        let certificates: Vec<(Key, Hash)> =
            certificates.filter_map(|key| snapshot.entry(&key).map(Entry::hash).map(|hash| (key, hash))).collect();
        let certificates = certificates.iter().map(|(key, hash)| (key, *hash));
        let from = revision(listeners.iter().map(|l| (l.key, l.hash)).chain(certificates));
        let same = |from: &PortContent| same(&from.1, &routes) && Arc::ptr_eq(&from.2, &self.holders);
        let cached = self.ports.get(&port).filter(|c| c.from.0 == from && same(&c.from));
        if let Some(cached) = cached {
            return Arc::clone(&cached.value);
        }
        let mut router = Router::new(Arc::clone(&self.holders));
        // What it was made of is held by `Cached::from` until this port is put in its place: no other route has such an address.
        let before = self.ports.get(&port).map(|before| &before.value.router);
        for l in listeners {
            // It is there whatever it serves.
            router.listener(l.listener.tls, &l.listener.hostname);
        }
        for ((tls, listener, hostname), routes) in by_host(listeners, &routes, &self.holders) {
            let of: Box<[usize]> = routes.iter().map(|route| Arc::as_ptr(route).addr()).collect();
            let same = before.and_then(|before| before.hosted(tls, listener, hostname)).filter(|same| same.is_of(&of));
            let hosted = same.cloned().or_else(|| {
                let candidates = routes.iter().flat_map(|route| &route.candidates).cloned().collect();
                Some(Arc::new(Hosted::new(&routes.first()?.namespace, of, candidates)))
            });
            if let Some(hosted) = hosted {
                router.listener(tls, listener).serve(hostname, hosted);
            }
        }
        let tls = listeners.iter().any(|l| l.listener.tls).then(|| self.tls(port, from, listeners, snapshot));
        // Listeners of one opened port are of one public port: `store` refuses others.
        let public = listeners.first().and_then(|l| u16::try_from(l.listener.port).ok()).unwrap_or(port);
        let value = Arc::new(Port { port: public, tls: tls.flatten(), router });
        let from = (from, routes.into_iter().map(<[_]>::to_vec).collect(), Arc::clone(&self.holders));
        self.ports.insert(port, Cached { from, value: Arc::clone(&value) });
        value
    }

    fn tls(
        &mut self,
        port: u16,
        from: Hash,
        listeners: &[Listener<'_>],
        snapshot: &Snapshot,
    ) -> Option<Arc<ServerConfig>> {
        if let Some(cached) = self.tls.get(&port).filter(|c| c.from == from) {
            return Some(Arc::clone(&cached.value));
        }
        let mut named: Vec<(&str, Vec<Arc<Certificate>>)> = vec![];
        for l in listeners.iter().filter(|l| l.listener.tls) {
            let keys = l.listener.certificates.iter().filter_map(|key| key.parse::<Key>().ok());
            let certificates = keys.filter_map(|key| self.certificate(&key, snapshot.entry(&key)?).ok()).collect();
            named.push((&l.listener.hostname, certificates));
        }
        let named = named.iter().map(|(host, list)| (*host, list.iter().map(Arc::as_ref).collect()));
        match tls::server_config(named, self.tickets.as_ref()) {
            Ok(value) => {
                self.tls.insert(port, Cached { from, value: Arc::clone(&value) });
                Some(value)
            }
            Err(e) => {
                // Only a provider without any protocol version fails here.
                tracing::error!("port {port}: no TLS: {e}");
                None
            }
        }
    }
}

impl CompiledRoute {
    fn claim(&self) -> Claim<'_> {
        let Self { namespace, name, created_ms, attachments, .. } = self;
        Claim { namespace, route: name, created_ms: *created_ms, attachments }
    }
}

/// A listener of a port.
struct Listener<'a> {
    key: &'a Key,
    hash: Hash,
    listener: proto::Listener,
}

/// A listener's hostname, with TLS or without, and a route's.
type Host<'a> = (bool, &'a str, &'a str);

/// The routes that are served under each hostname, as far as it is theirs; in their order.
fn by_host<'a>(
    listeners: &'a [Listener<'_>],
    routes: &[&'a [Arc<CompiledRoute>]],
    holders: &Holders,
) -> HashMap<Host<'a>, Vec<&'a Arc<CompiledRoute>>, RandomState> {
    let mut hosts: HashMap<Host<'a>, Vec<&Arc<CompiledRoute>>, RandomState> = HashMap::default();
    for (Listener { listener, .. }, routes) in listeners.iter().zip(routes) {
        for route in *routes {
            for attachment in route.attachments.iter().filter(|attachment| attachment.listener == listener.name) {
                let any = attachment.hostnames.is_empty().then_some("");
                for hostname in attachment.hostnames.iter().map(String::as_str).chain(any) {
                    if holders.has(&route.namespace, hostname) {
                        hosts.entry((listener.tls, &listener.hostname, hostname)).or_default().push(route);
                    }
                }
            }
        }
    }
    hosts
}

/// The content of a resource, if it can be executed.
fn checked(key: &Key, entry: &Entry) -> Result<Option<resource::Kind>, Unfit> {
    let resource = entry.decode().map_err(|e| Unfit::new("", reason::of_proxies::UNDECODABLE, e.to_string()))?;
    check::resource(key, &resource)?;
    Ok(resource.kind)
}

/// Whether these are the same compiled routes, listener by listener.
fn same(before: &[Routes], now: &[&[Arc<CompiledRoute>]]) -> bool {
    let routes = |(before, now): (&Routes, &&[Arc<CompiledRoute>])| {
        before.len() == now.len() && before.iter().zip(*now).all(|(a, b)| ptr::eq(Arc::as_ptr(a), Arc::as_ptr(b)))
    };
    before.len() == now.len() && before.iter().zip(now).all(routes)
}

/// The fleet's own resource.
fn fleet(snapshot: &Snapshot) -> Option<proto::Fleet> {
    snapshot.of_kind(Kind::Fleet).find_map(|(_, entry)| match entry.kind() {
        Some(resource::Kind::Fleet(fleet)) => Some(fleet),
        _ => None,
    })
}
