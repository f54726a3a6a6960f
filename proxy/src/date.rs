//! `Date` (RFC 9110 section 6.6.1), written anew once a second.

use std::{cell::RefCell, time::SystemTime};

use http::HeaderValue;

/// The field's value now.
pub(crate) fn now() -> HeaderValue {
    thread_local! {
        static WRITTEN: RefCell<(u64, HeaderValue)> = const { RefCell::new((u64::MAX, HeaderValue::from_static(""))) };
    }
    let now = SystemTime::now();
    let second = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    WRITTEN.with_borrow_mut(|(written, value)| {
        if *written != second {
            // A date is text without control characters: this can't fail.
            *value = HeaderValue::try_from(httpdate::fmt_http_date(now)).unwrap_or(HeaderValue::from_static(""));
            *written = second;
        }
        value.clone()
    })
}
