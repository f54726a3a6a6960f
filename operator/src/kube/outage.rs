//! An API server that is not reached is one thing, and hundreds of requests fail by it: the log says so in a line a minute,
//! with one of the objects and its URL, and how many others failed.

use std::{
    fmt,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// One line in this time.
const EACH: Duration = Duration::from_secs(60);

/// What was said last, and how much was not said since.
#[derive(Debug, Default)]
pub(crate) struct Said {
    at: Option<Instant>,
    left_out: u64,
}

static SAID: Mutex<Said> = Mutex::new(Said { at: None, left_out: 0 });

/// Says that a request about an object failed, unless that was said of another within the minute.
pub(crate) fn log(object: &str, url: &str, error: &dyn fmt::Display) {
    let now = Instant::now();
    let mut said = SAID.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(others) = said.due(now) {
        drop(said);
        tracing::warn!(object, url, %error, others, "the API server fails; what is to be done is tried again until it does not");
    }
}

impl Said {
    /// How many were left out since the last line.
    #[cfg(test)]
    pub(crate) fn left_out(&self) -> u64 {
        self.left_out
    }

    /// How many were left out before, if there is to be a line now.
    pub(crate) fn due(&mut self, now: Instant) -> Option<u64> {
        if self.at.is_some_and(|at| now.duration_since(at) < EACH) {
            self.left_out += 1;
            return None;
        }
        self.at = Some(now);
        Some(std::mem::take(&mut self.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_a_minute() {
        let start = Instant::now();
        let mut said = Said { at: None, left_out: 0 };
        let lines = (0..4_600).filter_map(|i| said.due(start + Duration::from_millis(i * 100))).collect::<Vec<_>>();
        // 460 s.
        assert_eq!(lines, [0, 599, 599, 599, 599, 599, 599, 599]);
    }
}
