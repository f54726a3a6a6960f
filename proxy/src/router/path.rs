//! Candidates by path: exact paths in a map, prefixes in a tree of path elements, expressions in a list.

use std::{collections::HashMap, sync::Arc};

use foldhash::fast::RandomState;

use super::{
    Matched, Query,
    matching::{Candidate, Path},
};

/// All candidates of one hostname.
#[derive(Default)]
pub(crate) struct PathTable {
    exact: HashMap<Box<str>, Candidates, RandomState>,
    prefix: Node,
    regex: Vec<Arc<Candidate>>,
}

/// Candidates of one path, the one to try first in front.
type Candidates = Vec<Arc<Candidate>>;

/// The prefixes that begin with the elements on the way to here.
#[derive(Default)]
struct Node {
    candidates: Candidates,
    children: HashMap<Box<str>, Node, RandomState>,
}

impl PathTable {
    pub(crate) fn insert(&mut self, candidate: &Arc<Candidate>) {
        let list = match &candidate.path {
            Path::Exact(path) => self.exact.entry(path.clone()).or_default(),
            Path::Regex(_) => &mut self.regex,
            Path::Prefix(prefix) => {
                let mut node = &mut self.prefix;
                for element in prefix.split('/').skip(1) {
                    node = node.children.entry(element.into()).or_default();
                }
                &mut node.candidates
            }
        };
        list.push(Arc::clone(candidate));
    }

    /// To be called once after the last insertion.
    pub(crate) fn sort(&mut self) {
        self.exact.values_mut().for_each(|list| list.sort_by(|a, b| a.rank().cmp(&b.rank())));
        // The longer expression is the more specific, as far as that can be told.
        self.regex.sort_by(|a, b| (b.path.len().cmp(&a.path.len())).then_with(|| a.rank().cmp(&b.rank())));
        self.prefix.sort();
    }

    /// Exact paths, then the longest prefix, then expressions.
    pub(crate) fn find<'a>(&'a self, q: &Query<'_>) -> Option<Matched<'a>> {
        if let Some(candidate) = self.exact.get(q.path).and_then(|list| first(list, q)) {
            return Some(Matched { rule: &candidate.rule, prefix: q.path.len() });
        }
        if let Some((candidate, prefix)) = self.prefix.find(q, 0) {
            return Some(Matched { rule: &candidate.rule, prefix });
        }
        let matches = |c: &&Arc<Candidate>| matches!(&c.path, Path::Regex(r) if r.is_match(q.path)) && c.fits(q);
        let candidate = self.regex.iter().find(matches)?;
        Some(Matched { rule: &candidate.rule, prefix: q.path.len() })
    }
}

impl Node {
    /// The candidate of the longest prefix, and that prefix's length. `at` is where the elements so far end: a slash
    /// or the path's end.
    fn find<'a>(&'a self, q: &Query<'_>, at: usize) -> Option<(&'a Candidate, usize)> {
        if !self.children.is_empty()
            && let Some(rest) = q.path.get(at + 1..)
        {
            let element = memchr::memchr(b'/', rest.as_bytes()).map_or(rest, |end| &rest[..end]);
            // As deep as the configured prefixes, whatever the request's path.
            let child = self.children.get(element);
            if let Some(found) = child.and_then(|child| child.find(q, at + 1 + element.len())) {
                return Some(found);
            }
        }
        first(&self.candidates, q).map(|candidate| (candidate, at))
    }

    fn sort(&mut self) {
        self.candidates.sort_by(|a, b| a.rank().cmp(&b.rank()));
        self.children.values_mut().for_each(Node::sort);
    }
}

impl Path {
    /// Parses a prefix: a trailing slash has no meaning.
    pub(crate) fn prefix(value: &str) -> Self {
        Path::Prefix(value.strip_suffix('/').unwrap_or(value).into())
    }

    /// Length of the value as it was written, but for a prefix's trailing slash.
    pub(crate) fn len(&self) -> usize {
        match self {
            Path::Exact(path) | Path::Prefix(path) => path.len(),
            Path::Regex(regex) => regex.as_str().len(),
        }
    }
}

fn first<'a>(list: &'a [Arc<Candidate>], q: &Query<'_>) -> Option<&'a Candidate> {
    list.iter().find(|c| c.fits(q)).map(Arc::as_ref)
}
