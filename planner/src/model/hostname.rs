//! Hostnames and how those of a listener and of a route meet (Gateway API's rules).

/// A hostname in lower case and without the dot that may end it, with `*.` in front for every host below a domain.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Hostname(String);

impl Hostname {
    /// Parses; the schema's pattern and `snapshot::check` say in words what is wrong.
    pub(crate) fn new(name: &str) -> Self {
        Self(name.trim_end_matches('.').to_ascii_lowercase())
    }

    /// The text of it.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether every host of `other` is one of this. `*.a` covers `x.a`, `y.x.a`, `*.x.a` and itself, but not `a`.
    fn covers(&self, other: &Hostname) -> bool {
        match self.0.strip_prefix('*') {
            Some(suffix) => {
                self == other
                    || other.0.trim_start_matches('*').strip_suffix(suffix).is_some_and(|rest| !rest.is_empty())
            }
            None => self == other,
        }
    }

    /// The hosts that both mean: the narrower of the two, when one covers the other.
    fn meet<'a>(&'a self, other: &'a Hostname) -> Option<&'a Hostname> {
        if self.covers(other) {
            Some(other)
        } else if other.covers(self) {
            Some(self)
        } else {
            None
        }
    }
}

/// The hostnames under which a listener serves a route; `None` when there are none, an empty list for any host.
pub(crate) fn intersection(listener: Option<&Hostname>, route: &[Hostname]) -> Option<Vec<Hostname>> {
    let mut hosts: Vec<Hostname> = match listener {
        None => return Some(route.to_vec()),
        Some(listener) if route.is_empty() => vec![listener.clone()],
        Some(listener) => route.iter().filter_map(|host| listener.meet(host)).cloned().collect(),
    };
    hosts.sort();
    hosts.dedup();
    (!hosts.is_empty()).then_some(hosts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(listener: &str, route: &[&str], expect: Option<&[&str]>) {
        let listener = (!listener.is_empty()).then(|| Hostname::new(listener));
        let route: Vec<_> = route.iter().map(|r| Hostname::new(r)).collect();
        let got = intersection(listener.as_ref(), &route);
        let got = got.as_ref().map(|hosts| hosts.iter().map(Hostname::as_str).collect::<Vec<_>>());
        assert_eq!(got.as_deref(), expect);
    }

    #[test]
    fn gateway_api() {
        check("", &[], Some(&[]));
        check("", &["a.example"], Some(&["a.example"]));
        check("*.example", &[], Some(&["*.example"]));
        check("*.example", &["a.example", "b.a.example", "c.test"], Some(&["a.example", "b.a.example"]));
        check("*.example", &["example"], None);
        check("a.example", &["*.example"], Some(&["a.example"]));
        check("a.example", &["a.example", "*.example"], Some(&["a.example"]));
        check("a.b.example", &["*.example"], Some(&["a.b.example"]));
        check("*.a.example", &["*.example"], Some(&["*.a.example"]));
        check("*.example", &["*.a.example"], Some(&["*.a.example"]));
        check("*.example", &["*.example"], Some(&["*.example"]));
        check("*.ample", &["a.example"], None);
        check("*.example", &["A.Example"], Some(&["a.example"]));
        check("example", &["*.example"], None);
    }
}
