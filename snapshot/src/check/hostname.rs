//! Hostnames of listeners, routes and rewrites.

use std::fmt;

use super::{
    reason,
    unfit::{Fit, Unfit},
};

/// The check of a hostname, which may begin with `*.`.
pub(crate) fn hostname(field: impl fmt::Display, name: &str, may_be_empty: bool) -> Fit {
    let labels = name.strip_prefix("*.").unwrap_or(name);
    let label = |l: &str| {
        let inner = l.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        inner && (1..=63).contains(&l.len()) && !l.starts_with('-') && !l.ends_with('-')
    };
    let fit = if name.is_empty() { may_be_empty } else { name.len() <= 253 && labels.split('.').all(label) };
    if fit {
        Ok(())
    } else {
        Err(Unfit::new(field.to_string(), reason::INVALID_HOSTNAME, format!("{name:?} is no hostname")))
    }
}
