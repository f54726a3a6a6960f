//! Candidates by path: exact paths and prefixes in maps, expressions in a list.

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
    prefix: HashMap<Box<str>, Candidates, RandomState>,
    /// Bit n: some prefix has n path elements; the last bit: that many or more. Only such prefixes are looked up.
    depths: u64,
    /// Most elements of a prefix.
    deepest: usize,
    regex: Candidates,
}

/// Candidates of one path, the one to try first in front.
type Candidates = Vec<Arc<Candidate>>;

impl PathTable {
    pub(crate) fn insert(&mut self, candidate: &Arc<Candidate>) {
        let list = match &candidate.path {
            Path::Exact(path) => self.exact.entry(path.clone()).or_default(),
            Path::Regex(_) => &mut self.regex,
            Path::Prefix(prefix) => {
                let depth = slashes(prefix);
                self.depths |= bit(depth);
                self.deepest = self.deepest.max(depth);
                self.prefix.entry(prefix.clone()).or_default()
            }
        };
        list.push(Arc::clone(candidate));
    }

    /// To be called once after the last insertion.
    pub(crate) fn sort(&mut self) {
        let lists = self.exact.values_mut().chain(self.prefix.values_mut());
        lists.for_each(|list| list.sort_by(|a, b| a.rank().cmp(&b.rank())));
        // The longer expression is the more specific, as far as that can be told.
        self.regex.sort_by(|a, b| (b.path.len().cmp(&a.path.len())).then_with(|| a.rank().cmp(&b.rank())));
    }

    /// Exact paths, then expressions, then the longest prefix.
    pub(crate) fn find<'a>(&'a self, q: &Query<'_>) -> Option<Matched<'a>> {
        if let Some(candidate) = self.exact.get(q.path).and_then(|list| first(list, q)) {
            return Some(Matched { rule: &candidate.rule, prefix: q.path.len() });
        }
        let matches = |c: &&Arc<Candidate>| matches!(&c.path, Path::Regex(r) if r.is_match(q.path)) && c.fits(q);
        if let Some(candidate) = self.regex.iter().find(matches) {
            return Some(Matched { rule: &candidate.rule, prefix: q.path.len() });
        }
        let (candidate, prefix) = self.longest_prefix(q)?;
        Some(Matched { rule: &candidate.rule, prefix })
    }

    /// The candidate of the longest prefix that has one, and that prefix's length.
    fn longest_prefix<'a>(&'a self, q: &Query<'_>) -> Option<(&'a Candidate, usize)> {
        let mut prefix = q.path;
        for depth in (0..=slashes(q.path)).rev() {
            if depth == 0 {
                prefix = "";
            }
            if depth <= self.deepest
                && self.depths & bit(depth) != 0
                && let Some(candidate) = self.prefix.get(prefix).and_then(|list| first(list, q))
            {
                return Some((candidate, prefix.len()));
            }
            let slash = memchr::memrchr(b'/', prefix.as_bytes()).unwrap_or(0);
            prefix = &prefix[..slash];
        }
        None
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

/// How many elements a path has: each begins with a slash.
fn slashes(path: &str) -> usize {
    memchr::memchr_iter(b'/', path.as_bytes()).count()
}

fn bit(depth: usize) -> u64 {
    1 << depth.min(63)
}
