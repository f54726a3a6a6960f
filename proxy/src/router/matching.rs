//! One way for a request to reach a rule: what its path, method, headers and query must be.

use std::{cmp::Reverse, sync::Arc};

use http::{HeaderName, Method};
use snapshot::expression::Expression;

use super::{
    effort::{self, Ask, Effort},
    query::Query,
};
use crate::{
    lookup::{decoded, is_plain},
    rule::Rule,
};

/// The condition on a path.
pub(crate) enum Path {
    /// The whole path.
    Exact(Box<str>),
    /// Whole elements at its beginning; without a trailing slash.
    Prefix(Box<str>),
    /// The whole path.
    Regex(Box<PathExpression>),
}

/// An expression that a path must match, as it was written and compiled.
pub(crate) struct PathExpression {
    pub(super) source: Box<str>,
    compiled: Arc<Expression>,
}

/// The condition on the value of a header field or a query parameter.
pub(crate) enum Value {
    /// Exactly this.
    Exact(Box<[u8]>),
    /// The whole value must match.
    Regex(Arc<Expression>),
}

/// The conditions on a request besides its path. Few routes have any: other candidates have none of it.
#[derive(Default)]
pub(crate) struct Conditions {
    pub(crate) method: Option<Method>,
    pub(crate) headers: Vec<(HeaderName, Value)>,
    pub(crate) query: Vec<(Box<[u8]>, Value)>,
}

/// A match of a rule.
pub(crate) struct Candidate {
    pub(crate) path: Path,
    /// `None`: whatever has the path.
    pub(crate) conditions: Option<Box<Conditions>>,
    /// Creation time of the route, ms.
    pub(crate) created_ms: i64,
    /// Index of the rule and of the match within it.
    pub(crate) order: (usize, usize),
    pub(crate) rule: Arc<Rule>,
}

impl Candidate {
    /// Sorts candidates of the same path, the one to try first being the least: a method, then more headers, then more
    /// query parameters, then the older route, the lesser key, the earlier rule.
    pub(crate) fn rank(&self) -> impl Ord + '_ {
        let rank = |c: &Conditions| (c.method.is_none(), Reverse(c.headers.len()), Reverse(c.query.len()));
        let specific = self.conditions.as_deref().map_or((true, Reverse(0), Reverse(0)), rank);
        (specific, self.created_ms, self.rule.route.as_ref(), self.order)
    }

    /// Everything but the path.
    pub(crate) fn fits(&self, q: &Query<'_>, ask: &Ask<'_>) -> bool {
        self.conditions.as_ref().is_none_or(|conditions| conditions.fit(q, ask))
    }
}

impl PathExpression {
    pub(crate) fn new(source: &str, compiled: Arc<Expression>) -> Self {
        Self { source: source.into(), compiled }
    }

    /// The whole elements that every match begins with, at most so many; without a trailing slash.
    pub(super) fn elements(&self, most: usize) -> &str {
        let prefix = self.compiled.prefix();
        let slashes = memchr::memchr_iter(b'/', prefix.as_bytes()).take(most + 1);
        &prefix[..slashes.last().unwrap_or(0)]
    }

    pub(super) fn matches(&self, path: &str, effort: &Effort) -> bool {
        matches(&self.compiled, path.as_bytes(), effort)
    }
}

fn matches(expression: &Expression, value: &[u8], effort: &Effort) -> bool {
    let compared = expression.compare(value);
    effort.take(effort::EXPRESSION_UNITS + compared.steps);
    compared.matches
}

impl Conditions {
    /// Whether every request fits.
    pub(crate) fn is_empty(&self) -> bool {
        self.method.is_none() && self.headers.is_empty() && self.query.is_empty()
    }

    fn fit(&self, q: &Query<'_>, ask: &Ask<'_>) -> bool {
        ask.effort.take(effort::CANDIDATE_UNITS);
        self.method.as_ref().is_none_or(|m| m == q.method)
            && self.headers.iter().all(|(name, value)| field(ask, name, value))
            && self.query.iter().all(|(name, value)| parameter(ask, name, value))
    }
}

impl Value {
    fn fits(&self, value: &[u8], effort: &Effort) -> bool {
        match self {
            Value::Exact(expect) => **expect == *value,
            Value::Regex(expression) => matches(expression, value, effort),
        }
    }
}

/// Whether some field of that name has that value.
fn field(ask: &Ask<'_>, name: &HeaderName, value: &Value) -> bool {
    ask.effort.take(effort::QUESTION_UNITS);
    ask.lookup.any_field(name.as_str(), |v| value.fits(v, &ask.effort))
}

/// Whether the first parameter of that name has that value. A repeated name counts once: its first value.
fn parameter(ask: &Ask<'_>, name: &[u8], value: &Value) -> bool {
    ask.effort.take(effort::QUESTION_UNITS);
    let Some(raw) = ask.lookup.parameter(name) else { return false };
    match value {
        Value::Exact(expect) => decoded(raw).eq(expect.iter().copied()),
        Value::Regex(_) if is_plain(raw) => value.fits(raw.as_bytes(), &ask.effort),
        // Only an encoded value asked for by an expression costs an allocation.
        Value::Regex(_) => value.fits(&decoded(raw).collect::<Vec<_>>(), &ask.effort),
    }
}

#[cfg(test)]
mod tests {
    use snapshot::expression;

    use super::*;
    use crate::fields::Fields;

    #[track_caller]
    fn check(query: &str, name: &str, value: &str, expect: bool) {
        let fields = Fields::default();
        let method = &Method::GET;
        let ask = Ask::of(&Query { tls: false, host: "", path: "/", query: Some(query), method, fields: &fields });
        let got = parameter(&ask, name.as_bytes(), &Value::Exact(value.as_bytes().into()));
        assert_eq!(got, expect, "{query} {name}={value}");
        let regex = Value::Regex(expression::compile(&regex::escape(value)).unwrap());
        assert_eq!(parameter(&ask, name.as_bytes(), &regex), expect, "{query} {name}~{value}");
    }

    #[test]
    fn parameters_are_compared_decoded() {
        check("a=b", "a", "b", true);
        check("x=y&a=b%20c+d", "a", "b c d", true);
        check("%61=b", "a", "b", true);
        check("a=1&a=2", "a", "2", false);
        check("a", "a", "", true);
        check("", "a", "", false);
        check("a=b%", "a", "b%", true);
        check("ab=c", "a", "", false);
    }
}
