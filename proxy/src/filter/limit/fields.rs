//! The fields of draft-ietf-httpapi-ratelimit-headers, and `Retry-After`.

use bytes::{BufMut as _, Bytes};
use http::HeaderValue;
use limits::{Decision, TokenBucket};

use crate::value::{decimal, value};

/// `"name";r=12;t=1`: what is left, and in how many seconds all of it is there again, or, when nothing is left, the next.
pub(super) fn rate_limit(name: &str, decision: &Decision) -> Option<HeaderValue> {
    let until_us = if decision.allowed { decision.reset_us } else { decision.retry_after_us };
    let mut value = value(|out| {
        out.put_slice(name.as_bytes());
        out.put_slice(b";r=");
        decimal(out, decision.remaining);
        out.put_slice(b";t=");
        decimal(out, seconds(until_us));
    })?;
    // It hardly comes again: HPACK's tables are for what does (RFC 7541 section 6.2.3).
    value.set_sensitive(true);
    Some(value)
}

/// `"name";q=100;w=1, ...`: tokens each so many seconds. `None`: there are none.
pub(super) fn policy<'a>(limits: impl Iterator<Item = (&'a str, &'a TokenBucket)>) -> Option<HeaderValue> {
    let item = |(name, bucket): (&str, &TokenBucket)| {
        // The window is in whole seconds: 10 each 100 ms is told as 100 each 1 s.
        let seconds = bucket.per_ms().div_ceil(1000);
        let quota = u128::from(bucket.rate()) * u128::from(seconds) * 1000 / u128::from(bucket.per_ms());
        format!("{name};q={quota};w={seconds}")
    };
    let items: Vec<_> = limits.map(item).collect();
    (!items.is_empty()).then(|| HeaderValue::try_from(items.join(", ")).ok()).flatten()
}

/// Whole seconds until a request may pass, at least 1.
pub(super) fn retry_after(decision: &Decision) -> u64 {
    seconds(decision.retry_after_us).max(1)
}

/// A name as a string of structured fields (RFC 9651), which holds printable ASCII only.
pub(super) fn quoted(name: &str) -> String {
    let mut quoted = String::with_capacity(name.len() + 2);
    quoted.push('"');
    for c in name.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            ' '..='~' => quoted.push(c),
            _ => quoted.push('?'),
        }
    }
    quoted.push('"');
    quoted
}

/// The body of a 429: problem details as the draft's section on problem types defines them.
pub(super) fn problem(name: &str) -> Bytes {
    let problem = serde_json::json!({
        "type": "https://iana.org/assignments/http-problem-types#quota-exceeded",
        "title": "Request cannot be satisfied as assigned quota has been exceeded",
        "status": 429,
        "violated-policies": [name],
    });
    format!("{problem}\n").into()
}

fn seconds(us: u64) -> u64 {
    us.div_ceil(1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values() {
        let decision =
            |allowed, remaining, retry_after_us, reset_us| Decision { allowed, remaining, retry_after_us, reset_us };
        let check = |decision: Decision, field: &str, retry: u64| {
            assert_eq!(rate_limit("\"a\"", &decision).unwrap(), field);
            assert_eq!(retry_after(&decision), retry);
        };
        check(decision(true, 12, 0, 1), "\"a\";r=12;t=1", 1);
        check(decision(true, 0, 0, 2_000_000), "\"a\";r=0;t=2", 1);
        check(decision(false, 0, 1_000_001, 5_000_000), "\"a\";r=0;t=2", 2);
        check(decision(false, 0, 10_000, 5_000_000), "\"a\";r=0;t=1", 1);
        let buckets = [(100, 1000), (10, 100), (1, 86_400_000), (3, 1500)].map(|(r, p)| TokenBucket::new(r, p, 1));
        let names = ["\"a\"", "\"b\"", "\"c\"", "\"d\""];
        let got = policy(names.into_iter().zip(&buckets)).unwrap();
        assert_eq!(got, "\"a\";q=100;w=1, \"b\";q=100;w=1, \"c\";q=1;w=86400, \"d\";q=4;w=2");
        assert_eq!(policy([].into_iter()), None);
        assert_eq!(quoted("a\"b\\cü"), "\"a\\\"b\\\\c?\"");
    }
}
