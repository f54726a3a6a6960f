//! Candidates by path: exact paths and prefixes in sets, expressions by the elements that they all begin with.
//!
//! A prefix is looked up by the hash of its elements, which goes on from one depth to the next: each byte of a path is
//! hashed once, however many elements it and the prefixes have.

use std::{
    borrow::Borrow,
    cmp::Reverse,
    collections::{HashMap, HashSet},
    hash::{BuildHasher, Hash, Hasher},
    sync::Arc,
};

use foldhash::fast::RandomState;
use hashbrown::{HashTable, hash_table::Entry};

use super::{
    effort::Ask,
    matching::{Candidate, Path},
    query::{Matched, Query},
};

/// The candidates of one hostname, by path.
#[derive(Default)]
pub(crate) struct PathTable {
    exact: HashSet<Candidates, RandomState>,
    /// By the hash of their elements.
    prefix: HashTable<Candidates>,
    prefix_state: RandomState,
    /// Bit n: some prefix has n path elements; the last bit: that many or more. Only such prefixes are looked up.
    depths: u64,
    /// Most elements of a prefix.
    deepest: usize,
    /// By the whole elements that every match begins with. The longest expression first: it is the more specific, as
    /// far as that can be told.
    expressions: HashMap<Box<str>, Vec<Arc<Candidate>>, RandomState>,
    /// Most such elements of an expression.
    expressions_deepest: usize,
}

/// No more elements than these are looked at to find the expressions that could match.
const MAX_ELEMENTS: usize = 8;

/// Candidates of one path, by which they are found. Most paths have one candidate.
struct Candidates {
    /// The one to try first.
    first: Arc<Candidate>,
    /// The others, in the order in which to try them.
    others: Vec<Arc<Candidate>>,
}

impl PathTable {
    /// Sorts candidates once: a hostname may have thousands of one path, and each that found its place among the others
    /// would cost as much as all of them.
    pub(crate) fn new(mut candidates: Vec<Arc<Candidate>>) -> Self {
        candidates.sort_by(|a, b| a.rank().cmp(&b.rank()));
        let mut table = Self::default();
        candidates.into_iter().for_each(|candidate| table.insert(candidate));
        table.expressions.values_mut().for_each(|group| group.sort_by_key(|candidate| length(candidate)));
        table
    }

    /// Adds a candidate behind all of its path that came before.
    fn insert(&mut self, candidate: Arc<Candidate>) {
        match &candidate.path {
            Path::Exact(path) => match self.exact.take(&**path) {
                Some(mut candidates) => {
                    candidates.others.push(candidate);
                    self.exact.insert(candidates);
                }
                None => drop(self.exact.insert(Candidates::new(candidate))),
            },
            Path::Regex(expression) => {
                let prefix = expression.elements(MAX_ELEMENTS);
                self.expressions_deepest = self.expressions_deepest.max(elements(prefix).count());
                self.expressions.entry(prefix.into()).or_default().push(candidate);
            }
            Path::Prefix(prefix) => {
                let depth = elements(prefix).count();
                self.depths |= bit(depth);
                self.deepest = self.deepest.max(depth);
                let state = &self.prefix_state;
                let same = |other: &Candidates| other.path() == &**prefix;
                match self.prefix.entry(hash(state, prefix), same, |other| hash(state, other.path())) {
                    Entry::Occupied(mut candidates) => candidates.get_mut().others.push(candidate),
                    Entry::Vacant(place) => drop(place.insert(Candidates::new(candidate))),
                }
            }
        }
    }

