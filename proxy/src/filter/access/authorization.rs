//! What callers may do: the first rule that a request fits decides.

use std::{borrow::Cow, cell::OnceCell, collections::BTreeSet};

use snapshot::{
    check::{Unfit, access, reason},
    path,
    proto::{self, AccessAction, PathKind},
};

use super::networks::Networks;
use crate::{consumers::Consumer, filter::Ctx, message::RequestHead};

/// The rules of a policy, in order.
#[derive(Default)]
pub(super) struct Rules(Box<[Rule]>);

struct Rule {
    allow: bool,
    /// `None`: from anywhere.
    networks: Option<Networks>,
    /// Names; none: whoever it is.
    consumers: BTreeSet<Box<str>>,
    /// In the order of their names.
    labels: Box<[(Box<str>, Box<str>)]>,
    /// None: any.
    methods: Box<[Box<str>]>,
    /// None: any.
    paths: Box<[Path]>,
}

enum Path {
    Exact(Box<str>),
    /// Without a trailing slash.
    Prefix(Box<str>),
}

/// The path that routes are compared with, once somebody asks for it.
struct Matched<'a> {
    head: &'a RequestHead,
    rules: path::Rules,
    path: OnceCell<Cow<'a, str>>,
}

impl Rules {
    pub(super) fn compile(rules: &[proto::AccessRule]) -> Result<Self, Unfit> {
        let compile = |(i, rule)| {
            let within = |e: Unfit| Unfit { field: format!("authorization.rules[{i}].when.{}", e.field), ..e };
            Rule::compile(rule).map_err(within)
        };
        rules.iter().enumerate().map(compile).collect::<Result<_, _>>().map(Self)
    }

    /// Whether a request may pass. Without rules whoever came so far may.
    pub(super) fn allow(&self, head: &RequestHead, ctx: &Ctx, consumer: Option<&Consumer>) -> bool {
        let path = Matched { head, rules: ctx.paths, path: OnceCell::new() };
        let first = self.0.iter().find(|rule| rule.fits(&path, ctx, consumer));
        first.map_or(self.0.is_empty(), |rule| rule.allow)
    }
}

impl Rule {
    fn compile(rule: &proto::AccessRule) -> Result<Self, Unfit> {
        let mut networks = vec![];
        for (i, cidr) in rule.cidrs.iter().enumerate() {
            let unfit = |why| Unfit::new(format!("cidrs[{i}]"), reason::INVALID_PREFIX, why);
            networks.push(access::network(cidr).map_err(unfit)?);
        }
        let text = |text: &String| text.as_str().into();
        let label = |label: &proto::Label| (text(&label.name), text(&label.value));
        Ok(Self {
            allow: rule.action() == AccessAction::Allow,
            networks: (!networks.is_empty()).then(|| networks.into_iter().collect()),
            consumers: rule.consumers.iter().map(text).collect(),
            labels: rule.labels.iter().map(label).collect(),
            methods: rule.methods.iter().map(text).collect(),
            paths: rule.paths.iter().map(Path::compile).collect(),
        })
    }

    /// Whether all conditions hold; those that cost least are looked at first.
    fn fits(&self, path: &Matched<'_>, ctx: &Ctx, consumer: Option<&Consumer>) -> bool {
        (self.methods.is_empty() || self.is_of_methods(path.head.method.as_str()))
            && (self.consumers.is_empty() || consumer.is_some_and(|c| self.consumers.contains(&c.name)))
            && (self.labels.is_empty() || consumer.is_some_and(|c| has_all(&c.labels, &self.labels)))
            && self.networks.as_ref().is_none_or(|networks| networks.contain(ctx.client))
            && (self.paths.is_empty() || self.paths.iter().any(|other| other.fits(path.get())))
    }
}

impl Rule {
    /// Methods are case-sensitive (RFC 9110 section 9.1), but not every backend heeds that: what denies `DELETE` denies
    /// `delete` too, and what allows `GET` allows nothing else.
    fn is_of_methods(&self, method: &str) -> bool {
        let mut methods = self.methods.iter();
        methods.any(|other| if self.allow { **other == *method } else { other.eq_ignore_ascii_case(method) })
    }
}

/// Whether a consumer has all of these labels; both are in the order of their names.
fn has_all(labels: &[(Box<str>, Box<str>)], wanted: &[(Box<str>, Box<str>)]) -> bool {
    let mut labels = labels.iter();
    wanted.iter().all(|wanted| labels.any(|label| label == wanted))
}

impl Path {
    fn compile(path: &proto::PathMatch) -> Self {
        match path.kind() {
            PathKind::Prefix => Self::Prefix(path.value.trim_end_matches('/').into()),
            // Expressions are no part of a policy: `check` refuses them.
            PathKind::Exact | PathKind::Regex => Self::Exact(path.value.as_str().into()),
        }
    }

    fn fits(&self, path: &str) -> bool {
        match self {
            Self::Exact(exact) => path == &**exact,
            Self::Prefix(prefix) => {
                path.strip_prefix(&**prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            }
        }
    }
}

impl Matched<'_> {
    fn get(&self) -> &str {
        self.path.get_or_init(|| match self.head.uri.path() {
            // `OPTIONS *`, which routes take for the root.
            "*" => "/".into(),
            path => path::matched(path, self.rules),
        })
    }
}
