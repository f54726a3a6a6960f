//! The finding of a check.

use std::fmt;

/// The reason why a resource is not executable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {message}")]
pub struct Unfit {
    /// Path within the resource, such as `rules[0].matches[1].path.value`; the words are the manifest's.
    pub field: String,
    /// A fixed CamelCase word, used as condition reason and metric label.
    pub reason: &'static str,
    /// What is wrong, and the fix.
    pub message: String,
}

impl Unfit {
    /// A finding at `field`.
    pub fn new(field: impl Into<String>, reason: &'static str, message: impl Into<String>) -> Self {
        Self { field: field.into(), reason, message: message.into() }
    }
}

/// The outcome of a check.
pub(crate) type Fit = Result<(), Unfit>;

/// The outcome of a check of something at `path`.
pub(crate) fn within(path: impl fmt::Display, fit: Fit) -> Fit {
    fit.map_err(|e| Unfit { field: format!("{path}.{}", e.field), ..e })
}
