//! Which rule serves a request: host map, then path, then method, headers, query, in Gateway API's precedence.
//!
//! 1. The listener with the most specific hostname that fits takes the request; others of its port are not asked
//!    (Gateway API's listener isolation).
//! 2. Within it, hostnames of routes from the most specific to the least: an exact name, wildcards by length, any. A less
//!    specific one is tried when no rule of a more specific one matches, but only with rules of the namespace that the host
//!    belongs to (`holders`): that of the most specific hostname that fits it on any listener.
//! 3. Within a hostname: an exact path, expressions (the longest first), the longest prefix (of whole path elements);
//!    then a method, more headers, more query parameters; then the older route, the lesser key, the earlier rule. A path
//!    whose method, headers or query do not match leaves the request to the next best path.
//!
//! Gateway API leaves the place of expressions open: behind prefixes, a catch-all `/` would hide every one of them. A
//! request costs a few hash look-ups, whatever the number of routes, and allocates nothing. Where expressions, headers
//! or parameters must be compared, it costs at most what [`effort`] says: some 128 µs, and 0.5 ms more with a path of 8
//! KiB.

mod effort;
mod holders;
mod host;
mod matching;
mod path;
mod query;

use std::sync::Arc;

use effort::Ask;
pub(crate) use holders::Claim;
pub use holders::Holders;
pub(crate) use host::HostMap;
pub(crate) use matching::{Candidate, Conditions, Path, PathExpression, Value};
use path::PathTable;
pub use query::{Matched, Missed, Query};

/// The routes of one port.
#[derive(Default)]
pub struct Router {
    /// Listeners by hostname: without TLS, with TLS.
    listeners: [HostMap<Routes>; 2],
    holders: Arc<Holders>,
}

/// The routes of one listener, by hostname.
#[derive(Default)]
pub(crate) struct Routes(HostMap<Arc<Hosted>>);

/// The routes of one hostname, all of one namespace. The next router takes it over while they are the same.
pub(crate) struct Hosted {
    namespace: Arc<str>,
    /// Addresses of the compiled routes.
    of: Box<[usize]>,
    paths: PathTable,
}

impl Router {
    /// The rule that serves a request.
    pub fn find(&self, query: &Query<'_>) -> Result<Matched<'_>, Missed> {
        let ask = Ask::of(query);
        let found = self.look_up(query, &ask);
        if ask.effort.is_spent() { Err(Missed::TooCostly) } else { found.ok_or(Missed::NoRoute) }
    }

    /// Whether one listener with TLS serves both hosts, as far as each is served at all.
    pub(crate) fn is_of_one_listener(&self, host: &str, other: &str) -> bool {
        let [host, other] = [host, other].map(|host| host.trim_end_matches('.'));
        let of = |host| self.listeners[1].get(host).map(std::ptr::from_ref);
        host == other || of(host).zip(of(other)).is_none_or(|(one, other)| one == other)
    }

    fn look_up(&self, query: &Query<'_>, ask: &Ask<'_>) -> Option<Matched<'_>> {
        // A fully qualified name with its dot is the same name.
        let host = query.host.trim_end_matches('.');
        let Routes(hosts) = self.listeners[usize::from(query.tls)].get(host)?;
        // Nothing is more specific than the very name.
        let holder = match hosts.exact(host) {
            Some(hosted) => &hosted.namespace,
            None => self.holders.of(host)?,
        };
        let own = |hosted: &Hosted| hosted.namespace == *holder;
        hosts.find(host, |hosted| if own(hosted) { hosted.paths.find(query, ask) } else { None })
    }

    /// Without routes yet; hostnames are those namespaces'.
    pub(crate) fn new(holders: Arc<Holders>) -> Self {
        Self { listeners: Default::default(), holders }
    }

    /// The routes of a hostname on one listener.
    pub(crate) fn hosted(&self, tls: bool, listener: &str, hostname: &str) -> Option<&Arc<Hosted>> {
        self.listeners[usize::from(tls)].at(listener)?.0.at(hostname)
    }

    /// The routes of the listener with that hostname; empty: any.
    pub(crate) fn listener(&mut self, tls: bool, hostname: &str) -> &mut Routes {
        self.listeners[usize::from(tls)].entry(hostname)
    }
}

impl Routes {
    /// Serves a hostname; empty: any.
    pub(crate) fn serve(&mut self, hostname: &str, hosted: Arc<Hosted>) {
        self.0.insert(hostname, hosted);
    }
}

impl Hosted {
    /// Ways to reach rules of the namespace that a hostname belongs to, of compiled routes at these addresses.
    pub(crate) fn new(namespace: &Arc<str>, of: Box<[usize]>, candidates: Vec<Arc<Candidate>>) -> Self {
        Self { namespace: Arc::clone(namespace), of, paths: PathTable::new(candidates) }
    }

    /// Whether it is made of these; true only while what it was made of lives.
    pub(crate) fn is_of(&self, routes: &[usize]) -> bool {
        *self.of == *routes
    }
}

#[cfg(test)]
mod tests;
