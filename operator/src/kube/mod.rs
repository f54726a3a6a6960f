//! The API server as every part of the operator meets it: a request under a deadline, the class of an error, and the pause
//! before the next attempt.

pub(crate) mod api;
pub(crate) mod backoff;