    /// Exact paths, then expressions, then the longest prefix.
    pub(crate) fn find<'a>(&'a self, q: &Query<'_>, ask: &Ask<'_>) -> Option<Matched<'a>> {
        if let Some(candidate) = self.exact.get(q.path).and_then(|candidates| candidates.fitting(q, ask)) {
            return Some(Matched { rule: &candidate.rule, prefix: q.path.len() });
        }
        if !self.expressions.is_empty()
            && let Some(candidate) = self.expression(q, ask)
        {
            return Some(Matched { rule: &candidate.rule, prefix: q.path.len() });
        }
        let (candidate, prefix) = self.longest_prefix(q, ask)?;
        Some(Matched { rule: &candidate.rule, prefix })
    }

    /// The first expression that matches. Only those are tried whose first elements are the path's.
    fn expression(&self, q: &Query<'_>, ask: &Ask<'_>) -> Option<&Candidate> {
        let mut groups: [&[Arc<Candidate>]; MAX_ELEMENTS + 1] = [&[]; MAX_ELEMENTS + 1];
        let elements = memchr::memchr_iter(b'/', q.path.as_bytes()).filter(|at| *at > 0).map(|at| &q.path[..at]);
        let elements = std::iter::once("").chain(elements.take(self.expressions_deepest));
        for (group, elements) in groups.iter_mut().zip(elements) {
            *group = self.expressions.get(elements).map_or(&[], Vec::as_slice);
        }
        while !ask.effort.is_spent() {
            let groups = groups.iter_mut().filter(|group| !group.is_empty());
            let group = groups.min_by(|a, b| order(&a[0]).cmp(&order(&b[0])))?;
            let (candidate, rest) = group.split_first()?;
            *group = rest;
            if matches!(&candidate.path, Path::Regex(e) if e.matches(q.path, &ask.effort)) && candidate.fits(q, ask) {
                return Some(candidate);
            }
        }
        None
    }

    /// The candidate of the longest prefix that has one, and that prefix's length.
    fn longest_prefix<'a>(&'a self, q: &Query<'_>, ask: &Ask<'_>) -> Option<(&'a Candidate, usize)> {
        let mut found = Found::default();
        let mut hasher = self.prefix_state.build_hasher();
        let mut elements = elements(q.path).take(self.deepest);
        let (mut depth, mut end) = (0, 0);
        loop {
            let prefix = &q.path[..end];
            if self.depths & bit(depth) != 0
                && let Some(candidates) = self.prefix.find(hasher.finish(), |other| other.path() == prefix)
            {
                found.push((candidates, end));
            }
            let Some(element) = elements.next() else { break };
            hasher.write(element);
            (depth, end) = (depth + 1, end + element.len());
        }
        found.deepest_first().find_map(|(candidates, end)| Some((candidates.fitting(q, ask)?, end)))
    }
}

/// The prefixes of one path that there are, each with its length. Few are nested more deeply than there is room for
/// without an allocation.
#[derive(Default)]
struct Found<'a> {
    few: [Option<(&'a Candidates, usize)>; 6],
    count: usize,
    more: Vec<(&'a Candidates, usize)>,
}

impl<'a> Found<'a> {
    fn push(&mut self, prefix: (&'a Candidates, usize)) {
        match self.few.get_mut(self.count) {
            Some(place) => (*place, self.count) = (Some(prefix), self.count + 1),
            None => self.more.push(prefix),
        }
    }

    fn deepest_first(&self) -> impl Iterator<Item = (&'a Candidates, usize)> {
        self.more.iter().rev().copied().chain(self.few[..self.count].iter().rev().copied().flatten())
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
    fn new(first: Arc<Candidate>) -> Self {
        Self { first, others: vec![] }
    }

    fn path(&self) -> &str {
        self.first.path.as_str()
    }

    fn fitting(&self, q: &Query<'_>, ask: &Ask<'_>) -> Option<&Candidate> {
        let mut candidates = std::iter::once(&self.first).chain(&self.others).take_while(|_| !ask.effort.is_spent());
        candidates.find(|c| c.fits(q, ask)).map(Arc::as_ref)
    }
}

impl Borrow<str> for Candidates {
    fn borrow(&self) -> &str {
        self.path()
    }
}

impl Hash for Candidates {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.path().hash(state);
    }
}

impl PartialEq for Candidates {
    fn eq(&self, other: &Self) -> bool {
        self.path() == other.path()
    }
}

impl Eq for Candidates {}

/// The order in which expressions are tried.
fn order(candidate: &Candidate) -> impl Ord + '_ {
    (length(candidate), candidate.rank())
}

fn length(candidate: &Candidate) -> impl Ord + use<> {
    Reverse(candidate.path.as_str().len())
}

/// A path's elements: each begins with a slash.
fn elements(path: &str) -> impl Iterator<Item = &[u8]> {
    let mut rest = path.as_bytes();
    std::iter::from_fn(move || {
        let after = rest.get(1..)?;
        let (element, left) = rest.split_at(memchr::memchr(b'/', after).map_or(rest.len(), |slash| slash + 1));
        rest = left;
        Some(element)
    })
}

fn hash(state: &RandomState, prefix: &str) -> u64 {
    let mut hasher = state.build_hasher();
    elements(prefix).for_each(|element| hasher.write(element));
    hasher.finish()
}

fn bit(depth: usize) -> u64 {
    1 << depth.min(63)
}
