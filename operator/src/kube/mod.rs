//! The API server as every part of the operator meets it.
//!
//! - [`api`]: one request under a deadline, and the class of its error. [`backoff`]: the pause before the next attempt.
//! - [`outage`]: the log line of an API server that fails. [`reapply`]: when an object that others change is applied again.
//! - [`managers`]: which field manager changed what of an object. [`names`]: what the operator's own objects are called.

pub(crate) mod api;
pub(crate) mod backoff;
pub mod managers;
pub mod names;
pub(crate) mod outage;
pub(crate) mod reapply;
