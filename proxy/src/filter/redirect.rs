//! Answers with a redirect.

use std::fmt::Write;

use bytes::Bytes;
use http::{
    HeaderValue, StatusCode,
    header::{HOST, LOCATION},
};
use snapshot::{
    check::{Unfit, reason},
    proto,
};

use super::{Ctx, Filter, Flow, LocalReply, Stage, local_reply::reply, path::PathChange};
use crate::message::{RequestHead, ResponseHead};

/// The filter that redirects.
pub(super) struct Redirect {
    /// `None`: the request's.
    scheme: Option<&'static str>,
    /// `None`: the request's.
    host: Option<Box<str>>,
    /// `None`: the scheme's own when a scheme is set, else the listener's.
    port: Option<u16>,
    path: PathChange,
    status: StatusCode,
}

impl Redirect {
    pub(super) fn compile(redirect: &proto::Redirect) -> Result<Self, Unfit> {
        let unfit = |field: &str, reason, message| Unfit::new(format!("requestRedirect.{field}"), reason, message);
        let status = u16::try_from(redirect.status).ok().and_then(|s| StatusCode::from_u16(s).ok());
        let status = status
            .ok_or_else(|| unfit("statusCode", reason::INVALID_STATUS, format!("{} is no status", redirect.status)))?;
        let scheme = match redirect.scheme.as_str() {
            "" => None,
            "http" => Some("http"),
            "https" => Some("https"),
            other => {
                return Err(unfit("scheme", reason::INVALID_SCHEME, format!("{other:?} is neither http nor https")));
            }
        };
        let port = u16::try_from(redirect.port);
        let port = port.map_err(|_| unfit("port", reason::INVALID_PORT, format!("{} is no port", redirect.port)))?;
        Ok(Self {
            scheme,
            host: Some(redirect.hostname.as_str()).filter(|h| !h.is_empty()).map(Into::into),
            port: Some(port).filter(|p| *p > 0),
            path: PathChange::compile(redirect.path.as_ref()),
            status,
        })
    }

    fn location(&self, head: &RequestHead, ctx: &Ctx) -> String {
        let own = if ctx.tls { "https" } else { "http" };
        let scheme = self.scheme.unwrap_or(own);
        let host = self.host.as_deref().unwrap_or_else(|| {
            let host = head.fields.get(&HOST).and_then(|host| str::from_utf8(host).ok()).unwrap_or_default();
            host_name(host)
        });
        let default = if scheme == "https" { 443 } else { 80 };
        let port = self.port.unwrap_or(if self.scheme.is_some() { default } else { ctx.port });
        let mut location = format!("{scheme}://{host}");
        if port != default {
            // Writing to a String does not fail.
            let _ = write!(location, ":{port}");
        }
        // That of `OPTIONS *` is the host's whole.
        let path = if head.uri.path() == "*" { "/" } else { head.uri.path() };
        self.path.write(path, ctx.prefix, &mut location);
        if let Some(query) = head.uri.query() {
            location.push('?');
            location.push_str(query);
        }
        location
    }
}

impl Filter for Redirect {
    fn stage(&self) -> Stage {
        Stage::Rewrite
    }

    fn on_request(&self, head: &mut RequestHead, ctx: &mut Ctx) -> Flow {
        let Ok(location) = HeaderValue::try_from(self.location(head, ctx)) else {
            return reply(StatusCode::BAD_REQUEST, "bad_target", "The request has no location to redirect to.");
        };
        let mut head = ResponseHead::new(self.status);
        head.fields.append(LOCATION, location);
        Flow::Reply(LocalReply { head, body: Bytes::new(), reason: "redirect", error_source: None })
    }
}

/// A host without its port; an IPv6 address keeps its brackets.
fn host_name(host: &str) -> &str {
    match host.rfind(':') {
        Some(colon) if !host[colon..].contains(']') => &host[..colon],
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use http::Request;
    use proto::{PathRewrite, path_rewrite::Rewrite};

    use super::*;
    use crate::filter::testing::ctx;

    #[track_caller]
    fn check(redirect: &proto::Redirect, tls: bool, port: u16, expect: &str) {
        let redirect = proto::Redirect { status: 302, ..redirect.clone() };
        let request = Request::builder().uri("/a/b?c=d").header(HOST, "shop.example:8443").body(()).unwrap();
        let mut head = RequestHead::from(request.into_parts().0);
        let mut ctx = ctx();
        (ctx.tls, ctx.port, ctx.prefix) = (tls, port, 2);
        let Flow::Reply(answer) = Redirect::compile(&redirect).unwrap().on_request(&mut head, &mut ctx) else {
            panic!("no answer")
        };
        assert_eq!(answer.head.status, 302);
        assert_eq!(answer.head.fields.get(&LOCATION), Some(expect.as_bytes()));
    }

    #[test]
    fn locations() {
        let r = proto::Redirect::default();
        check(&r, false, 80, "http://shop.example/a/b?c=d");
        check(&r, true, 443, "https://shop.example/a/b?c=d");
        check(&r, true, 8443, "https://shop.example:8443/a/b?c=d");
        let to_tls = proto::Redirect { scheme: "https".into(), ..r.clone() };
        check(&to_tls, false, 8080, "https://shop.example/a/b?c=d");
        check(&proto::Redirect { port: 8443, ..to_tls.clone() }, false, 80, "https://shop.example:8443/a/b?c=d");
        check(&proto::Redirect { port: 443, ..to_tls }, false, 80, "https://shop.example/a/b?c=d");
        let path = |rewrite| Some(PathRewrite { rewrite: Some(rewrite) });
        let full = path(Rewrite::ReplaceFullPath("/x".into()));
        check(
            &proto::Redirect { hostname: "o.example".into(), path: full, ..r.clone() },
            false,
            80,
            "http://o.example/x?c=d",
        );
        let prefix = path(Rewrite::ReplacePrefixMatch("/z".into()));
        check(&proto::Redirect { path: prefix, ..r }, false, 80, "http://shop.example/z/b?c=d");
    }

    #[test]
    fn hosts_lose_their_port() {
        for (host, expect) in [("a:1", "a"), ("a", "a"), ("[::1]:80", "[::1]"), ("[::1]", "[::1]")] {
            assert_eq!(host_name(host), expect);
        }
    }
}
