//! Requests that pages of other origins have a browser send in its user's name (CSRF): refused if they change anything.
//!
//! Browsers say where a request comes from, and no page can make them say otherwise: `Sec-Fetch-Site` (W3C Fetch Metadata)
//! where there is one, else `Origin` or `Referer`, as Envoy's `csrf` filter reads them. A client that is no browser says
//! what it likes, and harms nobody but itself.

use http::{
    HeaderName, Method, StatusCode,
    header::{HOST, ORIGIN, REFERER, SEC_WEBSOCKET_KEY},
};
use snapshot::{
    check::Unfit,
    origin::{Origin, Pattern},
    proto,
};

use super::{Ctx, Filter, Flow, Stage, local_reply, origins};
use crate::{fields::Fields, message::RequestHead};

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The filter that refuses them.
pub(super) struct Csrf {
    /// Other origins that may.
    origins: Box<[Pattern]>,
}

impl Csrf {
    pub(super) fn compile(csrf: &proto::Csrf) -> Result<Self, Unfit> {
        Ok(Self { origins: origins::compile("csrf.additionalOrigins", &csrf.additional_origins)? })
    }

    /// Whether a request comes from a page that may make it. Of a field that is there more than once, nothing is believed.
    fn is_from_own(&self, fields: &Fields, tls: bool) -> bool {
        let (Ok(site), Ok(origin), Ok(referer), Ok(host)) =
            (fields.only(&SEC_FETCH_SITE), fields.only(&ORIGIN), fields.only(&REFERER), fields.only(&HOST))
        else {
            return false;
        };
        let text = |value| str::from_utf8(value).unwrap_or_default();
        let origin = match (&origin, &referer) {
            (Some(origin), _) => Origin::parse(text(origin)),
            (None, Some(referer)) => Origin::of_url(text(referer)),
            (None, None) => None,
        };
        if origin.is_some_and(|origin| self.origins.iter().any(|pattern| pattern.has(Some(&origin)))) {
            return true;
        }
        match site {
            // `none`: by its user's own doing, such as sending a form once more.
            Some(site) => matches!(&site[..], b"same-origin" | b"none"),
            None => origin.zip(host.as_deref()).is_some_and(|(origin, host)| origin.is_of(text(host), tls)),
        }
    }
}

impl Filter for Csrf {
    fn stage(&self) -> Stage {
        Stage::Csrf
    }

    fn on_request(&self, head: &mut RequestHead, ctx: &mut Ctx) -> Flow {
        if !changes(head) || self.is_from_own(&head.fields, ctx.tls) {
            return Flow::Continue;
        }
        let detail = "The request comes from a page of another origin, or does not say where it comes from.";
        local_reply::reply(StatusCode::FORBIDDEN, "cross_origin", detail)
    }
}

/// Whether a request may change something: safe methods do not (RFC 9110 section 9.2.1). A WebSocket is opened by GET, and
/// then everything goes; browsers let every page do that.
fn changes(head: &RequestHead) -> bool {
    let is_safe = matches!(head.method, Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE);
    !is_safe || head.fields.get(&SEC_WEBSOCKET_KEY).is_some()
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;
    use crate::filter::testing::ctx;

    /// Whether a request with these fields passes.
    fn passes(additional: &[&str], method: &str, tls: bool, fields: &[(&str, &str)]) -> bool {
        let additional_origins = additional.iter().map(|origin| (*origin).to_owned()).collect();
        let filter = Csrf::compile(&proto::Csrf { additional_origins }).unwrap();
        let request = Request::builder().method(method).header("host", "shop.example");
        let request = fields.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        let mut head = RequestHead::from(request.body(()).unwrap().into_parts().0);
        let mut ctx = ctx();
        ctx.tls = tls;
        match filter.on_request(&mut head, &mut ctx) {
            Flow::Continue => true,
            Flow::Reply(reply) => {
                assert_eq!((reply.head.status, reply.reason), (StatusCode::FORBIDDEN, "cross_origin"));
                false
            }
            Flow::Wait(_) => panic!("waits"),
        }
    }

    const OWN: (&str, &str) = ("origin", "https://shop.example");
    const EVIL: (&str, &str) = ("origin", "https://evil.example");

    #[test]
    fn what_changes_nothing_passes_from_anywhere() {
        for method in ["GET", "HEAD", "OPTIONS", "TRACE"] {
            assert!(passes(&[], method, true, &[EVIL, ("sec-fetch-site", "cross-site")]), "{method}");
        }
        for method in ["POST", "PUT", "DELETE", "PATCH", "get", "QUERY", "PROPFIND"] {
            assert!(!passes(&[], method, true, &[EVIL]), "{method}");
        }
        let handshake = ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
        assert!(!passes(&[], "GET", true, &[EVIL, handshake]) && passes(&[], "GET", true, &[OWN, handshake]));
    }

    #[test]
    fn pages_of_the_own_host_may() {
        let check = |fields: &[(&str, &str)], expect| {
            assert_eq!(passes(&[], "POST", true, fields), expect, "{fields:?}");
        };
        check(&[OWN], true);
        check(&[("referer", "https://shop.example/cart?a")], true);
        check(&[EVIL], false);
        check(&[], false);
        check(&[("origin", "null")], false);
        check(&[("origin", "null"), ("referer", "https://shop.example/")], false);
        check(&[EVIL, ("referer", "https://shop.example/")], false);
        check(&[("origin", "http://shop.example")], false);
        check(&[("referer", "https://evil.example/https://shop.example/")], false);
        check(&[OWN, EVIL], false);
        assert!(passes(&[], "POST", false, &[OWN]), "TLS was ended before");
    }

    #[test]
    fn the_browsers_own_word_goes_before() {
        let check = |site: &str, origin, expect| {
            assert_eq!(passes(&[], "POST", true, &[("sec-fetch-site", site), origin]), expect, "{site} {origin:?}");
        };
        for site in ["same-origin", "none"] {
            check(site, ("origin", "null"), true);
        }
        for site in ["same-site", "cross-site", "Same-Origin", "", "same-origin, none"] {
            check(site, OWN, false);
        }
        let twice = [("sec-fetch-site", "same-origin"), ("sec-fetch-site", "cross-site")];
        assert!(!passes(&[], "POST", true, &twice));
    }

    #[test]
    fn other_origins_that_are_named_may() {
        let named = ["https://*.shop.example", "http://localhost:3000"];
        let check = |fields: &[(&str, &str)], expect| {
            assert_eq!(passes(&named, "POST", true, fields), expect, "{fields:?}");
        };
        let site = ("sec-fetch-site", "same-site");
        check(&[("origin", "https://www.shop.example"), site], true);
        check(&[("referer", "https://a.b.shop.example/x")], true);
        check(&[("origin", "http://localhost:3000"), ("sec-fetch-site", "cross-site")], true);
        check(&[("origin", "http://localhost"), site], false);
        check(&[EVIL, site], false);
        check(&[("origin", "https://evilshop.example"), site], false);
        check(&[("sec-fetch-site", "same-site")], false);
    }
}
