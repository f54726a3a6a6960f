//! `Date` (RFC 9110 section 6.6.1), written anew once a second.

use std::{
    cell::RefCell,
    time::{Duration, Instant, SystemTime},
};

use http::HeaderValue;

use crate::wall_clock;

/// The field's value at a moment.
pub(crate) fn at(moment: Instant) -> HeaderValue {
    thread_local! {
        static WRITTEN: RefCell<(u64, HeaderValue)> = const { RefCell::new((u64::MAX, HeaderValue::from_static(""))) };
    }
    let second = wall_clock::unix(moment).as_secs();
    WRITTEN.with_borrow_mut(|(written, value)| {
        if *written != second {
            let date = httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + Duration::from_secs(second));
            // A date is text without control characters: this can't fail.
            *value = HeaderValue::try_from(date).unwrap_or(HeaderValue::from_static(""));
            *written = second;
        }
        value.clone()
    })
}
