//! Faults of expressions.

use std::sync::Arc;

use crate::check::reason;

/// The reason why an expression can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// It is no expression.
    #[error("{0}")]
    Syntax(Arc<str>),
    /// It needs more than [`super::MAX_COMPILED`].
    #[error("{0}: make it simpler, or split it into several matches")]
    TooComplex(&'static str),
}

impl Fault {
    /// The fixed word of this reason.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Syntax(_) => reason::INVALID_REGEX,
            Self::TooComplex(_) => reason::TOO_COMPLEX,
        }
    }
}
