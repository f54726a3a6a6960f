//! Candidates by path: exact paths and prefixes in sets, expressions in a list.

use std::{
    borrow::Borrow,
    cmp::Reverse,
    collections::HashSet,
    hash::{Hash, Hasher},
    mem,
    sync::Arc,
};

use foldhash::fast::RandomState;

use super::{
    Matched, Query,
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
    /// The longest first: it is the more specific, as far as that can be told.
    regex: Vec<Arc<Candidate>>,
}

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
            Path::Regex(_) => {
                let specific = |c: &Candidate| Reverse(c.path.as_str().len());
                let before = |c: &Arc<Candidate>| (specific(c), c.rank()) <= (specific(&candidate), candidate.rank());
                let place = self.regex.partition_point(before);
                return self.regex.insert(place, candidate);
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
    pub(crate) fn find<'a>(&'a self, q: &Query<'_>) -> Option<Matched<'a>> {
        if let Some(candidate) = self.exact.get(q.path).and_then(|candidates| candidates.fitting(q)) {
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
                && let Some(candidate) = self.prefix.get(prefix).and_then(|candidates| candidates.fitting(q))
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
            Path::Regex(regex) => regex.as_str(),
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

    fn fitting(&self, q: &Query<'_>) -> Option<&Candidate> {
        std::iter::once(&self.first).chain(&self.others).find(|c| c.fits(q)).map(Arc::as_ref)
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

/// How many elements a path has: each begins with a slash.
fn slashes(path: &str) -> usize {
    memchr::memchr_iter(b'/', path.as_bytes()).count()
}

fn bit(depth: usize) -> u64 {
    1 << depth.min(63)
}
