//! The monotonic clock of the process, in numbers that atomics can hold.

use std::{sync::OnceLock, time::Instant};

/// A moment in microseconds of the process' monotonic clock: the `now` of limits, and of
/// [`crate::filter::Ctx::now_us`].
pub fn clock_us(at: Instant) -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    // An hour ahead, so that moments from before the first call are positive too.
    const AHEAD_US: u64 = 3_600_000_000;
    let start = *START.get_or_init(Instant::now);
    match at.checked_duration_since(start) {
        Some(after) => AHEAD_US + after.as_micros() as u64,
        None => AHEAD_US.saturating_sub(start.duration_since(at).as_micros() as u64),
    }
}
