//! An API server that is not reached is one thing, and hundreds of requests fail by it: the log says so in a line a minute,
//! with one of the objects and its URL, and how many others failed.

use std::{
    fmt,
    sync::{Mutex, PoisonError},
    time::Instant,
};

use crate::log_throttle::LogThrottle;

static THROTTLE: Mutex<LogThrottle> = Mutex::new(LogThrottle::each_minute());

/// Logs that a request about an object failed, unless that was logged of another within the minute.
pub(crate) fn log(object: &str, url: &str, error: &dyn fmt::Display) {
    let mut throttle = THROTTLE.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(others) = throttle.due(Instant::now()) {
        drop(throttle);
        tracing::warn!(object, url, %error, others, "the API server fails; what is to be done is tried again until it does not");
    }
}
