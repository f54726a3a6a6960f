//! Checks of external authorization.

use super::{BAD_PATH, Fit, OF_REQUESTS, Unfit, http_token, is_path, modifiable, reason};
use crate::proto::ExternalAuth;

/// Longest time that a service has to say whether a request may go on, in milliseconds.
const MAX_TIMEOUT_MS: u64 = 60_000;

pub(super) fn fit(a: &ExternalAuth) -> Fit {
    if !(a.path.is_empty() || is_path(&a.path)) {
        return Err(Unfit::new("http.path", reason::INVALID_PATH, BAD_PATH));
    }
    for (list, names, written) in
        [("allowedHeaders", &a.request_headers, &[][..]), ("allowedResponseHeaders", &a.response_headers, &OF_REQUESTS)]
    {
        for (i, name) in names.iter().enumerate() {
            let fit = http_token(name).and_then(|()| modifiable(name, written));
            fit.map_err(|e| Unfit::new(format!("http.{list}[{i}]"), reason::INVALID_HEADER, e))?;
        }
    }
    if !(1..=MAX_TIMEOUT_MS).contains(&a.timeout_ms) {
        return Err(Unfit::new("timeout", reason::INVALID_LIMIT, "must be 1ms to 60s"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_and_names() {
        let auth = ExternalAuth { timeout_ms: 1000, path: "/check".into(), ..ExternalAuth::default() };
        assert_eq!(fit(&auth), Ok(()));
        let names = |name: &str| vec![name.to_owned()];
        for (auth, field) in [
            (ExternalAuth { timeout_ms: 0, ..auth.clone() }, "timeout"),
            (ExternalAuth { timeout_ms: MAX_TIMEOUT_MS + 1, ..auth.clone() }, "timeout"),
            (ExternalAuth { path: "check".into(), ..auth.clone() }, "http.path"),
            (ExternalAuth { path: "/a?b".into(), ..auth.clone() }, "http.path"),
            (ExternalAuth { request_headers: names("content-length"), ..auth.clone() }, "http.allowedHeaders[0]"),
            (ExternalAuth { response_headers: names("a b"), ..auth.clone() }, "http.allowedResponseHeaders[0]"),
            (ExternalAuth { response_headers: names("x-request-id"), ..auth }, "http.allowedResponseHeaders[0]"),
        ] {
            assert_eq!(fit(&auth).unwrap_err().field, field);
        }
    }
}
