//! The question to a router, and its answer.

use std::sync::Arc;

use http::Method;

use crate::{fields::Fields, rule::Rule};

/// The parts of a request that a router looks at.
#[derive(Clone, Copy)]
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
    pub fields: &'a Fields,
}

/// The rule that serves, and what matched.
pub struct Matched<'a> {
    /// The rule.
    pub rule: &'a Arc<Rule>,
    /// Length of the matched prefix within the path (for `ReplacePrefixMatch`); the whole path's for an exact match.
    pub prefix: usize,
}

/// Why no rule serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missed {
    /// No rule matches.
    NoRoute,
    /// Finding out would take too long: too many expressions, headers and parameters are to be compared.
    TooCostly,
}
