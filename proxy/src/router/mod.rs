//! Which rule serves a request: host map, then path, then method, headers, query, in Gateway API's precedence.

use std::sync::Arc;

use http::{HeaderMap, Method};

use crate::config::Rule;

/// The routes of one port.
#[derive(Default)]
pub struct Router {}

/// What a router looks at.
pub struct Query<'a> {
    /// Whether the request came over TLS, and for which listener hostname to look.
    pub tls: bool,
    /// Host without port, in lower case.
    pub host: &'a str,
    /// The normalised path.
    pub path: &'a str,
    /// The query, without `?`.
    pub query: Option<&'a str>,
    /// The method.
    pub method: &'a Method,
    /// Header fields.
    pub headers: &'a HeaderMap,
}

/// The rule that serves, and what matched.
pub struct Matched<'a> {
    /// The rule.
    pub rule: &'a Arc<Rule>,
    /// Length of the matched prefix within the path (for `ReplacePrefixMatch`); the whole path's for an exact match.
    pub prefix: usize,
}

impl Router {
    /// The rule that serves a request; `None` answers 404.
    pub fn find(&self, _query: &Query<'_>) -> Option<Matched<'_>> {
        None
    }
}
