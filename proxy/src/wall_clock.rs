//! The time of day of a moment, without asking the system for it each time: requests read the monotonic clock anyway.

use std::{
    cell::Cell,
    time::{Duration, Instant, SystemTime},
};

/// Longest distance of a moment from the last time that both clocks were read: so soon a clock that was set shows.
const MAX_DISTANCE: Duration = Duration::from_secs(1);

/// Time since 1970 began (UTC).
pub(crate) fn unix(at: Instant) -> Duration {
    thread_local! {
        static BOTH: Cell<Option<(Instant, Duration)>> = const { Cell::new(None) };
    }
    BOTH.get().and_then(|both| from(both, at)).unwrap_or_else(|| {
        let both = (Instant::now(), SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default());
        BOTH.set(Some(both));
        // A moment that is long ago is not of a request under way: the time of the last look will do.
        from(both, at).unwrap_or(both.1)
    })
}

fn from((moment, unix): (Instant, Duration), at: Instant) -> Option<Duration> {
    match at.checked_duration_since(moment) {
        Some(after) => (after < MAX_DISTANCE).then(|| unix + after),
        None => Some(moment - at).filter(|before| *before < MAX_DISTANCE).map(|before| unix.saturating_sub(before)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_near_by_follow_each_other() {
        let (moment, unix) = (Instant::now(), Duration::from_secs(1_000));
        let of = |at| from((moment, unix), at);
        let [near, far] = [999, 1000].map(Duration::from_millis);
        assert_eq!((of(moment + near), of(moment + far)), (Some(unix + near), None));
        assert_eq!((of(moment - near), of(moment - far)), (Some(unix - near), None));
    }

    #[test]
    fn it_is_the_systems_time() {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let got = super::unix(Instant::now());
        assert!(got.abs_diff(now) < Duration::from_secs(5), "{got:?} {now:?}");
    }
}
