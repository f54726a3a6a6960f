//! Problems: each names the object, the field and the fix.

mod collected;
pub mod reason;

use std::fmt;

pub(crate) use self::collected::Problems;
use crate::object::{ObjectRef, Origin};

/// The reach of a problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The object's content is not used; what was last accepted stays in force.
    Rejected,
    /// The object is used; a part of it does not work (its rule answers 500).
    Degraded,
    /// The object is used as it is; others want what it has.
    Told,
}

/// A finding in an object, or in a document that names none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The object; `None` for a document that names none.
    pub object: Option<ObjectRef>,
    /// The place of the document.
    pub origin: Option<Origin>,
    /// Field path (`spec.rules[0].backendRefs[1].port`); empty: the whole document.
    pub field: String,
    /// A fixed CamelCase word: the condition's reason.
    pub reason: &'static str,
    /// The fault and its fix, in words.
    pub message: String,
    /// The problem's reach.
    pub severity: Severity,
}

impl fmt::Display for Problem {
    /// `shop.yaml:12: ApiRoute shop/orders: spec.rules[0].backendRefs[0]: no Service shop/x [BackendNotFound]`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(origin) = &self.origin {
            write!(f, "{}:{}: ", origin.file, origin.line_of(&self.field))?;
        }
        if let Some(object) = &self.object {
            write!(f, "{object}: ")?;
        }
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        write!(f, "{} [{}]", self.message, self.reason)
    }
}
