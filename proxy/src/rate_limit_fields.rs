//! The fields of draft-ietf-httpapi-ratelimit-headers, and `Retry-After`.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, header::RETRY_AFTER};
use limits::{Decision, TokenBucket};

use crate::header_value::{decimal, value};

const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// The state of a client's limits, written in place of whatever the response says in these fields.
#[derive(Clone, Debug)]
pub struct RateLimit {
    /// The strictest limit's words.
    pub(crate) words: Arc<Words>,
    /// Decision of the strictest limit.
    pub(crate) decision: Decision,
}

/// Text that is the same for all requests of a rule whose strictest limit is this one.
#[derive(Debug)]
pub(crate) struct Words {
    /// All limits of the rule, as [`policy`] has them.
    pub(crate) policy: Bytes,
    /// The limit, quoted.
    pub(crate) name: Bytes,
}

impl RateLimit {
    /// Whether a field is one of these.
    pub(crate) fn has(&self, name: &[u8]) -> bool {
        let ours = match name.len() {
            9 => RATE_LIMIT,
            11 if !self.decision.allowed => RETRY_AFTER,
            16 => RATE_LIMIT_POLICY,
            _ => return false,
        };
        name.eq_ignore_ascii_case(ours.as_str().as_bytes())
    }

    /// Writes them as lines of a head.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"ratelimit-policy: ");
        out.extend_from_slice(&self.words.policy);
        out.extend_from_slice(b"\r\nratelimit: ");
        self.state(out);
        if !self.decision.allowed {
            out.extend_from_slice(b"\r\nretry-after: ");
            decimal(out, self.retry_after());
        }
        out.extend_from_slice(b"\r\n");
    }

    /// Sets them in a message whose fields are not written here.
    pub(crate) fn set(&self, fields: &mut HeaderMap) {
        // What is written here are plain words and numbers.
        if let Ok(policy) = HeaderValue::from_maybe_shared(self.words.policy.clone()) {
            fields.insert(RATE_LIMIT_POLICY, policy);
        }
        if let Some(mut state) = value(|out| self.state(out)) {
            // It hardly comes again: HPACK's tables are for what does (RFC 7541 section 6.2.3).
            state.set_sensitive(true);
            fields.insert(RATE_LIMIT, state);
        }
        if !self.decision.allowed {
            fields.insert(RETRY_AFTER, self.retry_after().into());
        }
    }

    /// `"name";r=12;t=1`: what is left, and in how many seconds all of it is there again, or, when nothing is left, the
    /// next.
    fn state(&self, out: &mut impl bytes::BufMut) {
        let Decision { allowed, remaining, retry_after_us, reset_us } = self.decision;
        out.put_slice(&self.words.name);
        out.put_slice(b";r=");
        decimal(out, remaining);
        out.put_slice(b";t=");
        decimal(out, seconds(if allowed { reset_us } else { retry_after_us }));
    }

    /// Whole seconds until a request may pass, at least 1.
    fn retry_after(&self) -> u64 {
        seconds(self.decision.retry_after_us).max(1)
    }
}

/// `"name";q=100;w=1, ...`: tokens each so many seconds. `None`: there are none.
pub(crate) fn policy<'a>(limits: impl Iterator<Item = (&'a Bytes, &'a TokenBucket)>) -> Option<Bytes> {
    let item = |(name, bucket): (&Bytes, &TokenBucket)| {
        let name = String::from_utf8_lossy(name);
        // The window is in whole seconds: 10 each 100 ms is told as 100 each 1 s.
        let seconds = bucket.per_ms().div_ceil(1000);
        let quota = u128::from(bucket.rate()) * u128::from(seconds) * 1000 / u128::from(bucket.per_ms());
        format!("{name};q={quota};w={seconds}")
    };
    let items: Vec<_> = limits.map(item).collect();
    (!items.is_empty()).then(|| items.join(", ").into())
}

/// A name as a string of structured fields (RFC 9651), which holds printable ASCII only.
pub(crate) fn quoted(name: &str) -> Bytes {
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
    quoted.into()
}

/// The body of a 429: problem details as the draft's section on problem types defines them.
pub(crate) fn problem(name: &str) -> Bytes {
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

    #[track_caller]
    fn check(decision: (bool, u64, u64, u64), state: &str, retry: Option<&str>) {
        let (allowed, remaining, retry_after_us, reset_us) = decision;
        let decision = Decision { allowed, remaining, retry_after_us, reset_us };
        let words = Words { policy: "p".into(), name: quoted("a") };
        let limit = RateLimit { words: words.into(), decision };
        let mut written = vec![];
        limit.write(&mut written);
        let retry_line = retry.map_or_else(String::new, |retry| format!("retry-after: {retry}\r\n"));
        let lines = format!("ratelimit-policy: p\r\nratelimit: {state}\r\n{retry_line}");
        assert_eq!(String::from_utf8(written).unwrap(), lines);
        let mut set = HeaderMap::new();
        limit.set(&mut set);
        let of = |name: &str| set.get(name).map(|value| value.to_str().unwrap());
        assert_eq!((of("ratelimit-policy"), of("ratelimit"), of("retry-after")), (Some("p"), Some(state), retry));
        assert!(["RateLimit", "ratelimit-policy"].iter().all(|name| limit.has(name.as_bytes())));
        assert_eq!(limit.has(b"Retry-After"), retry.is_some());
    }

    #[test]
    fn states() {
        check((true, 12, 0, 1), "\"a\";r=12;t=1", None);
        check((true, 0, 0, 2_000_000), "\"a\";r=0;t=2", None);
        check((false, 0, 1_000_001, 5_000_000), "\"a\";r=0;t=2", Some("2"));
        check((false, 0, 10_000, 5_000_000), "\"a\";r=0;t=1", Some("1"));
        check((false, 0, 0, 0), "\"a\";r=0;t=0", Some("1"));
    }

    #[test]
    fn policies() {
        let buckets = [(100, 1000), (10, 100), (1, 86_400_000), (3, 1500)].map(|(r, p)| TokenBucket::new(r, p, 1));
        let names = ["a", "b", "c", "d"].map(quoted);
        let got = policy(names.iter().zip(&buckets)).unwrap();
        assert_eq!(got, "\"a\";q=100;w=1, \"b\";q=100;w=1, \"c\";q=1;w=86400, \"d\";q=4;w=2");
        assert_eq!(policy([].into_iter()), None);
        assert_eq!(quoted("a\"b\\cü"), "\"a\\\"b\\\\c?\"");
    }
}
