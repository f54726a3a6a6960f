//! Regular expressions over a whole value, for strangers to write and for strangers to ask: RE2 syntax, compiled into an
//! automaton that takes one step for each byte, whatever the expression and whatever the value. What would need a large
//! automaton, or much time to make one, is refused before anything runs it ([`MAX_COMPILED`]).
//!
//! ```text
//!  pattern ──parsed alone──► syntax tree ──► bytes ──► automaton          syntax.rs
//!                            └───────── kept by content ───────┘          kept.rs
//! ```
//!
//! That the whole value must match is no part of the pattern: nothing is written around it, so nothing in it can get out.
//! An automaton never changes, so all threads share it, and a look-up allocates nothing.

mod fault;
mod kept;
mod syntax;

use regex_automata::{
    Anchored, MatchKind,
    dfa::{Automaton as _, StartKind, dense},
    nfa::thompson,
    util::start,
};

pub use fault::Fault;
pub use kept::{compile, is_known, verdict};

/// Largest automaton, in bytes. Those of paths with a few variable parts have 2 to 10 KiB.
pub const MAX_COMPILED: usize = 256 << 10;
/// Bytes that making it may take: both bound the time, to some milliseconds.
const MAX_SCAFFOLD: usize = 64 << 10;
const MAX_STATES: usize = 48 << 10;

/// A compiled expression.
#[derive(Debug)]
pub struct Expression {
    /// Elsewhere: of what nobody has any more, `kept` holds no more than a place.
    automaton: Box<dense::DFA<Vec<u32>>>,
    weight: usize,
    /// The text that every match begins with.
    prefix: Box<str>,
}

/// The result of comparing a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compared {
    /// The whole value matches.
    pub matches: bool,
    /// The bytes that were looked at before that was clear.
    pub steps: usize,
}

impl Expression {
    fn new(pattern: &str) -> Result<Self, Fault> {
        let syntax = syntax::parse(pattern)?;
        let config = thompson::Config::new()
            .utf8(false)
            .which_captures(thompson::WhichCaptures::None)
            .nfa_size_limit(Some(MAX_SCAFFOLD));
        let scaffold = thompson::Compiler::new()
            .configure(config)
            .build_from_hir(&syntax)
            .map_err(|_| Fault::TooComplex("has too many parts, or repeats them too often"))?;
        // Of all matches, not of the leftmost: the one that ends with the value is asked for.
        let config = dense::Config::new()
            .match_kind(MatchKind::All)
            .start_kind(StartKind::Anchored)
            .accelerate(false)
            .dfa_size_limit(Some(MAX_COMPILED))
            .determinize_size_limit(Some(MAX_STATES));
        let automaton = dense::Builder::new()
            .configure(config)
            .build_from_nfa(&scaffold)
            .map_err(|_| Fault::TooComplex("compiles to too much, as its parts can match in too many ways at once"))?;
        // What it took to make is a part of its weight: of those that take long, a fleet has fewer.
        let weight = size_of_val(&automaton) + automaton.memory_usage() + 4 * scaffold.memory_usage();
        Ok(Self { automaton: Box::new(automaton), weight, prefix: syntax::prefix(&syntax).into() })
    }

    /// Compares the whole of a value.
    pub fn compare(&self, value: &[u8]) -> Compared {
        let automaton = &self.automaton;
        let Ok(mut state) = automaton.start_state(&start::Config::new().anchored(Anchored::Yes)) else {
            return Compared { matches: false, steps: 0 }; // only an automaton of another kind has no such start
        };
        for (i, byte) in value.iter().enumerate() {
            state = automaton.next_state(state, *byte);
            if automaton.is_special_state(state) && automaton.is_dead_state(state) {
                return Compared { matches: false, steps: i + 1 };
            }
        }
        let matches = automaton.is_match_state(automaton.next_eoi_state(state));
        Compared { matches, steps: value.len() }
    }

    /// The weight among a fleet's expressions, in bytes: its automaton, and what making that takes.
    pub fn weight(&self) -> usize {
        self.weight
    }

    /// The text that every value that matches begins with; as much of it as stands at the expression's beginning.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }
}

#[cfg(test)]
mod tests;
