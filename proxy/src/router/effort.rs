//! The bound of what a look-up costs, whatever routes there are and whatever is asked: beyond it, the request is
//! refused.

use std::cell::Cell;

use super::query::Query;
use crate::lookup::Lookup;

/// Units that every look-up may cost. One unit is what comparing a byte with an expression takes: one or two
/// nanoseconds.
const BASE_UNITS: usize = 128 << 10;
/// Further units for each byte of a path. So an expression can be asked for, and an attacker gains nothing by length.
const UNITS_PER_BYTE: usize = 32;

/// Candidates that ask for more than a path.
pub(super) const CANDIDATE_UNITS: usize = 8;
/// Beginning with an expression.
pub(super) const EXPRESSION_UNITS: usize = 32;
/// Finding a header field or a query parameter: once some KiB were looked through, there is an index (`lookup.rs`).
pub(super) const QUESTION_UNITS: usize = 16;

/// The units that are left.
pub(crate) struct Effort(Cell<usize>);

impl Effort {
    pub(crate) fn of(query: &Query<'_>) -> Self {
        Self(Cell::new(BASE_UNITS + UNITS_PER_BYTE * query.path.len()))
    }

    /// Takes what something costs, before or after it is done.
    pub(crate) fn take(&self, units: usize) {
        self.0.set(self.0.get().saturating_sub(units));
    }

    #[cfg(test)]
    pub(crate) fn left(&self) -> usize {
        self.0.get()
    }

    /// Nothing is left: what was found then is not the answer, since what stands before it was not looked at.
    pub(crate) fn is_spent(&self) -> bool {
        self.0.get() == 0
    }
}

/// The context of a look-up: what the request says under a name, and how much it may still cost.
pub(crate) struct Ask<'a> {
    pub(super) lookup: Lookup<'a>,
    pub(super) effort: Effort,
}

impl<'a> Ask<'a> {
    pub(super) fn of(query: &Query<'a>) -> Self {
        Self { lookup: Lookup::new(query.query, query.fields), effort: Effort::of(query) }
    }
}
