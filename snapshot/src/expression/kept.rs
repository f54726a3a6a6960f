//! Verdicts on expressions, kept by content: who changes one route has no other's compiled anew, and what a thousand routes
//! repeat is compiled once. Bounded, whatever is asked: what was not asked for long is forgotten.

use std::{
    collections::HashMap,
    sync::{Arc, LazyLock, Mutex, PoisonError, Weak},
};

use super::{Expression, Fault, MAX_COMPILED};
use crate::Hash;

/// Verdicts of one generation; there are two.
const VERDICTS: usize = 1 << 15;
/// Weight of the automata that are kept for whoever asks next, beside those in use.
const RECENT: usize = 4 * MAX_COMPILED;

/// An expression that was compiled, or why it can't be.
#[derive(Clone)]
struct Known {
    verdict: Result<usize, Fault>,
    /// The compiled form, while it is in use.
    compiled: Weak<Expression>,
}

#[derive(Default)]
struct Kept {
    young: HashMap<Hash, Known>,
    /// The verdicts that were young before, and were not asked for since.
    old: HashMap<Hash, Known>,
    /// Automata compiled last: both sides check a resource before they use it, so what was compiled for the one is there for
    /// the other.
    recent: Vec<Arc<Expression>>,
}

static KEPT: LazyLock<Mutex<Kept>> = LazyLock::new(Mutex::default);

/// Whether an expression can be used, and what it weighs.
pub fn verdict(pattern: &str) -> Result<usize, Fault> {
    let of = Hash::of(pattern.as_bytes());
    if let Some(known) = with(|kept| kept.find(&of)) {
        return known.verdict;
    }
    made(of, pattern).map(|expression| expression.weight())
}

/// The compiled expression: the same for whoever asks while somebody has it.
pub fn compile(pattern: &str) -> Result<Arc<Expression>, Fault> {
    let of = Hash::of(pattern.as_bytes());
    if let Some(known) = with(|kept| kept.find(&of)) {
        known.verdict?;
        if let Some(compiled) = known.compiled.upgrade() {
            return Ok(compiled);
        }
    }
    made(of, pattern)
}

/// Whether the verdict is there already, so that asking for it costs nothing.
pub fn is_known(pattern: &str) -> bool {
    with(|kept| kept.find(&Hash::of(pattern.as_bytes()))).is_some()
}

/// Compiles an expression, without holding the lock meanwhile.
fn made(of: Hash, pattern: &str) -> Result<Arc<Expression>, Fault> {
    let made = Expression::new(pattern).map(Arc::new);
    let verdict = made.as_ref().map(|expression| expression.weight()).map_err(Clone::clone);
    let compiled = made.as_ref().map(Arc::downgrade).unwrap_or_default();
    with(|kept| {
        kept.keep(of, Known { verdict, compiled });
        if let Ok(expression) = &made {
            kept.remember(Arc::clone(expression));
        }
    });
    made
}

fn with<T>(work: impl FnOnce(&mut Kept) -> T) -> T {
    work(&mut KEPT.lock().unwrap_or_else(PoisonError::into_inner))
}

impl Kept {
    fn find(&mut self, of: &Hash) -> Option<Known> {
        if let Some(known) = self.young.get(of) {
            return Some(known.clone());
        }
        let known = self.old.remove(of)?;
        self.keep(*of, known.clone());
        Some(known)
    }

    fn keep(&mut self, of: Hash, known: Known) {
        if self.young.len() >= VERDICTS {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(of, known);
    }

    fn remember(&mut self, expression: Arc<Expression>) {
        self.recent.push(expression);
        let mut weight: usize = self.recent.iter().map(|recent| recent.weight()).sum();
        let mut gone = 0;
        while weight > RECENT && gone + 1 < self.recent.len() {
            weight -= self.recent[gone].weight();
            gone += 1;
        }
        self.recent.drain(..gone);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_automaton_for_the_same_pattern() {
        let first = compile("/kept/[a-z]+").unwrap();
        assert!(Arc::ptr_eq(&first, &compile("/kept/[a-z]+").unwrap()));
        assert!(is_known("/kept/[a-z]+"));
        assert!(!is_known("/kept/[a-y]+"));
        assert_eq!(verdict("/kept/[a-z]+"), Ok(first.weight()));
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut kept = Kept::default();
        let known = Known { verdict: Ok(1), compiled: Weak::new() };
        let asked = Hash::of(b"asked again and again");
        kept.keep(asked, known.clone());
        for i in 0..5 * VERDICTS {
            kept.keep(Hash::of(&i.to_le_bytes()), known.clone());
            if i % 1000 == 0 {
                assert!(kept.find(&asked).is_some());
            }
        }
        assert!(kept.young.len() + kept.old.len() <= 2 * VERDICTS);
        for i in 0..100 {
            kept.remember(Arc::new(Expression::new(&format!("/[a-z]{{{i}}}")).unwrap()));
        }
        assert!(kept.recent.iter().map(|recent| recent.weight()).sum::<usize>() <= RECENT);
    }
}
