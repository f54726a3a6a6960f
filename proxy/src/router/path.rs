//! Candidates by path: exact paths and prefixes in sets, expressions by the elements that they all begin with.

use std::{
    borrow::Borrow,
    cmp::Reverse,
    collections::{HashMap, HashSet},
    hash::{Hash, Hasher},
    mem,
    sync::Arc,
};

use foldhash::fast::RandomState;

use super::{
    Matched, Query,
    effort::Effort,
    matching::{Candidate, Path},
};

/// All candidates of one hostname.
#[derive(Default)]
pub(crate) struct PathTable {
    exact: HashSet<Candidates, RandomState>,
    prefix: HashSet<Candidates, RandomState>,
    /// Bit n: some prefix has n path elements; the last bit: that many or more. Only such prefixes are looked up.
    depths: u64,
    /// Most elements of a prefix.
    deepest: usize,
    /// By the whole elements that every match begins with. The longest expression first: it is the more specific, as far as
    /// that can be told.
    expressions: HashMap<Box<str>, Vec<Arc<Candidate>>, RandomState>,
    /// Most such elements of an expression.
    expressions_deepest: usize,
}

/// No more elements than these are looked at to find the expressions that could match.
const ELEMENTS: usize = 8;

/// Candidates of one path, by which they are found. Most paths have one candidate.
struct Candidates {
    /// The one to try first.
    first: Arc<Candidate>,
    /// The others, in the order in which to try them.
    others: Vec<Arc<Candidate>>,
}

impl PathTable {
    pub(crate) fn insert(&mut self, candidate: Arc<Candidate>) {
        #[expect(clippy::mutable_key_type, reason = "what is hashed and compared is the path, which never changes")]
        let set = match &candidate.path {
            Path::Exact(_) => &mut self.exact,
            Path::Regex(expression) => {
                let elements = expression.elements(ELEMENTS);
                self.expressions_deepest = self.expressions_deepest.max(slashes(elements));
                let others = self.expressions.entry(elements.into()).or_default();
                let place = others.partition_point(|other| order(other) <= order(&candidate));
                return others.insert(place, candidate);
            }
            Path::Prefix(prefix) => {
                let depth = slashes(prefix);
                self.depths |= bit(depth);
                self.deepest = self.deepest.max(depth);
                &mut self.prefix
            }
        };
        let candidates = match set.take(candidate.path.as_str()) {
            Some(mut candidates) => {
                candidates.add(candidate);
                candidates
            }
            None => Candidates { first: candidate, others: vec![] },
        };
        set.insert(candidates);
    }

    /// Exact paths, then expressions, then the longest prefix.
    pub(crate) fn find<'a>(&'a self, q: &Query<'_>, effort: &Effort) -> Option<Matched<'a>> {
        if let Some(candidate) = self.exact.get(q.path).and_then(|candidates| candidates.fitting(q, effort)) {
            return Some(Matched { rule: &candidate.rule, prefix: q.path.len() });
        }
        if !self.expressions.is_empty()
            && let Some(candidate) = self.expression(q, effort)
        {
            return Some(Matched { rule: &candidate.rule, prefix: q.path.len() });
        }
        let (candidate, prefix) = self.longest_prefix(q, effort)?;
        Some(Matched { rule: &candidate.rule, prefix })
    }

    /// The first expression that matches. Only those are tried whose first elements are the path's.
    fn expression(&self, q: &Query<'_>, effort: &Effort) -> Option<&Candidate> {
        let mut groups: [&[Arc<Candidate>]; ELEMENTS + 1] = [&[]; ELEMENTS + 1];
        let elements = memchr::memchr_iter(b'/', q.path.as_bytes()).filter(|at| *at > 0).map(|at| &q.path[..at]);
        let elements = std::iter::once("").chain(elements.take(self.expressions_deepest));
        for (group, elements) in groups.iter_mut().zip(elements) {
            *group = self.expressions.get(elements).map_or(&[], Vec::as_slice);
        }
        while !effort.is_spent() {
            let groups = groups.iter_mut().filter(|group| !group.is_empty());
            let group = groups.min_by(|a, b| order(&a[0]).cmp(&order(&b[0])))?;
            let (candidate, rest) = group.split_first()?;
            *group = rest;
            if matches!(&candidate.path, Path::Regex(e) if e.matches(q.path, effort)) && candidate.fits(q, effort) {
                return Some(candidate);
            }
        }
        None
    }

    /// The candidate of the longest prefix that has one, and that prefix's length.
    fn longest_prefix<'a>(&'a self, q: &Query<'_>, effort: &Effort) -> Option<(&'a Candidate, usize)> {
        let mut prefix = q.path;
        for depth in (0..=slashes(q.path)).rev() {
            if depth == 0 {
                prefix = "";
            }
            if depth <= self.deepest
                && self.depths & bit(depth) != 0
                && let Some(candidate) = self.prefix.get(prefix).and_then(|candidates| candidates.fitting(q, effort))
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

    /// The value as it was written, but for a prefix's trailing slash.
    fn as_str(&self) -> &str {
        match self {
            Path::Exact(path) | Path::Prefix(path) => path,
            Path::Regex(expression) => &expression.source,
        }
    }
}

impl Candidates {
    fn add(&mut self, mut candidate: Arc<Candidate>) {
        if candidate.rank() < self.first.rank() {
            mem::swap(&mut self.first, &mut candidate);
        }
        let place = self.others.partition_point(|c| c.rank() <= candidate.rank());
        self.others.insert(place, candidate);
    }

    fn fitting(&self, q: &Query<'_>, effort: &Effort) -> Option<&Candidate> {
        let mut candidates = std::iter::once(&self.first).chain(&self.others).take_while(|_| !effort.is_spent());
        candidates.find(|c| c.fits(q, effort)).map(Arc::as_ref)
    }
}

impl Borrow<str> for Candidates {
    fn borrow(&self) -> &str {
        self.first.path.as_str()
    }
}

impl Hash for Candidates {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Borrow::<str>::borrow(self).hash(state);
    }
}

impl PartialEq for Candidates {
    fn eq(&self, other: &Self) -> bool {
        Borrow::<str>::borrow(self) == Borrow::<str>::borrow(other)
    }
}

impl Eq for Candidates {}

/// Which of two expressions is tried first.
fn order(candidate: &Candidate) -> impl Ord + '_ {
    (Reverse(candidate.path.as_str().len()), candidate.rank())
}

/// How many elements a path has: each begins with a slash.
fn slashes(path: &str) -> usize {
    memchr::memchr_iter(b'/', path.as_bytes()).count()
}

fn bit(depth: usize) -> u64 {
    1 << depth.min(63)
}
